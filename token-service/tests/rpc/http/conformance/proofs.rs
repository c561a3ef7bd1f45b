//! Proofs of possession by a client that signs assertions, at PAR and at the token endpoint (RFC 9449 §4.3). The resource has
//! these lines in [`super::resource`], too.

use accord::{testing::dpop::ProofKey, text::opaque::sha256};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{Deployment, Lines, Party, Variant};
use crate::http::{Answer, token::CREDENTIALS, tokens_issued};

/// How a proof is spoilt.
type Change = fn(&mut Value, &mut Value);

fn moved(claim: &Value, seconds: i64) -> Value {
    json!(claim.as_i64().unwrap() + seconds)
}

/// What is accepted, wherever it is sent.
pub const RIGHT: [(&str, Change); 5] = [
    ("iat of a proof 10 s behind", |_, claims| {
        claims["iat"] = moved(&claims["iat"], -10)
    }),
    ("iat of a proof 10 s ahead", |_, claims| {
        claims["iat"] = moved(&claims["iat"], 10)
    }),
    ("nbf in a proof", |_, claims| {
        claims["nbf"] = moved(&claims["iat"], -5)
    }),
    ("exp in a proof", |_, claims| {
        claims["exp"] = moved(&claims["iat"], 60)
    }),
    ("htu with a query that was not called", |_, claims| {
        claims["htu"] = json!(format!("{}?page=2", claims["htu"].as_str().unwrap()))
    }),
];

/// The lines about a proof's members, wherever it is sent.
pub const WRONG: [(&str, Change); 23] = [
    ("a proof without typ", |header, _| header["typ"] = Value::Null),
    ("a proof without alg", |header, _| header["alg"] = Value::Null),
    ("a proof without jwk", |header, _| header["jwk"] = Value::Null),
    ("a proof without jti", |_, claims| claims["jti"] = Value::Null),
    ("a proof without htm", |_, claims| claims["htm"] = Value::Null),
    ("a proof without htu", |_, claims| claims["htu"] = Value::Null),
    ("a proof without iat", |_, claims| claims["iat"] = Value::Null),
    ("a proof with a wrong typ", |header, _| {
        header["typ"] = json!("JWT")
    }),
    ("a proof with a wrong alg", |header, _| {
        header["alg"] = json!("ES384")
    }),
    ("a proof with a wrong jwk", |header, _| header["jwk"] = json!({})),
    ("a proof with a wrong jti", |_, claims| claims["jti"] = json!(7)),
    ("a proof with a wrong htm", |_, claims| {
        claims["htm"] = json!("PUT")
    }),
    ("a proof with a wrong htu", |_, claims| {
        claims["htu"] = json!("https://api.example/acme/else")
    }),
    ("a proof with the htu of another host", |_, claims| {
        claims["htu"] = json!("https://api.else.example/acme/contacts")
    }),
    ("a proof with a wrong iat", |_, claims| {
        claims["iat"] = json!("now")
    }),
    ("a proof an hour early", |_, claims| {
        claims["iat"] = moved(&claims["iat"], 3_600)
    }),
    ("a proof an hour late", |_, claims| {
        claims["iat"] = moved(&claims["iat"], -3_600)
    }),
    ("a proof whose nbf is an hour ahead", |_, claims| {
        claims["nbf"] = moved(&claims["iat"], 3_600)
    }),
    ("a proof that has expired", |_, claims| {
        claims["exp"] = moved(&claims["iat"], -3_600)
    }),
    ("a proof signed with none", |header, _| {
        header["alg"] = json!("none")
    }),
    ("a proof signed with RS256", |header, _| {
        header["alg"] = json!("RS256")
    }),
    ("a proof that holds a private key", |header, _| {
        header["jwk"]["d"] = json!("AAAA")
    }),
    ("a proof with crit", |header, _| header["crit"] = json!(["b64"])),
];

/// The lines about the access token that a proof at a resource names.
pub const WITH_WRONG_TOKEN: [(&str, Change); 2] = [
    ("a proof without ath", |_, claims| claims["ath"] = Value::Null),
    ("a proof with a wrong ath", |_, claims| {
        claims["ath"] = json!(URL_SAFE_NO_PAD.encode(sha256(b"another token")))
    }),
];

/// A client that pushes requests and asks for tokens with proofs that a test makes.
struct Prover<'a> {
    plan: &'a Deployment,
    party: &'a Party,
    endpoint: &'static str,
    fields: Vec<(&'a str, &'a str)>,
}

impl<'a> Prover<'a> {
    /// At PAR, and at the token endpoint with a code and with client credentials.
    fn all(plan: &'a Deployment, party: &'a Party, code: &'a str) -> [Self; 3] {
        [
            ("par", plan.parameters(party)),
            ("token", party.by_code(code)),
            ("token", vec![CREDENTIALS]),
        ]
        .map(|(endpoint, fields)| Self {
            plan,
            party,
            endpoint,
            fields,
        })
    }

    /// A proof with this change. `null` removes a member.
    fn proof(&self, change: impl FnOnce(&mut Value, &mut Value)) -> String {
        let url = self.plan.url(self.endpoint);
        self.party.prover.altered(&url, self.plan.now(), change)
    }

    /// A line about it.
    fn at(&self, line: &str) -> String {
        format!("{line} at {} with {}", self.endpoint, self.fields[0].1)
    }

    async fn send(&self, proofs: &[&str]) -> Answer {
        let request = self.plan.authenticated(self.party, self.endpoint, &self.fields);
        let request = proofs
            .iter()
            .fold(request, |request, proof| request.header("DPoP", *proof));
        request.send(&self.plan.world).await
    }
}

#[tokio::test]
async fn a_proof_at_the_edges_is_accepted_at_par_and_at_the_token_endpoint() {
    let plan = Deployment::start(Variant::PrivateKey).await;
    let mut lines = Lines::default();
    for party in &plan.parties {
        plan.first_tokens(party).await;
        for (line, change) in RIGHT {
            let code = plan.code(party).await;
            for prover in Prover::all(&plan, party, &code) {
                let answer = prover.send(&[&prover.proof(change)]).await;
                lines.accepted(&prover.at(line), &answer);
            }
        }
    }
}

/// Nothing is used up by any of them, so that the same code, and the proofs that were right, count afterwards.
#[tokio::test]
async fn a_wrong_proof_is_rejected_at_par_and_at_the_token_endpoint() {
    let plan = Deployment::start(Variant::PrivateKey).await;
    let party = &plan.parties[1];
    plan.first_tokens(party).await;
    let code = plan.code(party).await;
    let issued = tokens_issued(&plan.world).await;
    let (rsa, error) = (ProofKey::rsa(), "invalid_dpop_proof");
    let mut lines = Lines::default();
    let provers = Prover::all(&plan, party, &code);
    for prover in &provers {
        for (line, change) in WRONG {
            let answer = prover.send(&[&prover.proof(change)]).await;
            lines.rejected(&prover.at(line), &answer, 400, error);
        }
        let url = plan.url(prover.endpoint);
        let by_rsa = rsa.altered(&url, plan.now(), |header, _| header["alg"] = json!("RS256"));
        let answer = prover.send(&[&by_rsa]).await;
        lines.rejected(
            &prover.at("a proof of an RSA key, signed with RS256"),
            &answer,
            400,
            error,
        );
        let forged = rsa.altered(&url, plan.now(), |header, _| {
            header["jwk"] = party.prover.jwk.clone();
            header["alg"] = json!("ES256");
        });
        let answer = prover.send(&[&forged]).await;
        lines.rejected(&prover.at("a proof signed with another key"), &answer, 400, error);
        let [one, two] = [(); 2].map(|()| prover.proof(|_, _| ()));
        let answer = prover.send(&[&one, &two]).await;
        lines.rejected(&prover.at("two DPoP headers"), &answer, 400, error);
        let joined = format!("{one}, {two}");
        let answer = prover.send(&[&joined]).await;
        lines.rejected(
            &prover.at("two DPoP headers joined by a comma"),
            &answer,
            400,
            error,
        );
        let now = tokens_issued(&plan.world).await;
        lines.holds(&prover.at("no token for any of them"), now == issued, &now);
    }
    for prover in &provers {
        let proof = prover.proof(|_, _| ());
        let answer = prover.send(&[&proof]).await;
        lines.accepted(&prover.at("a right proof"), &answer);
        // A code that is used again is rejected as that.
        if prover.fields[0].1 != "authorization_code" {
            let answer = prover.send(&[&proof]).await;
            lines.rejected(&prover.at("a proof used before"), &answer, 400, error);
        }
    }
}

/// A proof names its endpoint, so that none is of use at the other.
#[tokio::test]
async fn a_proof_for_the_other_endpoint_is_rejected() {
    let plan = Deployment::start(Variant::PrivateKey).await;
    let party = &plan.parties[0];
    plan.first_tokens(party).await;
    let mut lines = Lines::default();
    for ((endpoint, fields), other) in plan.endpoints(party).into_iter().zip(["token", "par"]) {
        let request = plan.authenticated(party, endpoint, &fields);
        let proof = plan.proof(&party.prover, other);
        let answer = request.header("DPoP", proof).send(&plan.world).await;
        let line = format!("a proof for {other} at {endpoint}");
        lines.rejected(&line, &answer, 400, "invalid_dpop_proof");
    }
}
