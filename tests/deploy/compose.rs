//! The compose file: loaded as Docker does, and what it runs beside its containers.

use std::{fs, os::unix::fs::MetadataExt, path::Path, process::Command};

use accord::testing::durable_postgres;
use serde_json::{Value, json};

use super::{assert_settings, run};
use crate::harness::{document::file, process::accord};

tests!(
    every_container_is_confined,
    services_start_in_order_and_report_their_health,
    what_is_secret_is_a_file,
    prepared_files_are_what_the_services_accept,
);

/// The project, with secrets that nobody reads.
fn project() -> Value {
    let mut load = Command::new("compose-manifest");
    load.arg(file("deploy/compose.yaml"))
        .env("ACCORD_PUBLIC_BASE_URL", "https://auth.example");
    serde_json::from_str(&run(&mut load)).unwrap()
}

fn services(project: &Value) -> impl Iterator<Item = (&String, &Value)> {
    project["services"].as_object().unwrap().iter()
}

async fn every_container_is_confined() {
    let project = project();
    assert_eq!(services(&project).count(), 8);
    for (name, service) in services(&project) {
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(service["cap_drop"], json!(["ALL"]), "{name}");
        assert_eq!(
            service["security_opt"],
            json!(["no-new-privileges:true"]),
            "{name}"
        );
        assert!(
            service["privileged"].is_null() && service["cap_add"].is_null(),
            "{name}"
        );
        let user = service["user"].as_str().unwrap();
        assert!(user != "0:0" || name == "contract", "{name}");
        // Nothing but the holder of the network has ports, and nothing joins another network.
        match name.as_str() {
            "pod" => {}
            "contract" => assert_eq!(service["network_mode"], "none"),
            _ => assert_eq!(service["network_mode"], "service:pod", "{name}"),
        }
        assert!(service["ports"].is_null() || name == "pod", "{name}");
    }
    let ports = project["services"]["pod"]["ports"].as_array().unwrap();
    let open: Vec<_> = ports.iter().filter(|port| port["host_ip"].is_null()).collect();
    assert_eq!(open.len(), 1, "{ports:?}");
    assert_eq!(open[0]["target"], 8443);
}

async fn services_start_in_order_and_report_their_health() {
    let project = project();
    let depends = |name: &str| project["services"][name]["depends_on"].clone();
    let condition = |name: &str, on: &str| depends(name)[on]["condition"].clone();
    for service in ["registry", "token"] {
        let migrate = format!("{service}-migrate");
        assert_eq!(condition(&migrate, "postgres"), "service_healthy");
        assert_eq!(condition(service, &migrate), "service_completed_successfully");
        assert_eq!(project["services"][&migrate]["restart"], "no");
        let check = &project["services"][service]["healthcheck"]["test"];
        assert_eq!(*check, json!(["CMD", format!("{service}-service"), "health"]));
        // The longest --drain-delay, the ten seconds of the drain, and some more.
        assert_eq!(project["services"][service]["stop_grace_period"], "1m20s");
    }
    for (name, service) in services(&project).filter(|(_, service)| service["restart"] != "no") {
        assert!(
            name == "pod" || service["healthcheck"]["test"].is_array(),
            "{name}"
        );
    }
}

async fn what_is_secret_is_a_file() {
    let project = project();
    for (name, service) in services(&project) {
        let environment = service["environment"].as_object();
        for (variable, value) in environment.into_iter().flatten() {
            let value = value.as_str().unwrap();
            let is_secret = ["PASSWORD", "TOKEN", "KEY", "CONFIG"]
                .iter()
                .any(|word| variable.contains(word));
            let is_service = variable.starts_with("ACCORD_TOKEN_")
                && !variable.contains("FILE")
                && !variable.contains("CONFIG");
            assert!(
                !is_secret || is_service || value.starts_with("/run/secrets/"),
                "{name}: {variable}"
            );
        }
        assert_settings(environment.into_iter().flatten().map(|(name, _)| name.as_str()));
    }
    for (name, secret) in project["secrets"].as_object().unwrap() {
        let path = secret["file"].as_str().unwrap();
        assert!(
            Path::new(path).starts_with(file("deploy/secrets")),
            "{name}: {path}"
        );
    }
}

async fn prepared_files_are_what_the_services_accept() {
    let directory = tempfile::tempdir().unwrap();
    let at = |path: &str| directory.path().join(path);
    fs::create_dir(at("compose")).unwrap();
    for name in [
        "envoy.yaml",
        "public-certificate.yaml",
        "compose/prepare.sh",
        "compose/create-databases.sh",
    ] {
        fs::copy(file(&format!("deploy/{name}")), at(name)).unwrap();
    }
    let prepare = || run(Command::new(at("compose/prepare.sh")).arg("auth.example"));
    prepare();
    let read = |name: &str| fs::read(at("secrets").join(name)).unwrap();
    let names = || {
        let entries = fs::read_dir(at("secrets"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap());
        entries.collect::<std::collections::BTreeSet<_>>()
    };
    let before: Vec<_> = names().into_iter().map(|name| read(&name)).collect();
    prepare();
    let after: Vec<_> = names().into_iter().map(|name| read(&name)).collect();
    assert!(before == after, "a second run changed something");

    // Each file that compose.yaml names is there, for root and group 65532 alone.
    for kind in ["secrets", "configs"] {
        for (name, entry) in project()[kind].as_object().unwrap() {
            let wanted = Path::new(entry["file"].as_str().unwrap())
                .file_name()
                .unwrap()
                .to_str()
                .unwrap();
            assert!(names().contains(wanted), "{name}");
            let found = fs::metadata(at("secrets").join(wanted)).unwrap();
            assert_eq!(
                (found.uid(), found.gid(), found.mode() & 0o777),
                (0, 65532, 0o440),
                "{wanted}"
            );
        }
    }
    assert_eq!(read("registry.key").len(), 32);
    assert_ne!(read("registry.key"), read("token.key"));
    let password = String::from_utf8(read("registry-password")).unwrap();
    let configured = String::from_utf8(read("registry.toml")).unwrap();
    assert!(
        !configured.contains(password.trim()),
        "only what is read again has the password"
    );
    let envoy = String::from_utf8(read("envoy.yaml")).unwrap();
    assert!(envoy.contains("domains: [\"auth.example\"]") && !envoy.contains("domains: [localhost]"));
    assert!(envoy.contains("address: \"::\", port_value: 8443, ipv4_compat: true"));
    assert!(envoy.contains("proto_descriptor: /contract/accord.bin"));

    // The databases of a new volume, and both services with the prepared files.
    let Some(server) = durable_postgres(&[&std::env::temp_dir()]) else {
        return;
    };
    let url: url::Url = server.url().parse().unwrap();
    let port = url.port().unwrap().to_string();
    let mut create = Command::new(at("compose/create-databases.sh"));
    create.envs([("PGHOST", "127.0.0.1"), ("PGPORT", &port)]);
    run(create.env("SECRETS", at("secrets")));
    let stored = "SELECT count(*) FROM pg_authid WHERE rolname IN ('registry', 'token') AND NOT rolsuper \
                  AND rolpassword LIKE 'SCRAM-SHA-256$%'";
    let mut psql = Command::new("psql");
    psql.args([
        "--no-psqlrc",
        "--tuples-only",
        "--no-align",
        "--command",
        stored,
        server.url(),
    ]);
    assert_eq!(run(&mut psql).trim(), "2");
    for (service, settings) in [
        (
            "registry",
            ["ACCORD_REGISTRY_PUBLIC_BASE_URL", "https://auth.example"],
        ),
        ("token", ["ACCORD_TOKEN_REGISTRY_URL", "http://127.0.0.1:50051"]),
    ] {
        let command = |name: &str| {
            let mut command = accord();
            command
                .args([service, name, "--config"])
                .arg(at(&format!("secrets/{service}.toml")));
            command
                .arg("--master-key-file")
                .arg(at(&format!("secrets/{service}.key")));
            command.env(settings[0], settings[1]).env("PGPORT", &port);
            command.env("PGPASSFILE", at(&format!("secrets/{service}-pgpass")));
            command
        };
        run(&mut command("migrate"));
        if service == "registry" {
            let mut create = accord();
            create.args([
                "registry",
                "workload",
                "create",
                "token-service",
                "--kind",
                "token-service",
                "--config",
            ]);
            create
                .arg(at("secrets/registry.toml"))
                .arg("--master-key-file")
                .arg(at("secrets/registry.key"))
                .env("PGPASSFILE", at("secrets/registry-pgpass"));
            fs::write(at("secrets/registry-token"), run(create.env("PGPORT", &port))).unwrap();
        }
        let mut check = command("check-config");
        if service == "token" {
            check
                .arg("--registry-token-file")
                .arg(at("secrets/registry-token"));
        }
        run(&mut check);
    }
}
