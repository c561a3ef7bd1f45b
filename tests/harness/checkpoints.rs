//! Checkpoints of both logs that somebody saves elsewhere, and the verification of the records against them.

use std::{fs, io::Write, time::Duration};

use accord::{
    audit::v1::{GetCheckpointRequest, audit_service_client::AuditServiceClient},
    testing::calls::ok,
};
use tempfile::TempDir;

use super::{refusal::within, services::Services};
use crate::audit_record::{audit, output, said};

const SERVICES: [&str; 2] = ["registry", "token"];
/// How soon everything is sealed.
const SEALED: Duration = Duration::from_secs(60);

/// The keys of both logs, and all checkpoints that were saved.
pub struct SavedCheckpoints {
    directory: TempDir,
    urls: [String; 2],
}

impl SavedCheckpoints {
    /// Saves the keys and the newest checkpoints. The URLs are those of the databases.
    pub async fn new(services: &Services, urls: [&str; 2]) -> Self {
        let saved = Self {
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
            within(SEALED, "a checkpoint", async || {
                client.get_checkpoint(GetCheckpointRequest {}).await.is_ok()
            })
            .await;
            let newest = ok(client.get_checkpoint(GetCheckpointRequest {}).await);
            fs::write(saved.path(&format!("{name}.key")), newest.verifier_key).unwrap();
        }
        saved.save().await;
        saved
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    /// Saves the newest checkpoints that the databases have, too.
    pub async fn save(&self) {
        for (name, url) in SERVICES.into_iter().zip(&self.urls) {
            let newest = output(url, &["checkpoint"]).await;
            let file = fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(self.path(name));
            writeln!(file.unwrap(), "{newest}").unwrap();
        }
    }

    /// Verifies that each record has all that was saved, once it is sealed.
    pub async fn verify(&self) {
        for (name, url) in SERVICES.into_iter().zip(&self.urls) {
            let (key, saved) = (self.path(&format!("{name}.key")), self.path(name));
            within(SEALED, "a record in order", async || {
                let verified = audit(url, &["verify", "--key", &key, "--checkpoint", &saved]).await;
                let (is_intact, text) = said(&verified);
                // Events that are not sealed yet, and the head of a sealer that was killed before it signed: the next one signs it.
                let is_early = verified.status.code() == Some(3) || text.contains("is not signed");
                assert!(is_intact || is_early, "{name}: {text}");
                is_intact
            })
            .await;
        }
    }
}
