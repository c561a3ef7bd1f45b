//! What can't be reached from outside in any form of the request.

use std::collections::BTreeMap;

use prost::Message;
use reqwest::{Method, StatusCode};

use super::{stand_in::StandIn, transport::raw, with_stand_in};
use crate::harness::{document::file, envoy::Gateway};

tests!(
    seven_methods_are_open_as_json_and_no_other_in_any_form,
    no_other_way_to_write_a_path_leads_anywhere,
    no_other_way_to_write_a_page_leads_to_it,
    each_path_has_its_methods_and_no_others,
    a_rejection_says_what_is_allowed,
);

/// The methods that are open as JSON, with the listener that serves each.
const OPEN: [(&str, &str); 7] = [
    ("accord.token.v1.TokenService/IssueToken", "token gRPC"),
    (
        "accord.token.v1.TokenService/PushAuthorizationRequest",
        "token gRPC",
    ),
    ("accord.token.v1.TokenService/IntrospectToken", "token gRPC"),
    ("accord.token.v1.TokenService/RevokeToken", "token gRPC"),
    ("accord.token.v1.TokenService/GetJsonWebKeySet", "token gRPC"),
    ("accord.token.v1.TokenService/GetAuthorityMetadata", "token gRPC"),
    (
        "accord.registry.v1.ProvisioningService/ClaimDelivery",
        "registry gRPC",
    ),
];

/// Every method that the services serve, in the form `package.Service/Method`.
fn methods() -> Vec<String> {
    let set = prost_types::FileDescriptorSet::decode(&*accord_cli::descriptors::bytes()).unwrap();
    let mut methods: Vec<_> = [
        "grpc.health.v1.Health/Check",
        "grpc.health.v1.Health/Watch",
        "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ]
    .map(String::from)
    .into();
    for file in &set.file {
        for service in &file.service {
            let full = |method: &str| format!("{}.{}/{method}", file.package(), service.name());
            methods.extend(service.method.iter().map(|method| full(method.name())));
        }
    }
    methods
}

/// Sends a gRPC call with an empty message. Returns its HTTP status and its gRPC status.
async fn native(gateway: &Gateway, method: &str) -> (StatusCode, String) {
    let request = gateway
        .client()
        .post(format!("{}/{method}", gateway.url()))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(vec![0; 5]);
    let response = request.send().await.unwrap();
    let status = response.headers().get("grpc-status");
    let status = status.map_or("", |value| value.to_str().unwrap()).to_owned();
    (response.status(), status)
}

async fn seven_methods_are_open_as_json_and_no_other_in_any_form() {
    let (gateway, stand_in) = with_stand_in().await;
    let open = BTreeMap::from(OPEN);
    let methods = methods();
    assert!(methods.len() > 60, "{}", methods.len());
    for method in &methods {
        let url = format!("{}/{method}", gateway.url());
        // An HTTP status of 200 is how gRPC says UNIMPLEMENTED.
        let unimplemented = (StatusCode::OK, "12".to_owned());
        assert_eq!(native(&gateway, method).await, unimplemented, "{method}");
        assert!(stand_in.taken().is_empty(), "{method} was reached as gRPC");

        let request = gateway.client().post(&url).json(&serde_json::json!({}));
        let answer = request.send().await.unwrap();
        if let Some(listener) = open.get(method.as_str()) {
            assert_eq!(answer.status(), StatusCode::NOT_IMPLEMENTED, "{method}");
            let seen = stand_in.one();
            assert_eq!((seen.listener, seen.path), (*listener, format!("/{method}")));
            continue;
        }
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{method}");
        for request in [gateway.client().get(&url), gateway.client().post(&url).body("x")] {
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{method}");
        }
        assert!(stand_in.taken().is_empty(), "{method} was reached");
    }
    let known = OPEN
        .iter()
        .all(|(open, _)| methods.iter().any(|method| method == open));
    assert!(known, "an open method is not in the contract");
}

/// Returns other spellings of a path, none of which is the path.
fn disguises(path: &str) -> Vec<String> {
    let (service, method) = path.rsplit_once('/').unwrap();
    let first = method.chars().next().unwrap();
    let mut disguises = vec![
        format!("/{path}"),
        format!("//{path}"),
        format!("{path}/"),
        format!("{path}/."),
        format!("/.{path}"),
        format!("/x/..{path}"),
        format!("/x/%2e%2e{path}"),
        format!("{path}/../{method}"),
        format!("{service}//{method}"),
        format!("{service}%2F{method}"),
        format!("{service}%2f{method}"),
        format!("{service}%5C{method}"),
        format!("{service}\\{method}"),
        format!("{service}/%{:02X}{}", u32::from(first), &method[1..]),
        format!("{service}/{}", method.to_lowercase()),
        format!("{service}/{}", method.to_uppercase()),
        format!("{path};x=1"),
        format!("{path}%00"),
        format!("{path}%20"),
        format!("{path}?access=1"),
        format!("{path}?"),
    ];
    // The lower-case spelling of such a name is the name itself.
    disguises.retain(|disguise| disguise != path);
    disguises
}

async fn no_other_way_to_write_a_path_leads_anywhere() {
    let (gateway, stand_in) = with_stand_in().await;
    let internal = [
        "/accord.token.v1.TokenService/ListRevocations",
        "/accord.token.v1.SetupService/ApproveSetup",
        "/accord.registry.v1.ProvisioningService/CreateDelivery",
        "/accord.registry.v1.DirectoryService/AuthenticateClient",
        "/grpc.health.v1.Health/Check",
    ];
    let paths = OPEN.map(|(path, _)| format!("/{path}")).into_iter();
    for path in paths.chain(internal.map(String::from)) {
        for disguise in disguises(&path) {
            for content_type in ["application/json", "application/grpc"] {
                let head = format!("content-type: {content_type}\r\ncontent-length: 2\r\n");
                let answer = raw(&gateway, &format!("POST {disguise} HTTP/1.1"), &head, "{}").await;
                assert!(refused(&answer), "{disguise} as {content_type}: {answer}");
                assert!(stand_in.taken().is_empty(), "{disguise} as {content_type}");
            }
        }
    }
}

async fn no_other_way_to_write_a_page_leads_to_it() {
    let (gateway, stand_in) = with_stand_in().await;
    let answer = raw(&gateway, "GET /firm/sign-in HTTP/1.1", "", "").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    stand_in.one();
    for disguise in disguises("/firm/sign-in") {
        // A page may have a query.
        if disguise.contains('?') {
            continue;
        }
        let answer = raw(&gateway, &format!("GET {disguise} HTTP/1.1"), "", "").await;
        assert!(refused(&answer), "{disguise}: {answer}");
        assert!(stand_in.taken().is_empty(), "{disguise}");
    }
}

/// Whether a raw answer says that the gateway knows no such thing (404), or that the path itself can't be
/// (400). To gRPC it says so with 200 and UNIMPLEMENTED or INTERNAL.
fn refused(answer: &str) -> bool {
    let grpc = |code: &str| answer.contains(&format!("\r\ngrpc-status: {code}\r\n"));
    match answer.split(' ').nth(1) {
        Some("400" | "404") => true,
        Some("200") => grpc("12") || grpc("13"),
        _ => false,
    }
}

async fn status(gateway: &Gateway, method: &Method, path: &str) -> StatusCode {
    let url = format!("{}{path}", gateway.url());
    let request = gateway.client().request(method.clone(), url);
    request.send().await.unwrap().status()
}

/// The routes of token-service's pages, with the ids of the test below.
fn pages() -> Vec<String> {
    let source = std::fs::read_to_string(file("token-service/src/http/pages/mod.rs")).unwrap();
    let routes = source.split(".route(").skip(1);
    let routes: Vec<_> = routes
        .filter_map(|call| call.split('"').nth(1))
        .map(|route| {
            let of_claim = route.starts_with("/claim");
            let route = route.replace("{tenant}", "firm").replace("{setup}", "set_01");
            let route = route.replace("{grant}", "grt_01");
            route.replace("{token}", if of_claim { "acl_01" } else { "ace_01" })
        })
        .collect();
    assert!(routes.len() > 10, "{routes:?}");
    routes
}

async fn each_path_has_its_methods_and_no_others() {
    let (gateway, stand_in) = with_stand_in().await;
    let get: &[&str] = &["GET", "HEAD"];
    let document: &[&str] = &["GET", "HEAD", "OPTIONS"];
    let post: &[&str] = &["POST"];
    let form: &[&str] = &["GET", "HEAD", "POST"];
    let set = "/firm/setups/set_01";
    let grant = "/firm/integrations/grt_01";
    let routes = [
        ("/.well-known/oauth-authorization-server/firm".into(), document),
        ("/firm/.well-known/oauth-authorization-server".into(), document),
        ("/firm/.well-known/openid-configuration".into(), document),
        ("/firm/jwks.json".into(), document),
        ("/openapi.json".into(), document),
        ("/accord.css".into(), get),
        ("/firm/oauth2/authorize".into(), get),
        ("/firm/oauth2/token".into(), post),
        ("/firm/oauth2/par".into(), post),
        ("/firm/oauth2/introspect".into(), post),
        ("/firm/oauth2/revoke".into(), post),
        (set.into(), get),
        (format!("{set}/sign-in"), form),
        (format!("{set}/approve"), form),
        (format!("{set}/deny"), form),
        ("/firm/integrations".into(), get),
        (grant.into(), get),
        (format!("{grant}/designated-user"), form),
        (format!("{grant}/networks"), form),
        (format!("{grant}/revoke"), form),
        (format!("{grant}/receipt"), get),
        ("/firm/operator-actions".into(), get),
        ("/firm/sign-in".into(), form),
        ("/firm/sign-out".into(), form),
        ("/firm/enrol/ace_01".into(), form),
        ("/claim/acl_01".into(), form),
        ("/healthz".into(), &[]),
        ("/".into(), &[]),
        ("/firm".into(), &[]),
        ("/firm/setups".into(), &[]),
        ("/firm/oauth2".into(), &[]),
        ("/firm/oauth2/".into(), &[]),
        ("/FIRM/sign-in".into(), &[]),
        ("/claim".into(), &[]),
        ("/claim/".into(), &[]),
        ("/metrics".into(), &[]),
        ("/server_info".into(), &[]),
        ("/stats".into(), &[]),
    ];
    for page in pages() {
        let listed = routes
            .iter()
            .any(|(path, methods)| *path == page && !methods.is_empty());
        assert!(listed, "the gateway is not tested with {page}");
    }
    for (path, methods) in &routes {
        for method in [
            "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND",
        ] {
            let status = status(&gateway, &method.parse().unwrap(), path).await;
            if methods.contains(&method) {
                assert_eq!(status, StatusCode::OK, "{method} {path}");
                let seen = stand_in.one();
                assert_eq!((seen.listener, &seen.path), ("token HTTP", path));
            } else {
                assert!(status == 404 || status == 405, "{method} {path}: {status}");
                assert!(stand_in.taken().is_empty(), "{method} {path}");
            }
        }
    }
}

/// Sends one request and asserts that it does not pass.
async fn stays_outside(stand_in: &StandIn, request: reqwest::RequestBuilder, status: u16) {
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), status);
    assert!(stand_in.taken().is_empty());
}

async fn a_rejection_says_what_is_allowed() {
    let (gateway, stand_in) = with_stand_in().await;
    let client = gateway.client();
    let token = format!("{}/firm/oauth2/token", gateway.url());
    let answer = client.get(&token).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(answer.headers()["allow"], "POST");
    let issue = format!("{}/{}", gateway.url(), OPEN[0].0);
    stays_outside(&stand_in, client.get(&issue), 405).await;
    stays_outside(&stand_in, client.post(&issue).body("{}"), 415).await;
    let form = client.post(&issue).form(&[("tenant_id", "firm")]);
    stays_outside(&stand_in, form, 415).await;
    let keys = format!("{}/firm/jwks.json", gateway.url());
    let elsewhere = gateway.http1_client().get(&keys);
    stays_outside(&stand_in, elsewhere.header("host", "elsewhere.example"), 404).await;
    // HTTP/2 has the host in a pseudo-header, and a `host` header does not pass.
    let request = client.get(&keys).header("host", "elsewhere.example");
    assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
    let seen = stand_in.one();
    assert!(!seen.all("host").contains(&"elsewhere.example"), "{seen:?}");

    let missing = format!("{}/nothing", gateway.url());
    let answer = client.get(&missing).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/json");
    assert_eq!(
        answer.json::<serde_json::Value>().await.unwrap()["error"],
        "not_found"
    );
    let browser = client.get(&missing).header("accept", "text/html,*/*;q=0.8");
    let answer = browser.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    assert_eq!(answer.headers()["content-type"], "text/html; charset=utf-8");
    let policy = answer.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'none'"));
}
