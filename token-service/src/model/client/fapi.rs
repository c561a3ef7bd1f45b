//! Which credentials authenticate a client at a point in time, and what the FAPI 2.0 Security Profile (Final) adds for those that
//! follow it. The registry holds what it can know: https redirect URIs, sizes of keys, methods.

use accord::{clock::UnixMillis, text::validation::Violations, verify::Confirmation};

use super::{AuthMethod, Client, CredentialKind, SecretLocation};
use crate::{
    error::{Error, Result},
    model::signing_key::Algorithm,
};

impl Client {
    /// Returns whether the client follows the FAPI 2.0 Security Profile at this time.
    pub fn follows_fapi(&self, now: UnixMillis) -> bool {
        self.fapi_from.is_some_and(|from| from <= now)
    }

    /// Checks that the client may authenticate by this kind of credential (RFC 7591 §2), which was verified. A secret in a field of
    /// gRPC serves both methods, which tell header and form of HTTP apart. Until the client follows the FAPI 2.0 Security Profile,
    /// a right credential of any kind is accepted. From then on no secret is (§5.3.2.1: mutual TLS or private_key_jwt).
    ///
    /// # Errors
    /// [`Error::WrongAuthMethod`], with the right one.
    pub fn require_credential(&self, kind: CredentialKind, now: UnixMillis) -> Result<()> {
        use AuthMethod::{
            ClientSecretBasic, ClientSecretPost, PrivateKeyJwt, SelfSignedTlsClientAuth, TlsClientAuth,
        };
        use SecretLocation::{Field, Form, Header};
        let registered = match self.auth_method {
            None => kind != CredentialKind::Certificate,
            Some(ClientSecretBasic) => matches!(kind, CredentialKind::Secret(Header | Field)),
            Some(ClientSecretPost) => matches!(kind, CredentialKind::Secret(Form | Field)),
            Some(PrivateKeyJwt) => kind == CredentialKind::Assertion,
            Some(TlsClientAuth | SelfSignedTlsClientAuth) => kind == CredentialKind::Certificate,
        };
        let begins_later = self.fapi_from.is_some_and(|from| now < from);
        let is_excluded = matches!(kind, CredentialKind::Secret(_)) && self.follows_fapi(now);
        if (registered || begins_later) && !is_excluded {
            return Ok(());
        }
        let right = self
            .auth_method
            .as_ref()
            .map_or("a secret or an assertion", AsRef::as_ref);
        Err(Error::WrongAuthMethod(right.to_owned()))
    }

    /// Checks that the client may ask for consent by a request that it has pushed, or not (§5.3.2.2: pushed requests alone).
    ///
    /// # Errors
    /// [`Error::Invalid`].
    pub fn require_pushed(&self, pushed: bool, now: UnixMillis) -> Result<()> {
        if self.follows_fapi(now) && !pushed {
            let rule =
                "must be given: the client follows the FAPI 2.0 Security Profile, and pushes its requests";
            return Err(Violations::of("request_uri", rule).into());
        }
        Ok(())
    }

    /// Returns whether the client's access tokens work with its own key alone.
    pub fn has_bound_tokens(&self, now: UnixMillis) -> bool {
        self.follows_fapi(now) || !self.dpop_jkts.is_empty()
    }

    /// Checks that an access token for the client may be signed by this algorithm and bound, or not, to this key (§5.3.2.1:
    /// sender-constrained tokens alone; §5.4.1: PS256, ES256 or EdDSA).
    ///
    /// # Errors
    /// [`Error::InvalidDpopProof`] for an unbound token, and [`Error::UnsuitableSigningKey`].
    pub fn require_token(
        &self,
        confirmation: Option<&Confirmation>,
        algorithm: Algorithm,
        now: UnixMillis,
    ) -> Result<()> {
        if !self.follows_fapi(now) {
            return Ok(());
        }
        if algorithm == Algorithm::Rs256 {
            return Err(Error::UnsuitableSigningKey);
        }
        if confirmation.is_none() {
            let missing = "must be sent, or a client certificate presented: the client follows the FAPI 2.0 Security \
                           Profile, and its tokens are bound to its key";
            return Err(Error::InvalidDpopProof(missing.to_owned()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use accord::{
        random::SeededRandom,
        testing::{TEST_START, test_clock},
        text::id::ClientId,
    };

    use super::*;

    fn client(auth_method: Option<AuthMethod>, fapi_from: Option<i64>) -> Client {
        Client {
            auth_method,
            fapi_from: fapi_from.map(|millis| UnixMillis::from_millis(TEST_START.as_millis() + millis)),
            ..Client::without_anything(ClientId::generate(&*test_clock(), &SeededRandom::new(7)))
        }
    }

    #[test]
    fn the_registered_method_is_the_only_one() {
        use AuthMethod::*;
        use CredentialKind::{Assertion, Certificate, Secret};
        use SecretLocation::{Field, Form, Header};
        let secrets = [Secret(Header), Secret(Form), Secret(Field)];
        const ALL: [bool; 3] = [true; 3];
        const NONE: [bool; 3] = [false; 3];
        for (method, from, by_secret, by_key) in [
            (None, None, ALL, [true, false]),
            (Some(ClientSecretBasic), None, [true, false, true], [false, false]),
            (Some(ClientSecretPost), None, [false, true, true], [false, false]),
            (Some(PrivateKeyJwt), None, NONE, [true, false]),
            (Some(TlsClientAuth), None, NONE, [false, true]),
            (Some(SelfSignedTlsClientAuth), None, NONE, [false, true]),
            // Before, at and after the start of the profile.
            (Some(PrivateKeyJwt), Some(1), ALL, [true, true]),
            (Some(PrivateKeyJwt), Some(0), NONE, [true, false]),
            (Some(PrivateKeyJwt), Some(-1), NONE, [true, false]),
            (Some(TlsClientAuth), Some(1), ALL, [true, true]),
            (Some(TlsClientAuth), Some(0), NONE, [false, true]),
            // What the registry records for no client.
            (None, Some(0), NONE, [true, false]),
            (Some(ClientSecretBasic), Some(0), NONE, [false, false]),
        ] {
            let client = client(method, from);
            let allows = |kind| client.require_credential(kind, TEST_START).is_ok();
            assert_eq!(secrets.map(allows), by_secret, "{method:?} {from:?}");
            let keys = [Assertion, Certificate].map(allows);
            assert_eq!(keys, by_key, "{method:?} {from:?}");
        }
    }

    #[test]
    fn requests_under_the_profile_are_pushed() {
        for (from, needs) in [(None, false), (Some(1), false), (Some(0), true)] {
            let client = client(Some(AuthMethod::PrivateKeyJwt), from);
            assert!(client.require_pushed(true, TEST_START).is_ok(), "{from:?}");
            assert_eq!(
                client.require_pushed(false, TEST_START).is_err(),
                needs,
                "{from:?}"
            );
            assert_eq!(client.has_bound_tokens(TEST_START), needs, "{from:?}");
        }
    }

    #[test]
    fn tokens_under_the_profile_are_bound_and_not_signed_by_rs256() {
        let bound = Confirmation::Jkt("0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I".to_owned());
        let open = client(None, None);
        let pending = client(Some(AuthMethod::PrivateKeyJwt), Some(1));
        for free in [open, pending] {
            assert!(free.require_token(None, Algorithm::Rs256, TEST_START).is_ok());
        }
        let fapi = client(Some(AuthMethod::PrivateKeyJwt), Some(0));
        assert!(
            fapi.require_token(Some(&bound), Algorithm::EdDsa, TEST_START)
                .is_ok()
        );
        let unbound = fapi.require_token(None, Algorithm::EdDsa, TEST_START);
        assert!(matches!(unbound, Err(Error::InvalidDpopProof(_))), "{unbound:?}");
        let unsuitable = fapi.require_token(Some(&bound), Algorithm::Rs256, TEST_START);
        assert!(
            matches!(unsuitable, Err(Error::UnsuitableSigningKey)),
            "{unsuitable:?}"
        );
    }
}
