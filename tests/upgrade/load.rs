//! Calls of every kind, from outside through Envoy and from inside by the channel of the services. No call is repeated: one
//! that fails ends the test.

use std::{
    any::Any,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use accord::{
    audit::v1::{ListAuditEventsRequest, audit_service_client::AuditServiceClient},
    registry::v1 as reg,
    testing::calls::ok,
    token::v1::token_service_client::TokenServiceClient,
};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tokio::{
    task::{JoinError, JoinSet},
    time::{MissedTickBehavior, interval, sleep},
};

use super::fleet::{Fleet, Replica};
use crate::harness::{
    partner::{Approved, Partner, REDIRECT_URI, World, own_grant},
    refusal::BOUND,
};

/// Between two calls of a kind. The gateway lets an address call the token endpoint 20 times a second.
const PACE: Duration = Duration::from_millis(60);
/// The same of kinds that cost runs of argon2.
const SLOW_PACE: Duration = Duration::from_millis(500);
/// How long the kinds may take to answer again.
const PATIENCE: Duration = Duration::from_secs(60);
/// Calls that each kind must make after a replacement, and a replica must answer.
const ENOUGH: usize = 3;

/// What a caller panicked with.
pub type Failure = Box<dyn Any + Send>;

/// Callers of all kinds, until they are told to end.
pub struct Load {
    callers: JoinSet<()>,
    counts: Vec<(&'static str, Arc<AtomicUsize>)>,
    over: Arc<AtomicBool>,
}

/// Whether to call again, at a pace.
struct Pace {
    ticks: tokio::time::Interval,
    count: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
}

impl Pace {
    async fn goes_on(&mut self) -> bool {
        self.ticks.tick().await;
        !self.over.load(Ordering::Relaxed)
    }

    fn count(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }
}

/// A partner's software, outside.
#[derive(Clone)]
struct Outside {
    client: Client,
    gateway: String,
    world: World,
}

impl Load {
    pub async fn start(fleet: &Fleet) -> Self {
        let mut load = Self {
            callers: JoinSet::new(),
            counts: Vec::new(),
            over: Arc::default(),
        };
        let world = &fleet.world;
        let outside = |host| Outside {
            client: fleet.gateway.client_from(Ipv4Addr::new(127, 0, 0, host)),
            gateway: fleet.gateway.url(),
            world: world.clone(),
        };
        let partner = world.partner().await;
        let tokens = outside(2).first_tokens(&partner).await;
        let refresh_token = tokens["refresh_token"].as_str().unwrap().to_owned();
        let access_token = tokens["access_token"].as_str().unwrap().to_owned();

        let pace = load.kind("client credentials by form", PACE);
        load.callers.spawn(issue(outside(2), partner.clone(), pace));
        let pace = load.kind("renewals by form", PACE);
        let renewing = renew(outside(3), partner.clone(), refresh_token, pace);
        load.callers.spawn(renewing);
        let pace = load.kind("client credentials as JSON", PACE);
        load.callers
            .spawn(issue_as_json(outside(4), partner.clone(), pace));
        let pace = load.kind("keys and metadata", PACE);
        load.callers.spawn(read(outside(5), pace));
        let pace = load.kind("setups of new clients", SLOW_PACE);
        load.callers.spawn(set_up(outside(6), pace));
        let pace = load.kind("client credentials inside", PACE);
        load.callers.spawn(issue_inside(world.clone(), partner, pace));
        let pace = load.kind("introspection", PACE);
        load.callers.spawn(introspect(world.clone(), access_token, pace));
        let pace = load.kind("operators", SLOW_PACE);
        load.callers.spawn(operate(world.clone(), pace));
        load
    }

    fn kind(&mut self, name: &'static str, pace: Duration) -> Pace {
        let count = Arc::new(AtomicUsize::new(0));
        self.counts.push((name, count.clone()));
        let mut ticks = interval(pace);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let over = self.over.clone();
        Pace { ticks, count, over }
    }

    fn counted(&self) -> Vec<usize> {
        let counts = self.counts.iter();
        counts.map(|(_, count)| count.load(Ordering::Relaxed)).collect()
    }

    /// Waits until every kind was answered some more times, and a replica has answered too.
    ///
    /// # Errors
    /// The panic of a caller whose call has failed.
    pub async fn goes_on_with(&mut self, replica: &mut Replica) -> Result<(), Failure> {
        let (before, began) = (self.counted(), Instant::now());
        loop {
            if let Some(ended) = self.callers.try_join_next() {
                return Err(ended.expect_err("callers go on").into_panic());
            }
            let after = self.counted();
            let mut pairs = before.iter().zip(&after);
            let all_go_on = pairs.all(|(before, after)| after - before >= ENOUGH);
            if all_go_on && replica.calls().await >= ENOUGH as u64 {
                return Ok(());
            }
            assert!(began.elapsed() < PATIENCE, "{:?}: {after:?}", self.counts);
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends the callers. Returns how many calls of each kind succeeded; none has failed.
    ///
    /// # Errors
    /// As above.
    pub async fn finish(mut self) -> Result<Vec<(&'static str, usize)>, Failure> {
        self.over.store(true, Ordering::Relaxed);
        while let Some(ended) = self.callers.join_next().await {
            ended.map_err(JoinError::into_panic)?;
        }
        let names = self.counts.iter().map(|(name, _)| *name);
        Ok(names.zip(self.counted()).collect())
    }
}

impl Outside {
    /// Posts a form to an OAuth endpoint as a client. Returns the body of a response that says 200.
    async fn post(&self, endpoint: &str, partner: &Partner, form: &[(&str, &str)]) -> String {
        let url = format!("{}/oauth2/{endpoint}", self.world.target.tenant_authority_url);
        let request = self.client.post(url).form(form);
        let request = request.basic_auth(&partner.client_id, Some(&partner.client_secret));
        let response = request.send().await.unwrap();
        let (status, body) = (response.status(), response.text().await.unwrap());
        assert_eq!(status, StatusCode::OK, "{endpoint}: {body}");
        body
    }

    /// Requests a token.
    async fn token(&self, partner: &Partner, form: &[(&str, &str)]) -> Value {
        serde_json::from_str(&self.post("token", partner, form).await).unwrap()
    }

    async fn redeem(&self, partner: &Partner, approved: &Approved) -> Value {
        let form = [
            ("grant_type", "authorization_code"),
            ("code", &approved.code),
            ("redirect_uri", REDIRECT_URI),
            ("code_verifier", &approved.verifier),
        ];
        self.token(partner, &form).await
    }

    async fn first_tokens(&self, partner: &Partner) -> Value {
        let approved = self.world.approve(partner).await;
        self.redeem(partner, &approved).await
    }
}

async fn issue(outside: Outside, partner: Partner, mut pace: Pace) {
    while pace.goes_on().await {
        let form = [("grant_type", "client_credentials")];
        outside.token(&partner, &form).await;
        pace.count();
    }
}

async fn renew(outside: Outside, partner: Partner, mut refresh_token: String, mut pace: Pace) {
    while pace.goes_on().await {
        let form = [("grant_type", "refresh_token"), ("refresh_token", &refresh_token)];
        let tokens = outside.token(&partner, &form).await;
        refresh_token = tokens["refresh_token"].as_str().unwrap().to_owned();
        pace.count();
    }
}

async fn issue_as_json(outside: Outside, partner: Partner, mut pace: Pace) {
    let url = format!("{}/accord.token.v1.TokenService/IssueToken", outside.gateway);
    while pace.goes_on().await {
        let message = json!({
            "tenant_id": outside.world.target.tenant_id,
            "client_id": partner.client_id,
            "client_secret": partner.client_secret,
            "client_credentials": {},
        });
        let response = outside.client.post(&url).json(&message).send().await.unwrap();
        let (status, body) = (response.status(), response.text().await.unwrap());
        assert_eq!(status, StatusCode::OK, "IssueToken: {body}");
        pace.count();
    }
}

async fn read(outside: Outside, mut pace: Pace) {
    let authority = outside.world.target.tenant_authority_url.clone();
    let (base, tenant) = authority.rsplit_once('/').unwrap();
    let metadata = format!("{base}/.well-known/oauth-authorization-server/{tenant}");
    let response = outside.client.get(&metadata).send().await.unwrap();
    let document: Value = response.json().await.unwrap();
    let keys = document["jwks_uri"].as_str().unwrap();
    while pace.goes_on().await {
        for url in [&metadata, keys] {
            let response = outside.client.get(url).send().await.unwrap();
            let (status, body) = (response.status(), response.text().await.unwrap());
            assert_eq!(status, StatusCode::OK, "{url}: {body}");
        }
        pace.count();
    }
}

/// Walks the steps of a new client: its request, registration, consent, code and tokens, until it revokes them.
async fn set_up(outside: Outside, mut pace: Pace) {
    while pace.goes_on().await {
        let partner = outside.world.partner().await;
        let tokens = outside.first_tokens(&partner).await;
        let access_token = tokens["access_token"].as_str().unwrap();
        assert!(
            outside.world.active(access_token).await,
            "a new token is inactive"
        );
        let refresh_token = tokens["refresh_token"].as_str().unwrap();
        outside
            .post("revoke", &partner, &[("token", refresh_token)])
            .await;
        let revoked = Instant::now();
        while outside.world.active(access_token).await {
            assert!(revoked.elapsed() < BOUND, "a revoked token is active");
            sleep(Duration::from_millis(20)).await;
        }
        pace.count();
    }
}

async fn issue_inside(world: World, partner: Partner, mut pace: Pace) {
    let mut tokens = TokenServiceClient::new(world.workload.clone());
    while pace.goes_on().await {
        ok(tokens
            .issue_token(world.token_request(&partner, own_grant()))
            .await);
        pace.count();
    }
}

async fn introspect(world: World, access_token: String, mut pace: Pace) {
    while pace.goes_on().await {
        assert!(world.active(&access_token).await, "a live token is inactive");
        pace.count();
    }
}

/// Registers a client, and reads clients and the audit record of both services.
async fn operate(world: World, mut pace: Pace) {
    while pace.goes_on().await {
        let partner = world.partner().await;
        let client_id = partner.client_id.clone();
        ok(world
            .clients()
            .get_client(reg::GetClientRequest { client_id })
            .await);
        for channel in [&world.operator, &world.token_operator] {
            let mut audit = AuditServiceClient::new(channel.clone());
            ok(audit.list_audit_events(ListAuditEventsRequest::default()).await);
        }
        pace.count();
    }
}
