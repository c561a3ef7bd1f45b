//! Client authentication (RFC 6749 §2.3).

use std::{sync::Arc, time::Duration};

use accord::{
    error::v1::ErrorReason,
    log_limit::LogLimit,
    rpc::tls::peer::ClientCertificate,
    store::audit::{Event, action},
    text::{
        id::{ClientId, TenantId},
        opaque::ClientSecret,
    },
};
use zeroize::Zeroizing;

use crate::{
    cache::{Authenticated, Cached, EntryAsOf, FactAsOf, KnownClient},
    error::{Error, Result},
    model::{
        client::{CredentialKind, SecretLocation},
        tenant::Tenant,
    },
    oauth::{OAuth, note_rejected_client},
    store::Assertion,
};

mod assertion;
mod certificate;

pub use assertion::{ALGORITHMS, ASSERTION_TYPE};

/// The credentials of a client. No `Debug`.
pub struct Credentials {
    /// The Client ID, as it was sent. May be empty with an assertion, which names the client itself.
    pub client_id: String,
    /// What authenticates it.
    pub credential: ClientCredential,
    /// The certificate that the client presented. Its tokens are bound to it, whatever authenticates it (RFC 8705 §3).
    pub certificate: Option<ClientCertificate>,
}

impl Credentials {
    /// Collects the credentials of a message. Without a credential the certificate authenticates the client that it names
    /// (RFC 8705 §2).
    pub fn new(
        client_id: String,
        credential: Option<ClientCredential>,
        certificate: Option<ClientCertificate>,
    ) -> Self {
        let credential = credential.unwrap_or(match &certificate {
            Some(_) if !client_id.is_empty() => ClientCredential::Certificate,
            Some(_) => ClientCredential::Missing("the request has a certificate and names no client"),
            None => ClientCredential::Missing("the request has no client credentials"),
        });
        Self {
            client_id,
            credential,
            certificate,
        }
    }
}

/// What a client authenticates by. No `Debug`.
pub enum ClientCredential {
    /// The Client Secret, as it was sent, and where.
    Secret(SecretLocation, Zeroizing<String>),
    /// A JWT that the client signed (RFC 7523 §2.2), as it was sent.
    Assertion(Zeroizing<String>),
    /// The certificate of the credentials.
    Certificate,
    /// None, or an unreadable one. The text says why, for the log.
    Missing(&'static str),
}

impl ClientCredential {
    /// Returns its kind; `None` if it is missing.
    pub fn kind(&self) -> Option<CredentialKind> {
        match self {
            Self::Secret(place, _) => Some(CredentialKind::Secret(*place)),
            Self::Assertion(_) => Some(CredentialKind::Assertion),
            Self::Certificate => Some(CredentialKind::Certificate),
            Self::Missing(_) => None,
        }
    }
}

/// A client that a message names and that is active, but not authenticated yet.
struct NamedClient {
    client: FactAsOf<KnownClient>,
    /// The cache entry of the client at the tenant, if there is one.
    entry: Option<EntryAsOf>,
    tenant: Arc<Cached<Tenant>>,
}

impl NamedClient {
    /// Finds the client, and the tenant at whose authority it authenticates.
    async fn find(oauth: &OAuth, tenant_id: &TenantId, client_id: &ClientId) -> Result<Self> {
        let entry = oauth.cache.entry(client_id, tenant_id);
        let (client, tenant) = match &entry {
            Some(found) => {
                let client = found.registry.clone().map(|()| found.entry.client.clone());
                (client, found.entry.tenant.clone())
            }
            None => {
                let cache = &oauth.cache;
                let (client, tenant) =
                    tokio::join!(cache.find_client(client_id), cache.find_tenant(tenant_id));
                let client = client?.ok_or(Error::InvalidClient("there is no such client"))?;
                let tenant = tenant?.ok_or(Error::InvalidClient("there is no such tenant"))?;
                (client, tenant.value)
            }
        };
        if !client.value.active {
            return Err(Error::InvalidClient("the client is suspended"));
        }
        Ok(Self {
            client,
            entry,
            tenant,
        })
    }
}

/// Authenticates the client that sent a message to the authority of `tenant_id`, and counts its call. Does not spend its
/// assertion: see [`Authenticated::assertion`] and [`spend`].
///
/// # Errors
/// Those of [`verify`]; [`Error::TooManyCalls`].
pub async fn authenticate(
    oauth: &OAuth,
    tenant_id: &TenantId,
    credentials: &Credentials,
) -> Result<Authenticated> {
    let authenticated = verify(oauth, tenant_id, credentials).await?;
    if let Some(limit) = &oauth.client_limit {
        let client_id = &authenticated.client.value.client_id;
        limit
            .check(client_id)
            .map_err(|wait| too_many_calls(client_id, wait))?;
    }
    Ok(authenticated)
}

/// Authenticates a client and spends its assertion, for a request that nothing else rejects. Returns the Client ID.
///
/// # Errors
/// Those of [`authenticate`] and [`spend`].
pub async fn authenticate_and_spend(
    oauth: &OAuth,
    tenant_id: &TenantId,
    credentials: &Credentials,
) -> Result<ClientId> {
    let authenticated = authenticate(oauth, tenant_id, credentials).await?;
    spend(oauth, authenticated.assertion).await?;
    Ok(authenticated.client.value.client_id.clone())
}

/// Verifies the credentials of a client, without counting its call.
///
/// # Errors
/// [`Error::InvalidClient`] for a rejected credential, whatever the reason; [`Error::NoClientAuthentication`];
/// [`Error::InvalidAssertion`] for wrong claims in
/// an assertion that a key of the client verifies; [`Error::WrongAuthMethod`] for a right credential of a method for which the
/// client is not registered.
pub async fn verify(oauth: &OAuth, tenant_id: &TenantId, credentials: &Credentials) -> Result<Authenticated> {
    let Credentials {
        client_id,
        credential,
        certificate,
    } = credentials;
    let authenticated = match credential {
        // Rejecting a malformed id or secret at once reveals nothing about what exists.
        ClientCredential::Secret(_, secret) => {
            match (ClientId::parse(client_id), ClientSecret::parse(secret)) {
                (Ok(client_id), Ok(secret)) => {
                    let cache = &oauth.cache;
                    cache.authenticate_client(&client_id, &secret, tenant_id).await
                }
                (Err(_), _) => Err(Error::InvalidClient("the Client ID is malformed")),
                (_, Err(_)) if ClientSecret::parse(secret.trim()).is_ok() => {
                    Err(Error::InvalidClient("the secret has white space around it"))
                }
                _ => Err(Error::InvalidClient("the secret is malformed")),
            }
        }
        ClientCredential::Assertion(jwt) => {
            Box::pin(assertion::authenticate(oauth, tenant_id, client_id, jwt)).await
        }
        ClientCredential::Certificate => match certificate {
            Some(certificate) => {
                Box::pin(certificate::authenticate(
                    oauth,
                    tenant_id,
                    client_id,
                    certificate,
                ))
                .await
            }
            None => Err(Error::InvalidClient("the request has no certificate")),
        },
        ClientCredential::Missing(why) => Err(Error::NoClientAuthentication(why)),
    };
    let authenticated = authenticated.and_then(|authenticated| {
        let kind = credential
            .kind()
            .ok_or(Error::InvalidClient("the request has no credential"))?;
        authenticated
            .client
            .value
            .require_credential(kind, oauth.store.now())?;
        Ok(authenticated)
    });
    match &authenticated {
        Err(Error::InvalidClient(why) | Error::NoClientAuthentication(why)) => {
            log_rejection(credentials, why)
        }
        Err(error @ (Error::InvalidAssertion { .. } | Error::WrongAuthMethod(_))) => {
            let why = error.to_string();
            log_rejection(credentials, &why);
            // The credential is right, so somebody has copied it, or the client is at fault.
            if let Some(client_id) = claimed_client(credentials) {
                let event = Event::new(action::CLIENT_CREDENTIAL_REFUSE).tenant(tenant_id);
                note_rejected_client(&client_id, error.reason(), event.detail("why", why));
            }
        }
        _ => {}
    }
    authenticated
}

fn too_many_calls(client_id: &ClientId, wait: Duration) -> Error {
    static LIMIT: LogLimit = LogLimit::new(Duration::from_secs(1));
    if let Some(unlogged) = LIMIT.check(client_id.as_str()) {
        tracing::warn!(%client_id, unlogged, "the client calls too often");
    }
    Error::TooManyCalls(wait)
}

/// Returns the client that credentials name, whether they are right or not.
fn claimed_client(credentials: &Credentials) -> Option<ClientId> {
    match (&credentials.credential, ClientId::parse(&credentials.client_id)) {
        (_, Ok(client_id)) => Some(client_id),
        (ClientCredential::Assertion(jwt), _) => assertion::claimed_client(jwt),
        _ => None,
    }
}

/// Logs a rejection. Does not audit it: a stranger must not be able to fill the database.
fn log_rejection(credentials: &Credentials, why: &str) {
    let claimed = claimed_client(credentials);
    let client_id = claimed.as_ref().map_or("unknown", ClientId::as_str);
    tracing::warn!(client_id, why, "client authentication failed");
}

/// Spends the assertion of an authenticated client, if it sent one. Call this after every check that may reject the
/// request, so that a rejected request can be repeated with its assertion, and before anything is changed or revealed.
///
/// # Errors
/// [`Error::InvalidAssertion`] if the assertion was spent before.
pub async fn spend(oauth: &OAuth, assertion: Option<Assertion>) -> Result<()> {
    let Some(assertion) = assertion else {
        return Ok(());
    };
    let client_id = assertion.client_id.clone();
    if Box::pin(oauth.store.spend_assertion(assertion)).await? {
        return Ok(());
    }
    let error = Error::InvalidAssertion {
        claim: "jti",
        rule: "was used before; each assertion needs a new one".to_owned(),
    };
    tracing::warn!(%client_id, why = %error, "client authentication failed");
    // The client's key has signed it: somebody has copied it, or the client is at fault.
    let event = Event::new(action::CLIENT_ASSERTION_REUSE);
    note_rejected_client(&client_id, ErrorReason::InvalidClient, event);
    Err(error)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{
        fs::File,
        io::{Read, Seek},
        sync::Arc,
    };

    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

    use super::*;
    use crate::cache::fixture::{TENANT, cache};

    #[tokio::test]
    async fn each_rejection_is_one_line_with_client_and_reason_and_no_secret() {
        let (cache, registry, _database) = cache().await;
        let oauth = OAuth::for_test(cache.clone());
        let client_id = registry.client_id.as_str();
        let secret = registry.secret().expose();
        let part = |json: String| URL_SAFE_NO_PAD.encode(json);
        let unsigned = format!(
            "{}.{}.c2lnbmF0dXJl",
            part(r#"{"alg":"Ed25519"}"#.to_owned()),
            part(format!(r#"{{"iss":"{client_id}","sub":"{client_id}"}}"#)),
        );
        let wrong = accord::testing::calls::altered(secret);
        let credential =
            |text: &str| ClientCredential::Secret(SecretLocation::Form, Zeroizing::new(text.to_owned()));
        let jwt = |text: &str| ClientCredential::Assertion(Zeroizing::new(text.to_owned()));
        for (named, credential, claimed, why) in [
            (
                client_id,
                credential(&format!("{secret}\n")),
                client_id,
                "white space around it",
            ),
            (
                client_id,
                credential(&format!(" {secret}")),
                client_id,
                "white space around it",
            ),
            (
                client_id,
                credential(&wrong),
                client_id,
                "the secret is malformed",
            ),
            (client_id, credential(""), client_id, "the secret is malformed"),
            (
                "cli_\n",
                credential(secret),
                "unknown",
                "the Client ID is malformed",
            ),
            (
                "",
                ClientCredential::Missing("no Basic credentials"),
                "unknown",
                "no Basic credentials",
            ),
            ("", jwt(&unsigned), client_id, "no key of the client verifies"),
            ("", jwt("x"), "unknown", "not a JWT"),
        ] {
            let credentials = Credentials::new(named.to_owned(), Some(credential), None);
            let log = Arc::new(tempfile::tempfile().unwrap());
            let lines = tracing_subscriber::fmt()
                .with_ansi(false)
                .with_writer(log.clone());
            let guard = tracing::subscriber::set_default(lines.finish());
            let tenant_id = TenantId::parse(TENANT).unwrap();
            assert!(authenticate(&oauth, &tenant_id, &credentials).await.is_err());
            drop(guard);
            let text = read(&log);
            let rejections: Vec<_> = text
                .lines()
                .filter(|line| line.contains("client authentication failed"))
                .collect();
            assert_eq!(rejections.len(), 1, "{why}: {text}");
            let line = rejections[0];
            assert!(
                line.contains(" WARN ") && line.contains(why) && line.contains(claimed),
                "{why}: {line}"
            );
            assert!(
                !text.contains(&secret[10..]) && !text.contains("c2lnbmF0dXJl"),
                "{text}"
            );
        }
    }

    fn read(mut log: &File) -> String {
        let mut text = String::new();
        log.rewind().unwrap();
        log.read_to_string(&mut text).unwrap();
        text
    }
}
