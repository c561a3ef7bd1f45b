//! Discovery of the authority's endpoints from the Tenant Authority URL (RFC 8414).

use oauth2::{AuthUrl, TokenUrl};
use serde::Deserialize;
use url::Url;

use crate::{
    error::StartError,
    http::Http,
    settings::{Settings, protected},
};

/// The metadata that this application uses (RFC 8414 §2, RFC 9207 §3). Ignores other members.
#[derive(Clone, Debug, Deserialize)]
pub struct Metadata {
    /// The Tenant Authority URL.
    pub issuer: String,
    /// The authorization endpoint, for the Tenant Admin's browser.
    pub authorization_endpoint: AuthUrl,
    /// The token endpoint.
    pub token_endpoint: TokenUrl,
    /// The revocation endpoint.
    pub revocation_endpoint: Url,
    /// The PKCE methods (RFC 7636).
    #[serde(default)]
    pub code_challenge_methods_supported: Vec<String>,
    /// The algorithms of proofs (RFC 9449 §5.1).
    #[serde(default)]
    pub dpop_signing_alg_values_supported: Vec<String>,
    /// Whether responses of the authorization endpoint hold `iss`.
    #[serde(default)]
    pub authorization_response_iss_parameter_supported: bool,
}

/// Fetches the metadata of the settings' issuer, and checks that it names this issuer.
///
/// # Errors
/// [`StartError::Discovery`].
pub async fn discover(settings: &Settings, http: &Http) -> Result<Metadata, StartError> {
    let url = location(&settings.issuer)?;
    let failed = |problem: String| StartError::Discovery {
        url: url.to_string(),
        problem,
    };
    let request = ::http::Request::get(url.as_str())
        .header(::http::header::ACCEPT, "application/json")
        .body(Vec::new())
        .map_err(|error| failed(error.to_string()))?;
    let response = http
        .send(request)
        .await
        .map_err(|error| failed(error.to_string()))?;
    if response.status() != ::http::StatusCode::OK {
        return Err(failed(format!("status {}", response.status())));
    }
    let metadata: Metadata =
        serde_json::from_slice(response.body()).map_err(|error| failed(error.to_string()))?;
    metadata.check(&settings.issuer).map_err(failed)?;
    Ok(metadata)
}

/// Returns the URL of the metadata: the well-known part is between host and path (RFC 8414 §3.1).
fn location(issuer: &str) -> Result<Url, StartError> {
    let mut url = protected("issuer", issuer)?;
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&format!("/.well-known/oauth-authorization-server{path}"));
    Ok(url)
}

impl Metadata {
    fn check(&self, issuer: &str) -> Result<(), String> {
        // Byte for byte (RFC 8414 §3.3): metadata of another issuer could send codes elsewhere.
        if self.issuer != issuer {
            return Err(format!("it is the metadata of {}", self.issuer));
        }
        for endpoint in [
            self.authorization_endpoint.url(),
            self.token_endpoint.url(),
            &self.revocation_endpoint,
        ] {
            let name = protected("endpoint", endpoint.as_str());
            name.map_err(|_| format!("{endpoint} is not https"))?;
        }
        if !self.code_challenge_methods_supported.iter().any(|m| m == "S256") {
            return Err("PKCE with S256 is not supported".to_owned());
        }
        if !self
            .dpop_signing_alg_values_supported
            .iter()
            .any(|a| a == "ES256")
        {
            return Err("DPoP with ES256 is not supported".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    const ISSUER: &str = "https://accord.example/firm";

    fn check(change: impl FnOnce(&mut serde_json::Value)) -> Result<(), String> {
        let mut document = json!({
            "issuer": ISSUER,
            "authorization_endpoint": "https://accord.example/firm/oauth2/authorize",
            "token_endpoint": "https://accord.example/firm/oauth2/token",
            "revocation_endpoint": "https://accord.example/firm/oauth2/revoke",
            "code_challenge_methods_supported": ["S256"],
            "dpop_signing_alg_values_supported": ["ES256"],
            "something_new": {"nobody": "knows"},
        });
        change(&mut document);
        let metadata: Metadata = serde_json::from_value(document).map_err(|error| error.to_string())?;
        metadata.check(ISSUER)
    }

    #[test]
    fn only_metadata_of_the_issuer_is_accepted() {
        assert_eq!(check(|_| {}), Ok(()));
        assert!(check(|d| d["issuer"] = json!("https://accord.example/firm/")).is_err());
        assert!(check(|d| d["issuer"] = json!("https://accord.example/other")).is_err());
        assert!(check(|d| d["token_endpoint"] = json!("http://accord.example/t")).is_err());
        assert!(check(|d| d["code_challenge_methods_supported"] = json!(["plain"])).is_err());
        assert!(check(|d| d["dpop_signing_alg_values_supported"] = json!(["RS256"])).is_err());
        assert!(check(|d| drop(d.as_object_mut().unwrap().remove("token_endpoint"))).is_err());
    }

    #[test]
    fn the_well_known_part_is_before_the_path() {
        let at = |issuer| location(issuer).unwrap().to_string();
        assert_eq!(
            at("https://accord.example/firm"),
            "https://accord.example/.well-known/oauth-authorization-server/firm"
        );
        assert_eq!(
            at("http://127.0.0.1:8080/firm"),
            "http://127.0.0.1:8080/.well-known/oauth-authorization-server/firm"
        );
    }
}
