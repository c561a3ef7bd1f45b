//! Limits of size and rate, and the errors above them.

use std::net::IpAddr;

use reqwest::{Client, Response, StatusCode};
use serde_json::Value;

use super::{stand_in::StandIn, with_stand_in};
use crate::harness::envoy::{Gateway, Place};

tests!(
    a_body_above_64_kib_is_rejected,
    headers_above_16_kib_are_rejected,
    sign_in_is_limited_per_address_before_any_other_check,
    a_rate_limit_is_reported_in_the_protocol_of_the_caller,
    tokens_are_limited_more_than_keys,
    a_flood_uses_up_nothing_of_other_addresses,
    an_unreachable_service_is_reported_as_unavailable,
);

async fn a_body_above_64_kib_is_rejected() {
    let (gateway, stand_in) = with_stand_in().await;
    let form = format!("{}/firm/oauth2/token", gateway.url());
    let json = format!("{}/accord.token.v1.TokenService/IssueToken", gateway.url());
    for client in [gateway.client().clone(), gateway.http1_client()] {
        let largest = client.post(&form).body(vec![b'a'; 65_536]).send().await.unwrap();
        assert_eq!(largest.status(), StatusCode::OK);
        assert_eq!(stand_in.one().body_bytes, 65_536);
        for url in [&form, &json] {
            let request = client.post(url).header("content-type", "application/json");
            let answer = request.body(vec![b'a'; 65_537]).send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE, "{url}");
            let body: Value = answer.json().await.unwrap();
            assert_eq!(body["error"], "invalid_request");
            assert!(stand_in.taken().is_empty(), "{url}");
        }
    }
}

async fn headers_above_16_kib_are_rejected() {
    let (gateway, stand_in) = with_stand_in().await;
    let url = format!("{}/firm/sign-in", gateway.url());
    let client = gateway.http1_client();
    let with = |client: &Client, bytes| client.get(&url).header("x-long", "a".repeat(bytes));
    let answer = with(&client, 15_000).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    stand_in.one();
    let answer = with(&client, 16_384).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["error"], "invalid_request");
    // Over HTTP/2, Envoy ends the stream.
    assert!(with(gateway.client(), 16_384).send().await.is_err());
    let mut many = client.get(&url);
    for index in 0..65 {
        many = many.header(format!("x-{index}"), "1");
    }
    let answer = many.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    assert!(stand_in.taken().is_empty());
}

/// Posts to a path until the gateway rejects the request. Returns how many passed before, and the error. Each request
/// claims another origin.
async fn until_refused(gateway: &Gateway, client: &Client, path: &str, most: usize) -> (usize, Response) {
    for count in 0..most {
        let request = client
            .post(format!("{}{path}", gateway.url()))
            .header("x-forwarded-for", format!("198.51.100.{}", count % 250))
            .header("accept", if count % 2 == 0 { "*/*" } else { "text/html" });
        let answer = request.send().await.unwrap();
        if answer.status() == StatusCode::TOO_MANY_REQUESTS {
            return (count, answer);
        }
        assert_eq!(answer.status(), StatusCode::OK, "{path} {count}");
    }
    panic!("{most} requests to {path} went through");
}

/// Returns a client with another address of this machine.
fn at(gateway: &Gateway, address: &str) -> Client {
    let pem = std::fs::read(gateway.certificate()).unwrap();
    Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(&pem).unwrap()])
        .local_address(address.parse::<IpAddr>().unwrap())
        .no_proxy()
        .build()
        .unwrap()
}

async fn sign_in_is_limited_per_address_before_any_other_check() {
    let (gateway, stand_in) = with_stand_in().await;
    let client = gateway.client();
    let (through, refused) = until_refused(&gateway, client, "/firm/sign-in", 40).await;
    assert!(through >= 20, "{through}");
    assert_eq!(stand_in.taken().len(), through);
    assert_eq!(refused.headers()["retry-after"], "2");
    // Passwords and one-time links share one bucket.
    for path in ["/firm/setups/set_1/sign-in", "/firm/enrol/ace_1", "/claim/acl_1"] {
        let (through, _) = until_refused(&gateway, client, path, 10).await;
        assert!(through <= 5, "{path}: {through}");
    }
    stand_in.taken();
    // Another address has buckets of its own, and so have other groups of paths.
    let other = at(&gateway, "127.0.0.2");
    let url = format!("{}/firm/sign-in", gateway.url());
    assert_eq!(other.post(&url).send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(stand_in.one().all("x-forwarded-for"), ["127.0.0.2"]);
    for path in ["/firm/sign-in", "/firm/jwks.json"] {
        let answer = client
            .get(format!("{}{path}", gateway.url()))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
    }
}

async fn a_rate_limit_is_reported_in_the_protocol_of_the_caller() {
    let (gateway, _stand_in) = with_stand_in().await;
    let client = gateway.client();
    until_refused(&gateway, client, "/firm/sign-in", 40).await;
    let url = format!("{}/firm/sign-in", gateway.url());
    let answer = client
        .post(&url)
        .header("accept", "text/html")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.headers()["content-type"], "text/html; charset=utf-8");
    assert!(answer.text().await.unwrap().contains("Wait a few seconds"));
    let answer = client.post(&url).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["error"], "temporarily_unavailable");
}

/// Sends `count` requests at the same time. Returns how many passed, and an error.
async fn at_once(client: &Client, url: &str, post: bool, count: usize) -> (usize, Option<Response>) {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..count {
        let request = if post { client.post(url) } else { client.get(url) };
        tasks.spawn(request.send());
    }
    let answers = tasks.join_all().await;
    let (through, refused): (Vec<_>, Vec<_>) = answers
        .into_iter()
        .map(Result::unwrap)
        .partition(|answer| answer.status() == StatusCode::OK);
    (through.len(), refused.into_iter().next())
}

async fn tokens_are_limited_more_than_keys() {
    let (gateway, stand_in) = with_stand_in().await;
    let token = format!("{}/firm/oauth2/token", gateway.url());
    let (tokens, refused) = at_once(gateway.client(), &token, true, 250).await;
    let refused = refused.expect("250 requests for tokens at once went through");
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers()["retry-after"], "1");
    assert!(tokens >= 100, "{tokens}");
    assert_eq!(stand_in.taken().len(), tokens);
    let keys = format!("{}/firm/jwks.json", gateway.url());
    let (keys, refused) = at_once(gateway.client(), &keys, false, 250).await;
    assert_eq!((keys, refused.is_none()), (250, true));
}

async fn a_flood_uses_up_nothing_of_other_addresses() {
    let (gateway, stand_in) = with_stand_in().await;
    let url = format!("{}/firm/sign-in", gateway.url());
    // More addresses, each with its full bucket, than any bucket of the group holds.
    let mut through = 0;
    for last in 10..40 {
        let client = at(&gateway, &format!("127.0.0.{last}"));
        through += at_once(&client, &url, true, 25).await.0;
    }
    assert!((600..700).contains(&through), "{through}");
    // One address goes on long after its bucket is empty.
    let client = gateway.client();
    let (through, _) = at_once(client, &url, true, 500).await;
    assert!(through < 60, "{through}");
    stand_in.taken();
    let other = at(&gateway, "127.0.0.2");
    for _ in 0..20 {
        assert_eq!(other.post(&url).send().await.unwrap().status(), StatusCode::OK);
    }
    assert_eq!(stand_in.taken().len(), 20);
}

async fn an_unreachable_service_is_reported_as_unavailable() {
    let place = Place::reserve();
    let stand_in = StandIn::start().await;
    let upstreams = stand_in.upstreams();
    drop(stand_in);
    let gateway = Gateway::start(place, upstreams).await;
    let url = format!("{}/firm/jwks.json", gateway.url());
    let answer = gateway.client().get(url).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["error"], "temporarily_unavailable");
    assert!(!body.to_string().contains("127.0.0.1"));
}
