//! A resource server on a host of its own, which checks tokens offline: this binary, started again.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use accord::{
    tls::TlsFiles,
    verify::{AccessTokenClaims, Checker, Protect, Tenant},
};
use accord_cli::dev_file::DevFile;
use axum::{Extension, Json, Router};
use reqwest::{Client, RequestBuilder};
use serde_json::json;
use tokio::net::TcpListener;

use crate::harness::{network::Host, process::Process};

/// Set in its process: the directory of its certificates and of its tenant.
pub const DIRECTORY: &str = "ACCORD_TEST_RESOURCE_SERVER";
/// The file of its tenant.
const TARGET: &str = "target.json";

/// A running resource server.
pub struct ResourceServer {
    pub host: Host,
    pub process: Process,
    pub directory: PathBuf,
}

impl ResourceServer {
    /// Starts it, and waits until it can check tokens. Its certificates are in `directory`.
    pub fn start(host: Host, directory: PathBuf, target: &DevFile) -> Self {
        fs::write(directory.join(TARGET), serde_json::to_vec(target).unwrap()).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env(DIRECTORY, &directory);
        let mut process = Process::start(host.on(&command), &directory, "resource-server");
        process.wait_for("keys and revocations", |process| {
            process.stderr().contains("ready").then_some(())
        });
        Self {
            host,
            process,
            directory,
        }
    }

    /// A request with a token. The answer to a valid one names its client.
    pub fn get(&self, client: &Client, token: &str) -> RequestBuilder {
        client
            .get(format!("http://{}/", self.host.name))
            .bearer_auth(token)
    }
}

/// The files of a resource server.
pub fn files(directory: &Path) -> TlsFiles {
    TlsFiles::new(
        directory.join("ca.pem"),
        directory.join("internal-service-client.pem"),
        directory.join("internal-service-client-key.pem"),
    )
}

/// Is the resource server, until it is killed.
pub async fn serve(directory: PathBuf) {
    let target = fs::read(directory.join(TARGET)).unwrap();
    let target: DevFile = serde_json::from_slice(&target).unwrap();
    let tenant = Tenant {
        tenant_id: target.tenant_id,
        issuer: target.tenant_authority_url,
        audience: target.cloud_api_url,
    };
    let checker = Checker::connect_tls("https://token-service:50052", files(&directory)).unwrap();
    checker.ready().await;
    let listener = TcpListener::bind(("0.0.0.0", 80)).await.unwrap();
    let name =
        async |Extension(claims): Extension<AccessTokenClaims>| Json(json!({"client_id": claims.client_id}));
    let resource = Router::new()
        .fallback(name)
        .layer(Protect::tenant(checker, tenant));
    let _ = writeln!(std::io::stderr(), "ready");
    axum::serve(listener, resource).await.unwrap();
}
