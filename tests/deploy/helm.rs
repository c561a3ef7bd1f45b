//! The chart: rendered by helm, and decoded strictly into the types of Kubernetes by `tests/manifests`.

pub mod configuration;
pub mod gateway;
pub mod network;

use std::{path::PathBuf, process::Command};

use serde_json::{Value, json};

use super::{run, run_with, said};
use crate::harness::document::file;

tests!(
    helm_lint_has_nothing_to_say,
    every_pod_is_confined,
    pods_stop_after_their_drain,
    probes_need_no_certificate_and_liveness_no_database,
    a_single_replica_does_not_block_the_drain_of_a_node,
    memory_that_grows_raises_an_alert_before_the_limit,
);

const BASE: [&str; 2] = ["--set", "publicBaseUrl=https://auth.example"];

/// Every form of the chart that a rule must hold for.
const VARIANTS: [&[&str]; 6] = [
    &[],
    &["registry.replicas=1,token.replicas=1,gateway.replicas=1"],
    &["listenHost=0.0.0.0,ipFamilyPolicy=SingleStack"],
    &[
        "gateway.enabled=false",
        "networkPolicy.gateway[0].podSelector.matchLabels.app=edge",
    ],
    &[
        "database.caSecret.name=db-ca,token.registryTokenSecret.name=t,migrate.registryDatabaseUrlSecret.name=ddl",
        "networkPolicy.callers[0].namespaceSelector.matchLabels.team=cloud-api",
        "networkPolicy.monitoring[0].namespaceSelector.matchLabels.team=metrics",
        "networkPolicy.database[0].ipBlock.cidr=10.1.0.0/16",
        "image.digest=sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "registry.settings.public-base-url=https://other.example,imagePullSecrets[0].name=pull",
    ],
    &["gateway.partners.baseUrl=https://mtls.auth.example:8444,gateway.partners.caSecret.name=partner-ca"],
];

fn chart() -> PathBuf {
    file("deploy/helm/accord")
}

fn helm(command: &str, sets: &[&str]) -> Command {
    let mut helm = Command::new("helm");
    helm.arg(command);
    if command == "template" {
        helm.args(["accord", "--namespace", "production"]);
    }
    // A cluster that may be there has no say.
    helm.arg(chart()).args(BASE).args(["--kube-version", "1.34.0"]);
    for set in sets {
        helm.args(["--set", set]);
    }
    helm
}

/// The objects of the chart with these values.
fn objects(sets: &[&str]) -> Vec<Value> {
    let rendered = run(&mut helm("template", sets));
    let decoded = run_with(&mut Command::new("kubernetes-manifests"), &rendered);
    assert!(decoded.status.success(), "{sets:?}: {}", said(&decoded));
    serde_json::from_slice(&decoded.stdout).unwrap()
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

fn named<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let mut found = of_kind(objects, kind)
        .into_iter()
        .filter(|object| object["metadata"]["name"] == name);
    found.next().unwrap_or_else(|| panic!("no {kind} {name}"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The pods of Deployments and Jobs, by name.
fn pods(objects: &[Value]) -> Vec<(&str, &Value)> {
    let owners = objects
        .iter()
        .filter(|object| object["spec"]["template"].is_object());
    owners
        .map(|owner| {
            (
                owner["metadata"]["name"].as_str().unwrap(),
                &owner["spec"]["template"]["spec"],
            )
        })
        .collect()
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    list(&pod["initContainers"])
        .iter()
        .chain(list(&pod["containers"]))
}

/// The value of a variable that a container sets.
fn variable<'a>(container: &'a Value, name: &str) -> &'a Value {
    let mut variables = list(&container["env"]).iter();
    variables
        .find(|variable| variable["name"] == name)
        .map_or(&Value::Null, |variable| &variable["value"])
}

async fn helm_lint_has_nothing_to_say() {
    for sets in VARIANTS {
        let said = run(helm("lint", sets).arg("--strict"));
        assert!(!said.contains("[WARNING]") && !said.contains("[ERROR]"), "{said}");
    }
}

async fn every_pod_is_confined() {
    for sets in VARIANTS {
        let objects = objects(sets);
        let pods = pods(&objects);
        let has_gateway = !sets.contains(&"gateway.enabled=false");
        assert_eq!(pods.len(), 4 + usize::from(has_gateway), "{sets:?}");
        for (name, pod) in pods {
            assert_eq!(pod["automountServiceAccountToken"], false, "{name}");
            assert_eq!(pod["enableServiceLinks"], false, "{name}");
            let security = &pod["securityContext"];
            assert_eq!(security["runAsNonRoot"], true, "{name}");
            assert_eq!(security["runAsUser"], 65532, "{name}");
            assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault", "{name}");
            for container in containers(pod) {
                let security = &container["securityContext"];
                assert_eq!(security["readOnlyRootFilesystem"], true, "{name}");
                assert_eq!(security["allowPrivilegeEscalation"], false, "{name}");
                assert_eq!(security["capabilities"], json!({"drop": ["ALL"]}), "{name}");
                let resources = &container["resources"];
                assert!(resources["requests"]["cpu"].is_string(), "{name}: {resources}");
                assert!(resources["requests"]["memory"].is_string(), "{name}: {resources}");
                assert!(resources["limits"]["memory"].is_string(), "{name}: {resources}");
                let image = container["image"].as_str().unwrap();
                assert!(
                    image.contains(':') && !image.ends_with(":latest") && !image.ends_with(':'),
                    "{image}"
                );
            }
        }
        for deployment in of_kind(&objects, "Deployment") {
            let spread = list(&deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]);
            assert_eq!(spread.len(), 2, "{deployment}");
            for constraint in spread {
                assert_eq!(
                    constraint["labelSelector"], deployment["spec"]["selector"],
                    "{constraint}"
                );
            }
        }
    }
}

async fn pods_stop_after_their_drain() {
    for (sets, delay) in [(&[][..], 15), (&["drainDelaySeconds=40"][..], 40)] {
        let objects = objects(sets);
        for service in ["registry", "token"] {
            let pod =
                &named(&objects, "Deployment", &format!("accord-{service}"))["spec"]["template"]["spec"];
            let prefix = service.to_uppercase();
            let drain_delay = variable(&pod["containers"][0], &format!("ACCORD_{prefix}_DRAIN_DELAY"));
            assert_eq!(*drain_delay, delay.to_string());
            // The delay, the ten seconds of the drain, and some more.
            assert!(
                pod["terminationGracePeriodSeconds"].as_u64().unwrap() >= delay + 15,
                "{pod}"
            );
            assert!(
                pod["containers"][0]["lifecycle"].is_null(),
                "the service waits by itself"
            );
        }
        let pod = &named(&objects, "Deployment", "accord-gateway")["spec"]["template"]["spec"];
        let sleep = &pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"];
        assert_eq!(*sleep, delay, "Envoy ends at once");
        assert!(pod["terminationGracePeriodSeconds"].as_u64().unwrap() > delay);
    }
}

async fn probes_need_no_certificate_and_liveness_no_database() {
    let objects = objects(&[]);
    for service in ["registry", "token"] {
        let deployment = named(&objects, "Deployment", &format!("accord-{service}"));
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        for (probe, path) in [
            ("startupProbe", "/livez"),
            ("livenessProbe", "/livez"),
            ("readinessProbe", "/readyz"),
        ] {
            let get = &container[probe]["httpGet"];
            assert_eq!(get["path"], path, "{service} {probe}");
            assert_eq!(get["port"], "admin", "{service} {probe}");
            assert!(
                get["scheme"].is_null() || get["scheme"] == "HTTP",
                "{service} {probe}"
            );
        }
        let port = list(&container["ports"])
            .iter()
            .find(|port| port["name"] == "admin")
            .unwrap();
        let listen = variable(
            container,
            &format!("ACCORD_{}_ADMIN_LISTEN", service.to_uppercase()),
        );
        assert_eq!(*listen, format!("[::]:{}", port["containerPort"]));
    }
}

async fn memory_that_grows_raises_an_alert_before_the_limit() {
    let rules = std::fs::read_to_string(file("deploy/prometheus/alerts.yml")).unwrap();
    let rule = rules
        .lines()
        .find(|line| line.contains("process_resident_memory_bytes"));
    let (_, threshold) = rule.unwrap().split_once(" > ").unwrap();
    let mebibytes: f64 = threshold.strip_suffix(" * 1024 * 1024").unwrap().parse().unwrap();
    let objects = objects(&[]);
    for service in ["registry", "token"] {
        let pod = &named(&objects, "Deployment", &format!("accord-{service}"))["spec"]["template"]["spec"];
        let limit = &pod["containers"][0]["resources"]["limits"]["memory"];
        let gibibytes: f64 = limit
            .as_str()
            .unwrap()
            .strip_suffix("Gi")
            .unwrap()
            .parse()
            .unwrap();
        assert!(
            mebibytes <= 0.8 * 1024.0 * gibibytes,
            "{service}: {threshold}, {limit}"
        );
    }
}

async fn a_single_replica_does_not_block_the_drain_of_a_node() {
    for sets in VARIANTS {
        let objects = objects(sets);
        let budgets = of_kind(&objects, "PodDisruptionBudget");
        let deployments = of_kind(&objects, "Deployment");
        assert_eq!(budgets.len(), deployments.len());
        for (budget, deployment) in budgets.iter().zip(deployments) {
            assert_eq!(budget["spec"]["maxUnavailable"], 1);
            assert!(budget["spec"]["minAvailable"].is_null());
            // Otherwise pods that are not ready, as in an outage of the database, could not be evicted.
            assert_eq!(budget["spec"]["unhealthyPodEvictionPolicy"], "AlwaysAllow");
            assert_eq!(budget["spec"]["selector"], deployment["spec"]["selector"]);
            assert_eq!(
                deployment["spec"]["strategy"]["rollingUpdate"],
                json!({"maxUnavailable": 0, "maxSurge": 1})
            );
        }
    }
}
