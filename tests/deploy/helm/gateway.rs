//! The configuration of Envoy in the chart: `deploy/envoy.yaml` with the addresses and certificates of a cluster.

use std::{fs, process::Command};

use super::{VARIANTS, named, objects};
use crate::{
    deploy::{run, write},
    harness::process::accord,
};

tests!(envoy_accepts_its_configuration,);

async fn envoy_accepts_its_configuration() {
    for sets in [VARIANTS[0], VARIANTS[2]] {
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
