//! `private_key_jwt` (RFC 7523 §2.2, §3): a client authenticates by a JWT that it signed with a key whose public half
//! an operator registered.
//!
//! Until a key of the client has verified the signature, every rejection looks the same. After that, the error names
//! the claim and the value that it must have.

use accord::{
    clock::UnixMillis,
    text::{
        id::{ClientId, TenantId},
        opaque::sha256,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::NamedClient;
use crate::{
    cache::Authenticated,
    error::{Error, Result},
    model::client::key_set::Signed,
    oauth::OAuth,
    store::Assertion,
};

/// The `client_assertion_type` of a JWT (RFC 7523 §2.2).
pub const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// The algorithms that may sign an assertion, by name. None uses a shared secret. EdDSA has two names (RFC 9864 §2.2).
pub const ALGORITHMS: [(&str, Algorithm); 5] = [
    ("ES256", Algorithm::ES256),
    ("EdDSA", Algorithm::EdDSA),
    ("Ed25519", Algorithm::EdDSA),
    ("PS256", Algorithm::PS256),
    ("RS256", Algorithm::RS256),
];

/// The longest assertion, in bytes.
const MAX_BYTES: usize = 8 * 1024;
/// How far in the future `exp` may be, in seconds. The `jti` is stored until then.
const MAX_LIFETIME_SECS: i64 = 3600;
/// How far the client's clock may be off, in seconds.
const SKEW_SECS: i64 = 60;

/// The header members that are read. Those that name or contain keys, such as `jku` and `jwk`, are ignored
/// (RFC 8725 §3.10).
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

/// An assertion whose signature is not verified yet.
struct Unverified<'a> {
    algorithm: Algorithm,
    kid: Option<String>,
    claims: Value,
    /// The encoded header and claims, which the signature covers.
    message: &'a str,
    signature: &'a str,
}

impl<'a> Unverified<'a> {
    fn parse(jwt: &'a str) -> Result<Self> {
        if jwt.len() > MAX_BYTES {
            return Err(Error::InvalidClient("the assertion is too long"));
        }
        let parts = jwt.rsplit_once('.').and_then(|(message, signature)| {
            let (header, claims) = message.split_once('.')?;
            Some((message, signature, decoded::<Header>(header)?, decoded(claims)?))
        });
        let (message, signature, header, claims) =
            parts.ok_or(Error::InvalidClient("the assertion is not a JWT"))?;
        // RFC 7515 §4.1.11: `crit` lists extensions that a verifier must support. None are supported.
        if header.crit.is_some() {
            return Err(Error::InvalidClient("the assertion has a critical extension"));
        }
        let algorithm = ALGORITHMS.iter().find(|(name, _)| *name == header.alg);
        let (_, algorithm) = algorithm.ok_or(Error::InvalidClient("the assertion's alg is not supported"))?;
        Ok(Self {
            algorithm: *algorithm,
            kid: header.kid,
            claims,
            message,
            signature,
        })
    }

    /// Returns the client whose keys must verify the assertion: the one that the message names, else the one in `iss`
    /// or `sub`. Wrong claims are rejected after the signature is verified.
    fn client_id(&self, named: &str) -> Result<ClientId> {
        let issuer_and_subject = ["iss", "sub"].map(|claim| self.claims[claim].as_str().unwrap_or_default());
        let names = if named.is_empty() {
            &issuer_and_subject[..]
        } else {
            &[named]
        };
        let client_id = names.iter().find_map(|name| ClientId::parse(name).ok());
        client_id.ok_or(Error::InvalidClient("the assertion names no client"))
    }

    fn signed(&self) -> Signed<'_> {
        Signed {
            algorithm: self.algorithm,
            kid: self.kid.as_deref(),
            message: self.message,
            signature: self.signature,
        }
    }
}

fn decoded<T: DeserializeOwned>(part: &str) -> Option<T> {
    let json = URL_SAFE_NO_PAD.decode(part).ok()?;
    serde_json::from_slice(&json).ok()
}

/// Returns the client that an assertion names, for the log. Does not verify the signature.
pub(super) fn claimed_client(jwt: &str) -> Option<ClientId> {
    Unverified::parse(jwt).ok()?.client_id("").ok()
}

/// Authenticates the client that signed `jwt` for the authority of `tenant_id`. `named` is the `client_id` of the
/// message, or empty.
pub(super) async fn authenticate(
    oauth: &OAuth,
    tenant_id: &TenantId,
    named: &str,
    jwt: &str,
) -> Result<Authenticated> {
    let unverified = Unverified::parse(jwt)?;
    let client_id = unverified.client_id(named)?;
    let named = NamedClient::find(oauth, tenant_id, &client_id).await?;
    let NamedClient {
        client,
        entry,
        tenant,
    } = named;
    let signed = unverified.signed();
    let is_verified = oauth
        .client_keys
        .check(&client.value, |keys| keys.verify(&signed));
    if !is_verified.await? {
        return Err(Error::InvalidClient(
            "no key of the client verifies the assertion",
        ));
    }
    let now = oauth.store.now();
    let follows_fapi = client.value.follows_fapi(now);
    // FAPI 2.0 Security Profile §5.4.1.
    if follows_fapi && unverified.algorithm == Algorithm::RS256 {
        return Err(Error::InvalidAssertion {
            claim: "alg",
            rule: "must be PS256, ES256 or EdDSA, because the client follows the FAPI 2.0 Security Profile"
                .to_owned(),
        });
    }
    let claims = check_claims(&unverified.claims, &client_id, &tenant.issuer, follows_fapi, now);
    let (jti, store_until) = claims?;
    let assertion = Some(Assertion::new(&client_id, &sha256(jti.as_bytes()), store_until));
    Ok(Authenticated {
        client,
        entry,
        assertion,
    })
}

/// Checks the claims of a verified assertion: client, audience and times. The audience is one string under the FAPI 2.0 Security
/// Profile (§5.3.2.1), elsewhere also a list of one. Returns the `jti`, and until when it must be
/// stored.
fn check_claims<'a>(
    claims: &'a Value,
    client_id: &ClientId,
    issuer: &str,
    follows_fapi: bool,
    now: UnixMillis,
) -> Result<(&'a str, UnixMillis)> {
    let now = now.as_secs();
    let rejected = |claim, rule| Err(Error::InvalidAssertion { claim, rule });
    for claim in ["iss", "sub"] {
        if claims[claim] != client_id.as_str() {
            return rejected(claim, format!("must be the Client ID, {client_id}"));
        }
    }
    // A second audience could replay the assertion here.
    let is_for_us = match &claims["aud"] {
        Value::Array(_) if follows_fapi => false,
        Value::Array(audiences) => matches!(&audiences[..], [audience] if audience == issuer),
        audience => audience == issuer,
    };
    if !is_for_us {
        let form = if follows_fapi { ", one string" } else { "" };
        return rejected("aud", format!("must be {issuer} alone{form}"));
    }
    let Some(ends) = secs(&claims["exp"]) else {
        return rejected("exp", "must be a number of seconds since 1970".to_owned());
    };
    let latest = now.saturating_add(MAX_LIFETIME_SECS);
    if now >= ends.saturating_add(SKEW_SECS) || ends > latest.saturating_add(SKEW_SECS) {
        return rejected(
            "exp",
            format!("must be later than now, {now}, and at most {latest}"),
        );
    }
    for claim in ["iat", "nbf"] {
        let begins = &claims[claim];
        if !begins.is_null() && secs(begins).is_none_or(|begins| begins > now.saturating_add(SKEW_SECS)) {
            return rejected(claim, format!("must not be later than now, {now}, if present"));
        }
    }
    match claims["jti"].as_str() {
        Some(jti) if !jti.is_empty() => {
            let store_until = ends.saturating_add(SKEW_SECS + 1).saturating_mul(1000);
            Ok((jti, UnixMillis::from_millis(store_until)))
        }
        _ => rejected("jti", "must be a string, unique to each assertion".to_owned()),
    }
}

/// Reads a time in seconds since 1970 (RFC 7519 §2), with or without a fraction, and rounds it down. The conversion
/// saturates.
#[allow(clippy::cast_possible_truncation)]
fn secs(date: &Value) -> Option<i64> {
    date.as_f64().map(|secs| secs.floor() as i64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use accord::{
        random::SeededRandom,
        testing::{TEST_START, test_clock},
    };
    use serde_json::json;

    use super::*;

    const ISSUER: &str = "https://accord.example/firm";

    fn client_id() -> ClientId {
        ClientId::generate(&*test_clock(), &SeededRandom::new(7))
    }

    /// Changes valid claims. Returns the rejected claim and the rule in the error, if the result is rejected.
    fn rejected(change: impl FnOnce(&mut Value)) -> Option<(&'static str, String)> {
        rejected_of(false, change)
    }

    fn rejected_of(follows_fapi: bool, change: impl FnOnce(&mut Value)) -> Option<(&'static str, String)> {
        let mut claims = json!({
            "iss": client_id().as_str(), "sub": client_id().as_str(), "aud": ISSUER,
            "exp": TEST_START.as_secs() + 60, "jti": "one",
        });
        change(&mut claims);
        match check_claims(&claims, &client_id(), ISSUER, follows_fapi, TEST_START) {
            Ok(_) => None,
            Err(Error::InvalidAssertion { claim, rule }) => Some((claim, rule)),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn an_assertion_is_valid_for_its_client_authority_and_time() {
        let now = TEST_START.as_secs();
        assert_eq!(rejected(|_| ()), None);
        for (claim, value) in [
            ("aud", json!([ISSUER])),
            ("exp", json!(now as f64 + 1.5)),
            ("exp", json!(now + MAX_LIFETIME_SECS)),
            ("exp", json!(now - SKEW_SECS + 1)),
            ("iat", json!(now + SKEW_SECS)),
            ("iat", json!(now as f64 - 0.25)),
            ("nbf", json!(now + SKEW_SECS)),
            ("nbf", json!(null)),
            ("jti", json!("j".repeat(1_000))),
        ] {
            assert_eq!(rejected(|c| c[claim] = value.clone()), None, "{claim}: {value}");
        }
    }

    #[test]
    fn the_audience_is_one_string_under_the_fapi_profile() {
        assert_eq!(rejected_of(true, |_| ()), None);
        let (claim, rule) = rejected_of(true, |claims| claims["aud"] = json!([ISSUER])).unwrap();
        assert!(
            claim == "aud" && rule.contains(ISSUER) && rule.contains("one string"),
            "{rule}"
        );
    }

    #[test]
    fn a_rejection_names_the_claim_and_the_right_value() {
        let now = TEST_START.as_secs();
        let (client_id, clock) = (client_id().to_string(), now.to_string());
        for (claim, right, values) in [
            ("iss", &client_id, vec![json!("cli_other"), json!(null), json!(7)]),
            ("sub", &client_id, vec![json!("cli_other"), json!([client_id])]),
            (
                "aud",
                &ISSUER.to_owned(),
                vec![
                    json!(format!("{ISSUER}/")),
                    json!(format!("{ISSUER}/oauth2/token")),
                    json!([ISSUER, "https://else.example"]),
                    json!([ISSUER, ISSUER]),
                    json!([[ISSUER]]),
                    json!([]),
                    json!(null),
                ],
            ),
            (
                "exp",
                &clock,
                vec![
                    json!(now - SKEW_SECS),
                    json!(now + MAX_LIFETIME_SECS + SKEW_SECS + 1),
                    json!(1e300),
                ],
            ),
            (
                "exp",
                &"seconds".to_owned(),
                vec![json!("soon"), json!(clock), json!(null)],
            ),
            ("iat", &clock, vec![json!(now + SKEW_SECS + 1), json!("now")]),
            ("nbf", &clock, vec![json!(now + SKEW_SECS + 1), json!("now")]),
            (
                "jti",
                &"string".to_owned(),
                vec![json!(""), json!(1), json!(null)],
            ),
        ] {
            for value in values {
                let (named, rule) = rejected(|c| c[claim] = value.clone()).unwrap();
                assert_eq!(named, claim, "{value}");
                assert!(rule.contains(right), "{claim}: {value}: {rule}");
            }
        }
    }

    #[test]
    fn other_algorithms_are_rejected() {
        for alg in ["none", "HS256", "HS384", "HS512", "RS512", "ed25519"] {
            let header = URL_SAFE_NO_PAD.encode(json!({ "alg": alg }).to_string());
            let jwt = format!("{header}.{}.", URL_SAFE_NO_PAD.encode("{}"));
            assert!(
                matches!(Unverified::parse(&jwt), Err(Error::InvalidClient(_))),
                "{alg}"
            );
        }
    }
}
