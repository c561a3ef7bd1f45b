//! Tokens that are bound to a key, through the layer: proofs, certificates, and what a thief has.

#![allow(clippy::unwrap_used, clippy::panic)]

use aws_lc_rs::digest::{SHA256, digest};
use axum::{Router, body::Body, routing::get};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{StatusCode, header};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::{
    clock::UnixMillis,
    dpop::ReplayCache,
    testing::dpop::{ProofKey, use_up_room},
    verify::{
        Confirmation, VerifyError, possession,
        testing::{Authority, NOW, Signer, claims, tenant},
    },
};

const URL: &str = "https://api.firm.example/firm/contacts";

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn hash(bytes: impl AsRef<[u8]>) -> String {
    encoded(digest(&SHA256, bytes.as_ref()))
}

/// A proof for `GET` of [`URL`] with this token, after a change. `null` removes a member.
fn proof(key: &ProofKey, token: &str, change: impl FnOnce(&mut Value, &mut Value)) -> String {
    key.altered(URL, NOW, |header, claims| {
        claims["htm"] = json!("GET");
        claims["ath"] = json!(hash(token));
        change(header, claims);
    })
}

struct Setup {
    signer: Signer,
    checker: Checker,
    _authority: Authority,
    key: ProofKey,
}

/// A request with these headers, and this certificate on its connection.
#[derive(Default)]
struct Sent<'a> {
    authorization: String,
    proofs: Vec<&'a str>,
    certificate: Option<&'a [u8]>,
}

impl Setup {
    async fn new() -> Self {
        let signer = Signer::new("k1");
        let authority = Authority::new(&signer);
        let checker = authority.checker().start().unwrap();
        checker.ready().await;
        Self {
            signer,
            checker,
            _authority: authority,
            key: ProofKey::ed25519(),
        }
    }

    fn token(&self, cnf: Option<Confirmation>) -> String {
        self.signer.sign(&AccessTokenClaims { cnf, ..claims() })
    }

    fn bound(&self) -> String {
        self.token(Some(Confirmation::Jkt(self.key.jkt())))
    }

    async fn send_to(&self, protect: Protect, path: &str, sent: Sent<'_>) -> Response<Body> {
        let app = Router::new().fallback(get(async || "reached")).layer(protect);
        let mut request = Request::get(path).header(header::AUTHORIZATION, sent.authorization);
        for proof in sent.proofs {
            request = request.header("DPoP", proof);
        }
        if let Some(certificate) = sent.certificate {
            request = request.extension(ClientCertificate(certificate.into()));
        }
        app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    async fn send(&self, sent: Sent<'_>) -> Response<Body> {
        let protect = Protect::tenant(self.checker.clone(), tenant());
        self.send_to(protect, "/firm/contacts", sent).await
    }

    /// Sends the bound token with these proofs.
    async fn prove(&self, token: &str, proofs: &[&str]) -> Response<Body> {
        let sent = Sent {
            authorization: format!("DPoP {token}"),
            proofs: proofs.to_vec(),
            certificate: None,
        };
        self.send(sent).await
    }
}

#[track_caller]
fn assert_challenged(response: &Response<Body>, parts: &[&str]) {
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let challenges: Vec<_> = response
        .headers()
        .get_all(header::WWW_AUTHENTICATE)
        .iter()
        .collect();
    let [challenge] = challenges[..] else {
        panic!("{challenges:?}");
    };
    let challenge = challenge.to_str().unwrap();
    for part in parts {
        assert!(challenge.contains(part), "{part} is not in {challenge}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_bound_token_counts_with_a_proof_of_its_key_in_any_letter_case_of_the_scheme() {
    let setup = Setup::new().await;
    let token = setup.bound();
    for scheme in ["DPoP", "dpop", "DPOP"] {
        let sent_proof = proof(&setup.key, &token, |_, _| {});
        let sent = Sent {
            authorization: format!("{scheme} {token}"),
            proofs: vec![&sent_proof],
            certificate: Some(b"of no importance"),
        };
        assert_eq!(setup.send(sent).await.status(), StatusCode::OK, "{scheme}");
    }
    let changes: [fn(&mut Value, &mut Value); 7] = [
        |_, claims| claims["iat"] = json!(NOW - 10),
        |_, claims| claims["iat"] = json!(NOW + 10),
        |_, claims| claims["nbf"] = json!(NOW),
        |_, claims| claims["exp"] = json!(NOW + 60),
        |_, claims| claims["htu"] = json!(format!("{URL}?page=2#top")),
        |_, claims| claims["htu"] = json!("HTTPS://API.firm.example:443/firm/./contacts"),
        |header, _| header["alg"] = json!("Ed25519"),
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let sent_proof = proof(&setup.key, &token, change);
        let response = setup.prove(&token, &[&sent_proof]).await;
        assert_eq!(response.status(), StatusCode::OK, "{index}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrong_proof_is_rejected_and_named() {
    let setup = Setup::new().await;
    let token = setup.bound();
    type Change = fn(&mut Value, &mut Value);
    let changes: [(&str, Change); 20] = [
        ("typ", |header, _| header["typ"] = Value::Null),
        ("typ", |header, _| header["typ"] = json!("JWT")),
        ("alg", |header, _| header["alg"] = Value::Null),
        ("alg", |header, _| header["alg"] = json!("none")),
        ("alg", |header, _| header["alg"] = json!("RS256")),
        ("jwk", |header, _| header["jwk"] = Value::Null),
        ("jwk", |header, _| header["jwk"]["d"] = json!("AAAA")),
        ("jti", |_, claims| claims["jti"] = Value::Null),
        ("htm", |_, claims| claims["htm"] = Value::Null),
        ("htm", |_, claims| claims["htm"] = json!("POST")),
        ("htu", |_, claims| claims["htu"] = Value::Null),
        ("htu", |_, claims| {
            claims["htu"] = json!("https://api.firm.example/firm/contacts/")
        }),
        ("htu", |_, claims| {
            claims["htu"] = json!("http://api.firm.example/firm/contacts")
        }),
        ("iat", |_, claims| claims["iat"] = Value::Null),
        ("iat", |_, claims| claims["iat"] = json!(NOW - 3600)),
        ("iat", |_, claims| claims["iat"] = json!(NOW + 3600)),
        ("nbf", |_, claims| claims["nbf"] = json!(NOW + 3600)),
        ("exp", |_, claims| claims["exp"] = json!(NOW - 3600)),
        ("ath", |_, claims| claims["ath"] = Value::Null),
        ("ath", |_, claims| claims["ath"] = json!(hash("another token"))),
    ];
    for (name, change) in changes {
        let sent_proof = proof(&setup.key, &token, change);
        let response = setup.prove(&token, &[&sent_proof]).await;
        let description = format!("error_description=\"the DPoP proof is wrong: {name}\"");
        assert_challenged(
            &response,
            &["DPoP realm=", "error=\"invalid_dpop_proof\"", &description],
        );
    }
    assert_challenged(&setup.prove(&token, &[]).await, &["wrong: missing"]);
    let other = proof(&ProofKey::ed25519(), &token, |_, _| {});
    assert_challenged(&setup.prove(&token, &[&other]).await, &["wrong: jwk"]);
    let sent_proof = proof(&setup.key, &token, |_, _| {});
    let (message, _) = sent_proof.rsplit_once('.').unwrap();
    let forged = format!("{message}.{}", encoded([7; 64]));
    assert_challenged(&setup.prove(&token, &[&forged]).await, &["wrong: signature"]);
    let twice = setup.prove(&token, &[&sent_proof, &sent_proof]).await;
    assert_challenged(&twice, &["wrong: repeated"]);
    let joined = format!("{sent_proof}, {sent_proof}");
    assert_challenged(&setup.prove(&token, &[&joined]).await, &["wrong: repeated"]);
    // None of these has spent it; the first use does.
    assert_eq!(setup.prove(&token, &[&sent_proof]).await.status(), StatusCode::OK);
    assert_challenged(
        &setup.prove(&token, &[&sent_proof]).await,
        &["wrong: jti", r#"algs="ES256 EdDSA Ed25519 PS256""#],
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_counts_under_the_scheme_of_its_kind_alone() {
    let setup = Setup::new().await;
    let (unbound, bound) = (setup.token(None), setup.bound());
    for (authorization, token) in [("Bearer", &bound), ("bearer", &bound), ("DPoP", &unbound)] {
        let sent_proof = proof(&setup.key, token, |_, _| {});
        let sent = Sent {
            authorization: format!("{authorization} {token}"),
            proofs: vec![&sent_proof],
            certificate: None,
        };
        let response = setup.send(sent).await;
        assert_challenged(&response, &["DPoP realm=", "error=\"invalid_token\""]);
    }
    // A client that always sends proofs may send an unbound token as bearer.
    let sent_proof = proof(&setup.key, &unbound, |_, _| {});
    let sent = Sent {
        authorization: format!("Bearer {unbound}"),
        proofs: vec![&sent_proof],
        certificate: None,
    };
    assert_eq!(setup.send(sent).await.status(), StatusCode::OK);
    let checked = setup.checker.check(&bound, &tenant()).await;
    assert_eq!(checked, Err(crate::verify::VerifyError::Scheme));
    assert!(setup.checker.check(&unbound, &tenant()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_token_of_a_certificate_counts_on_a_connection_that_presented_it() {
    let setup = Setup::new().await;
    let token = setup.token(Some(Confirmation::Certificate(hash(b"a certificate"))));
    let send = async |scheme: &str, certificate: Option<&[u8]>| {
        let sent = Sent {
            authorization: format!("{scheme} {token}"),
            proofs: Vec::new(),
            certificate,
        };
        setup.send(sent).await
    };
    assert_eq!(
        send("Bearer", Some(b"a certificate")).await.status(),
        StatusCode::OK
    );
    for other in [None, Some(&b""[..]), Some(b"another certificate")] {
        let response = send("Bearer", other).await;
        assert_challenged(&response, &["Bearer realm=", "error=\"invalid_token\""]);
    }
    let response = send("DPoP", Some(b"a certificate")).await;
    assert_challenged(&response, &["DPoP realm=", "error=\"invalid_token\""]);
}

#[tokio::test(start_paused = true)]
async fn the_url_of_a_proof_is_the_one_outside_of_the_proxy() {
    let setup = Setup::new().await;
    let token = setup.bound();
    let protect = Protect::tenant(setup.checker.clone(), tenant()).base_url("https://outside.example/api/");
    for (htu, status) in [
        ("https://outside.example/api/contacts", StatusCode::OK),
        ("https://outside.example/contacts", StatusCode::UNAUTHORIZED),
        ("https://api.firm.example/contacts", StatusCode::UNAUTHORIZED),
        // What the request says about its host is anybody's to write.
        ("https://evil.example/api/contacts", StatusCode::UNAUTHORIZED),
    ] {
        let sent_proof = proof(&setup.key, &token, |_, claims| claims["htu"] = json!(htu));
        let sent = Sent {
            authorization: format!("DPoP {token}"),
            proofs: vec![&sent_proof],
            certificate: None,
        };
        let response = setup
            .send_to(protect.clone(), "https://evil.example/contacts", sent)
            .await;
        assert_eq!(response.status(), status, "{htu}");
    }
}

#[tokio::test]
async fn a_key_for_which_anyone_can_sign_proves_nothing() {
    let setup = Setup::new().await;
    let key = ProofKey::of_anybody();
    let token = setup.token(Some(Confirmation::Jkt(key.jkt())));
    for alg in ["EdDSA", "Ed25519"] {
        let made = proof(&key, &token, |header, _| header["alg"] = json!(alg));
        let response = setup.prove(&token, &[&made]).await;
        assert_challenged(&response, &["invalid_dpop_proof"]);
    }
}

#[test]
fn without_room_for_a_proof_nobody_knows_whether_it_was_used() {
    let (key, proofs, now) = (
        ProofKey::es256(),
        ReplayCache::default(),
        UnixMillis::from_millis(NOW * 1000),
    );
    let claims = AccessTokenClaims {
        cnf: Some(Confirmation::Jkt(key.jkt())),
        ..claims()
    };
    let made = proof(&key, "token", |_, _| {});
    let presented = Presented {
        scheme: Scheme::Dpop,
        method: "GET",
        url: URL,
        dpop_proof: Some(&made),
        ..Presented::bearer("token")
    };
    use_up_room(NOW, |proof| proofs.accept(&claims.client_id, proof, now).is_ok());
    let checked = possession::check(&presented, &claims, &proofs, now);
    assert!(matches!(checked, Err(VerifyError::TooManyProofs)), "{checked:?}");
}
