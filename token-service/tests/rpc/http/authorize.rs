//! The authorization endpoint: which requests become setups, which are answered at the client's redirect
//! URI, and which must not be.

use url::Url;

use super::{
    Answer, Request, assert_page,
    browser::Browser,
    client::{Fields, encoded},
};
use crate::harness::ok;
use crate::world::{REDIRECT_URI, VERIFIER, World, challenge};

mod redirect_uris;
mod refusals;
mod signed_request;

const AUTHORIZE: &str = "/acme/oauth2/authorize";

/// The parameters of an authorization request that is as it should be, to be changed.
#[derive(Clone)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn of(world: &World) -> Self {
        let fields = [
            ("response_type", "code"),
            ("client_id", &*world.client_id),
            ("redirect_uri", REDIRECT_URI),
            ("state", "xyz"),
            ("code_challenge", &challenge(VERIFIER)),
            ("code_challenge_method", "S256"),
        ];
        Self(fields.map(|(name, value)| (name.into(), value.into())).into())
    }

    /// The same with another value.
    pub fn with(&self, name: &str, value: &str) -> Self {
        self.without(name).and(name, value)
    }

    pub fn without(&self, name: &str) -> Self {
        let kept = self.0.iter().filter(|(known, _)| known != name);
        Self(kept.cloned().collect())
    }

    /// The same with one more parameter at the end, even if there is one of this name.
    pub fn and(&self, name: &str, value: &str) -> Self {
        let mut fields = self.0.clone();
        fields.push((name.into(), value.into()));
        Self(fields)
    }

    pub fn encoded(&self) -> String {
        let fields: Vec<_> = self.0.iter().map(|(name, value)| (&**name, &**value)).collect();
        encoded(&fields)
    }

    /// The address of the authorization endpoint with these parameters.
    pub fn target(&self) -> String {
        format!("{AUTHORIZE}?{}", self.encoded())
    }

    pub async fn send(&self, world: &World) -> Answer {
        send(world, &self.encoded()).await
    }
}

async fn send(world: &World, query: &str) -> Answer {
    Request::get(format!("{AUTHORIZE}?{query}")).send(world).await
}

/// How many setups were stored so far.
async fn setups_started(world: &World) -> usize {
    world.audit_events("setup.start").await.len()
}

/// Asserts that the answer is the form to sign in. Returns the path of the setup that a sign-in starts.
#[track_caller]
pub fn assert_taken_in(answer: &Answer) -> String {
    assert_page(answer, 200);
    assert!(hidden_request(answer).len() > 100);
    let (_, rest) = answer.body.split_once("<form method=\"post\" action=\"").unwrap();
    let (path, _) = rest.split_once("/sign-in\"").unwrap();
    let setup_id = path.strip_prefix("/acme/setups/set_").unwrap();
    assert_eq!(setup_id.len(), 26, "{path}");
    path.to_owned()
}

/// Returns the signed request that a sign-in form holds.
#[track_caller]
pub fn hidden_request(answer: &Answer) -> &str {
    let (_, rest) = answer.body.split_once("name=\"request\" value=\"").unwrap();
    rest.split_once('"').unwrap().0
}

/// Asserts an error at the client's redirect URI (RFC 6749 §4.1.2.1, RFC 9207).
#[track_caller]
fn assert_client_error(world: &World, answer: &Answer, error: &str, state: Option<&str>) {
    assert_eq!(answer.status, 303, "{answer:?}");
    let location = answer.header("location").unwrap();
    let added = location.strip_prefix(REDIRECT_URI).unwrap();
    assert!(added.starts_with('?'), "{location}");
    let url = Url::parse(location).unwrap();
    let mut pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    let description = pairs
        .iter()
        .position(|(name, _)| name == "error_description")
        .unwrap();
    assert!(!pairs.remove(description).1.is_empty());
    let mut expected = vec![("error", error)];
    expected.extend(state.map(|state| ("state", state)));
    expected.push(("iss", &world.issuer));
    let expected: Vec<_> = expected
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect();
    assert_eq!(pairs, expected);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
    assert_eq!(answer.body, "");
}

/// Asserts an error page without a redirect to the client.
#[track_caller]
fn assert_shown(answer: &Answer, status: u16) {
    assert_page(answer, status);
    assert_eq!(answer.header("location"), None);
    assert!(!answer.body.contains("http-equiv"), "{}", answer.body);
    assert_eq!(answer.header("refresh"), None);
}

#[tokio::test]
async fn a_request_becomes_a_setup_with_the_same_content() {
    let world = World::start().await;
    let query = Query::of(&world)
        .and("scope", "offline_access contacts.read")
        .and("resource", &world.cloud_api_url)
        .and("resource", &world.cloud_api_url)
        .and("response_mode", "query")
        .and("nonce", "what is not known is ignored")
        .and("prompt", "consent");
    let answer = query.send(&world).await;
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
    let path = Browser::new(&world).open_setup_of(&query).await;
    let setup_id = path.rsplit('/').next().unwrap();
    let request = accord::token::v1::GetSetupRequest {
        setup_id: setup_id.into(),
    };
    let setup = ok(world.setups().get_setup(request).await).setup.unwrap();
    assert_eq!(
        (setup.client_id, setup.tenant_id),
        (world.client_id.clone(), "acme".into())
    );
    assert_eq!(setup.scopes.len(), 1);
    assert_eq!(setup.redirect_uri, REDIRECT_URI);
    assert_eq!(setups_started(&world).await, 1);
    assert_page(&Request::get(path).send(&world).await, 200);
}

#[tokio::test]
async fn client_and_redirect_uri_must_be_there_once() {
    let world = World::start().await;
    let query = Query::of(&world);
    let other = world.new_client(&["acme"]);
    let elsewhere = world.new_client(&["globex"]);
    let mut unknown = world.client_id.clone();
    unknown.replace_range(4..8, "7zzz");
    for query in [
        query.without("client_id"),
        query.with("client_id", ""),
        query.with("client_id", "x"),
        query.with("client_id", "<script>alert(1)</script>"),
        query.with("client_id", &unknown),
        query.with("client_id", &world.client_id.to_uppercase()),
        query.with("client_id", &format!(" {}", world.client_id)),
        query.with("client_id", &elsewhere.client_id),
        query.and("client_id", &world.client_id),
        query.and("client_id", &other.client_id),
        query.without("redirect_uri"),
        query.with("redirect_uri", ""),
        query.and("redirect_uri", REDIRECT_URI),
        query.and("redirect_uri", "https://evil.example/"),
        Query::of(&world).without("client_id").without("redirect_uri"),
    ] {
        let answer = query.send(&world).await;
        assert_shown(&answer, 400);
        assert!(!answer.body.contains("<script"));
    }
    let whole = format!("{AUTHORIZE}?{}", query.encoded());
    let cut = &whole[..whole.find("redirect_uri").unwrap()];
    for mangled in [AUTHORIZE, cut, &whole.replace('&', "&amp;")] {
        let answer = Request::get(mangled).send(&world).await;
        assert_shown(&answer, 400);
        assert!(
            answer.body.contains("A part of it is missing."),
            "{mangled}: {}",
            answer.body
        );
    }
    for tenant in ["nobody-known", "ACME", "acme%2f..", "acme%00", "%3Cscript%3E"] {
        let target = format!("/{tenant}/oauth2/authorize?{}", query.encoded());
        let answer = Request::get(target).send(&world).await;
        assert_shown(&answer, 404);
    }
    let target = format!("/globex/oauth2/authorize?{}", query.encoded());
    assert_shown(&Request::get(target).send(&world).await, 400);
    assert_eq!(setups_started(&world).await, 0);
}

#[tokio::test]
async fn requests_are_made_by_looking_at_an_address_alone() {
    let world = World::start().await;
    let query = Query::of(&world).encoded();
    let target = format!("{AUTHORIZE}?{query}");
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let answer = Request::new(method, &target).send(&world).await;
        assert_eq!(answer.status, 405, "{method}");
        assert_eq!(answer.header("allow"), Some("GET,HEAD"));
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    let fields: Vec<_> = url::form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect();
    let fields: Vec<_> = fields.iter().map(|(name, value)| (&**name, &**value)).collect();
    let fields: &Fields = &fields;
    assert_eq!(
        Request::post(AUTHORIZE).form(fields).send(&world).await.status,
        405
    );
    assert_eq!(setups_started(&world).await, 0);
    let answer = Request::new("HEAD", &target).send(&world).await;
    assert_eq!((answer.status, &*answer.body), (200, ""));
    assert_eq!(setups_started(&world).await, 0);
}

#[tokio::test]
async fn while_the_registry_is_down_no_browser_is_redirected() {
    let world = World::start().await;
    world.registry().set_unavailable(true);
    let answer = Query::of(&world).send(&world).await;
    assert_shown(&answer, 503);
    assert!(answer.header("retry-after").is_some());
    world.registry().set_unavailable(false);
    assert_taken_in(&Query::of(&world).send(&world).await);
}
