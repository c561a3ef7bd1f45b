//! `private_key_jwt` (RFC 7523 §2.2, §3): a client authenticates by a JWT that it signed with a key whose public half
//! an operator registered. Keys are never fetched.

use accord::{
    clock::UnixMillis,
    text::{
        id::{ClientId, TenantId},
        opaque::sha256,
    },
};
use jsonwebtoken::{
    Algorithm, DecodingKey, Header, Validation,
    jwk::{JwkSet, KeyAlgorithm},
};
use serde::Deserialize;

use crate::{
    cache::Authenticated,
    error::{Error, Result, found},
    oauth::OAuth,
};

/// The `client_assertion_type` of a JWT (RFC 7523 §2.2).
pub const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// The algorithms that an assertion may be signed by: none with a shared secret among them.
pub const ALGORITHMS: [Algorithm; 4] = [
    Algorithm::ES256,
    Algorithm::EdDSA,
    Algorithm::PS256,
    Algorithm::RS256,
];

/// The longest assertion, in bytes.
const MAX_BYTES: usize = 8 * 1024;
/// The longest `jti`, in bytes.
const MAX_JTI_BYTES: usize = 256;
/// How far in the future an assertion may end, in seconds: its `jti` is remembered until then.
const MAX_LIFE_SECS: i64 = 3600;
/// How far ahead the client's clock may be, in seconds, when it sends `iat` or `nbf`.
const SKEW_SECS: i64 = 60;

/// The claims of an assertion (RFC 7523 §3). `aud` must be one string: another audience could replay the assertion.
#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: String,
    exp: NumericDate,
    jti: String,
    #[serde(default)]
    iat: Option<NumericDate>,
    #[serde(default)]
    nbf: Option<NumericDate>,
}

/// Seconds since 1970 (RFC 7519 §2), with or without a fraction.
type NumericDate = f64;

/// Rounds down to whole seconds. The conversion saturates.
#[allow(clippy::cast_possible_truncation)]
fn secs(date: NumericDate) -> i64 {
    date.floor() as i64
}

/// The client that an assertion names, which is not verified yet.
#[derive(Deserialize)]
struct Unverified {
    sub: String,
}

/// Finds the client that signed `jwt` for the authority of `tenant_id`. `named` is the Client ID beside it in the
/// message; may be empty.
pub(super) async fn authenticate(
    oauth: &OAuth,
    tenant_id: &TenantId,
    named: &str,
    jwt: &str,
) -> Result<Authenticated> {
    let header = readable_header(jwt)?;
    let unverified: Unverified =
        jsonwebtoken::dangerous::insecure_decode_claims(jwt).map_err(|_| Error::InvalidClient)?;
    if !named.is_empty() && named != unverified.sub {
        return Err(Error::InvalidClient);
    }
    let client_id = ClientId::parse(&unverified.sub).map_err(|_| Error::InvalidClient)?;
    let entry = oauth.cache.entry(&client_id, tenant_id);
    let (client, tenant) = match &entry {
        Some(found) => {
            let client = found.registry.clone().map(|()| found.entry.client.clone());
            (client, found.entry.tenant.clone())
        }
        None => {
            let cache = &oauth.cache;
            let (client, tenant) = tokio::join!(cache.client(&client_id), cache.tenant(tenant_id));
            let client = found(client)?.ok_or(Error::InvalidClient)?;
            (client, found(tenant)?.ok_or(Error::InvalidClient)?.value)
        }
    };
    if !client.value.active {
        return Err(Error::InvalidClient);
    }
    let claims = verified(&client.value.json_web_key_set, &header, jwt)?;
    let ends_at = accepted(&claims, &client_id, &tenant.issuer, oauth.store.now())?;
    let jti = sha256(claims.jti.as_bytes());
    if oauth.store.spend_assertion(&client_id, &jti, ends_at).await? {
        Ok(Authenticated { client, entry })
    } else {
        Err(Error::InvalidClient)
    }
}

fn readable_header(jwt: &str) -> Result<Header> {
    if jwt.len() > MAX_BYTES {
        return Err(Error::InvalidClient);
    }
    // The library knows no algorithm `none`: such a header is unreadable.
    let header = jsonwebtoken::decode_header(jwt).map_err(|_| Error::InvalidClient)?;
    // RFC 7515 §4.1.11: `crit` names extensions that must be understood, and none are.
    if header.crit.is_some() || !ALGORITHMS.contains(&header.alg) {
        return Err(Error::InvalidClient);
    }
    Ok(header)
}

/// Returns the claims, if one of the client's keys verifies them. A key counts for its own algorithm alone.
fn verified(json_web_key_set: &str, header: &Header, jwt: &str) -> Result<Claims> {
    if json_web_key_set.is_empty() {
        return Err(Error::InvalidClient);
    }
    let unusable = || Error::RegistryAnswer("unusable json_web_key_set".to_owned());
    let keys: JwkSet = serde_json::from_str(json_web_key_set).map_err(|_| unusable())?;
    let algorithm = Some(KeyAlgorithm::from(header.alg));
    let keys = keys.keys.iter();
    let mut candidates = keys.filter(|key| key.common.key_algorithm == algorithm);
    let key = match &header.kid {
        Some(kid) => candidates.find(|key| key.common.key_id.as_deref() == Some(kid)),
        // Without a name, only a single key can be meant.
        None => candidates.next().filter(|_| candidates.next().is_none()),
    };
    let key = DecodingKey::from_jwk(key.ok_or(Error::InvalidClient)?).map_err(|_| unusable())?;
    // `accepted` checks time and audience: exactly, and by the injected clock.
    let mut validation = Validation::new(header.alg);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    let decoded = jsonwebtoken::decode(jwt, &key, &validation);
    decoded.map(|data| data.claims).map_err(|_| Error::InvalidClient)
}

/// Checks that genuine claims are meant for this authority and time. Returns when they end.
fn accepted(claims: &Claims, client_id: &ClientId, issuer: &str, now: UnixMillis) -> Result<UnixMillis> {
    let now = now.as_secs();
    let ends = secs(claims.exp);
    let mut begins = [claims.iat, claims.nbf].into_iter().flatten();
    let is_in_time = now < ends
        && ends <= now.saturating_add(MAX_LIFE_SECS + SKEW_SECS)
        && begins.all(|begins| secs(begins) <= now.saturating_add(SKEW_SECS));
    let client_id = client_id.as_str();
    let is_ours = claims.iss == client_id && claims.sub == client_id && claims.aud == issuer;
    if is_in_time && is_ours && (1..=MAX_JTI_BYTES).contains(&claims.jti.len()) {
        Ok(UnixMillis::from_millis((ends + 1).saturating_mul(1000)))
    } else {
        Err(Error::InvalidClient)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use accord::{
        random::SeededRandom,
        testing::{TEST_START, test_clock},
    };

    use super::*;

    const ISSUER: &str = "https://accord.example/firm";

    fn client_id() -> ClientId {
        ClientId::generate(&*test_clock(), &SeededRandom::new(7))
    }

    fn claims(change: impl FnOnce(&mut serde_json::Value)) -> Option<Claims> {
        let mut claims = serde_json::json!({
            "iss": client_id().as_str(), "sub": client_id().as_str(), "aud": ISSUER,
            "exp": TEST_START.as_secs() + 60, "jti": "one",
        });
        change(&mut claims);
        serde_json::from_value(claims).ok()
    }

    fn accepts(change: impl FnOnce(&mut serde_json::Value)) -> bool {
        claims(change).is_some_and(|claims| accepted(&claims, &client_id(), ISSUER, TEST_START).is_ok())
    }

    #[test]
    fn an_assertion_counts_for_its_client_authority_and_time() {
        let now = TEST_START.as_secs();
        assert!(accepts(|_| ()));
        assert!(accepts(|c| c["exp"] = (now as f64 + 1.5).into()));
        assert!(accepts(|c| c["exp"] = (now + MAX_LIFE_SECS).into()));
        assert!(accepts(|c| {
            c["iat"] = (now + SKEW_SECS).into();
            c["nbf"] = now.into();
        }));
        for (member, value) in [
            ("iss", "cli_other".into()),
            ("sub", "cli_other".into()),
            ("aud", format!("{ISSUER}/").into()),
            ("aud", format!("{ISSUER}/oauth2/token").into()),
            ("aud", serde_json::json!([ISSUER])),
            ("aud", serde_json::json!([ISSUER, "https://else.example"])),
            ("exp", now.into()),
            ("exp", (now - 1).into()),
            ("exp", (now + MAX_LIFE_SECS + SKEW_SECS + 1).into()),
            ("exp", 1e300.into()),
            ("exp", "soon".into()),
            ("nbf", (now + SKEW_SECS + 1).into()),
            ("iat", (now + SKEW_SECS + 1).into()),
            ("jti", "".into()),
            ("jti", "j".repeat(MAX_JTI_BYTES + 1).into()),
        ] {
            let shown = format!("{member}: {value}");
            assert!(!accepts(|c| c[member] = value), "{shown}");
        }
        for member in ["iss", "sub", "aud", "exp", "jti"] {
            let without = accepts(|c| {
                c.as_object_mut().unwrap().remove(member);
            });
            assert!(!without, "without {member}");
        }
    }

    #[test]
    fn algorithms_with_a_shared_secret_are_no_algorithms() {
        for algorithm in [
            Algorithm::HS256,
            Algorithm::HS384,
            Algorithm::HS512,
            Algorithm::RS512,
        ] {
            assert!(!ALGORITHMS.contains(&algorithm));
        }
        let none = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.";
        assert!(matches!(readable_header(none), Err(Error::InvalidClient)));
    }
}
