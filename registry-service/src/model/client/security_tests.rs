//! Which methods, certificates, keys and networks of a client belong together, and what an amendment makes of them.

#![allow(clippy::unwrap_used)]

use super::*;

const ED25519: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","kid":"one","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
/// The modulus of RFC 7517 appendix A.1.
const MODULUS: &str = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";

fn keys(json: &str) -> ClientKeys {
    ClientKeys::parse(json).unwrap()
}

fn rsa(alg: &str) -> ClientKeys {
    keys(&format!(
        r#"{{"keys":[{{"kty":"RSA","e":"AQAB","n":"{MODULUS}"{alg}}}]}}"#
    ))
}

fn by(method: AuthMethod) -> Authentication {
    Authentication {
        method: Some(method),
        ..Authentication::default()
    }
}

fn subject(name: &str) -> Option<CertificateSubject> {
    Some(CertificateSubject::Dns(name.into()))
}

/// The fields of the violations of a client with these keys, and a redirect URI.
fn fields(authentication: &Authentication, keys: &ClientKeys, uri: &str, follows_fapi: bool) -> String {
    let mut v = Violations::default();
    authentication.check(&mut v, keys, &[uri.to_owned()], follows_fapi);
    let fields: Vec<_> = v
        .into_vec()
        .into_iter()
        .map(|violation| violation.field)
        .collect();
    fields.join(" ")
}

#[test]
fn method_certificate_and_keys_belong_together() {
    let (none, some) = (keys(""), keys(ED25519));
    let check = |authentication: &Authentication, keys: &ClientKeys| {
        fields(authentication, keys, "http://localhost/cb", false)
    };
    let open = Authentication::default();
    assert_eq!(check(&open, &none), "");
    assert_eq!(check(&open, &some), "");
    for method in [AuthMethod::ClientSecretBasic, AuthMethod::ClientSecretPost] {
        assert_eq!(check(&by(method), &none), "");
        assert!(by(method).takes_secrets());
    }
    for method in [AuthMethod::PrivateKeyJwt, AuthMethod::SelfSignedTlsClientAuth] {
        assert_eq!(check(&by(method), &some), "");
        assert_eq!(check(&by(method), &none), METHOD);
        let fetched = Authentication {
            jwks_uri: Some("https://partner.example/jwks".into()),
            ..by(method)
        };
        assert_eq!(check(&fetched, &none), "");
        assert_eq!(check(&fetched, &some), "jwks_uri");
        assert!(!by(method).takes_secrets());
    }
    let by_ca = by(AuthMethod::TlsClientAuth);
    assert_eq!(check(&by_ca, &none), METHOD);
    let named = Authentication {
        certificate_subject: subject("sync.partner.example"),
        ..by_ca
    };
    assert_eq!(check(&named, &none), "");
    assert!(!named.takes_secrets());
    for method in [None, Some(AuthMethod::ClientSecretPost)] {
        let named = Authentication {
            method,
            ..named.clone()
        };
        assert_eq!(check(&named, &none), METHOD);
    }
}

#[test]
fn the_fapi_profile_asks_for_a_key_https_and_another_algorithm_than_rs256() {
    let uri = "https://app.example/cb";
    let some = keys(ED25519);
    let by_key = by(AuthMethod::PrivateKeyJwt);
    assert_eq!(fields(&by_key, &some, uri, true), "");
    assert_eq!(
        fields(&by_key, &some, "http://localhost/cb", true),
        "redirect_uris"
    );
    for method in [
        None,
        Some(AuthMethod::ClientSecretBasic),
        Some(AuthMethod::ClientSecretPost),
    ] {
        let by_secret = Authentication {
            method,
            ..by_key.clone()
        };
        assert_eq!(fields(&by_secret, &some, uri, true), METHOD);
        assert_eq!(fields(&by_secret, &some, uri, false), "");
    }
    let by_ca = Authentication {
        certificate_subject: subject("sync.partner.example"),
        ..by(AuthMethod::TlsClientAuth)
    };
    assert_eq!(fields(&by_ca, &keys(""), uri, true), "");
    let rs256 = rsa(r#","alg":"RS256""#);
    assert_eq!(fields(&by_key, &rs256, uri, true), "json_web_key_set");
    assert_eq!(fields(&by_key, &rs256, uri, false), "");
    // A certificate's key signs no assertion.
    assert_eq!(
        fields(&by(AuthMethod::SelfSignedTlsClientAuth), &rs256, uri, true),
        ""
    );
    for usable in [
        rsa(""),
        rsa(r#","alg":"PS256""#),
        keys(rs256.joined(some.as_str()).unwrap().as_str()),
    ] {
        assert_eq!(fields(&by_key, &usable, uri, true), "");
    }
}

#[test]
fn only_what_a_method_needs_of_keys_keeps_them() {
    let fields = |authentication: &Authentication, keys: &ClientKeys, follows_fapi| {
        let mut v = Violations::default();
        authentication.check_keys(&mut v, keys, follows_fapi);
        let violations = v.into_vec().into_iter();
        violations.map(|violation| violation.field).collect::<Vec<_>>()
    };
    // Its certificate is none of its method's, and its keys have two sources.
    let odd = Authentication {
        certificate_subject: subject("sync.partner.example"),
        jwks_uri: Some("https://partner.example/jwks".into()),
        ..by(AuthMethod::PrivateKeyJwt)
    };
    assert!(fields(&odd, &keys(ED25519), true).is_empty());
    let by_secret = by(AuthMethod::ClientSecretBasic);
    assert!(fields(&by_secret, &keys(""), true).is_empty());
    for method in [AuthMethod::PrivateKeyJwt, AuthMethod::SelfSignedTlsClientAuth] {
        assert_eq!(fields(&by(method), &keys(""), false), [METHOD]);
    }
    let rs256 = rsa(r#","alg":"RS256""#);
    let by_key = by(AuthMethod::PrivateKeyJwt);
    assert_eq!(fields(&by_key, &rs256, true), ["json_web_key_set"]);
    assert!(fields(&by_key, &rs256, false).is_empty());
}

#[test]
fn an_amendment_replaces_the_method_and_the_source_of_keys() {
    let old = Authentication {
        certificate_subject: subject("old.partner.example"),
        jwks_uri: Some("https://partner.example/jwks".into()),
        ..by(AuthMethod::TlsClientAuth)
    };
    let none = keys("");
    assert_eq!(old.amended(&Authentication::default(), &none), old);
    let other = Authentication {
        certificate_subject: subject("new.partner.example"),
        ..Authentication::default()
    };
    let expected = Authentication {
        certificate_subject: other.certificate_subject.clone(),
        ..old.clone()
    };
    assert_eq!(old.amended(&other, &none), expected);
    // The name of a certificate goes with the method that compares it.
    let expected = Authentication {
        jwks_uri: old.jwks_uri.clone(),
        ..by(AuthMethod::PrivateKeyJwt)
    };
    assert_eq!(old.amended(&by(AuthMethod::PrivateKeyJwt), &none), expected);
    let expected = Authentication {
        jwks_uri: None,
        ..old.clone()
    };
    assert_eq!(old.amended(&Authentication::default(), &keys(ED25519)), expected);
}

#[test]
fn an_amendment_adds_keys_of_proofs_and_networks() {
    let some = |jkts: std::ops::Range<usize>, networks: &[&str]| Security {
        dpop_jkts: jkts.map(|n| n.to_string()).collect(),
        allowed_networks: AllowedNetworks::parse(
            &networks.iter().map(ToString::to_string).collect::<Vec<_>>(),
        )
        .unwrap(),
        ..Security::default()
    };
    let none = keys("");
    let old = some(0..2, &["192.0.2.0/24"]);
    assert_eq!(old.amended(&some(0..0, &[]), &none).unwrap(), old);
    let amended = old.amended(&some(1..4, &["198.51.100.0/24"]), &none).unwrap();
    assert_eq!(amended, some(0..4, &["192.0.2.0/24", "198.51.100.0/24"]));
    let many: Vec<_> = (0..16).map(|n| format!("10.{n}.0.0/16")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    assert!(old.amended(&some(2..10, &many[1..]), &none).is_ok());
    let violations = old.amended(&some(2..11, &many), &none).unwrap_err().into_vec();
    let fields: Vec<_> = violations.into_iter().map(|violation| violation.field).collect();
    assert_eq!(fields, ["dpop_jkts", "allowed_networks"]);
}

#[test]
fn an_update_leaves_keys_out_and_never_names_the_first_one() {
    let list = |jkts: &[&str]| jkts.iter().map(ToString::to_string).collect::<Vec<_>>();
    for (new, old, narrows) in [
        (&["a"][..], &[][..], false),
        (&[], &[], true),
        (&["a"], &["a", "b"], true),
        (&["a", "b"], &["a", "b"], true),
        (&["c"], &["a", "b"], false),
        (&["a", "c"], &["a", "b"], false),
        (&[], &["a"], false),
    ] {
        assert_eq!(narrows_keys(&list(new), &list(old)), narrows, "{new:?} {old:?}");
    }
}
