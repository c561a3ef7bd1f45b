//! Client authentication by a certificate (RFC 8705 §2): `tls_client_auth`, by an authority of partners and the registered
//! subject, and `self_signed_tls_client_auth`, by the client's key set.
//!
//! That the client holds the private key is known from the handshake, ours or the gateway's.

use accord::{
    rpc::tls::peer::ClientCertificate,
    text::id::{ClientId, TenantId},
};

use super::NamedClient;
use crate::{
    cache::Authenticated,
    error::{Error, Result},
    model::client::{AuthMethod, Client, key_set::ClientKeySet},
    oauth::OAuth,
};

/// Authenticates the client that presented this certificate to the authority of `tenant_id`. Whatever the reason of a
/// rejection, the caller learns none.
pub(super) async fn authenticate(
    oauth: &OAuth,
    tenant_id: &TenantId,
    client_id: &str,
    certificate: &ClientCertificate,
) -> Result<Authenticated> {
    let malformed = Error::InvalidClient("the Client ID is malformed");
    let client_id = ClientId::parse(client_id).map_err(|_| malformed)?;
    let NamedClient { client, entry, .. } = NamedClient::find(oauth, tenant_id, &client_id).await?;
    match client.value.auth_method {
        Some(AuthMethod::TlsClientAuth) => check_subject(oauth, &client.value, certificate)?,
        Some(AuthMethod::SelfSignedTlsClientAuth) => {
            let is_known = |keys: &ClientKeySet| keys.has_certificate(certificate.der());
            if !oauth.client_keys.check(&client.value, is_known).await? {
                return Err(Error::InvalidClient(
                    "the certificate is not in the client's key set",
                ));
            }
        }
        _ => {
            return Err(Error::InvalidClient(
                "the client does not authenticate by a certificate",
            ));
        }
    }
    Ok(Authenticated {
        client,
        entry,
        assertion: None,
    })
}

/// Verifies the chain first: whose name a certificate holds counts only if an authority says so (RFC 8705 §2.1).
fn check_subject(oauth: &OAuth, client: &Client, certificate: &ClientCertificate) -> Result<()> {
    let authorities = oauth.mutual_tls.authorities.as_ref();
    let authorities = authorities.ok_or(Error::InvalidClient("no --partner-ca is set"))?;
    authorities
        .verify(certificate, oauth.store.now())
        .map_err(Error::InvalidClient)?;
    let subject = client.certificate_subject.as_ref();
    let is_registered = subject.is_some_and(|subject| subject.is_of(certificate.der()));
    is_registered.then_some(()).ok_or(Error::InvalidClient(
        "the certificate does not name the registered subject",
    ))
}
