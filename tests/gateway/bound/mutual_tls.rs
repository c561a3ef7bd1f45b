//! Mutual TLS: for a certificate that an authority below `--partner-ca` has signed, and for one in the client's key set.

use accord::{
    registry::v1 as reg,
    testing::certificates::{Authority, KeyKind, Pair, Subject},
    text::{jwk::certificate::public_key, opaque::sha256},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use url::Url;

use super::{CREDENTIALS, Fields, Stage, assert_rejected, json, verifier};
use crate::{
    harness::partner::{Partner, REDIRECT_URI, SCOPES, challenge},
    oauth_clients::admin::{Decision, parameter},
};

tests!(the_lines_about_mutual_tls_hold_for_a_chain_and_for_a_self_signed_certificate,);

/// The name in the certificate of the partner that an authority has signed.
const NAME: &str = "client.partner.example";
/// The redirect URI of the other partner, whose query must survive.
const WITH_QUERY: &str = "https://app.example/callback?dummy1=lorem&dummy2=ipsum";

/// A partner of the FAPI 2.0 Security Profile that authenticates by a certificate.
struct Party {
    partner: Partner,
    redirect_uri: &'static str,
    /// Presents its certificate.
    http: Client,
    thumbprint: String,
}

impl Stage {
    /// The URL of an endpoint for partners with certificates.
    fn alias(&self, endpoint: &str) -> String {
        let aliases = &self.metadata["mtls_endpoint_aliases"];
        aliases[endpoint].as_str().unwrap().to_owned()
    }

    /// Registers a partner whose certificate an authority below `--partner-ca` has signed.
    async fn party_of_an_authority(&self, between: &Authority) -> Party {
        let pair = between.issue(&named());
        let request = reg::SubmitIntegrationRequestRequest {
            token_endpoint_auth_method: "tls_client_auth".into(),
            tls_client_auth_san_dns: NAME.into(),
            ..Default::default()
        };
        let chain = format!("{}{}", pair.certificate, between.certificate);
        self.party(request, REDIRECT_URI, &pair, &chain).await
    }

    /// Registers a partner whose certificate is in its key set.
    async fn party_with_its_own_certificate(&self) -> Party {
        let pair = Pair::self_signed(&named(), KeyKind::Rsa2048);
        let mut key = public_key(&pair.der()).unwrap();
        key["x5c"] = json!([STANDARD.encode(pair.der())]);
        let request = reg::SubmitIntegrationRequestRequest {
            token_endpoint_auth_method: "self_signed_tls_client_auth".into(),
            json_web_key_set: json!({ "keys": [key] }).to_string(),
            ..Default::default()
        };
        self.party(request, WITH_QUERY, &pair, &pair.certificate).await
    }

    async fn party(
        &self,
        request: reg::SubmitIntegrationRequestRequest,
        redirect_uri: &'static str,
        pair: &Pair,
        chain: &str,
    ) -> Party {
        let request = reg::SubmitIntegrationRequestRequest {
            security_profile: reg::SecurityProfile::Fapi20.into(),
            redirect_uris: vec![redirect_uri.into()],
            ..request
        };
        Party {
            partner: self.world.partner_with(request).await,
            redirect_uri,
            http: self.gateway.client_with(&format!("{}{chain}", pair.private_key)),
            thumbprint: URL_SAFE_NO_PAD.encode(sha256(&pair.der())),
        }
    }

    /// Posts a form to an endpoint for partners with certificates.
    async fn post(&self, http: &Client, endpoint: &str, fields: &Fields<'_>) -> (StatusCode, Value) {
        json(http.post(self.alias(endpoint)).form(fields)).await
    }

    async fn push(&self, party: &Party, fields: &Fields<'_>) -> (StatusCode, Value) {
        let endpoint = "pushed_authorization_request_endpoint";
        self.post(&party.http, endpoint, fields).await
    }

    async fn token(&self, party: &Party, fields: &Fields<'_>) -> (StatusCode, Value) {
        let fields = with(fields.clone(), "client_id", &party.partner.client_id);
        self.post(&party.http, "token_endpoint", &fields).await
    }

    /// Pushes a request of a partner. Returns its reference.
    async fn pushed(&self, party: &Party, fields: &Fields<'_>) -> String {
        let (status, answer) = self.push(party, fields).await;
        assert_eq!(status, StatusCode::CREATED, "{answer}");
        answer["request_uri"].as_str().unwrap().to_owned()
    }

    /// A code of a request that a partner has pushed with these fields.
    async fn code(&self, party: &Party) -> String {
        let challenge = challenge(&verifier());
        let request_uri = self.pushed(party, &party.parameters(&challenge)).await;
        let url = self.authorization_url(&party.partner.client_id, &request_uri);
        let back = self.decide(&url, Decision::Approve(&SCOPES)).await;
        parameter(&back, "code").unwrap()
    }

    /// Asserts that an answer has a token that is bound to the certificate of a partner. Returns its refresh token.
    async fn assert_bound(&self, party: &Party, line: &str, answer: (StatusCode, Value)) -> String {
        let (status, answer) = answer;
        assert_eq!(status, StatusCode::OK, "{line}: {answer}");
        assert_eq!(answer["token_type"], "Bearer", "{line}");
        let introspected = self.introspect(&answer).await;
        assert_eq!(introspected.active, Some(true), "{line}");
        assert_eq!(introspected.client_id, party.partner.client_id, "{line}");
        assert_eq!(introspected.cnf.unwrap().x5t_s256, party.thumbprint, "{line}");
        answer["refresh_token"].as_str().unwrap_or_default().to_owned()
    }
}

impl Party {
    /// The parameters of an authorization request that is as it should be.
    fn parameters<'a>(&'a self, challenge: &'a str) -> Fields<'a> {
        vec![
            ("response_type", "code"),
            ("client_id", &self.partner.client_id),
            ("redirect_uri", self.redirect_uri),
            ("state", "xyz"),
            ("code_challenge", challenge),
            ("code_challenge_method", "S256"),
        ]
    }

    /// The fields that redeem a code of this partner.
    fn by_code<'a>(&self, code: &'a str, verifier: &'a str) -> Fields<'a> {
        vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", self.redirect_uri),
            ("code_verifier", verifier),
        ]
    }
}

fn named() -> Subject {
    Subject {
        dns_names: vec![NAME],
        ..Subject::default()
    }
}

/// The fields with another value of one of them, or without it if the value is empty.
fn with<'a>(mut fields: Fields<'a>, name: &'a str, value: &'a str) -> Fields<'a> {
    fields.retain(|(known, _)| *known != name);
    fields.extend((!value.is_empty()).then_some((name, value)));
    fields
}

async fn the_lines_about_mutual_tls_hold_for_a_chain_and_for_a_self_signed_certificate() {
    let stage = Stage::start().await;
    let between = stage.root.intermediate("between");
    let chained = stage.party_of_an_authority(&between).await;
    let own = stage.party_with_its_own_certificate().await;
    for (party, other) in [(&chained, &own), (&own, &chained)] {
        accepted(&stage, party).await;
        rejected_of_codes(&stage, party, other).await;
        rejected_of_requests(&stage, party, other).await;
        rejected_without_the_certificate(&stage, party, other).await;
    }

    // The name and the authority's name alone authenticate nobody, nor does half of a chain.
    let leaf = between.issue(&named());
    let imitated = Authority::new("partners").intermediate("between");
    let stranger = imitated.issue(&named());
    for (line, chain, key) in [
        ("a chain without its middle", leaf.certificate.clone(), &leaf),
        (
            "a chain up to another authority of that name",
            format!("{}{}", stranger.certificate, imitated.certificate),
            &stranger,
        ),
        (
            "the right middle below another certificate",
            format!("{}{}", stranger.certificate, between.certificate),
            &stranger,
        ),
    ] {
        let http = stage.gateway.client_with(&format!("{}{chain}", key.private_key));
        let fields = vec![CREDENTIALS, ("client_id", &*chained.partner.client_id)];
        let answer = stage.post(&http, "token_endpoint", &fields).await;
        assert_rejected(line, &answer, 401, "invalid_client");
    }
    // A renewed certificate of the same authority is the client's, and its tokens are bound to the new one.
    let pem = format!("{}{}{}", leaf.private_key, leaf.certificate, between.certificate);
    let renewed = Party {
        http: stage.gateway.client_with(&pem),
        thumbprint: URL_SAFE_NO_PAD.encode(sha256(&leaf.der())),
        ..chained
    };
    let answer = stage.token(&renewed, &vec![CREDENTIALS]).await;
    stage
        .assert_bound(&renewed, "a renewed certificate", answer)
        .await;
}

async fn accepted(stage: &Stage, party: &Party) {
    let (verifier, state) = (verifier(), "state-".repeat(30));
    let challenge = challenge(&verifier);
    let client_id = &party.partner.client_id;
    let fields = with(party.parameters(&challenge), "state", &state);
    let request_uri = stage.pushed(party, &fields).await;
    let url = stage.authorization_url(client_id, &request_uri);
    let beside =
        format!("{url}&state=of+the+link&response_type=token&redirect_uri=https%3A%2F%2Fevil.example%2F");
    assert_eq!(
        stage.open(&beside).await,
        StatusCode::OK,
        "a request_uri opened before"
    );
    let back = stage.decide(&beside, Decision::Approve(&SCOPES)).await;
    assert!(
        back.as_str().starts_with(party.redirect_uri),
        "the query of the redirect URI survives: {back}"
    );
    assert_eq!(
        parameter(&back, "state"),
        Some(state),
        "a long state, and not the link's"
    );
    assert_eq!(parameter(&back, "iss"), Some(stage.url("issuer")), "iss");
    let code = parameter(&back, "code").unwrap();
    let answer = stage.token(party, &party.by_code(&code, &verifier)).await;
    let refresh_token = stage.assert_bound(party, "the code", answer).await;
    let renewal = vec![
        ("grant_type", "refresh_token"),
        ("refresh_token", &*refresh_token),
    ];
    let answer = stage.token(party, &renewal).await;
    let last = stage.assert_bound(party, "a renewal", answer).await;
    assert_eq!(
        last, refresh_token,
        "refresh tokens are not rotated under the profile"
    );
    let answer = stage.token(party, &vec![CREDENTIALS]).await;
    stage.assert_bound(party, "client credentials", answer).await;

    let again = stage.token(party, &party.by_code(&code, &verifier)).await;
    assert_rejected("a code used again", &again, 400, "invalid_grant");
}

async fn rejected_of_codes(stage: &Stage, party: &Party, other: &Party) {
    let verifier = verifier();
    let code = stage.code(party).await;
    let foreign = stage.token(other, &party.by_code(&code, &verifier)).await;
    assert_rejected("a code of another client", &foreign, 400, "invalid_grant");
}

async fn rejected_of_requests(stage: &Stage, party: &Party, other: &Party) {
    let challenge = challenge(&verifier());
    let right = || party.parameters(&challenge);
    let request_uri = stage.pushed(party, &right()).await;
    let with_query = |url: String| Url::parse_with_params(&url, right()).unwrap();
    let par = with_query(stage.alias("pushed_authorization_request_endpoint"));
    assert_rejected(
        "GET on PAR",
        &json(party.http.get(par)).await,
        405,
        "invalid_request",
    );
    let direct = with_query(stage.url("authorization_endpoint"));
    let back = stage.decide(direct.as_str(), Decision::Approve(&SCOPES)).await;
    assert_eq!(
        parameter(&back, "error").as_deref(),
        Some("invalid_request"),
        "no PAR"
    );

    let foreign = stage.authorization_url(&other.partner.client_id, &request_uri);
    assert_eq!(
        stage.open(&foreign).await,
        StatusCode::BAD_REQUEST,
        "a request_uri of another client"
    );
    let url = stage.authorization_url(&party.partner.client_id, &request_uri);
    let back = stage.decide(&url, Decision::Deny).await;
    for (name, value) in [
        ("error", Some("access_denied".to_owned())),
        ("state", Some("xyz".to_owned())),
        ("iss", Some(stage.url("issuer"))),
        ("code", None),
    ] {
        assert_eq!(parameter(&back, name), value, "the person who declines: {name}");
    }
    assert_eq!(
        stage.open(&url).await,
        StatusCode::CONFLICT,
        "a request_uri used after its decision"
    );
}

async fn rejected_without_the_certificate(stage: &Stage, party: &Party, other: &Party) {
    let challenge = challenge(&verifier());
    let none = stage.gateway.client();
    for (endpoint, fields) in [
        (
            "pushed_authorization_request_endpoint",
            party.parameters(&challenge),
        ),
        (
            "token_endpoint",
            vec![CREDENTIALS, ("client_id", &*party.partner.client_id)],
        ),
    ] {
        for (line, http) in [("no certificate", none), ("another client's", &other.http)] {
            let answer = stage.post(http, endpoint, &fields).await;
            assert_rejected(&format!("{line} at {endpoint}"), &answer, 401, "invalid_client");
        }
        // The listener for browsers asks for none.
        let answer = json(party.http.post(stage.url(endpoint)).form(&fields)).await;
        assert_rejected(
            &format!("{endpoint} for browsers"),
            &answer,
            401,
            "invalid_client",
        );
    }
}
