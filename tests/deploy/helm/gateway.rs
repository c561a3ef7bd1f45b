//! The configuration of Envoy in the chart: `deploy/envoy.yaml` with the addresses and certificates of a cluster.

use std::{fs, process::Command};

use serde_json::json;

use super::{VARIANTS, list, named, objects, variable};
use crate::{
    deploy::{run, write},
    harness::process::accord,
};

tests!(
    envoy_accepts_its_configuration,
    partners_have_a_listener_if_they_have_a_url,
);

async fn envoy_accepts_its_configuration() {
    for sets in [VARIANTS[0], VARIANTS[2], VARIANTS[5]] {
        let objects = objects(sets);
        let directory = tempfile::tempdir().unwrap();
        let at = |path: &str| directory.path().join(path);
        let local = |text: &str| {
            let below = |path: &str| format!("{}/{path}", directory.path().display());
            text.replace("/etc/accord/", &below(""))
                .replace("/contract/", &below("contract/"))
        };
        let data = named(&objects, "ConfigMap", "accord-gateway")["data"]
            .as_object()
            .unwrap();
        for (name, text) in data {
            write(&at(&format!("envoy/{name}")), local(text.as_str().unwrap()));
        }
        fs::create_dir(at("contract")).unwrap();
        run(accord()
            .args(["descriptors", "--out"])
            .arg(at("contract/accord.bin")));
        for name in ["public", "client"] {
            fs::create_dir(at(name)).unwrap();
            run(Command::new("openssl").current_dir(at(name)).args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-days",
                "1",
                "-subj",
                "/CN=test",
                "-keyout",
                "tls.key",
                "-out",
                "tls.crt",
            ]));
            fs::copy(at(name).join("tls.crt"), at(name).join("ca.crt")).unwrap();
        }
        let mut envoy = Command::new("envoy");
        envoy
            .args(["--mode", "validate", "--log-level", "warn", "-c"])
            .arg(at("envoy/envoy.yaml"));
        run(&mut envoy);

        let text = data["envoy.yaml"].as_str().unwrap();
        for host in ["accord-registry.production.svc", "accord-token.production.svc"] {
            assert!(text.contains(&format!("sni: {host}\n")), "{text}");
        }
        assert!(
            !text.contains("127.0.0.1") && !text.contains("retry_policy"),
            "{text}"
        );
        assert!(text.contains("- auth.example\n"), "{text}");
    }
}

async fn partners_have_a_listener_if_they_have_a_url() {
    for (sets, is_there) in [(VARIANTS[0], false), (VARIANTS[5], true)] {
        let objects = objects(sets);
        let text = named(&objects, "ConfigMap", "accord-gateway")["data"]["envoy.yaml"]
            .as_str()
            .unwrap();
        for sign in ["- mtls.auth.example\n", "SANITIZE_SET", "port_value: 8444\n"] {
            assert_eq!(text.contains(sign), is_there, "{sign}");
        }
        assert_eq!(
            text.matches("proto_descriptor: /contract/accord.bin").count(),
            1 + usize::from(is_there)
        );
        let service = named(&objects, "Service", "accord-gateway");
        let ports = list(&service["spec"]["ports"]).iter().map(|port| &port["port"]);
        assert_eq!(ports.collect::<Vec<_>>().contains(&&json!(8444)), is_there);
        let policy = &named(&objects, "NetworkPolicy", "accord-gateway")["spec"];
        let admitted = json!({"ports": [{"protocol": "TCP", "port": 8444}]});
        assert_eq!(list(&policy["ingress"]).contains(&admitted), is_there, "{policy}");
        let pod = &named(&objects, "Deployment", "accord-token")["spec"]["template"]["spec"];
        for (name, value) in [
            ("MTLS_BASE_URL", "https://mtls.auth.example:8444"),
            ("CLIENT_CERTIFICATE_HEADER", "xfcc"),
            ("PARTNER_CA", "/etc/accord/partner-ca/ca.crt"),
        ] {
            let found = variable(&pod["containers"][0], &format!("ACCORD_TOKEN_{name}"));
            let expected = if is_there { json!(value) } else { json!(null) };
            assert_eq!(*found, expected, "{name}");
        }
    }
}
