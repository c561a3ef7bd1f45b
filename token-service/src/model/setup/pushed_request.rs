//! Pushed authorization requests (RFC 9126): the client sends its request itself, and the browser a reference to it.
//!
//! A pushed request has the id of its setup from the beginning. In however many browsers it is opened, each sign-in leads
//! to that one setup, and a setup is decided once.

use std::time::Duration;

use accord::{
    clock::UnixMillis,
    text::{
        id::{ClientId, SetupId},
        opaque::{OpaqueToken, TokenKind},
    },
};
use zeroize::Zeroizing;

use super::request::AuthorizationRequest;

/// How long a reference can be opened (RFC 9126 §2.2).
pub const LIFETIME: Duration = Duration::from_secs(90);
/// What comes before the random part (RFC 9126 §2.2).
const PREFIX: &str = "urn:ietf:params:oauth:request_uri:";

/// A pushed authorization request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushedRequest {
    /// The id of its setup.
    pub setup_id: SetupId,
    /// The request.
    pub request: AuthorizationRequest,
    /// When it can no longer be opened.
    pub expires_at: UnixMillis,
}

impl PushedRequest {
    /// Returns whether it may be opened in this client's name: nobody else's reference counts (RFC 9126 §7.3), and none
    /// that has expired (§4), but in a browser that has opened it before and may do so again until `again_until`.
    pub fn is_open_to(&self, client_id: &ClientId, again_until: Option<UnixMillis>, now: UnixMillis) -> bool {
        let is_in_time = now < self.expires_at || again_until.is_some_and(|end| now < end);
        self.request.client_id == *client_id && is_in_time
    }
}

/// Returns the `request_uri` of a reference.
pub fn request_uri(reference: &OpaqueToken) -> Zeroizing<String> {
    Zeroizing::new(format!("{PREFIX}{}", reference.expose()))
}

/// Returns the reference of a `request_uri`; `None` for any other URI.
pub fn reference(request_uri: &str) -> Option<OpaqueToken> {
    let text = request_uri.strip_prefix(PREFIX)?;
    OpaqueToken::parse(TokenKind::PushedRequest, text).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use accord::{
        testing::{TEST_START, test_clock, test_random},
        text::id::TenantId,
    };

    use super::{super::request::Parameters, *};

    #[test]
    fn a_reference_belongs_to_its_client_for_90_seconds() {
        let (clock, random) = (test_clock(), test_random());
        let client = || ClientId::generate(&*clock, &*random);
        let client_id = client();
        let pushed = PushedRequest {
            setup_id: SetupId::generate(&*clock, &*random),
            request: AuthorizationRequest {
                tenant_id: TenantId::parse("firm").unwrap(),
                client_id: client_id.clone(),
                parameters: Parameters {
                    redirect_uri: String::new(),
                    scopes: Vec::new(),
                    state_parameter: String::new(),
                    code_challenge: String::new(),
                    resource: String::new(),
                    dpop_jkt: None,
                },
                pushed: true,
            },
            expires_at: TEST_START.plus(LIFETIME),
        };
        let at = |secs| TEST_START.plus(Duration::from_secs(secs));
        assert!(pushed.is_open_to(&client_id, None, at(89)));
        assert!(!pushed.is_open_to(&client_id, None, at(90)));
        assert!(pushed.is_open_to(&client_id, Some(at(3600)), at(3599)));
        assert!(!pushed.is_open_to(&client_id, Some(at(3600)), at(3600)));
        assert!(!pushed.is_open_to(&client(), Some(at(3600)), at(0)));
    }

    #[test]
    fn only_our_own_uris_hold_a_reference() {
        let token = OpaqueToken::generate(TokenKind::PushedRequest, &*test_random());
        let uri = request_uri(&token);
        assert_eq!(reference(&uri).unwrap().digest(), token.digest());
        for other in [
            token.expose(),
            &uri[..uri.len() - 1],
            &uri.to_uppercase(),
            "https://partner.example/request",
            "urn:ietf:params:oauth:request_uri:",
            "",
        ] {
            assert!(reference(other).is_none(), "{other}");
        }
    }
}
