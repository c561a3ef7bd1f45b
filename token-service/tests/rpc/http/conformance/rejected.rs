//! What is rejected of assertions and authorization requests. Nothing of it yields a token.

use std::time::Duration;

use accord::testing::certificates::{KeyKind, Pair, Subject};
use serde_json::{Value, json};

use super::{Deployment, Lines, Variant, deployment::parameter};
use crate::http::{
    Request,
    client::encoded,
    keys::{ClientKey, key_set},
    pushed_request::target,
    token::{CREDENTIALS, with, without},
    tokens_issued,
};

/// How an assertion is spoilt.
type Change = fn(&Deployment, &mut Value);

/// The lines about claims of assertions.
const CLAIMS: [(&str, Change); 6] = [
    ("an assertion expired by 5 minutes", |plan, claims| {
        claims["iat"] = json!(plan.now() - 360);
        claims["exp"] = json!(plan.now() - 300);
    }),
    ("an assertion with nbf over 60 s ahead", |plan, claims| {
        claims["nbf"] = json!(plan.now() + 61)
    }),
    ("an assertion without sub", |_, claims| {
        drop(claims.as_object_mut().unwrap().remove("sub"))
    }),
    ("an assertion with an array as aud", |plan, claims| {
        claims["aud"] = json!([plan.world.issuer])
    }),
    ("an assertion with the PAR endpoint as aud", |plan, claims| {
        claims["aud"] = json!(plan.url("par"))
    }),
    ("an assertion with the token endpoint as aud", |plan, claims| {
        claims["aud"] = json!(plan.url("token"))
    }),
];

#[tokio::test]
async fn a_wrong_assertion_is_rejected_at_par_and_at_the_token_endpoint() {
    let plan = Deployment::start(Variant::PrivateKey).await;
    let party = &plan.parties[0];
    plan.first_tokens(party).await;
    let old = ClientKey::generate("RS256", "key-2");
    plan.world
        .change_client(|client| client.json_web_key_set = key_set(&[&party.signer, &old]));
    let issued = tokens_issued(&plan.world).await;
    let mut lines = Lines::default();
    for (endpoint, fields) in plan.endpoints(party) {
        let send = async |request: Request| {
            let request = request.header("DPoP", plan.proof(&party.prover, endpoint));
            request.send(&plan.world).await
        };
        for (line, change) in CLAIMS {
            let assertion = plan.assertion(party, |_, claims| change(&plan, claims));
            let answer = send(plan.asserted(endpoint, &fields, &assertion)).await;
            lines.rejected(&format!("{line} at {endpoint}"), &answer, 401, "invalid_client");
        }
        let rs256 = plan.assertion_by(&old, party, |_, _| ());
        let answer = send(plan.asserted(endpoint, &fields, &rs256)).await;
        lines.rejected(
            &format!("an RS256 assertion at {endpoint}"),
            &answer,
            401,
            "invalid_client",
        );
        let answer = send(plan.bare(party, endpoint, &fields)).await;
        lines.rejected(
            &format!("no client assertion at {endpoint}"),
            &answer,
            401,
            "invalid_client",
        );
    }
    assert_eq!(tokens_issued(&plan.world).await, issued);
    lines.accepted(
        "the same without a mistake",
        &plan.token(party, &[CREDENTIALS]).await,
    );
}

#[tokio::test]
async fn a_wrong_authorization_request_is_rejected() {
    for variant in Variant::ALL {
        let plan = Deployment::start(variant).await;
        let party = &plan.parties[1];
        let mut lines = Lines::default();
        let reference = plan.pushed(party).await;
        let other = plan.parties[0].redirect_uri;
        let longer = format!("{}&more=1", party.redirect_uri);
        let decoded = party.redirect_uri.replace("lorem", "%6Corem");
        for (line, name, value, error) in [
            (
                "response_type token",
                "response_type",
                "token",
                "unsupported_response_type",
            ),
            (
                "response_type code id_token",
                "response_type",
                "code id_token",
                "unsupported_response_type",
            ),
            ("PAR without redirect URI", "redirect_uri", "", "invalid_request"),
            (
                "PAR with a redirect URI that is not registered",
                "redirect_uri",
                other,
                "invalid_request",
            ),
            (
                "PAR with one more parameter in the redirect URI",
                "redirect_uri",
                &longer,
                "invalid_request",
            ),
            (
                "PAR with a redirect URI in another encoding",
                "redirect_uri",
                &decoded,
                "invalid_request",
            ),
            (
                "PAR that carries request_uri",
                "request_uri",
                &reference,
                "invalid_request",
            ),
            ("no code_challenge", "code_challenge", "", "invalid_request"),
            (
                "code_challenge_method plain",
                "code_challenge_method",
                "plain",
                "invalid_request",
            ),
            (
                "no code_challenge_method",
                "code_challenge_method",
                "",
                "invalid_request",
            ),
        ] {
            let fields = with(plan.parameters(party), &[(name, value)]);
            lines.rejected(line, &plan.push(party, &fields).await, 400, error);
        }
        let fields = with(plan.parameters(party), &[("client_id", &party.client_id)]);
        let query = encoded(&fields);
        let get = Request::get(format!("/acme/oauth2/par?{query}"))
            .send(&plan.world)
            .await;
        lines.holds("GET on PAR", get.status == 405, &get);
        let direct = Request::get(format!("/acme/oauth2/authorize?{query}"));
        let direct = direct.send(&plan.world).await;
        let location = direct.header("location").unwrap_or_default().to_owned();
        let error = format!("{}&error=invalid_request&", party.redirect_uri);
        lines.holds(
            "no PAR",
            location.starts_with(&error) && direct.status == 303,
            &direct,
        );
        lines.accepted(
            "the same without a mistake",
            &plan.push(party, &plan.parameters(party)).await,
        );
    }
}

#[tokio::test]
async fn whoever_holds_no_key_pushes_no_request() {
    for variant in Variant::ALL {
        let plan = Deployment::start(variant).await;
        let [first, second] = &plan.parties;
        let mut lines = Lines::default();
        let fields = plan.parameters(first);
        let bare = plan.bare(first, "par", &fields);
        let mut requests = vec![("no client authentication", bare.clone())];
        match &second.certificate {
            None => {
                let proof = plan.proof(&first.prover, "par");
                requests.push(("a proof alone", bare.header("DPoP", proof)));
                let forged = plan.assertion_by(&second.signer, first, |_, _| ());
                requests.push((
                    "another client's assertion",
                    plan.asserted("par", &fields, &forged),
                ));
            }
            Some(others) => {
                requests.push(("no certificate", bare.clone().host_of_partners()));
                requests.push(("another client's certificate", bare.clone().certificate(others)));
                let own = Pair::self_signed(&Subject::default(), KeyKind::P256);
                requests.push(("a certificate that nobody signed", bare.certificate(&own)));
            }
        }
        for (line, request) in requests {
            let answer = request.send(&plan.world).await;
            lines.rejected(&format!("{line} at PAR"), &answer, 401, "invalid_client");
        }
    }
}

#[tokio::test]
async fn a_request_uri_of_another_client_expired_or_used_is_rejected() {
    for variant in Variant::ALL {
        let plan = Deployment::start(variant).await;
        let [first, second] = &plan.parties;
        let mut lines = Lines::default();
        let open = async |client_id: &str, request_uri: &str| {
            Request::get(target(client_id, request_uri))
                .send(&plan.world)
                .await
        };
        let reference = plan.pushed(first).await;
        let answer = open(&second.client_id, &reference).await;
        lines.holds("a request_uri of another client", answer.status == 400, &answer);
        plan.decide(first, &reference, "approve").await;
        let answer = open(&first.client_id, &reference).await;
        lines.holds(
            "a request_uri used after its approval",
            answer.status == 409,
            &answer,
        );
        let reference = plan.pushed(second).await;
        plan.decide(second, &reference, "deny").await;
        let answer = open(&second.client_id, &reference).await;
        lines.holds(
            "a request_uri used after its decline",
            answer.status == 409,
            &answer,
        );
        let reference = plan.pushed(first).await;
        plan.world.clock().advance(Duration::from_secs(90));
        let answer = open(&first.client_id, &reference).await;
        lines.holds("a request_uri expired", answer.status == 400, &answer);
    }
}

#[tokio::test]
async fn the_person_who_declines_gives_access_denied_with_state_and_iss() {
    for variant in Variant::ALL {
        let plan = Deployment::start(variant).await;
        let mut lines = Lines::default();
        for party in &plan.parties {
            let reference = plan.pushed(party).await;
            let url = plan.decide(party, &reference, "deny").await;
            let has = |name: &str, value: &str| parameter(&url, name).as_deref() == Some(value);
            lines.holds("access_denied", has("error", "access_denied"), &url);
            lines.holds("access_denied with state", has("state", "xyz"), &url);
            lines.holds("access_denied with iss", has("iss", &plan.world.issuer), &url);
            lines.holds(
                "access_denied without a code",
                parameter(&url, "code").is_none(),
                &url,
            );
            lines.holds(
                "access_denied with the query of the redirect URI",
                url.as_str().starts_with(party.redirect_uri),
                &url,
            );
            let without = without(plan.parameters(party), "state");
            let reference = plan.push(party, &without).await.text("request_uri");
            let url = plan.decide(party, &reference, "deny").await;
            let is_bare = parameter(&url, "state").is_none();
            lines.holds("access_denied without the state that was not sent", is_bare, &url);
        }
        assert_eq!(tokens_issued(&plan.world).await, 0);
    }
}
