//! Addresses, Services and network policies of the chart.

use serde_json::{Value, json};

use super::{VARIANTS, list, named, objects, of_kind, variable};

tests!(
    listeners_and_services_have_both_families_unless_told_otherwise,
    every_pod_may_ask_dns,
    only_those_who_are_named_reach_the_services,
    token_service_alone_reaches_the_keys_of_clients,
    an_external_gateway_takes_the_place_of_envoy,
);

async fn listeners_and_services_have_both_families_unless_told_otherwise() {
    for (sets, host, policy, envoy) in [
        (&[][..], "[::]", "PreferDualStack", "'::'"),
        (VARIANTS[2], "0.0.0.0", "SingleStack", "0.0.0.0"),
    ] {
        let objects = objects(sets);
        for service in of_kind(&objects, "Service") {
            assert_eq!(service["spec"]["ipFamilyPolicy"], policy, "{service}");
        }
        let listen = |service: &str, variable_name: &str| {
            let deployment = named(&objects, "Deployment", &format!("accord-{service}"));
            let container = &deployment["spec"]["template"]["spec"]["containers"][0];
            variable(
                container,
                &format!("ACCORD_{}_{variable_name}", service.to_uppercase()),
            )
            .clone()
        };
        assert_eq!(listen("registry", "LISTEN"), format!("{host}:50051"));
        assert_eq!(listen("token", "LISTEN"), format!("{host}:50052"));
        assert_eq!(listen("token", "HTTP_LISTEN"), format!("{host}:8080"));
        let configuration = named(&objects, "ConfigMap", "accord-gateway")["data"]["envoy.yaml"]
            .as_str()
            .unwrap();
        let address = format!("address: {envoy}\n");
        assert!(configuration.contains(&address) || configuration.contains(&address.replace('\'', "\"")));
    }
}

async fn every_pod_may_ask_dns() {
    for sets in VARIANTS {
        let objects = objects(sets);
        let policies = of_kind(&objects, "NetworkPolicy");
        assert_eq!(
            policies.len(),
            3 + of_kind(&objects, "Deployment").len() - 2,
            "{sets:?}"
        );
        for policy in policies {
            assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
            let asks = |protocol: &str| {
                let wanted = json!({"protocol": protocol, "port": 53});
                let mut rules = list(&policy["spec"]["egress"]).iter();
                rules.any(|rule| rule["to"].is_null() && list(&rule["ports"]).contains(&wanted))
            };
            assert!(asks("UDP") && asks("TCP"), "{policy}");
        }
    }
}

async fn only_those_who_are_named_reach_the_services() {
    /// The peers that a policy admits to a port.
    fn admitted(policy: &Value, port: u64) -> Vec<Value> {
        let rules = list(&policy["spec"]["ingress"]).iter();
        let mut peers = Vec::new();
        for rule in rules.filter(|rule| list(&rule["ports"]).iter().any(|entry| entry["port"] == port)) {
            assert!(!list(&rule["from"]).is_empty(), "anybody: {rule}");
            peers.extend(list(&rule["from"]).iter().cloned());
        }
        for rule in list(&policy["spec"]["ingress"]) {
            assert!(!list(&rule["ports"]).is_empty(), "every port: {rule}");
        }
        peers
    }
    let component = |name: &str| {
        json!({"podSelector": {"matchLabels": {
            "app.kubernetes.io/name": "accord",
            "app.kubernetes.io/instance": "accord",
            "app.kubernetes.io/component": name,
        }}})
    };
    let plain = objects(&[]);
    let registry = named(&plain, "NetworkPolicy", "accord-registry");
    let token = named(&plain, "NetworkPolicy", "accord-token");
    assert_eq!(
        admitted(registry, 50051),
        [component("gateway"), component("token")]
    );
    assert_eq!(admitted(token, 50052), [component("gateway")]);
    assert_eq!(admitted(token, 8080), [component("gateway")]);
    assert!(admitted(registry, 9464).is_empty() && admitted(token, 9464).is_empty());
    let migrate = named(&plain, "NetworkPolicy", "accord-migrate");
    assert!(migrate["spec"]["ingress"].is_null());

    let full = objects(VARIANTS[4]);
    let callers = json!({"namespaceSelector": {"matchLabels": {"team": "cloud-api"}}});
    let token = named(&full, "NetworkPolicy", "accord-token");
    assert_eq!(admitted(token, 50052), [component("gateway"), callers]);
    assert_eq!(admitted(token, 8080), [component("gateway")]);
    assert_eq!(admitted(token, 9464).len(), 1);
    let database = json!({
        "to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}],
        "ports": [{"protocol": "TCP", "port": 5432}],
    });
    for name in ["registry", "token", "migrate"] {
        let policy = named(&full, "NetworkPolicy", &format!("accord-{name}"));
        assert!(list(&policy["spec"]["egress"]).contains(&database), "{policy}");
    }
}

async fn token_service_alone_reaches_the_keys_of_clients() {
    /// The blocks of addresses that a policy lets out to port 443.
    fn https(policy: &Value) -> Vec<String> {
        let port = json!([{"protocol": "TCP", "port": 443}]);
        let rules = list(&policy["spec"]["egress"]).iter();
        let rules = rules.filter(|rule| rule["ports"] == port);
        let peers = rules.flat_map(|rule| list(&rule["to"]));
        peers
            .map(|peer| peer["ipBlock"]["cidr"].as_str().unwrap().to_owned())
            .collect()
    }
    let own = "networkPolicy.clientKeys[0].ipBlock.cidr=203.0.113.0/24";
    let none = "networkPolicy.clientKeys=null";
    for (sets, expected) in [
        (&[][..], &["0.0.0.0/0", "2000::/3"][..]),
        (&[own], &["203.0.113.0/24"]),
        (&[none], &[]),
    ] {
        let objects = objects(sets);
        for policy in of_kind(&objects, "NetworkPolicy") {
            let expected = if policy["metadata"]["name"] == "accord-token" {
                expected
            } else {
                &[]
            };
            assert_eq!(https(policy), expected, "{sets:?} {policy}");
        }
    }
    let plain = objects(&[]);
    let policy = named(&plain, "NetworkPolicy", "accord-token").to_string();
    for private in ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"] {
        assert!(policy.contains(private), "{policy}");
    }
}

async fn an_external_gateway_takes_the_place_of_envoy() {
    let objects = objects(VARIANTS[3]);
    let is_gateways = |object: &&Value| object["metadata"]["name"].as_str().unwrap().contains("gateway");
    assert_eq!(objects.iter().filter(is_gateways).count(), 0);
    let edge = json!({"podSelector": {"matchLabels": {"app": "edge"}}});
    let http = named(&objects, "NetworkPolicy", "accord-token");
    let mut rules = list(&http["spec"]["ingress"]).iter();
    assert!(
        rules.any(|rule| rule["from"] == json!([edge]) && rule["ports"][0]["port"] == 8080),
        "{http}"
    );
}
