//! The host of Envoy, with the configuration of deploy/.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::settings::{bash, place};
use crate::harness::{
    document::{file, shell_lines},
    network::Host,
    process::Process,
};

/// The gateway's certificates, below Envoy's directory.
pub const GATEWAY_FILES: [(&str, &str); 5] = [
    ("gateway-client.pem", "certs/gateway-client.pem"),
    ("gateway-client-key.pem", "certs/gateway-client-key.pem"),
    ("ca.pem", "certs/ca.pem"),
    ("gateway.pem", "certificate.pem"),
    ("gateway-key.pem", "private-key.pem"),
];

/// The host of Envoy.
pub struct Gateway {
    pub host: Host,
    pub process: Process,
    pub directory: PathBuf,
}

impl Gateway {
    pub fn start(host: Host, at: &Path) -> Self {
        let directory = at.join(&host.name);
        fs::create_dir_all(directory.join("envoy-mtls")).unwrap();
        for name in [
            "envoy.yaml",
            "public-certificate.yaml",
            "envoy-mtls/authorities.yaml",
            "envoy-mtls/gateway-client.yaml",
            "envoy-mtls/clusters.yaml",
        ] {
            fs::copy(file(&format!("deploy/{name}")), directory.join(name)).unwrap();
        }
        place(&at.join("certs"), &directory, &GATEWAY_FILES);
        bash(
            &shell_lines("docs/OPERATIONS.md", "three-hosts-gateway"),
            &directory,
        );
        let mut envoy = Command::new("envoy");
        envoy
            .args([
                "-c",
                "envoy-mtls.yaml",
                "--concurrency",
                "2",
                "--log-level",
                "warn",
            ])
            .args(["--disable-hot-restart", "--file-flush-interval-msec", "50"])
            .current_dir(&directory);
        let process = Process::start(host.on(&envoy), &directory, "envoy");
        Self {
            host,
            process,
            directory,
        }
    }
}
