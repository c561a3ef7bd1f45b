//! What the chart hands to the services: settings, secrets, and a migrated database.

use serde_json::{Value, json};

use super::{VARIANTS, containers, helm, list, named, objects, of_kind, pods, variable};
use crate::deploy::assert_settings;

tests!(
    a_migration_runs_before_the_pods_and_not_with_them,
    secrets_are_mounted_as_the_services_require,
    every_variable_is_a_setting,
    wrong_values_are_refused,
);

async fn a_migration_runs_before_the_pods_and_not_with_them() {
    let plain = objects(&[]);
    let jobs = of_kind(&plain, "Job");
    assert_eq!(jobs.len(), 2);
    for (job, service) in jobs.into_iter().zip(["registry", "token"]) {
        let annotations = &job["metadata"]["annotations"];
        // Not before a roll-back: the older version has nothing to migrate.
        assert_eq!(annotations["helm.sh/hook"], "pre-install,pre-upgrade");
        let pod = &job["spec"]["template"]["spec"];
        assert_eq!(pod["restartPolicy"], "Never");
        assert!(job["spec"]["activeDeadlineSeconds"].as_u64().unwrap() > 0);
        assert_eq!(
            pod["containers"][0]["command"],
            json!([format!("{service}-service"), "migrate"])
        );
        let url = &pod["containers"][0]["env"][0]["valueFrom"]["secretKeyRef"];
        assert_eq!(
            *url,
            json!({"name": format!("accord-{service}-database"), "key": "url"})
        );
        // It gets the database and its password alone: what else it needed would have to exist before the first installation.
        assert_eq!(list(&pod["containers"][0]["env"]).len(), 2);
        assert_eq!(
            pod["volumes"],
            json!([password_of(&format!("accord-{service}-database"))])
        );
    }
    for deployment in of_kind(&plain, "Deployment") {
        let text = deployment.to_string();
        assert!(!text.contains("migrate"), "{text}");
    }
    let policy = &named(&plain, "NetworkPolicy", "accord-migrate")["metadata"]["annotations"];
    assert_eq!(policy["helm.sh/hook-weight"], "-10", "before the Jobs");

    let other = objects(VARIANTS[4]);
    let url = |name: &str| {
        let pod = &named(&other, "Job", name)["spec"]["template"]["spec"];
        pod["containers"][0]["env"][0]["valueFrom"]["secretKeyRef"]["name"].clone()
    };
    assert_eq!(url("accord-registry-migrate"), "ddl");
    let pod = &named(&other, "Job", "accord-registry-migrate")["spec"]["template"]["spec"];
    assert!(list(&pod["volumes"]).contains(&password_of("ddl")), "{pod}");
    assert_eq!(url("accord-token-migrate"), "accord-token-database");
    assert!(of_kind(&objects(&["migrate.enabled=false"]), "Job").is_empty());
}

/// The volume with the password file of a database.
fn password_of(secret: &str) -> Value {
    json!({
        "name": "password",
        "secret": {
            "secretName": secret,
            "defaultMode": 0o400,
            "optional": true,
            "items": [{"key": "pgpass", "path": "pgpass"}],
        },
    })
}

async fn secrets_are_mounted_as_the_services_require() {
    for sets in VARIANTS {
        for (name, pod) in pods(&objects(sets)) {
            for container in containers(pod).filter(|_| name != "accord-gateway") {
                let file = variable(container, "PGPASSFILE");
                assert_eq!(*file, "/etc/accord/password/pgpass", "{name}");
                let mounts = list(&container["volumeMounts"]);
                let is_there = |mount: &Value| mount["mountPath"] == "/etc/accord/password";
                assert!(mounts.iter().any(is_there), "{name}");
            }
            // Files of root that the group reads: fsGroup adds its right to read.
            assert_eq!(pod["securityContext"]["fsGroup"], 65532, "{name}");
            for volume in list(&pod["volumes"])
                .iter()
                .filter(|volume| volume["secret"].is_object())
            {
                assert_eq!(volume["secret"]["defaultMode"], 0o400, "{name}: {volume}");
            }
            for container in containers(pod) {
                for mount in list(&container["volumeMounts"]) {
                    let is_volume = |volume: &&Value| volume["name"] == mount["name"];
                    assert!(
                        list(&pod["volumes"]).iter().any(|volume| is_volume(&volume)),
                        "{name}: {mount}"
                    );
                    // A file mounted by itself is never swapped.
                    assert!(mount["subPath"].is_null(), "{name}: {mount}");
                }
            }
        }
    }
    // What a file setting names is below a mounted directory.
    for (name, pod) in [objects(VARIANTS[4]), objects(VARIANTS[5])]
        .iter()
        .flat_map(|all| pods(all))
    {
        for container in containers(pod) {
            for variable in list(&container["env"]) {
                let Some(path) = variable["value"]
                    .as_str()
                    .filter(|value| value.starts_with("/etc/"))
                else {
                    continue;
                };
                let mut mounts = list(&container["volumeMounts"]).iter();
                assert!(
                    mounts
                        .any(|mount| path.starts_with(&format!("{}/", mount["mountPath"].as_str().unwrap()))),
                    "{name}: {path}"
                );
            }
        }
    }
}

async fn every_variable_is_a_setting() {
    for sets in VARIANTS {
        for (_, pod) in pods(&objects(sets)) {
            let variables = containers(pod).flat_map(|container| list(&container["env"]));
            let names: Vec<_> = variables
                .map(|variable| variable["name"].as_str().unwrap())
                .collect();
            let mut unique = names.clone();
            unique.sort_unstable();
            unique.dedup();
            assert_eq!(unique.len(), names.len(), "twice: {names:?}");
            assert_settings(names);
        }
    }
    let objects = objects(&[
        "registry.settings.public-base-url=https://other.example,token.settings.registry-stale-max=1000000",
    ]);
    let container = |name| &named(&objects, "Deployment", name)["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(
        *variable(container("accord-registry"), "ACCORD_REGISTRY_PUBLIC_BASE_URL"),
        "https://other.example"
    );
    assert_eq!(
        *variable(container("accord-token"), "ACCORD_TOKEN_REGISTRY_STALE_MAX"),
        "1000000"
    );
}

async fn wrong_values_are_refused() {
    for wrong in [
        "publicBaseUrl=http://auth.example",
        "publicBaseUrl=https://auth.example/base",
        "publicBaseUrl=",
        "registry.replicas=0",
        "registry.replica=2",
        "token.settings.Family-Days=3",
        "token.settings.database-url=postgres://x",
        "token.settings.drain-delay=600",
        "listenHost=127.0.0.1",
        "gateway.publicTlsSecret=",
        "gateway.partners.baseUrl=http://mtls.auth.example:8444",
        "gateway.partners.baseUrl=https://mtls.auth.example",
        "gateway.partners.baseUrl=https://mtls.auth.example:443",
    ] {
        let output = helm("template", &[wrong]).output().unwrap();
        assert!(!output.status.success(), "{wrong} was accepted");
    }
}
