//! Worlds whose token-service has TLS, and takes certificates of partners.

use accord::testing::certificates::{Authority, Subject};
use tempfile::TempDir;
use token_service::config::Settings;

use super::World;

/// The authorities of a world.
pub struct Authorities {
    /// Signs the service and its callers.
    pub workloads: Authority,
    /// Signs partners. The authority of workloads has signed it, by way of another one.
    pub partners: Authority,
    /// The certificates from that of `partners` up to that of `workloads`, in PEM form.
    pub chain: String,
    /// Where the certificates are.
    pub directory: TempDir,
}

impl World {
    /// Starts a world at `localhost` and these hosts.
    pub async fn start_with_tls(
        hosts: &[&'static str],
        change: impl FnOnce(&mut Settings),
    ) -> (Self, Authorities) {
        let directory = tempfile::tempdir().unwrap();
        let workloads = Authority::new("workloads");
        let between = workloads.intermediate("between");
        let partners = between.intermediate("partners");
        let server = workloads.issue(&Subject {
            dns_names: [&["localhost"], hosts].concat(),
            ..Subject::localhost()
        });
        let (certificate, key) = server.write(directory.path(), "server");
        let client_ca = workloads.write(directory.path(), "ca.pem");
        let partner_ca = partners.write(directory.path(), "partners.pem");
        let world = Self::start_with(|settings| {
            settings.service.tls_certificate = certificate;
            settings.service.tls_private_key = key;
            settings.service.client_ca = client_ca;
            settings.partner_ca = partner_ca;
            change(settings);
        })
        .await;
        let authorities = Authorities {
            workloads,
            chain: format!("{}{}", partners.certificate, between.certificate),
            partners,
            directory,
        };
        (world, authorities)
    }
}
