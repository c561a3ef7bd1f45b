//! Failures that other servers met, each shown not to happen here. Those that a client without the profile meets as well are in
//! [`super::super::dpop`] and [`super::super::pushed_request`].

use std::time::{Duration, Instant};

use accord::{
    rpc::auth::WorkloadKind,
    testing::{certificates::Subject, dpop::ProofKey},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use token_service::{config::Settings, model::dpop_nonce::NoncePolicy};

use super::{Deployment, Lines, Variant};
use crate::{
    http::{connection::thumbprint, keys::ClientKey, token::CREDENTIALS},
    mutual_tls::{GATEWAY, xfcc},
    world::confirmation,
};

#[tokio::test]
async fn after_a_nonce_challenge_the_same_assertion_and_proof_count_at_par() {
    let required = |settings: &mut Settings| settings.dpop_nonce = NoncePolicy::Required;
    let plan = Deployment::start_with(Variant::PrivateKey, required).await;
    let mut lines = Lines::default();
    for party in &plan.parties {
        let assertion = plan.assertion(party, |_, _| ());
        let send = async |nonce: Option<&str>| {
            let proof = party.prover.altered(&plan.url("par"), plan.now(), |_, claims| {
                claims["jti"] = json!("one id, whatever the nonce");
                claims["nonce"] = nonce.map_or(Value::Null, Value::from);
            });
            let request = plan.asserted("par", &plan.parameters(party), &assertion);
            request.header("DPoP", proof).send(&plan.world).await
        };
        let challenge = send(None).await;
        lines.rejected("a proof without a nonce", &challenge, 400, "use_dpop_nonce");
        lines.rejected("a second one", &send(None).await, 400, "use_dpop_nonce");
        let nonce = challenge.header("dpop-nonce").unwrap();
        let answer = send(Some(nonce)).await;
        lines.accepted("the same assertion and jti with the nonce", &answer);
        let has_next = answer.header("dpop-nonce").is_some();
        lines.holds("a nonce comes with the success, too", has_next, &answer);
        let answer = send(Some(nonce)).await;
        lines.holds("the same again", answer.status != 201, &answer);
    }
}

#[tokio::test]
async fn after_a_429_the_same_assertion_and_proof_count() {
    let limited = |settings: &mut Settings| settings.client_calls_per_second = 1;
    let plan = Deployment::start_with(Variant::PrivateKey, limited).await;
    let party = &plan.parties[0];
    plan.first_tokens(party).await;
    for (endpoint, fields) in plan.endpoints(party) {
        let (mut was_limited, started) = (false, Instant::now());
        while !was_limited {
            assert!(started.elapsed() < Duration::from_secs(60), "{endpoint}");
            let request = plan.authenticated(party, endpoint, &fields);
            let request = request.header("DPoP", plan.proof(&party.prover, endpoint));
            let mut answer = request.send(&plan.world).await;
            while answer.status == 429 {
                was_limited = true;
                assert!(started.elapsed() < Duration::from_secs(60));
                answer = request.send(&plan.world).await;
            }
            assert!([200, 201].contains(&answer.status), "{endpoint}: {answer:?}");
        }
    }
}

/// Keys that are not understood are those of other uses, and no reason to reject the set.
#[tokio::test]
async fn a_foreign_key_in_a_set_rejects_no_assertion_of_the_others() {
    let plan = Deployment::start(Variant::PrivateKey).await;
    let party = &plan.parties[0];
    plan.first_tokens(party).await;
    let own = party.signer.jwk();
    let changed = |changes: &[(&str, Value)]| {
        let mut key = ClientKey::generate("ES256", "key-2").jwk();
        for (name, value) in changes {
            key[*name] = value.clone();
        }
        key.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        key
    };
    let mut lines = Lines::default();
    for (line, foreign) in [
        ("a key for encryption", changed(&[("use", json!("enc"))])),
        (
            "a key of an unknown type",
            changed(&[("kty", json!("AKP")), ("alg", json!("ML-DSA-44"))]),
        ),
        (
            "a key of an unknown curve",
            changed(&[("crv", json!("secp256k1"))]),
        ),
        ("a key without alg", changed(&[("alg", Value::Null)])),
        ("a key without kid", changed(&[("kid", Value::Null)])),
        (
            "a key with the kid of the right one",
            changed(&[("kid", json!("key-1"))]),
        ),
        (
            "a shared secret",
            json!({"kty": "oct", "k": "AAAA", "kid": "key-1"}),
        ),
        ("no object", json!("key")),
    ] {
        for keys in [[foreign.clone(), own.clone()], [own.clone(), foreign]] {
            let set = json!({ "keys": keys }).to_string();
            plan.world.change_client(|client| client.json_web_key_set = set);
            lines.accepted(line, &plan.token(party, &[CREDENTIALS]).await);
        }
    }
}

/// A gateway may change scheme, host and path of a call, and say so or not: `htu` is what the metadata names.
#[tokio::test]
async fn htu_is_the_url_of_the_metadata_whatever_a_proxy_made_of_the_call() {
    let plan = Deployment::start(Variant::PrivateKey).await;
    let party = &plan.parties[0];
    plan.first_tokens(party).await;
    let mut lines = Lines::default();
    let send = async |htu: &str, headers: &[(&str, &str)]| {
        let mut request = plan.authenticated(party, "token", &[CREDENTIALS]);
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        let proof = party.prover.proof(htu, plan.now());
        request.header("DPoP", proof).send(&plan.world).await
    };
    let url = plan.url("token");
    let rewritten = [
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-prefix", "/evil"),
        ("x-original-url", "/evil/token"),
        ("forwarded", "proto=http;host=evil.example"),
    ];
    let with_port = url.replace("auth.example", "auth.example:443");
    lines.accepted("htu with the default port", &send(&with_port, &[]).await);
    lines.accepted("htu behind a proxy that rewrites", &send(&url, &rewritten).await);
    for htu in [
        url.replace("https:", "http:"),
        url.replace("auth.example", "evil.example"),
        url.replace("auth.example", "auth.example:8443"),
        url.replace("/acme/", "/evil/"),
        "https://evil.example/evil/token".to_owned(),
    ] {
        let answer = send(&htu, &rewritten).await;
        lines.rejected(&htu, &answer, 400, "invalid_dpop_proof");
    }
}

/// The proof's key: the client chose it for this call, and the certificate may be that of a whole fleet.
#[tokio::test]
async fn a_certificate_and_a_proof_bind_to_the_proof() {
    for variant in Variant::ALL {
        let plan = Deployment::start(variant).await;
        let party = &plan.parties[0];
        plan.first_tokens(party).await;
        let own = || plan.partners.issue(&Default::default());
        let pair = party.certificate.clone().unwrap_or_else(own);
        let request = || {
            let request = plan.authenticated(party, "token", &[CREDENTIALS]);
            request.certificate(&pair)
        };
        let prover = ProofKey::es256();
        let with_proof = request().header("DPoP", plan.proof(&prover, "token"));
        let mut lines = Lines::default();
        for (line, request, kind, bound) in [
            (
                "a certificate",
                request(),
                "Bearer",
                json!({"x5t#S256": thumbprint(&pair)}),
            ),
            (
                "a certificate and a proof",
                with_proof,
                "DPoP",
                json!({"jkt": prover.jkt()}),
            ),
        ] {
            let answer = request.send(&plan.world).await;
            lines.accepted(line, &answer);
            let confirmation = confirmation(&answer.text("access_token"));
            lines.holds(
                line,
                confirmation == bound && answer.text("token_type") == kind,
                &answer,
            );
        }
    }
}

#[tokio::test]
async fn a_certificate_header_that_is_malformed_doubled_encoded_twice_or_of_100_kib_is_rejected() {
    for name in ["x-forwarded-client-cert", "client-cert"] {
        let is_xfcc = name == "x-forwarded-client-cert";
        let setting = if is_xfcc { "xfcc" } else { "client-cert" };
        let header = |settings: &mut Settings| settings.client_certificate_header = setting.into();
        let plan = Deployment::start_with(Variant::MutualTls, header).await;
        let party = &plan.parties[0];
        let registry = plan.world.registry();
        registry.add_named_workload(WorkloadKind::Gateway, GATEWAY);
        let gateway = plan.workloads.issue(&Subject {
            dns_names: vec![GATEWAY],
            ..Subject::default()
        });
        let send = async |values: &[&str]| {
            let mut request = plan.bare(party, "par", &plan.parameters(party));
            for value in values {
                request = request.header(name, *value);
            }
            request.certificate(&gateway).send(&plan.world).await
        };
        let pair = party.certificate.as_ref().unwrap();
        let der = STANDARD.encode(pair.der());
        let (good, twice) = match is_xfcc {
            true => (xfcc(pair), xfcc(pair).replace('%', "%25")),
            false => (format!(":{der}:"), format!(":{}:", STANDARD.encode(&der))),
        };
        let joined = format!("{good}, {good}");
        let mut lines = Lines::default();
        for (line, values) in [
            ("malformed", &["x"][..]),
            ("cut short", &[&good[..good.len() / 2]]),
            ("a subject alone", &["Subject=\"CN=first.partner.example\""]),
            ("two elements", &[&joined]),
            ("doubled", &[&good, &good]),
            ("encoded twice", &[&twice]),
        ] {
            let line = format!("{name}: {line}");
            lines.rejected(&line, &send(values).await, 400, "invalid_request");
        }
        let long = format!("{good}{}", "x".repeat(100 * 1024));
        let answer = send(&[&long]).await;
        lines.holds(&format!("{name}: of 100 KiB"), answer.status == 431, &answer);
        lines.accepted(&format!("{name}: as it should be"), &send(&[&good]).await);
    }
}
