//! DPoP: a proof names the URL that the metadata has, which is the gateway's, and the next nonce reaches the client.

use accord::{
    clock::{Clock, SystemClock},
    registry::v1 as reg,
    testing::dpop::ProofKey,
};
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{CREDENTIALS, Fields, Stage, assert_rejected, json, verifier};
use crate::{
    harness::partner::{Partner, REDIRECT_URI, SCOPES, by_key, challenge, key_set},
    oauth_clients::admin::{Decision, parameter},
};

tests!(a_proof_names_the_public_url_and_the_nonce_passes_the_gateway,);

/// A partner that authenticates by a key, and proves with each call that it holds it.
struct Prover<'a> {
    stage: &'a Stage,
    key: ProofKey,
    partner: Partner,
    /// The newest nonce of the authority.
    nonce: Option<String>,
}

impl Prover<'_> {
    /// A proof for this URL with the newest nonce.
    fn proof(&self, url: &str) -> String {
        self.key.altered(url, SystemClock.now().as_secs(), |_, claims| {
            claims["nonce"] = self.nonce.as_deref().into();
        })
    }

    /// Posts a form with these proofs to a URL.
    async fn send(&mut self, url: &str, proofs: &[String], fields: &Fields<'_>) -> (StatusCode, Value) {
        let authority = &self.stage.world.target.tenant_authority_url;
        let authentication = by_key(&self.key, &self.partner, authority);
        let mut form = fields.clone();
        form.extend(authentication.iter().map(|(name, value)| (*name, &**value)));
        let request = self.stage.gateway.client().post(url).form(&form);
        let request = proofs
            .iter()
            .fold(request, |request, proof| request.header("DPoP", proof));
        let response = request.send().await.unwrap();
        if let Some(nonce) = response.headers().get("dpop-nonce") {
            self.nonce = Some(nonce.to_str().unwrap().to_owned());
        }
        (response.status(), response.json().await.unwrap())
    }

    /// Does the same with one proof, for this `htu`.
    async fn prove(&mut self, url: &str, htu: &str, fields: &Fields<'_>) -> (StatusCode, Value) {
        let proof = self.proof(htu);
        self.send(url, &[proof], fields).await
    }
}

async fn a_proof_names_the_public_url_and_the_nonce_passes_the_gateway() {
    let stage = Stage::start().await;
    let key = ProofKey::es256();
    let request = reg::SubmitIntegrationRequestRequest {
        security_profile: reg::SecurityProfile::Fapi20.into(),
        token_endpoint_auth_method: "private_key_jwt".into(),
        json_web_key_set: key_set(&key),
        ..Default::default()
    };
    let jkt = key.jkt();
    let mut prover = Prover {
        stage: &stage,
        key,
        partner: stage.world.partner_with(request).await,
        nonce: None,
    };
    let par = stage.url("pushed_authorization_request_endpoint");
    let token = stage.url("token_endpoint");
    for url in [&par, &token] {
        assert!(url.starts_with(&stage.gateway.url()), "{url}");
    }
    // As token-service sees its own address, and as a proxy may have changed the call.
    let inside = |url: &str| {
        let address = format!("https://{}", stage.services.token_http);
        url.replace(&stage.gateway.url(), &address)
    };
    let wrong = |url: &str| {
        [
            inside(url),
            url.replace("https:", "http:"),
            url.replace("localhost", "127.0.0.1"),
            url.replace(&stage.gateway.url(), "https://localhost"),
        ]
    };

    let (verifier, error) = (verifier(), "invalid_dpop_proof");
    let (challenge, client_id) = (challenge(&verifier), prover.partner.client_id.clone());
    let fields = vec![
        ("response_type", "code"),
        ("client_id", &*client_id),
        ("redirect_uri", REDIRECT_URI),
        ("code_challenge", &*challenge),
        ("code_challenge_method", "S256"),
    ];
    let answer = prover.prove(&par, &par, &fields).await;
    assert_rejected("PAR without a nonce", &answer, 400, "use_dpop_nonce");
    for htu in wrong(&par) {
        let answer = prover.prove(&par, &htu, &fields).await;
        assert_rejected(&format!("PAR with a proof for {htu}"), &answer, 400, error);
    }
    let (status, answer) = prover.prove(&par, &par, &fields).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    let request_uri = answer["request_uri"].as_str().unwrap();
    let url = stage.authorization_url(&client_id, request_uri);
    let back = stage.decide(&url, Decision::Approve(&SCOPES)).await;
    let code = parameter(&back, "code").unwrap();

    let by_code = vec![
        ("grant_type", "authorization_code"),
        ("code", &*code),
        ("redirect_uri", REDIRECT_URI),
        ("code_verifier", &*verifier),
    ];
    // Its nonce is the one that came with the success of PAR, and then each time the one of the last success.
    let mut refresh_token = String::new();
    for grant in [
        "authorization_code",
        "refresh_token",
        "refresh_token",
        "client_credentials",
    ] {
        let fields = match grant {
            "authorization_code" => by_code.clone(),
            "refresh_token" => vec![("grant_type", grant), ("refresh_token", &*refresh_token)],
            _ => vec![CREDENTIALS],
        };
        for htu in wrong(&token) {
            let answer = prover.prove(&token, &htu, &fields).await;
            assert_rejected(&format!("{grant} with a proof for {htu}"), &answer, 400, error);
        }
        let two = [(); 2].map(|()| prover.proof(&token));
        let answer = prover.send(&token, &two, &fields).await;
        assert_rejected(&format!("{grant} with two DPoP headers"), &answer, 400, error);
        let before = prover.nonce.clone();
        let (status, answer) = prover.prove(&token, &token, &fields).await;
        assert_eq!(status, StatusCode::OK, "{grant}: {answer}");
        assert_ne!(
            prover.nonce, before,
            "{grant}: the next nonce comes with a success"
        );
        assert_eq!(answer["token_type"], "DPoP", "{grant}");
        let introspected = stage.introspect(&answer).await;
        assert_eq!(introspected.cnf.unwrap().jkt, jkt, "{grant}");
        if let Some(token) = answer["refresh_token"].as_str() {
            refresh_token = token.to_owned();
        }
    }

    // As JSON, which becomes gRPC behind the gateway: the proof is for the token endpoint all the same.
    let method = format!("{}/accord.token.v1.TokenService/IssueToken", stage.gateway.url());
    let ask = async |prover: &Prover<'_>, htu: &str| {
        let authority = &stage.world.target.tenant_authority_url;
        let [_, (_, assertion)] = by_key(&prover.key, &prover.partner, authority);
        let message = json!({
            "tenant_id": stage.world.target.tenant_id,
            "client_assertion": assertion,
            "client_credentials": {},
            "dpop_proof": prover.proof(htu),
        });
        json(stage.gateway.client().post(&method).json(&message)).await
    };
    for htu in [&*method, &inside(&token)] {
        let (status, answer) = ask(&prover, htu).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{htu}: {answer}");
        assert_eq!(
            answer["details"][0]["reason"], "INVALID_DPOP_PROOF",
            "{htu}: {answer}"
        );
    }
    let nonce = prover.nonce.take();
    let (_, answer) = ask(&prover, &token).await;
    let info = &answer["details"][0];
    assert_eq!(info["reason"], "USE_DPOP_NONCE", "{answer}");
    assert!(info["metadata"]["dpop_nonce"].is_string(), "{answer}");
    prover.nonce = nonce;
    let (status, answer) = ask(&prover, &token).await;
    assert_eq!(
        (status, &answer["token_type"]),
        (StatusCode::OK, &json!("DPoP")),
        "{answer}"
    );
}
