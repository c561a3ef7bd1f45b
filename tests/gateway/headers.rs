//! Headers: which pass to the services, and which come back.

use serde_json::json;

use super::{call, with_stand_in};

tests!(
    headers_that_claim_an_origin_are_removed,
    only_basic_authorization_passes_and_only_where_clients_authenticate,
    pages_get_their_cookies,
    a_response_reveals_nothing_about_the_services,
    the_log_holds_neither_queries_nor_tokens,
);

/// Headers by which a request could claim another origin.
const SPOOFED: [(&str, &str); 24] = [
    ("x-forwarded-for", "203.0.113.7"),
    ("x-forwarded-for", "203.0.113.8, 203.0.113.9"),
    ("x-forwarded-host", "evil.example"),
    ("x-forwarded-port", "1"),
    ("x-forwarded-prefix", "/other"),
    ("x-forwarded-client-cert", "By=spiffe://accord/token-service"),
    ("forwarded", "for=203.0.113.7;host=evil.example"),
    ("via", "1.1 trusted"),
    ("x-real-ip", "203.0.113.7"),
    ("x-client-ip", "203.0.113.7"),
    ("true-client-ip", "203.0.113.7"),
    ("x-client-cert", "MIIB"),
    ("x-envoy-external-address", "203.0.113.7"),
    ("x-envoy-internal", "true"),
    (
        "x-envoy-original-path",
        "/accord.token.v1.SetupService/ApproveSetup",
    ),
    ("x-envoy-upstream-rq-timeout-ms", "1"),
    ("x-original-url", "/accord.token.v1.SetupService/ApproveSetup"),
    ("x-rewrite-url", "/accord.token.v1.SetupService/ApproveSetup"),
    ("x-accord-caller", "wkl_1"),
    ("x-http-method-override", "DELETE"),
    ("grpc-timeout", "1n"),
    ("grpc-metadata-authorization", "Bearer x"),
    ("proxy-authorization", "Basic x"),
    ("x_forwarded_for", "203.0.113.7"),
];

async fn headers_that_claim_an_origin_are_removed() {
    let (gateway, stand_in) = with_stand_in().await;
    let page = gateway.client().get(format!("{}/firm/sign-in", gateway.url()));
    let form = gateway
        .client()
        .post(format!("{}/firm/oauth2/token", gateway.url()));
    let issue = format!("{}/accord.token.v1.TokenService/IssueToken", gateway.url());
    let rpc = gateway.client().post(issue).json(&json!({}));
    for mut request in [page, form, rpc] {
        request = request
            .header("x-forwarded-proto", "http")
            .header("x-request-id", "chosen-by-a-stranger")
            .header(
                "traceparent",
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            )
            .header("x-kept", "as it is");
        for (name, value) in SPOOFED {
            request = request.header(name, value);
        }
        let answer = request.send().await.unwrap();
        let seen = stand_in.one();
        assert_eq!(seen.all("x-kept"), ["as it is"]);
        // The one address is that of the connection.
        assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.1"], "{}", seen.path);
        assert_eq!(seen.all("x-forwarded-proto"), ["https"]);
        let request_id = seen.all("x-request-id");
        assert!(uuid::Uuid::parse_str(request_id[0]).is_ok(), "{request_id:?}");
        assert_eq!(answer.headers()["x-request-id"], request_id[0]);
        for (name, _) in SPOOFED {
            if name != "x-forwarded-for" {
                assert_eq!(seen.all(name), [""; 0], "{name} at {}", seen.path);
            }
        }
        assert_eq!(seen.all("traceparent"), [""; 0]);
    }
}

async fn only_basic_authorization_passes_and_only_where_clients_authenticate() {
    let (gateway, stand_in) = with_stand_in().await;
    let cases: [(&[&str], bool); 13] = [
        (&["Basic Y2xpOnNlY3JldA=="], true),
        (&["basic Y2xpOnNlY3JldA=="], true),
        // Malformed, but the service decides that.
        (&["Basic %%%"], true),
        // `wkl_x:acw_x`: introspection by internal services is closed.
        (&["Basic d2tsX3g6YWN3X3g="], false),
        (&["bAsic   d2tsX3g6YWN3X3g="], false),
        (&["Basic \td2tsX3g6YWN3X3g="], false),
        (&["Bearer aco_x"], false),
        (&["bearer acw_x"], false),
        (&["Negotiate x"], false),
        (&["Basic a, Bearer aco_x"], false),
        (&["Basic a", "Bearer aco_x"], false),
        (&["Bearer aco_x", "Basic a"], false),
        (&["Basicx a"], false),
    ];
    for (values, kept) in cases {
        for endpoint in ["token", "introspect", "revoke"] {
            let url = format!("{}/firm/oauth2/{endpoint}", gateway.url());
            let mut request = gateway.client().post(url).header("cookie", "a=b");
            for value in values {
                request = request.header("authorization", *value);
            }
            request.send().await.unwrap();
            let seen = stand_in.one();
            let expected = if kept { values } else { &[] };
            assert_eq!(seen.all("authorization"), expected, "{endpoint}");
            assert_eq!(seen.all("cookie"), [""; 0]);
        }
    }
    for path in [
        "/firm/sign-in",
        "/firm/jwks.json",
        "/firm/integrations",
        "/claim/acl_1",
    ] {
        let request = gateway.client().get(format!("{}{path}", gateway.url()));
        request.basic_auth("cli", Some("secret")).send().await.unwrap();
        assert_eq!(stand_in.one().all("authorization"), [""; 0], "{path}");
    }
    for method in [
        "TokenService/IssueToken",
        "TokenService/IntrospectToken",
        "TokenService/GetJsonWebKeySet",
    ] {
        for value in ["Bearer acw_x", "Basic Y2xpOnNlY3JldA=="] {
            let url = format!("{}/accord.token.v1.{method}", gateway.url());
            let request = gateway.client().post(url).json(&json!({}));
            request.header("authorization", value).send().await.unwrap();
            assert_eq!(stand_in.one().all("authorization"), [""; 0], "{method}");
        }
    }
}

async fn pages_get_their_cookies() {
    let (gateway, stand_in) = with_stand_in().await;
    let request = gateway
        .client()
        .get(format!("{}/firm/integrations", gateway.url()));
    request.header("cookie", "session=1").send().await.unwrap();
    assert_eq!(stand_in.one().all("cookie"), ["session=1"]);
}

async fn a_response_reveals_nothing_about_the_services() {
    let (gateway, stand_in) = with_stand_in().await;
    for path in ["/firm/sign-in", "/nothing"] {
        let answer = gateway.client().get(format!("{}{path}", gateway.url()));
        let answer = answer.send().await.unwrap();
        let headers = answer.headers();
        assert_eq!(headers["strict-transport-security"], "max-age=31536000", "{path}");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        let telling = |name: &str| name == "server" || name == "via" || name.starts_with("x-envoy-");
        let revealing: Vec<_> = headers.keys().filter(|name| telling(name.as_str())).collect();
        assert!(revealing.is_empty(), "{path}: {revealing:?}");
    }
    stand_in.one();
    let answer = call(&gateway, "accord.token.v1.TokenService/IssueToken", &json!({})).await;
    assert_eq!(answer.headers()["cache-control"], "no-store");
}

async fn the_log_holds_neither_queries_nor_tokens() {
    let (mut gateway, _stand_in) = with_stand_in().await;
    let marks = [
        "acl_MARK1",
        "ace_MARK2",
        "code=MARK3",
        "acr_MARK4",
        "MARK5",
        "eyJMARK6",
    ];
    let paths = [
        "/claim/acl_MARK1",
        "/claim//acl_MARK1",
        "/Claim/acl_MARK1",
        "/claim%2Facl_MARK1",
        "/firm/enrol/ace_MARK2",
        "/firm/enrol/ace_MARK2/",
        "/firm/setups/set_1?code=MARK3",
        "/nothing?code=MARK3",
        "/acr_MARK4",
        "/firm/eyJMARK6",
    ];
    let url = gateway.url();
    for path in paths {
        let request = gateway.client().get(format!("{url}{path}"));
        let request = request
            .header("referer", "https://x.example/MARK5")
            .header("cookie", "MARK5");
        request.basic_auth("MARK5", Some("MARK5")).send().await.unwrap();
    }
    gateway
        .client()
        .get(format!("{url}/last?x=1"))
        .send()
        .await
        .unwrap();
    let last = gateway.logged("the last request", |line| line["path"] == "/last");
    assert_eq!(last["status"], 404);
    assert_eq!(last["client"], "127.0.0.1");
    assert_eq!(last["method"], "GET");
    assert!(uuid::Uuid::parse_str(last["request_id"].as_str().unwrap()).is_ok());
    gateway.logged("the setup", |line| {
        line["path"] == "/firm/setups/set_1" && line["route"] == "page"
    });
    gateway.logged("the claim", |line| {
        line["path"] == "withheld" && line["route"] == "one-time-link"
    });
    // Other threads write their lines a moment later.
    for _ in 0..paths.len() {
        if gateway.log().len() > paths.len() {
            break;
        }
        let before = gateway.log().len();
        gateway.client().get(format!("{url}/more")).send().await.unwrap();
        gateway.logged("more", |line| line["path"] == "/more");
        assert!(gateway.log().len() > before);
    }
    let printed = gateway.printed();
    for mark in marks {
        assert!(!printed.contains(mark), "{mark} in {printed}");
    }
}

#[tokio::test]
async fn pages_and_tokens_have_a_cluster_each() {
    let (mut gateway, _stand_in) = with_stand_in().await;
    let url = gateway.url();
    for (method, path, route, cluster) in [
        ("POST", "/firm/oauth2/token", "token", "token-service-http"),
        ("GET", "/firm/jwks.json", "discovery", "token-service-http"),
        (
            "GET",
            "/firm/oauth2/authorize",
            "authorize",
            "token-service-pages",
        ),
        ("GET", "/accord.css", "stylesheet", "token-service-pages"),
        ("GET", "/claim/acl_1", "one-time-link", "token-service-pages"),
        ("POST", "/claim/acl_1", "one-time-link-use", "token-service-pages"),
        ("POST", "/firm/sign-in", "sign-in", "token-service-pages"),
        ("GET", "/firm/integrations", "page", "token-service-pages"),
        ("POST", "/firm/sign-out", "decision", "token-service-pages"),
    ] {
        let request = gateway
            .client()
            .request(method.parse().unwrap(), format!("{url}{path}"));
        request.send().await.unwrap();
        let line = gateway.logged(path, |line| line["route"] == route);
        assert_eq!(line["cluster"], cluster, "{method} {path}");
    }
}
