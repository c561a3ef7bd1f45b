//! TLS of the listener, and the metadata that a client finds by it.

use accord::testing::certificates::{Authority, Subject};
use serde_json::json;
use tokio_rustls::rustls::{
    CipherSuite,
    crypto::{CryptoProvider, aws_lc_rs},
    version::TLS13,
};

use super::{Deployment, Lines, Variant};
use crate::{
    http::{
        Request,
        client::MTLS_HOST,
        connection::{connect, tls_with},
    },
    world::World,
};

/// The suites of TLS 1.2 that the profile allows (§5.2), for a server whose key is one of ECDSA.
const SUITES_OF_1_2: [CipherSuite; 2] = [
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
];

#[tokio::test]
async fn tls_is_1_3_or_1_2_with_ecdhe_and_aes_gcm_only() {
    let (authority, directory) = (Authority::new("workloads"), tempfile::tempdir().unwrap());
    let (certificate, key) = authority
        .issue(&Subject::localhost())
        .write(directory.path(), "server");
    let client_ca = authority.write(directory.path(), "ca.pem");
    for oldest in ["1.3", "1.2"] {
        let world = World::start_with(|settings| {
            settings.service.tls_certificate = certificate.clone();
            settings.service.tls_private_key = key.clone();
            settings.service.client_ca = client_ca.clone();
            settings.service.tls_min_version = oldest.into();
        })
        .await;
        let mut lines = Lines::default();
        for suite in aws_lc_rs::ALL_CIPHER_SUITES {
            let provider = CryptoProvider {
                cipher_suites: vec![*suite],
                ..aws_lc_rs::default_provider()
            };
            let is_right =
                suite.version() == &TLS13 || (oldest == "1.2" && SUITES_OF_1_2.contains(&suite.suite()));
            let config = tls_with(provider, authority.certificate.as_bytes(), None);
            let connected = connect(world.http_address(), "localhost", config).await;
            let line = format!("from {oldest} on, {:?}", suite.suite());
            lines.holds(&line, connected.is_ok() == is_right, &connected.map(drop));
        }
    }
}

#[tokio::test]
async fn the_metadata_names_what_the_plan_uses() {
    let plan = Deployment::start(Variant::PrivateKey).await;
    let path = "/.well-known/oauth-authorization-server/acme";
    let document = Request::get(path).send(&plan.world).await.json();
    let mut lines = Lines::default();
    for (name, value) in [
        ("issuer", plan.world.issuer.clone()),
        ("authorization_endpoint", plan.url("authorize")),
        ("pushed_authorization_request_endpoint", plan.url("par")),
        ("token_endpoint", plan.url("token")),
    ] {
        lines.holds(name, document[name] == value, &document[name]);
        lines.holds("https throughout", value.starts_with("https://"), &value);
    }
    let alias = &document["mtls_endpoint_aliases"];
    for (name, endpoint) in [
        ("token_endpoint", "token"),
        ("pushed_authorization_request_endpoint", "par"),
    ] {
        let url = format!("https://{MTLS_HOST}/acme/oauth2/{endpoint}");
        lines.holds("mtls_endpoint_aliases", alias[name] == url, alias);
    }
    for name in [
        "authorization_response_iss_parameter_supported",
        "tls_client_certificate_bound_access_tokens",
    ] {
        lines.holds(name, document[name] == true, &document[name]);
    }
    for (name, value) in [
        ("token_endpoint_auth_methods_supported", "private_key_jwt"),
        ("token_endpoint_auth_methods_supported", "tls_client_auth"),
        ("token_endpoint_auth_signing_alg_values_supported", "PS256"),
        ("token_endpoint_auth_signing_alg_values_supported", "ES256"),
        ("dpop_signing_alg_values_supported", "PS256"),
        ("dpop_signing_alg_values_supported", "ES256"),
        ("code_challenge_methods_supported", "S256"),
        ("response_types_supported", "code"),
        ("grant_types_supported", "authorization_code"),
        ("grant_types_supported", "refresh_token"),
        ("grant_types_supported", "client_credentials"),
    ] {
        let values = document[name].as_array();
        let has = values.is_some_and(|values| values.contains(&json!(value)));
        lines.holds(&format!("{name} has {value}"), has, &document[name]);
    }
}
