//! Calls of the main kinds, about 50 a second in all, and what became of them.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use accord::{
    registry::v1::{CreateScopeRequest, scope_service_client::ScopeServiceClient},
    token::v1::{IntrospectTokenRequest, token_service_client::TokenServiceClient},
};
use accord_cli::call;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tonic::{Code, Status};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_types::StatusExt;

use crate::harness::partner::{Partner, World, own_grant, refresh_grant};

/// Between two calls of a kind: five kinds make 50 calls a second.
const PACE: Duration = Duration::from_millis(100);
/// How often readiness is read.
const READINESS_PACE: Duration = Duration::from_millis(50);

/// What the callers have seen.
#[derive(Default)]
pub struct Seen {
    over: AtomicBool,
    pub succeeded: AtomicUsize,
    /// When calls began that failed as they may.
    failures: Mutex<Vec<Instant>>,
    /// Answers that no caller may get.
    wrong: Mutex<HashSet<String>>,
    /// The `jti` of each access token.
    pub tokens: Mutex<Vec<String>>,
    /// The names of the scopes that were created.
    pub scopes: Mutex<Vec<String>>,
    /// Whether registry-service and token-service say that they are ready.
    ready: [AtomicBool; 2],
}

impl Seen {
    pub fn is_ready(&self, service: usize) -> bool {
        self.ready[service].load(Ordering::Relaxed)
    }

    /// Notes an answer that no caller may get.
    pub fn note_wrong(&self, what: String) {
        self.wrong.lock().unwrap().insert(what);
    }

    pub fn wrong(&self) -> Vec<String> {
        self.wrong.lock().unwrap().iter().cloned().collect()
    }

    /// Returns how many calls failed that began at this time or later.
    pub fn failures_since(&self, since: Instant) -> usize {
        let failures = self.failures.lock().unwrap();
        failures.iter().filter(|began| **began >= since).count()
    }

    /// Notes the outcome of a call. Returns the answer.
    pub fn note<T>(&self, kind: &str, began: Instant, result: Result<T, Status>) -> Option<T> {
        let status = match result {
            Ok(answer) => {
                self.succeeded.fetch_add(1, Ordering::Relaxed);
                return Some(answer);
            }
            Err(status) => status,
        };
        let details = status.get_error_details();
        let reason = details.error_info().map(|info| info.reason.as_str());
        let is_right = match status.code() {
            Code::Unavailable => reason == Some("UNAVAILABLE") && details.retry_info().is_some(),
            Code::DeadlineExceeded => reason == Some("DEADLINE_EXCEEDED"),
            _ => false,
        };
        if is_right {
            self.failures.lock().unwrap().push(began);
        } else {
            let wrong = format!("{kind}: {:?} {reason:?} {}", status.code(), status.message());
            self.wrong.lock().unwrap().insert(wrong);
        }
        None
    }
}

/// Callers that run until the load is stopped.
pub struct Load {
    pub seen: Arc<Seen>,
    tasks: JoinSet<()>,
}

impl Load {
    /// Starts the callers. Each partner renews a token of its own, and the first one does everything else.
    pub async fn start(world: &World, partners: &[Partner]) -> Self {
        let mut load = Self {
            seen: Arc::default(),
            tasks: JoinSet::new(),
        };
        let partner = &partners[0];
        let mut access_token = String::new();
        for partner in partners {
            let first = world.first_tokens(partner).await;
            access_token = first.access_token;
            load.renew(world, partner, first.refresh_token);
        }
        load.issue(world, partner);
        load.issue_over_http(world, partner);
        load.introspect(world, access_token);
        load.create_scopes(world);
        for (service, address) in [&world.target.registry_grpc, &world.target.token_grpc]
            .into_iter()
            .enumerate()
        {
            load.watch_readiness(service, address);
        }
        load
    }

    /// Stops, and waits for the last answers.
    pub async fn stop(self) -> Arc<Seen> {
        self.seen.over.store(true, Ordering::Relaxed);
        self.tasks.join_all().await;
        self.seen
    }

    /// Makes a call at every tick, whether earlier ones have been answered or not.
    fn every_tick<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        mut call: impl FnMut(Arc<Seen>) -> F + Send + 'static,
    ) {
        let seen = self.seen.clone();
        self.tasks.spawn(async move {
            let (mut ticks, mut calls) = (interval(PACE), JoinSet::new());
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while !seen.over.load(Ordering::Relaxed) {
                ticks.tick().await;
                calls.spawn(call(seen.clone()));
                while calls.try_join_next().is_some() {}
            }
            calls.join_all().await;
        });
    }

    pub fn issue(&mut self, world: &World, partner: &Partner) {
        let (tokens, request) = (world.tokens(), world.token_request(partner, own_grant()));
        self.every_tick(move |seen| {
            let (mut tokens, request) = (tokens.clone(), request.clone());
            async move {
                let (began, answer) = (Instant::now(), tokens.issue_token(request).await);
                if let Some(answer) = seen.note("issue", began, answer) {
                    seen.tokens
                        .lock()
                        .unwrap()
                        .push(super::jti(&answer.into_inner().access_token));
                }
            }
        });
    }

    fn issue_over_http(&mut self, world: &World, partner: &Partner) {
        let client = reqwest::Client::new();
        let url = format!("{}/oauth2/token", world.target.tenant_authority_url);
        let (id, secret) = (partner.client_id.clone(), partner.client_secret.clone());
        self.every_tick(move |seen| {
            let request = client
                .post(&url)
                .basic_auth(&id, Some(&secret))
                .form(&[("grant_type", "client_credentials")]);
            async move {
                let began = Instant::now();
                let answer = match request.send().await {
                    Ok(answer) => answer,
                    Err(error) => {
                        seen.wrong.lock().unwrap().insert(format!("http: {error}"));
                        return;
                    }
                };
                let may_retry = answer.headers().contains_key("retry-after");
                match answer.status().as_u16() {
                    200 => {
                        let body = answer.json::<serde_json::Value>().await.unwrap_or_default();
                        match body["access_token"].as_str() {
                            Some(token) => seen.tokens.lock().unwrap().push(super::jti(token)),
                            None => seen.note_wrong("http: 200 without a token".into()),
                        }
                    }
                    503 if may_retry => seen.failures.lock().unwrap().push(began),
                    code => {
                        let body = answer.text().await.unwrap_or_default();
                        seen.wrong.lock().unwrap().insert(format!("http: {code} {body}"));
                    }
                }
            }
        });
    }

    pub fn introspect(&mut self, world: &World, token: String) {
        let tokens = TokenServiceClient::new(world.workload.clone());
        let request = IntrospectTokenRequest {
            tenant_id: world.target.tenant_id.clone(),
            token,
            ..Default::default()
        };
        self.every_tick(move |seen| {
            let (mut tokens, request) = (tokens.clone(), request.clone());
            async move {
                let (began, answer) = (Instant::now(), tokens.introspect_token(request).await);
                if let Some(answer) = seen.note("introspect", began, answer)
                    && answer.into_inner().active != Some(true)
                {
                    seen.wrong.lock().unwrap().insert("introspect: not active".into());
                }
            }
        });
    }

    fn create_scopes(&mut self, world: &World) {
        let scopes = ScopeServiceClient::new(world.operator.clone());
        let mut number = 0;
        self.every_tick(move |seen| {
            number += 1;
            let mut scopes = scopes.clone();
            let request = CreateScopeRequest {
                name: format!("fault.{}.{number}", std::process::id()),
                description: "Created in the middle of a fault.".into(),
                ..Default::default()
            };
            async move {
                let (began, answer) = (Instant::now(), scopes.create_scope(request).await);
                if let Some(answer) = seen.note("create", began, answer) {
                    let scope = answer.into_inner().scope.unwrap();
                    seen.scopes.lock().unwrap().push(scope.name);
                }
            }
        });
    }

    /// Renews a token again and again, as a client does: it keeps its token until it receives another one.
    pub fn renew(&mut self, world: &World, partner: &Partner, mut token: String) {
        let (mut tokens, world, partner) = (world.tokens(), world.clone(), partner.clone());
        let seen = self.seen.clone();
        self.tasks.spawn(async move {
            let mut ticks = interval(PACE);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while !seen.over.load(Ordering::Relaxed) {
                ticks.tick().await;
                let request = world.token_request(&partner, refresh_grant(&token));
                let (began, answer) = (Instant::now(), tokens.issue_token(request).await);
                if let Some(answer) = seen.note("renew", began, answer) {
                    let answer = answer.into_inner();
                    seen.tokens.lock().unwrap().push(super::jti(&answer.access_token));
                    token = answer.refresh_token;
                }
            }
        });
    }

    fn watch_readiness(&mut self, service: usize, address: &str) {
        let mut health = HealthClient::new(call::open(address).unwrap());
        let seen = self.seen.clone();
        self.tasks.spawn(async move {
            while !seen.over.load(Ordering::Relaxed) {
                let is_ready = match health.check(HealthCheckRequest::default()).await {
                    Ok(answer) => answer.into_inner().status() == ServingStatus::Serving,
                    Err(status) => {
                        seen.note_wrong(format!("readiness: {status}"));
                        false
                    }
                };
                seen.ready[service].store(is_ready, Ordering::Relaxed);
                tokio::time::sleep(READINESS_PACE).await;
            }
        });
    }
}
