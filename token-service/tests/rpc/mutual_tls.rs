//! Clients that present certificates (RFC 8705): on our own listeners, and through a gateway. TLS is real; the registry
//! is not.

use std::time::Duration;

use accord::{
    rpc::auth::WorkloadKind,
    testing::{
        TEST_START,
        certificates::{Authority, KeyKind, Pair, Subject},
    },
    text::jwk::certificate::public_key,
    token::v1::{self as pb, token_service_client::TokenServiceClient},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use token_service::{config::Settings, model::client::key_set::ClientKeySet};
use tonic::{
    Code,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use crate::{
    harness::{assert_rejected, ok},
    http::{MTLS_HOST, connection::thumbprint, token::CREDENTIALS},
    world::{World, confirmation, tls::Authorities},
};

/// The name of the gateway's certificate.
pub const GATEWAY: &str = "gateway.internal";

/// A token-service with TLS, whose test client authenticates by a certificate of an authority of partners.
struct Stage {
    world: World,
    /// Signs the service and its callers.
    workloads: Authority,
    /// Signs partners.
    partners: Authority,
    /// From the authority of partners up to that of workloads.
    chain: String,
    _directory: TempDir,
}

fn subject() -> Subject {
    Subject {
        dns_names: vec!["client.partner.example"],
        is_for_servers: false,
        ..Subject::default()
    }
}

impl Stage {
    async fn start(change: impl FnOnce(&mut Settings)) -> Self {
        let (world, authorities) = World::start_with_tls(&[MTLS_HOST], change).await;
        let Authorities {
            workloads,
            partners,
            chain,
            directory,
        } = authorities;
        world.first_tokens().await;
        world.change_client(|client| {
            client.token_endpoint_auth_method = "tls_client_auth".into();
            client.tls_client_auth_san_dns = "client.partner.example".into();
        });
        world.harness().cache.catch_up_or_log().await;
        let registry = world.registry();
        registry.add_named_workload(WorkloadKind::Gateway, GATEWAY);
        registry.add_named_workload(WorkloadKind::InternalService, "api.internal");
        Self {
            world,
            workloads,
            partners,
            chain,
            _directory: directory,
        }
    }

    /// An HTTP client with this certificate.
    fn client(&self, pair: Option<&Pair>) -> Client {
        let authority = reqwest::Certificate::from_pem(self.workloads.certificate.as_bytes()).unwrap();
        let client = Client::builder().tls_certs_only([authority]).no_proxy();
        let client = client
            .resolve(MTLS_HOST, self.world.http_address())
            .resolve("localhost", self.world.http_address());
        let client = match pair {
            None => client,
            Some(pair) => {
                let pem = format!("{}{}", pair.private_key, pair.certificate);
                client.identity(reqwest::Identity::from_pem(pem.as_bytes()).unwrap())
            }
        };
        client.build().unwrap()
    }

    /// Posts a form of the test client to an endpoint.
    async fn post(&self, client: &Client, endpoint: &str, fields: &[(&str, &str)]) -> Response {
        self.post_with(client, endpoint, fields, &[]).await
    }

    async fn post_with(
        &self,
        client: &Client,
        endpoint: &str,
        fields: &[(&str, &str)],
        headers: &[(&str, &str)],
    ) -> Response {
        let port = self.world.http_address().port();
        let mut request = client.post(format!("https://localhost:{port}/acme/oauth2/{endpoint}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut form = vec![("client_id", self.world.client_id.as_str())];
        form.extend(fields);
        request.form(&form).send().await.unwrap()
    }

    async fn channel(&self, pair: Option<&Pair>) -> Channel {
        let address = self.world.harness().grpc_address;
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&self.workloads.certificate));
        let tls = match pair {
            None => tls,
            Some(pair) => tls.identity(Identity::from_pem(&pair.certificate, &pair.private_key)),
        };
        let endpoint = Endpoint::from_shared(format!("https://localhost:{}", address.port())).unwrap();
        endpoint.tls_config(tls).unwrap().connect().await.unwrap()
    }

    /// A request of the test client without a proof.
    fn bare(&self) -> pb::IssueTokenRequest {
        pb::IssueTokenRequest {
            client_authentication: None,
            ..self.world.by_client_credentials()
        }
    }
}

async fn token(answer: Response) -> String {
    assert_eq!(answer.status(), StatusCode::OK);
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["token_type"], "Bearer");
    body["access_token"].as_str().unwrap().to_owned()
}

async fn assert_error(answer: Response, status: u16, code: &str) {
    assert_eq!(answer.status().as_u16(), status);
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["error"], code, "{body}");
}

/// The header that Envoy writes for a client with this certificate.
pub fn xfcc(pair: &Pair) -> String {
    let cert = utf8_percent_encode(&pair.certificate, NON_ALPHANUMERIC);
    format!("Hash=00;Cert=\"{cert}\";Subject=\"CN=x\"")
}

#[tokio::test]
async fn a_certificate_of_an_authority_of_partners_authenticates_and_binds() {
    let stage = Stage::start(|_| ()).await;
    let pair = stage.partners.issue(&subject());
    let client = stage.client(Some(&pair));
    let issued = token(stage.post(&client, "token", &[CREDENTIALS]).await).await;
    let bound = json!({"x5t#S256": thumbprint(&pair)});
    assert_eq!(confirmation(&issued), bound);
    // The other endpoints take it, too.
    let answer = stage.post(&client, "introspect", &[("token", &issued)]).await;
    let body: Value = answer.json().await.unwrap();
    assert_eq!((&body["active"], &body["cnf"]), (&json!(true), &bound));
    let answer = stage.post(&client, "revoke", &[("token", &issued)]).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let answer = stage.post(&client, "introspect", &[("token", &issued)]).await;
    assert_eq!(answer.json::<Value>().await.unwrap(), json!({"active": false}));
    // gRPC as well.
    let mut tokens = TokenServiceClient::new(stage.channel(Some(&pair)).await);
    let issued = ok(tokens.issue_token(stage.bare()).await);
    assert_eq!(confirmation(&issued.access_token), bound);
    let request = pb::IntrospectTokenRequest {
        client_authentication: None,
        ..stage.world.client.introspecting(&issued.access_token)
    };
    let introspected = ok(tokens.introspect_token(request).await);
    assert_eq!(introspected.cnf.unwrap().x5t_s256, thumbprint(&pair));
    let request = pb::RevokeTokenRequest {
        client_authentication: None,
        ..stage.world.client.revoking(&issued.access_token)
    };
    ok(tokens.revoke_token(request).await);
}

#[tokio::test]
async fn no_other_certificate_authenticates() {
    let stage = Stage::start(|_| ()).await;
    let other_name = stage.partners.issue(&Subject {
        dns_names: vec!["other.partner.example"],
        ..subject()
    });
    let imitated = Authority::new("partners").issue(&subject());
    let of_workloads = stage.workloads.issue(&subject());
    let self_signed = Pair::self_signed(&subject(), KeyKind::P256);
    let expired = stage.partners.issue(&Subject {
        not_after: accord::clock::UnixMillis::from_millis(1_600_000_000_000),
        ..subject()
    });
    for pair in [&other_name, &imitated, &of_workloads, &self_signed, &expired] {
        let answer = stage
            .post(&stage.client(Some(pair)), "token", &[CREDENTIALS])
            .await;
        assert_error(answer, 401, "invalid_client").await;
        let mut tokens = TokenServiceClient::new(stage.channel(Some(pair)).await);
        let refused = tokens.issue_token(stage.bare()).await;
        assert_rejected(refused, Code::Unauthenticated, "INVALID_CLIENT");
    }
    // None at all, and one that is only told of.
    let pair = stage.partners.issue(&subject());
    let (none, pem) = (stage.client(None), &pair.certificate);
    for fields in [
        &[CREDENTIALS][..],
        &[CREDENTIALS, ("client_certificate", pem)],
        &[CREDENTIALS, ("client_secret", "")],
        &[CREDENTIALS, ("client_secret", &stage.world.client.client_secret)],
    ] {
        assert_error(stage.post(&none, "token", fields).await, 401, "invalid_client").await;
    }
    // A certificate with a wrong secret, and the right secret, which the client no longer uses.
    let client = stage.client(Some(&pair));
    let secret = ("client_secret", &*stage.world.client.client_secret);
    for secret in [secret, ("client_secret", "x")] {
        let answer = stage.post(&client, "token", &[CREDENTIALS, secret]).await;
        assert_error(answer, 401, "invalid_client").await;
    }
}

#[tokio::test]
async fn a_client_with_a_secret_binds_its_tokens_to_the_certificate_it_presents() {
    let stage = Stage::start(|_| ()).await;
    stage.world.change_client(|client| {
        client.token_endpoint_auth_method = String::new();
        client.tls_client_auth_san_dns = String::new();
    });
    stage.world.harness().cache.catch_up_or_log().await;
    let pair = Pair::self_signed(&subject(), KeyKind::Ed25519);
    let client = stage.client(Some(&pair));
    let secret = ("client_secret", &*stage.world.client.client_secret);
    let issued = token(stage.post(&client, "token", &[CREDENTIALS, secret]).await).await;
    assert_eq!(confirmation(&issued), json!({"x5t#S256": thumbprint(&pair)}));
    let none = stage.client(None);
    let issued = token(stage.post(&none, "token", &[CREDENTIALS, secret]).await).await;
    assert_eq!(confirmation(&issued), Value::Null);
    // The certificate is no proof of its own.
    assert_error(
        stage.post(&client, "token", &[CREDENTIALS]).await,
        401,
        "invalid_client",
    )
    .await;
}

#[tokio::test]
async fn a_self_signed_certificate_in_the_key_set_authenticates() {
    let stage = Stage::start(|_| ()).await;
    for kind in [KeyKind::P256, KeyKind::Ed25519, KeyKind::Rsa2048, KeyKind::P384] {
        let [pair, other] = [(); 2].map(|()| Pair::self_signed(&subject(), kind));
        // As the registry passes on a key of a request, and as a set at a URL may have it.
        let mut key = public_key(&pair.der()).unwrap();
        key["x5c"] = json!([STANDARD.encode(pair.der())]);
        let x5c = json!({ "keys": [key] }).to_string();
        let bare = json!({"keys": [{"kty": "?", "x5c": [STANDARD.encode(pair.der())]}]}).to_string();
        assert!(ClientKeySet::read(&bare).unwrap().has_certificate(&pair.der()));
        stage.world.change_client(|client| {
            client.token_endpoint_auth_method = "self_signed_tls_client_auth".into();
            client.tls_client_auth_san_dns = String::new();
            client.json_web_key_set = x5c;
        });
        stage.world.harness().cache.catch_up_or_log().await;
        let client = stage.client(Some(&pair));
        let issued = token(stage.post(&client, "token", &[CREDENTIALS]).await).await;
        assert_eq!(confirmation(&issued), json!({"x5t#S256": thumbprint(&pair)}));
        let answer = stage
            .post(&stage.client(Some(&other)), "token", &[CREDENTIALS])
            .await;
        assert_error(answer, 401, "invalid_client").await;
        // An authority of partners does not help.
        let signed = stage.partners.issue(&subject());
        let answer = stage
            .post(&stage.client(Some(&signed)), "token", &[CREDENTIALS])
            .await;
        assert_error(answer, 401, "invalid_client").await;
    }
}

#[tokio::test]
async fn a_partner_is_no_workload() {
    let stage = Stage::start(|_| ()).await;
    // With the name of a workload, by the authority of partners, with the chain up to that of workloads too, by one that is called
    // like that of workloads, and by nobody.
    let named = Subject {
        dns_names: vec!["api.internal"],
        ..Subject::default()
    };
    let signed = stage.partners.issue(&named);
    let chained = Pair {
        certificate: format!("{}{}", signed.certificate, stage.chain),
        ..signed.clone()
    };
    for pair in [
        signed,
        chained,
        Authority::new("workloads").issue(&named),
        Pair::self_signed(&named, KeyKind::P256),
    ] {
        let mut tokens = TokenServiceClient::new(stage.channel(Some(&pair)).await);
        let refused = tokens
            .list_revocations(pb::ListRevocationsRequest::default())
            .await;
        assert_rejected(refused, Code::Unauthenticated, "UNAUTHENTICATED");
    }
    let pair = stage.workloads.issue(&named);
    let mut tokens = TokenServiceClient::new(stage.channel(Some(&pair)).await);
    let request = pb::IntrospectTokenRequest {
        tenant_id: "acme".into(),
        token: "unknown".into(),
        ..Default::default()
    };
    assert_eq!(ok(tokens.introspect_token(request).await).active, Some(false));
}

#[tokio::test]
async fn a_gateway_passes_the_certificate_on_in_the_header_that_is_named() {
    let stage = Stage::start(|settings| settings.client_certificate_header = "xfcc".into()).await;
    let named = |name| Subject {
        dns_names: vec![name],
        ..Subject::default()
    };
    let gateway = stage.client(Some(&stage.workloads.issue(&named(GATEWAY))));
    let pair = stage.partners.issue(&subject());
    let header = xfcc(&pair);
    let headers = [("x-forwarded-client-cert", header.as_str())];
    let issued = token(stage.post_with(&gateway, "token", &[CREDENTIALS], &headers).await).await;
    assert_eq!(confirmation(&issued), json!({"x5t#S256": thumbprint(&pair)}));
    // The gateway's own certificate is none of its clients'.
    let answer = stage.post(&gateway, "token", &[CREDENTIALS]).await;
    assert_error(answer, 401, "invalid_client").await;
    // The header that is not named, a subject without a certificate's authority, and connections that are no gateway's.
    let der = format!(":{}:", STANDARD.encode(pair.der()));
    let answer = stage
        .post_with(&gateway, "token", &[CREDENTIALS], &[("client-cert", &der)])
        .await;
    assert_error(answer, 401, "invalid_client").await;
    let forged =
        xfcc(&Pair::self_signed(&subject(), KeyKind::P256)).replace("CN=x", "CN=client.partner.example");
    let answer = stage
        .post_with(
            &gateway,
            "token",
            &[CREDENTIALS],
            &[("x-forwarded-client-cert", &forged)],
        )
        .await;
    assert_error(answer, 401, "invalid_client").await;
    for other in [
        None,
        Some(stage.workloads.issue(&named("api.internal"))),
        Some(stage.workloads.issue(&named("nobody.internal"))),
    ] {
        let client = stage.client(other.as_ref());
        let answer = stage.post_with(&client, "token", &[CREDENTIALS], &headers).await;
        assert_error(answer, 401, "invalid_client").await;
    }
    // No partner connects by itself here, and a gateway whose certificate has expired is no partner: its tokens would be
    // bound to its own key.
    let expired = Subject {
        not_after: TEST_START.minus(Duration::from_secs(24 * 3600)),
        ..named(GATEWAY)
    };
    let url = format!(
        "https://localhost:{}/acme/oauth2/token",
        stage.world.http_address().port()
    );
    for other in [
        stage.partners.issue(&named(GATEWAY)),
        Pair::self_signed(&named(GATEWAY), KeyKind::P256),
        stage.workloads.issue(&expired),
    ] {
        let request = stage.client(Some(&other)).post(&url).form(&[CREDENTIALS]);
        assert!(request.send().await.is_err());
    }
    // gRPC, also as a gateway makes it of JSON.
    let channel = stage.channel(Some(&stage.workloads.issue(&named(GATEWAY)))).await;
    let mut tokens = TokenServiceClient::new(channel);
    let mut request = tonic::Request::new(stage.bare());
    let value = header.parse().unwrap();
    request.metadata_mut().insert("x-forwarded-client-cert", value);
    let issued = ok(tokens.issue_token(request).await);
    assert_eq!(
        confirmation(&issued.access_token),
        json!({"x5t#S256": thumbprint(&pair)})
    );
    let refused = tokens.issue_token(stage.bare()).await;
    assert_rejected(refused, Code::Unauthenticated, "INVALID_CLIENT");
}

#[tokio::test]
async fn over_http_the_host_of_partners_takes_their_certificates() {
    let stage = Stage::start(|settings| settings.mtls_base_url = format!("https://{MTLS_HOST}")).await;
    let port = stage.world.http_address().port();
    let (client, without) = (
        stage.client(Some(&stage.partners.issue(&subject()))),
        stage.client(None),
    );
    let metadata = |host: &str| format!("https://{host}:{port}/acme/.well-known/oauth-authorization-server");
    let document: Value = without
        .get(metadata("localhost"))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let alias = &document["mtls_endpoint_aliases"];
    assert_eq!(
        alias["token_endpoint"],
        format!("https://{MTLS_HOST}/acme/oauth2/token")
    );
    assert_eq!(document["tls_client_certificate_bound_access_tokens"], true);
    let methods = document["token_endpoint_auth_methods_supported"]
        .as_array()
        .unwrap();
    for method in ["tls_client_auth", "self_signed_tls_client_auth"] {
        assert!(methods.contains(&json!(method)), "{methods:?}");
    }
    assert_error(
        stage.post(&without, "token", &[CREDENTIALS]).await,
        401,
        "invalid_client",
    )
    .await;
    // Elsewhere the listener takes certificates of its callers alone.
    let elsewhere = client.get(metadata("localhost")).send().await;
    assert!(elsewhere.is_err());
    let answer = client
        .post(format!("https://{MTLS_HOST}:{port}/acme/oauth2/token"))
        .form(&[CREDENTIALS, ("client_id", &stage.world.client_id)])
        .send()
        .await
        .unwrap();
    token(answer).await;
}
