//! The example `ext_authz`: the real Envoy asks it about each request for a service that knows nothing of access tokens.

use std::{net::TcpStream, process::Command};

use accord::{
    clock::{Clock, SystemClock},
    testing::{HeldPort, dpop::ProofKey},
    text::opaque::sha256,
    verify::{Checker, Tenant},
};
use axum::{Router, http::HeaderMap};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::{RequestBuilder, StatusCode};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};
use url::Url;

use crate::harness::{
    dev,
    document::file,
    partner::{World, own_grant},
    process::Process,
};

#[path = "../examples/ext_authz.rs"]
#[allow(dead_code)]
mod example;

tests!(envoy_lets_requests_pass_to_a_service_in_any_language_by_their_tokens);

/// Envoy with `examples/ext_authz.yaml`, between these two and on another port.
struct Api {
    url: String,
    _envoy: Process,
    _place: HeldPort,
    _directory: TempDir,
}

impl Api {
    fn start(service: u16, ext_authz: u16) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let place = HeldPort::reserve();
        let mut text = std::fs::read_to_string(file("examples/ext_authz.yaml")).unwrap();
        for (listed, used) in [(8000, place.address().port()), (9000, service), (9191, ext_authz)] {
            let listed = format!("port_value: {listed} ");
            assert_eq!(text.matches(&listed).count(), 1, "{listed}");
            text = text.replace(&listed, &format!("port_value: PORT{used} "));
        }
        let text = text.replace("port_value: PORT", "port_value: ");
        std::fs::write(directory.path().join("envoy.yaml"), text).unwrap();
        let mut command = Command::new("envoy");
        command
            .args(["-c", "envoy.yaml", "--concurrency", "1", "--log-level", "warn"])
            .arg("--disable-hot-restart")
            .current_dir(directory.path());
        let mut envoy = Process::start(command, directory.path(), "envoy");
        let address = place.address();
        envoy.wait_for("an Envoy that listens", |_| TcpStream::connect(address).ok());
        Self {
            url: format!("http://{address}"),
            _envoy: envoy,
            _place: place,
            _directory: directory,
        }
    }

    fn request(&self) -> RequestBuilder {
        self.at("/firm/contacts")
    }

    fn at(&self, path: &str) -> RequestBuilder {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        client.get(format!("{}{path}", self.url))
    }
}

/// A service that answers with the headers in which it learns who calls.
async fn service() -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = async |headers: HeaderMap| {
        let all = |name: &str| {
            let values = headers.get_all(name).iter();
            values
                .map(|value| value.to_str().unwrap())
                .collect::<Vec<_>>()
                .join("|")
        };
        ["tenant-id", "client-id", "sub", "scope"]
            .map(|name| all(&format!("x-accord-{name}")))
            .join(" ")
    };
    let app = Router::new().fallback(answer);
    let serving = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (port, serving)
}

async fn envoy_lets_requests_pass_to_a_service_in_any_language_by_their_tokens() {
    let (_directory, dev) = dev::start().await;
    let world = World::new(&dev.file);
    let partner = world.partner().await;
    let token = world.first_tokens(&partner).await.access_token;

    let token_service = format!("http://{}", dev.file.token_grpc);
    let checker = Checker::connect(&token_service, &dev.file.workload_token).unwrap();
    let tenant = Tenant {
        tenant_id: dev.file.tenant_id.clone(),
        issuer: dev.file.tenant_authority_url.clone(),
        audience: dev.file.cloud_api_url.clone(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ext_authz = listener.local_addr().unwrap().port();
    let deciding = tokio::spawn(example::serve(listener, checker, tenant));
    let (port, serving) = service().await;
    let api = Api::start(port, ext_authz);

    let introspected = world.introspect(&token).await;
    let expected = format!(
        "{} {} {} {}",
        dev.file.tenant_id, partner.client_id, introspected.sub, introspected.scope
    );
    // What a client writes into the headers of the decision does not reach the service.
    let passed = api
        .request()
        .bearer_auth(&token)
        .header("x-accord-sub", "usr_of_somebody_else")
        .header("x-accord-scope", "everything");
    let passed = passed.send().await.unwrap();
    assert_eq!(passed.status(), StatusCode::OK);
    assert_eq!(passed.text().await.unwrap(), expected);

    let challenges = async |request: RequestBuilder| {
        let answer = request.send().await.unwrap();
        let challenges = answer.headers().get_all("www-authenticate").iter();
        let challenges: Vec<_> = challenges
            .map(|value| value.to_str().unwrap().to_owned())
            .collect();
        (answer.status(), challenges.join(" "))
    };
    // The metadata needs no token, and opens no way to the service.
    let path = Url::parse(&dev.file.cloud_api_url).unwrap();
    let path = path.path().trim_end_matches('/');
    let metadata = api.at(&format!("/.well-known/oauth-protected-resource{path}"));
    let metadata = metadata.header("x-accord-sub", "usr_of_somebody_else");
    let metadata = metadata.send().await.unwrap();
    assert_eq!(metadata.status(), StatusCode::OK);
    let metadata: serde_json::Value = metadata.json().await.unwrap();
    assert_eq!(metadata["resource"], dev.file.cloud_api_url.as_str());

    let (status, challenge) = challenges(api.request()).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(
        challenge.contains("Bearer realm=") && challenge.contains(r#"algs="ES256 EdDSA Ed25519 PS256""#),
        "{challenge}"
    );
    let (status, challenge) = challenges(api.request().bearer_auth(format!("{token}x"))).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(challenge.contains(r#"error="invalid_token""#), "{challenge}");
    // An unbound token under the scheme of bound ones, and a proof that is none.
    let unbound = api
        .request()
        .header("authorization", format!("DPoP {token}"))
        .header("dpop", "a.b.c");
    let (status, challenge) = challenges(unbound).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(
        challenge.starts_with("DPoP ") && challenge.contains(r#"error="invalid_token""#),
        "{challenge}"
    );

    // A token that is bound to a key passes with a proof of it, once, and never as bearer.
    let key = ProofKey::es256();
    let now = SystemClock.now().as_secs();
    let mut request = world.token_request(&partner, own_grant());
    request.dpop_proof = key.proof(&format!("{}/oauth2/token", dev.file.tenant_authority_url), now);
    let issued = world.tokens().issue_token(request).await.unwrap().into_inner();
    assert_eq!(issued.token_type, "DPoP");
    let bound = issued.access_token;
    let origin = Url::parse(&dev.file.cloud_api_url).unwrap().origin();
    let url = format!("{}/firm/contacts", origin.ascii_serialization());
    let proof = |key: &ProofKey| {
        key.altered(&url, now, |_, claims| {
            claims["htm"] = "GET".into();
            claims["ath"] = URL_SAFE_NO_PAD.encode(sha256(bound.as_bytes())).into();
        })
    };
    let send = async |scheme: &str, proof: &str| {
        let request = api.request().header("authorization", format!("{scheme} {bound}"));
        challenges(request.header("dpop", proof)).await
    };
    let good = proof(&key);
    let (status, challenge) = send("DPoP", &good).await;
    assert_eq!((status, challenge.as_str()), (StatusCode::OK, ""));
    for (scheme, proof, error) in [
        ("DPoP", good, "invalid_dpop_proof"),
        ("DPoP", proof(&ProofKey::es256()), "invalid_dpop_proof"),
        ("Bearer", proof(&key), "invalid_token"),
    ] {
        let (status, challenge) = send(scheme, &proof).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert!(
            challenge.contains(&format!("error=\"{error}\"")),
            "{scheme}: {challenge}"
        );
    }

    // Nothing passes while nobody decides.
    let nobody = HeldPort::reserve();
    let closed = Api::start(port, nobody.address().port());
    let answer = closed.request().bearer_auth(&token).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    deciding.abort();
    serving.abort();
    dev.stop().await.unwrap();
}
