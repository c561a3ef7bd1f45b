//! Calls of every kind through the gateway, and checks of a resource server, about 50 a second in all, and which of them
//! failed.

use std::{
    io::Write,
    net::Ipv4Addr,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use accord::testing::calls::ok;
use reqwest::RequestBuilder;
use serde_json::Value;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};
use tonic::Code;

use super::installation::Installation;
use crate::harness::partner::{Partner, REDIRECT_URI, World};

/// Between two calls of a kind: four kinds make 40 calls a second, renewals and redemptions the rest.
const PACE: Duration = Duration::from_millis(100);
/// Between two renewals of a token, and between two redemptions of a partner.
const SLOW_PACE: Duration = Duration::from_millis(200);
/// What a fault may fail: calls that began in this time after it, or were under way.
pub const EXCUSED: Duration = Duration::from_secs(2);
/// How long a call may be under way.
const UNDER_WAY: Duration = Duration::from_secs(1);

/// How long no call must have failed before a fault, and how long that may take.
const UNBROKEN: Duration = Duration::from_millis(1_500);
const PATIENCE: Duration = Duration::from_secs(30);

/// The kinds of calls.
const KINDS: [&str; 5] = ["client credentials", "refresh", "code", "introspection", "check"];

/// What became of the calls.
#[derive(Default)]
pub struct Seen {
    is_over: AtomicBool,
    /// When each call began, of which kind it is, and why it failed, if it did.
    calls: Mutex<Vec<(Instant, &'static str, Option<String>)>>,
}

impl Seen {
    fn note(&self, began: Instant, kind: &'static str, failure: Option<String>) {
        self.calls.lock().unwrap().push((began, kind, failure));
    }

    /// Asserts that calls of every kind succeeded in this time, and that none failed but those that a fault at one of
    /// `faults` excuses.
    #[track_caller]
    pub fn assert_whole(&self, since: Instant, faults: &[Instant], what: &str) {
        let calls = self.calls.lock().unwrap();
        let calls = calls.iter().filter(|(began, ..)| *began >= since);
        let mut succeeded = [0; KINDS.len()];
        let mut failures = Vec::new();
        let is_excused = |began: Instant| {
            faults
                .iter()
                .any(|fault| (*fault - UNDER_WAY..*fault + EXCUSED).contains(&began))
        };
        let mut excused = 0;
        for (began, kind, failure) in calls {
            let index = KINDS.iter().position(|known| known == kind).unwrap();
            match failure {
                None => succeeded[index] += 1,
                Some(_) if is_excused(*began) => excused += 1,
                Some(failure) => failures.push(format!("{kind} at {:?}: {failure}", *began - since)),
            }
        }
        // Shown if the test fails.
        let _ = writeln!(
            std::io::stderr(),
            "{what}: {KINDS:?} succeeded {succeeded:?}, {excused} failed and are excused"
        );
        let faults: Vec<_> = faults.iter().map(|fault| *fault - since).collect();
        let (count, first) = (failures.len(), &failures[..failures.len().min(8)]);
        assert!(
            failures.is_empty(),
            "{what}, faults at {faults:?}: {count} failed: {first:#?}"
        );
        assert!(
            succeeded.iter().all(|count| *count > 0),
            "{what}: {KINDS:?} {succeeded:?}"
        );
    }
}

/// Callers that run until the load is stopped.
pub struct Load {
    pub seen: Arc<Seen>,
    tasks: JoinSet<()>,
    addresses: u8,
}

impl Load {
    pub async fn start(installation: &Installation) -> Self {
        let world = installation.world();
        let mut load = Self {
            seen: Arc::default(),
            tasks: JoinSet::new(),
            addresses: 0,
        };
        let partner = world.partner().await;
        let first = world.first_tokens(&partner).await;
        let caller = load.caller(installation, &partner);
        load.every_tick("client credentials", move || {
            succeed(caller.token(&[("grant_type", "client_credentials")]))
        });
        let caller = load.caller(installation, &partner);
        let token = first.access_token.clone();
        load.every_tick("introspection", move || {
            introspect(caller.post("introspect", &[("token", &token)]))
        });
        let resource = installation
            .resource_server
            .get(&installation.client(None), &first.access_token);
        load.every_tick("check", move || succeed(resource.try_clone().unwrap()));
        for _ in 0..2 {
            let partner = world.partner().await;
            let first = world.first_tokens(&partner).await;
            let caller = load.caller(installation, &partner);
            load.renew(caller, first.refresh_token);
        }
        for _ in 0..2 {
            let partner = world.partner().await;
            let caller = load.caller(installation, &partner);
            load.redeem(caller, setups(installation), partner);
        }
        load
    }

    /// Waits until no call fails: the first ones find empty caches, on a busy machine.
    pub async fn is_whole(&self) {
        let started = Instant::now();
        loop {
            sleep(UNBROKEN).await;
            let since = Instant::now() - UNBROKEN;
            let calls = self.seen.calls.lock().unwrap();
            let mut failures = calls.iter().filter(|(_, _, failure)| failure.is_some());
            let last = failures.next_back();
            if last.is_none_or(|(began, ..)| *began < since) {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "{last:?}");
        }
    }

    /// Stops, and waits for the last answers.
    pub async fn stop(self) -> Arc<Seen> {
        self.seen.is_over.store(true, Ordering::Relaxed);
        self.tasks.join_all().await;
        self.seen
    }

    /// A partner with an address of its own, because the gateway limits each one.
    fn caller(&mut self, installation: &Installation, partner: &Partner) -> Caller {
        self.addresses += 1;
        let address = Ipv4Addr::new(10, 77, 1, self.addresses);
        let mut add = Command::new("ip");
        add.args(["address", "add", &format!("{address}/16"), "dev", "bridge"]);
        assert!(add.status().unwrap().success());
        Caller {
            client: installation.client(Some(address)),
            authority: installation.target.tenant_authority_url.clone(),
            partner: partner.clone(),
        }
    }

    /// Makes a call at every tick, whether earlier ones have been answered or not.
    fn every_tick<F>(&mut self, kind: &'static str, mut call: impl FnMut() -> F + Send + 'static)
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let seen = self.seen.clone();
        self.tasks.spawn(async move {
            let (mut ticks, mut calls) = (ticks(PACE), JoinSet::new());
            while !seen.is_over.load(Ordering::Relaxed) {
                ticks.tick().await;
                let (seen, call) = (seen.clone(), call());
                calls.spawn(async move {
                    let began = Instant::now();
                    seen.note(began, kind, call.await.err());
                });
                while calls.try_join_next().is_some() {}
            }
            calls.join_all().await;
        });
    }

    /// Renews a token again and again, as a client does: it keeps its token until it receives another one.
    fn renew(&mut self, caller: Caller, mut token: String) {
        let seen = self.seen.clone();
        self.tasks.spawn(async move {
            let mut ticks = ticks(SLOW_PACE);
            while !seen.is_over.load(Ordering::Relaxed) {
                ticks.tick().await;
                let request = caller.token(&[("grant_type", "refresh_token"), ("refresh_token", &token)]);
                let began = Instant::now();
                match answer(request).await {
                    Ok(body) => {
                        token = body["refresh_token"].as_str().unwrap().to_owned();
                        seen.note(began, "refresh", None);
                    }
                    Err(failure) => seen.note(began, "refresh", Some(failure)),
                }
            }
        });
    }

    /// Redeems a code again and again. Every setup is a Tenant Admin's, over a channel to the last replica.
    fn redeem(&mut self, caller: Caller, world: World, partner: Partner) {
        let seen = self.seen.clone();
        self.tasks.spawn(async move {
            let mut ticks = ticks(SLOW_PACE);
            while !seen.is_over.load(Ordering::Relaxed) {
                ticks.tick().await;
                let started = world.start(&partner).await;
                let began = Instant::now();
                let signed_in = world.attempt_sign_in(&started.setup.setup_id).await;
                // One under way at the cut is not sent to another registry: it counts as an attempt.
                if let Err(status) = &signed_in
                    && status.code() == Code::Unavailable
                {
                    seen.note(began, "code", Some(format!("no sign-in: {status:?}")));
                    continue;
                }
                let session = ok(signed_in).admin_session;
                let approved = world.approve_started(started, &session).await;
                let request = caller.token(&[
                    ("grant_type", "authorization_code"),
                    ("code", &approved.code),
                    ("redirect_uri", REDIRECT_URI),
                    ("code_verifier", &approved.verifier),
                ]);
                let began = Instant::now();
                seen.note(began, "code", answer(request).await.err());
            }
        });
    }
}

/// The channels of an internal service to the last replica, which no fault hits.
fn setups(installation: &Installation) -> World {
    let mut world = installation.world();
    let url = format!("https://{}:50052", installation.tokens.last().unwrap().host.name);
    world.workload = installation.channel(&url, "internal-service-client");
    world
}

/// A partner at the gateway.
struct Caller {
    client: reqwest::Client,
    authority: String,
    partner: Partner,
}

impl Caller {
    fn token(&self, form: &[(&str, &str)]) -> RequestBuilder {
        self.post("token", form)
    }

    fn post(&self, endpoint: &str, form: &[(&str, &str)]) -> RequestBuilder {
        let request = self.client.post(format!("{}/oauth2/{endpoint}", self.authority));
        let Partner {
            client_id,
            client_secret,
        } = &self.partner;
        request.basic_auth(client_id, Some(client_secret)).form(form)
    }
}

async fn succeed(request: RequestBuilder) -> Result<(), String> {
    answer(request).await.map(drop)
}

async fn introspect(request: RequestBuilder) -> Result<(), String> {
    let body = answer(request).await?;
    match body["active"] == true {
        true => Ok(()),
        false => Err(format!("{body}")),
    }
}

/// # Errors
/// Why there is no answer with status 200.
async fn answer(request: RequestBuilder) -> Result<Value, String> {
    let answer = request.send().await.map_err(|error| format!("{error:?}"))?;
    let status = answer.status();
    let body = answer.text().await.map_err(|error| format!("{error:?}"))?;
    match status.as_u16() {
        200 => serde_json::from_str(&body).map_err(|error| format!("{error}: {body}")),
        _ => Err(format!("{status} {body}")),
    }
}

fn ticks(pace: Duration) -> tokio::time::Interval {
    let mut ticks = interval(pace);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
