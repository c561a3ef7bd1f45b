//! Checkpoints of both logs that somebody keeps elsewhere, and the verification of the records against them.

use std::{
    fs,
    io::Write,
    time::{Duration, Instant},
};

use accord::{
    audit::v1::{GetCheckpointRequest, audit_service_client::AuditServiceClient},
    testing::calls::ok,
};
use tempfile::TempDir;
use tokio::time::sleep;

use super::services::Services;
use crate::audit_record::{audit, output, said};

const SERVICES: [&str; 2] = ["registry", "token"];
/// How soon everything is sealed.
const SEALED: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// The keys of both logs, and all checkpoints that were kept.
pub struct Kept {
    directory: TempDir,
    urls: [String; 2],
}

impl Kept {
    /// Keeps the keys and the newest checkpoints. The URLs are those of the databases.
    pub async fn new(services: &Services, urls: [&str; 2]) -> Self {
        let kept = Self {
            directory: tempfile::tempdir().unwrap(),
            urls: urls.map(str::to_owned),
        };
        let target = &services.target;
        for (name, address) in SERVICES
            .into_iter()
            .zip([&target.registry_grpc, &target.token_grpc])
        {
            let operator = accord_cli::call::with_token(address, &target.operator_token);
            let mut client = AuditServiceClient::new(operator.unwrap());
            let started = Instant::now();
            while client.get_checkpoint(GetCheckpointRequest {}).await.is_err() {
                assert!(started.elapsed() < SEALED, "{name} has no checkpoint");
                sleep(POLL).await;
            }
            let newest = ok(client.get_checkpoint(GetCheckpointRequest {}).await);
            fs::write(kept.path(&format!("{name}.key")), newest.verifier_key).unwrap();
        }
        kept.keep().await;
        kept
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    /// Keeps the newest checkpoints that the databases have, too.
    pub async fn keep(&self) {
        for (name, url) in SERVICES.into_iter().zip(&self.urls) {
            let newest = output(url, &["checkpoint"]).await;
            let file = fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(self.path(name));
            writeln!(file.unwrap(), "{newest}").unwrap();
        }
    }

    /// Verifies that each record has all that was kept, once it is sealed.
    pub async fn verify(&self) {
        for (name, url) in SERVICES.into_iter().zip(&self.urls) {
            let (key, kept) = (self.path(&format!("{name}.key")), self.path(name));
            let started = Instant::now();
            loop {
                let verified = audit(url, &["verify", "--key", &key, "--checkpoint", &kept]).await;
                let (is_intact, told) = said(&verified);
                if is_intact {
                    break;
                }
                // Events that are not sealed yet, and the head of a sealer that was killed before it signed: the next one signs it.
                let is_early = verified.status.code() == Some(3) || told.contains("is not signed");
                assert!(is_early && started.elapsed() < SEALED, "{name}: {told}");
                sleep(POLL).await;
            }
        }
    }
}
