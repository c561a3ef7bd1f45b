//! Mutual TLS of clients (RFC 8705): where their certificates come from, and who may have signed them.

use std::sync::Arc;

use accord::rpc::{middleware::client_certificate::ClientCertificates, tls::partner::PartnerAuthorities};

/// What a deployment says about certificates of clients. By default it takes none. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct MutualTls {
    /// Finds the certificate of a request.
    pub certificates: ClientCertificates,
    /// The authorities of `tls_client_auth`, if there are any.
    pub authorities: Option<PartnerAuthorities>,
    /// The base URL of the endpoints for clients with certificates, without a trailing slash, if it is not the public one.
    pub base_url: Option<Arc<str>>,
    /// Whether clients can present certificates at all.
    pub is_offered: bool,
}
