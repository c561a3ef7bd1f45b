//! The sample partner of `examples/partner` with a Tenant Admin and a Cloud API.

use std::{collections::HashSet, sync::Arc};

use example_partner::{authority::Authority, dpop::Dpop, http::Http, settings::Settings};
use oauth2::{ClientId, ClientSecret};
use reqwest::header;
use serde_json::Value;
use tokio::net::TcpListener;
use url::Url;

use super::{
    admin::{Admin, Decision},
    partner_at, stop,
};
use crate::harness::{
    dev,
    partner::{Partner, REDIRECT_URI, World, own_grant},
    refusal::{OFFLINE_BOUND, within},
};

tests!(
    the_sample_partner_connects_reads_refreshes_and_disconnects,
    the_tokens_of_the_sample_partner_are_bound_to_its_key,
    the_sample_partner_handles_fewer_scopes_and_the_end_of_its_consent,
);

/// Registers a partner with this redirect URI. Returns the sample's settings for it, too.
async fn register(world: &World, redirect_uri: &str) -> (Partner, Settings) {
    let partner = partner_at(world, redirect_uri).await;
    let settings = Settings {
        issuer: world.target.tenant_authority_url.clone(),
        client_id: ClientId::new(partner.client_id.clone()),
        client_secret: ClientSecret::new(partner.client_secret.clone()),
        cloud_api_url: world.target.cloud_api_url.clone(),
        redirect_uri: redirect_uri.parse().unwrap(),
        ca_pem: None,
    };
    (partner, settings.checked().unwrap())
}

/// The sample partner, running, and a browser at it.
struct Sample {
    base: String,
    http: reqwest::Client,
    cookie: String,
}

impl Sample {
    async fn start(world: &World) -> (Self, Partner) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (partner, settings) = register(world, &format!("{base}/callback")).await;
        let router = example_partner::router(&settings).await.unwrap();
        tokio::spawn(axum::serve(listener, router).into_future());
        let policy = reqwest::redirect::Policy::none();
        let sample = Self {
            base,
            http: reqwest::Client::builder().redirect(policy).build().unwrap(),
            cookie: String::new(),
        };
        (sample, partner)
    }

    /// Status, location and text of a page.
    async fn get(&mut self, path: &str) -> (u16, String, String) {
        self.send(self.http.get(format!("{}{path}", self.base))).await
    }

    /// Presses the button of the first page that sends its form to this path.
    async fn press(&mut self, path: &str) -> (u16, String, String) {
        let (_, _, home) = self.get("/").await;
        let (_, rest) = home.split_once("name=\"form_token\" value=\"").expect("a form");
        let body = format!("form_token={}", rest.split('"').next().unwrap());
        let form = (header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        let request = self.http.post(format!("{}{path}", self.base)).body(body);
        self.send(request.header(form.0, form.1)).await
    }

    async fn send(&mut self, request: reqwest::RequestBuilder) -> (u16, String, String) {
        let answer = request.header(header::COOKIE, &self.cookie).send().await.unwrap();
        let text = |name| {
            answer
                .headers()
                .get(name)
                .map(|value| value.to_str().unwrap().to_owned())
        };
        if let Some(cookie) = text(header::SET_COOKIE) {
            self.cookie = cookie.split(';').next().unwrap().to_owned();
        }
        let location = text(header::LOCATION).unwrap_or_default();
        (answer.status().as_u16(), location, answer.text().await.unwrap())
    }

    /// Goes from "Connect" to the page of the response.
    async fn connect(&mut self, world: &World, decision: Decision<'_>) -> (u16, String, String) {
        let (status, authorization_url, _) = self.get("/connect").await;
        assert_eq!(status, 303);
        let back = Admin::new(&world.target)
            .decide(&authorization_url, decision)
            .await;
        let path = &back[url::Position::BeforePath..];
        assert!(
            back.as_str().starts_with(&self.base),
            "back to the partner: {}",
            origin(&back)
        );
        self.get(path).await
    }
}

fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

async fn the_sample_partner_connects_reads_refreshes_and_disconnects() {
    let (_directory, dev) = dev::start_with_api().await;
    let world = World::new(&dev.file);
    let (mut sample, partner) = Sample::start(&world).await;

    let (status, _, text) = sample.connect(&world, Decision::Deny).await;
    assert_eq!(status, 403);
    assert!(text.contains("did not agree"), "{text}");

    let both = Decision::Approve(&["contacts.read", "matters.read"]);
    let (status, location, _) = sample.connect(&world, both).await;
    assert_eq!((status, location.as_str()), (303, "/"));
    let (_, _, home) = sample.get("/").await;
    assert!(home.contains("<code>contacts.read</code>"), "{home}");
    let (status, _, contacts) = sample.get("/contacts").await;
    assert_eq!(status, 200);
    assert!(
        contacts.contains("Harbour Street Estates") && contacts.contains("usr_"),
        "{contacts}"
    );

    // The Cloud API rejects a token that has ended early: the sample gets a new one and calls again.
    let own = world.issue(&partner, own_grant()).await.unwrap();
    world.user("second-api-user").await;
    world
        .change_designated_user(&own.grant_id, "second-api-user")
        .await;
    within(OFFLINE_BOUND, "the end of the token", async || {
        let answers = sample.get("/contacts").await.0 == 200;
        answers && sample.get("/").await.2.contains("refreshed 1 times")
    })
    .await;
    assert_eq!(sample.press("/refresh").await.0, 303);
    assert!(sample.get("/").await.2.contains("refreshed 2 times"));

    assert_eq!(sample.press("/disconnect").await.0, 303);
    assert_eq!(sample.get("/contacts").await.0, 409);
    // Revoking the refresh token ends its family; the consent remains active.
    let own = world.issue(&partner, own_grant()).await.unwrap();
    assert!(world.active(&own.access_token).await);
    stop(dev).await;
}

async fn the_tokens_of_the_sample_partner_are_bound_to_its_key() {
    let (_directory, dev) = dev::start_with_api().await;
    let world = World::new(&dev.file);
    let (_, settings) = register(&world, REDIRECT_URI).await;
    let http = Http::new(&settings).unwrap();
    let dpop = Arc::new(Dpop::new(http.clone()).unwrap());
    let authority = Authority::discover(&settings, http, dpop.clone()).await.unwrap();
    let (url, pending) = authority.authorize();
    let back = Admin::new(&world.target)
        .decide(url.as_str(), Decision::Approve(&["contacts.read"]))
        .await;
    let parameters: Value = back
        .query_pairs()
        .map(|(name, value)| (name, Value::from(value)))
        .collect();
    let response = serde_json::from_value(parameters).unwrap();
    let first = authority.redeem(response, pending).await.unwrap();
    let second = authority.refresh(&first).await.unwrap();

    let contacts = format!("{}/contacts", world.target.cloud_api_url);
    let mut keys = HashSet::new();
    for tokens in [&first, &second] {
        let introspected = world.introspect(tokens.access.secret()).await;
        assert_eq!(introspected.token_type, "DPoP");
        keys.insert(introspected.cnf.unwrap().jkt);
        let request = http::Request::get(&contacts).body(Vec::new()).unwrap();
        let answer = dpop.send(request, Some(&tokens.access)).await.unwrap();
        assert_eq!(answer.status(), 200);
        // Whoever holds the token alone.
        let bearer = reqwest::Client::new()
            .get(&contacts)
            .bearer_auth(tokens.access.secret());
        assert_eq!(bearer.send().await.unwrap().status(), 401);
    }
    assert!(keys.len() == 1 && !keys.contains(""), "{keys:?}");
    stop(dev).await;
}

async fn the_sample_partner_handles_fewer_scopes_and_the_end_of_its_consent() {
    let (_directory, dev) = dev::start_with_api().await;
    let world = World::new(&dev.file);
    let (mut sample, partner) = Sample::start(&world).await;

    let (status, _, _) = sample.connect(&world, Decision::Approve(&["matters.read"])).await;
    assert_eq!(status, 303);
    let (status, _, text) = sample.get("/contacts").await;
    assert_eq!(status, 403);
    assert!(text.contains("does not cover"), "{text}");

    // A second consent supersedes the first one.
    let (status, _, _) = sample
        .connect(&world, Decision::Approve(&["contacts.read"]))
        .await;
    assert_eq!(status, 303);
    assert_eq!(sample.get("/contacts").await.0, 200);

    let own = world.issue(&partner, own_grant()).await.unwrap();
    world.revoke_consent(&own.grant_id).await;
    within(OFFLINE_BOUND, "the end of the consent", async || {
        sample.get("/contacts").await.0 == 409
    })
    .await;
    let (_, _, home) = sample.get("/").await;
    assert!(home.contains("href=\"/connect\""), "{home}");
    stop(dev).await;
}
