//! Secrets in every place where a caller can put one, at the most talkative level of the log.

use accord::{
    audit::v1::{ListAuditEventsRequest, audit_service_client::AuditServiceClient},
    random::SystemRandom,
    testing::calls::ok,
    text::opaque::{OpaqueToken, TokenKind},
};
use accord_cli::call::with_token;
use http_body_util::{BodyExt, Full};
use prost::Message;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};
use tonic::{Status, body::Body, transport::Channel};
use tower::ServiceExt;

use super::found_below;
use crate::{
    grpc_callers::{Tokens, methods},
    harness::{collector::Collector, partner::World, services::Services},
    observability::scrape::scrapes,
};

tests!(no_place_that_takes_a_secret_shows_it);

/// Texts that Accord stores and shows as they are.
const SHOWN: [&str; 12] = [
    "request_id",
    "partner_name",
    "display_name",
    "contact_email",
    "goals",
    "notes",
    "reason",
    "label",
    "name",
    "description",
    "state",
    "paths",
];

/// Well-formed tokens that nobody has, and texts that have the form of none.
struct Planted {
    secrets: Vec<String>,
    next: usize,
}

impl Planted {
    fn new() -> Self {
        let kinds = [
            TokenKind::AuthorizationCode,
            TokenKind::Claim,
            TokenKind::Enrolment,
            TokenKind::AdminSession,
            TokenKind::Operator,
            TokenKind::Workload,
        ];
        let token = |kind| OpaqueToken::generate(kind, &SystemRandom).expose().to_owned();
        let mut secrets: Vec<_> = kinds.map(token).into();
        let random = || token(TokenKind::Claim)[4..].to_owned();
        secrets.extend([
            random(),
            format!("acs_{}", random()),
            format!("acr_{}", random()),
            format!("eyJhbGciOiJFZERTQSJ9.{}.{}", random(), random()),
            format!("{}@firm.example", random()),
        ]);
        Self { secrets, next: 0 }
    }

    fn take(&mut self) -> String {
        self.next += 1;
        self.secrets[self.next % self.secrets.len()].clone()
    }

    /// What gives a secret away: 40 characters of it, without its prefix.
    fn needles(&self) -> Vec<String> {
        let long = |part: &&str| part.len() >= 40;
        let secrets = self.secrets.iter();
        let parts = secrets.flat_map(|secret| secret.split(['_', '.', '@']).filter(long));
        parts.map(|part| part[..40].to_owned()).collect()
    }

    /// A message with a secret in every text that isn't shown. With `plausible`, ids are ones that exist.
    fn message(
        &mut self,
        descriptor: &MessageDescriptor,
        ids: Option<&[(&str, &str)]>,
        depth: u32,
    ) -> DynamicMessage {
        let mut message = DynamicMessage::new(descriptor.clone());
        for field in descriptor.fields().filter(|_| depth < 4) {
            let value = match field.kind() {
                Kind::Message(message) => Value::Message(self.message(&message, ids, depth + 1)),
                Kind::String => Value::String(self.text(&field, ids)),
                Kind::Bytes => Value::Bytes(self.take().into_bytes().into()),
                Kind::Enum(_) => Value::EnumNumber(1),
                _ => continue,
            };
            let value = match field.is_list() {
                true => Value::List(vec![value]),
                false => value,
            };
            message.set_field(&field, value);
        }
        message
    }

    fn text(&mut self, field: &FieldDescriptor, ids: Option<&[(&str, &str)]>) -> String {
        let known = ids.and_then(|ids| ids.iter().find(|(name, _)| *name == field.name()));
        match known {
            Some((_, id)) => (*id).to_owned(),
            None if field.name() == "request_id" => uuid::Uuid::new_v4().to_string(),
            None if SHOWN.contains(&field.name()) => "shown".to_owned(),
            None => self.take(),
        }
    }
}

async fn no_place_that_takes_a_secret_shows_it() {
    let data = tempfile::tempdir().unwrap();
    let [registry_url, token_url] =
        ["registry.db", "token.db"].map(|name| format!("sqlite://{}", data.path().join(name).display()));
    let (collector, collector_url) = Collector::start().await;
    let settings = [
        ("RUST_LOG", "trace"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector_url.as_str()),
    ];
    let mut services = Services::start_with(&registry_url, &token_url, &settings).await;
    let world = World::new(&services.target);
    let partner = world.partner().await;
    let approved = world.approve(&partner).await;
    let target = services.target.clone();
    let mut planted = Planted::new();
    let mut answers = grpc(&world, &mut planted, &partner.client_id, &approved.grant_id).await;
    answers.push_str(&http(&target.http_url, &target.tenant_id, &mut planted).await);

    for address in [&target.registry_grpc, &target.token_grpc] {
        let mut events = AuditServiceClient::new(with_token(address, &target.operator_token).unwrap());
        let request = ListAuditEventsRequest {
            page_size: 500,
            ..Default::default()
        };
        answers.push_str(&format!("{:?}", ok(events.list_audit_events(request).await)));
    }
    answers.push_str(&scrapes(&mut services).await.concat());
    for process in [&mut services.token, &mut services.registry] {
        process.signal("TERM");
        assert!(process.wait().success());
        let log = process.stderr() + process.stdout().as_str();
        assert!(log.contains("\"DEBUG\""), "the log is not at its most talkative");
        for needle in planted.needles() {
            let line = log.lines().find(|line| line.contains(&needle));
            assert!(line.is_none(), "{line:?}");
        }
    }
    let spans = collector.spans();
    for route in [
        "POST /{tenant}/enrol/{token}",
        "accord.token.v1.TokenService/IssueToken",
    ] {
        assert!(
            spans.iter().any(|exported| exported.span.name == route),
            "no span of {route}"
        );
    }
    answers.push_str(&format!("{spans:?}"));
    for needle in planted.needles() {
        let at = answers.find(&needle);
        assert!(
            at.is_none(),
            "{:?}",
            at.map(|at| &answers[at.saturating_sub(300)..at + 40])
        );
    }
    let stored = found_below(data.path(), &planted.needles());
    assert!(stored.is_empty(), "{stored:?}");
}

/// Calls every method with secrets in metadata and message. Returns all statuses as text.
async fn grpc(world: &World, planted: &mut Planted, client_id: &str, grant_id: &str) -> String {
    let tokens = Tokens::new(world).await;
    let ids = [
        ("tenant_id", world.target.tenant_id.as_str()),
        ("tenant_ids", world.target.tenant_id.as_str()),
        ("client_id", client_id),
        ("grant_id", grant_id),
    ];
    let mut answers = String::new();
    for address in [&world.target.registry_grpc, &world.target.token_grpc] {
        let channel = Channel::from_shared(format!("http://{address}")).unwrap();
        let channel = channel.connect().await.unwrap();
        let is_registry = *address == world.target.registry_grpc;
        let here = |path: &str| path.starts_with("/accord.registry.") == is_registry;
        for (path, method) in methods().into_iter().filter(|(path, _)| here(path)) {
            for ids in [None, Some(&ids[..])] {
                let mut message = planted.message(&method.input(), ids, 0).encode_to_vec();
                let right = tokens.of(&path).to_owned();
                for token in [right.clone(), planted.take(), right] {
                    let mut frame = vec![0];
                    frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
                    frame.extend(&message);
                    let request = http::Request::post(&path)
                        .header("content-type", "application/grpc")
                        .header("authorization", format!("Bearer {token}"))
                        .header("cookie", format!("a={}", planted.take()))
                        .header("user-agent", planted.take())
                        .header("x-secret", planted.take())
                        .header("grpc-timeout", "2S");
                    let request = request.body(Body::new(Full::new(frame.into()))).unwrap();
                    let response = channel.clone().oneshot(request).await.unwrap();
                    if let Some(status) = Status::from_header_map(response.headers()) {
                        answers.push_str(&format!(
                            "{path} {status:?} {}\n",
                            String::from_utf8_lossy(status.details())
                        ));
                    }
                    response.into_body().collect().await.unwrap();
                    // The third time, a message that ends within its last text.
                    message.truncate(message.len().saturating_sub(3));
                }
            }
        }
        // A path that is no method.
        let path = format!("/{}/{}", planted.take(), planted.take());
        let request = http::Request::post(path).body(Body::empty()).unwrap();
        let response = channel.clone().oneshot(request).await.unwrap();
        answers.push_str(&format!("{:?}\n", Status::from_header_map(response.headers())));
    }
    answers
}

/// Requests every route by several methods with secrets in path, query, headers and body. Returns the responses' headers,
/// and their bodies if they are JSON: a page may show a form again with what was typed.
async fn http(http_url: &str, tenant_id: &str, planted: &mut Planted) -> String {
    const ROUTES: [&str; 26] = [
        "/{t}/oauth2/token",
        "/{t}/oauth2/introspect",
        "/{t}/oauth2/revoke",
        "/{t}/oauth2/authorize",
        "/{t}/oauth2/{s}",
        "/{t}/setups/{s}",
        "/{t}/setups/{s}/sign-in",
        "/{t}/setups/{s}/approve",
        "/{t}/setups/{s}/deny",
        "/{t}/sign-in",
        "/{t}/sign-out",
        "/{t}/integrations",
        "/{t}/integrations/{s}",
        "/{t}/integrations/{s}/revoke",
        "/{t}/integrations/{s}/designated-user",
        "/{t}/enrol/{s}",
        "/{t}/jwks.json",
        "/{t}/.well-known/openid-configuration",
        "/claim/{s}",
        "/Claim/{s}",
        "/claim%2F{s}",
        "//claim/{s}",
        "/{t}/{s}",
        "/{s}",
        "/{s}/oauth2/token",
        "/.well-known/oauth-authorization-server/{s}",
    ];
    const FIELDS: [&str; 14] = [
        "client_id",
        "client_secret",
        "client_assertion",
        "code",
        "code_verifier",
        "refresh_token",
        "token",
        "password",
        "account_name",
        "csrf",
        "scope",
        "resource",
        "redirect_uri",
        "unknown",
    ];
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let mut answers = String::new();
    for route in ROUTES {
        for method in ["GET", "POST", "PUT", "OPTIONS"] {
            for grant_type in ["authorization_code", "refresh_token", "client_credentials"] {
                let path = route.replace("{t}", tenant_id).replace("{s}", &planted.take());
                let pairs: Vec<_> = FIELDS
                    .iter()
                    .map(|field| format!("{field}={}", planted.take()))
                    .collect();
                let query = pairs.join("&");
                let form = format!("grant_type={grant_type}&{query}");
                let json = format!("{{\"client_secret\":\"{}\"}}", planted.take());
                for (content_type, body) in [
                    ("application/x-www-form-urlencoded", form),
                    ("application/json", json),
                ] {
                    let request = client
                        .request(method.parse().unwrap(), format!("{http_url}{path}?{query}"))
                        .header("authorization", format!("Bearer {}", planted.take()))
                        .header("cookie", format!("__Host-accord={}", planted.take()))
                        .header("referer", format!("https://a.example/?code={}", planted.take()))
                        .header("content-type", content_type);
                    let response = request.body(body).send().await.unwrap();
                    let is_json = response
                        .headers()
                        .get("content-type")
                        .is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
                    // A location leads back to the partner with what the partner sent.
                    let headers = response.headers().iter().filter(|(name, _)| *name != "location");
                    answers.push_str(&format!("{method} {route} {:?}\n", headers.collect::<Vec<_>>()));
                    let text = response.text().await.unwrap();
                    if is_json {
                        answers.push_str(&text);
                    }
                }
            }
        }
    }
    answers
}
