//! A deployment: both services on databases of their own, filled and running. The process that holds it
//! calls them and watches what they use, as `protocol` asks. When its parent ends, it kills the services and
//! ends.

mod collector;
pub mod process;
mod record;
pub mod seed;
mod services;
mod usage;

use std::{
    collections::HashMap,
    ops::Range,
    slice,
    sync::{Arc, atomic::AtomicUsize},
    time::{Duration, Instant},
};

use accord::store::Database;
use anyhow::{Context, Result, bail, ensure};
use sea_orm::{ConnectionTrait, DatabaseBackend, Statement};
use serde_json::{Value, to_value};
use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;

pub use self::usage::memory;
use self::{
    record::Recording,
    seed::{Dataset, HASHED},
    services::{Service, Setup, endpoint},
    usage::{Processes, RegistryLog, watch},
};
use crate::{
    bare::{self, Addresses},
    load::{
        self, Calls, Window,
        form::Form,
        grpc::{Clients, Family, Source, TokenCalls},
        mixed::Mixed,
        proofs::Proofs,
        wrong_secrets::WrongSecrets,
    },
    pipe::{self, Process},
    protocol::{CALLERS, Outcome, Pace, Plan, Request, Sample, Slice, Startup, Target, Variant, Work},
    results::quantile,
};

/// The role of a process that holds a deployment.
pub const ROLE: &str = "deployment";
/// How often the services start, to see how long it takes.
const STARTS: usize = 3;
/// How long services do nothing before their memory counts as idle.
const IDLE_FOR: Duration = Duration::from_secs(1);
/// Verifies every secret once: fewer callers than the registry lets wait, for as long as it takes.
const FIRST_CALLERS: Pace = Pace::Callers(16);
const FIRST_CALLS_WITHIN: Duration = Duration::from_secs(3_600);
/// A registry that has begun no argon2 run for so long has none waiting.
const LATE_RUNS_WITHIN: Duration = Duration::from_millis(250);
/// Codes a second that are prepared before any rate was measured.
const CODES_PER_SECOND: f64 = 4_000.0;
/// Proofs a second that are prepared: more than a bare server verifies.
const PROOFS_PER_SECOND: f64 = 30_000.0;

/// Answers requests until the parent ends.
#[tokio::main]
pub async fn serve() -> Result<()> {
    let mut requests = pipe::requests();
    let mut deployment = None;
    while let Some(request) = requests.recv().await {
        let answer = tokio::select! {
            answer = answer(&mut deployment, request) => answer,
            // The parent waits for its answer, so this is the end of the pipe.
            _ = requests.recv() => return Ok(()),
        };
        pipe::send(answer)?;
    }
    Ok(())
}

async fn answer(deployment: &mut Option<Deployment>, request: Request) -> Result<Value> {
    Ok(match (request, deployment) {
        (Request::Deploy(plan), deployment) => {
            let (mut new, started) = Deployment::start(plan).await?;
            new.verify_every_secret().await?;
            *deployment = Some(new);
            to_value(started)?
        }
        (Request::Measure(slice), Some(deployment)) => to_value(deployment.measure(&slice).await?)?,
        (Request::Record(events), Some(deployment)) => to_value(deployment.record(events).await?)?,
        (Request::Finish, Some(deployment)) => to_value(deployment.finish().await?)?,
        (_, None) => bail!("no deployment"),
    })
}

struct Deployment {
    plan: Plan,
    setup: Setup,
    dataset: Dataset,
    registry: Service,
    token: Service,
    registry_log: RegistryLog,
    /// One for each caller, of the first clients, begun when they are first called for.
    families: Arc<[Family]>,
    bare: (Process, Addresses),
    /// Started when they are first called.
    variants: HashMap<Variant, Vec<Service>>,
    /// Tokens that were issued here, as long as no event was deleted.
    issued: u64,
    codes_per_second: f64,
}

/// What a slice calls.
struct Server {
    /// Of the first replica.
    http: String,
    endpoints: Vec<Endpoint>,
    processes: Processes,
    /// Replicas that end with the slice.
    replicas: Vec<Service>,
}

impl Deployment {
    async fn start(plan: Plan) -> Result<(Self, Startup)> {
        let setup = Setup::create(&plan).await?;
        let dataset = seed::run(&setup, &plan).await?;
        for url in [&plan.registry_url, &plan.token_url] {
            settle(url).await?;
        }
        let (mut registry, mut token) = setup.start().await?;
        let mut ready = [Vec::new(), Vec::new()];
        for _ in 0..STARTS {
            // A process holds its address until it is gone.
            token.kill().await?;
            registry.kill().await?;
            (registry, token) = setup.start().await?;
            ready[0].push(registry.ready_after);
            ready[1].push(token.ready_after);
        }
        sleep(IDLE_FOR).await;
        let [registry_ready, token_ready] = ready.map(|millis| quantile(millis, 0.5));
        let started = Startup {
            registry_ready,
            token_ready,
            registry_memory: memory(registry.pid()?)?,
            token_memory: memory(token.pid()?)?,
        };
        let mut bare = Process::start(&std::env::current_exe()?, bare::ROLE)?;
        let bare_addresses = bare.receive().await?;
        let deployment = Self {
            bare: (bare, bare_addresses),
            registry_log: RegistryLog::open(&setup.log_file("registry"))?,
            plan,
            setup,
            dataset,
            registry,
            token,
            families: Arc::from([]),
            variants: HashMap::new(),
            issued: 0,
            codes_per_second: CODES_PER_SECOND,
        };
        Ok((deployment, started))
    }

    /// Verifies every hashed secret once. Later slices rely on it. It also shows that the registry's log counts calls and
    /// argon2 runs.
    async fn verify_every_secret(&mut self) -> Result<()> {
        let (target, work) = (Target::Service, Work::IssueOnce);
        let slice = Slice::new(target, work, FIRST_CALLERS, FIRST_CALLS_WITHIN);
        let all = self.dataset.credentials.clone();
        self.dataset.credentials = all[..all.len().min(HASHED)].into();
        let sample = self.measure(&slice).await?;
        let secrets = self.dataset.credentials.len() as u64;
        self.dataset.credentials = all;
        let logged = sample.argon2_runs.min(sample.registry_calls.values().sum());
        let verified = sample.outcome.answers;
        ensure!(
            verified == secrets,
            "{verified} of {secrets} secrets were verified"
        );
        ensure!(
            logged >= secrets,
            "{logged} of {secrets} first checks were logged"
        );
        Ok(())
    }

    async fn measure(&mut self, slice: &Slice) -> Result<Sample> {
        let mut server = self.server(slice.target).await?;
        let work = self.prepare(slice, &server).await?;
        self.registry_log.read()?;

        let begins = Instant::now() + slice.warm_up;
        let ends = begins + slice.span;
        let (window, over) = (Window { begins, ends }, CancellationToken::new());
        let working = async {
            let outcome = load::drive(work, slice.pace, window).await;
            over.cancel();
            outcome
        };
        let guessing = async {
            let Some(rate) = slice.wrong_secrets else {
                return Ok(Outcome::default());
            };
            let wrong_secrets = WrongSecrets {
                clients: Clients::connect(&server.endpoints).await?,
                credentials: self.dataset.credentials.clone(),
                ended: self.dataset.ended.clone(),
            };
            load::drive(Arc::new(wrong_secrets), Pace::Rate(rate), window).await
        };
        let draining = async {
            if slice.target == Target::Draining {
                sleep_until((begins + slice.span / 3).into()).await;
                let mut stops = server.replicas.pop().context("no replica")?;
                stops.stop().await?;
            }
            Ok(())
        };
        let watching = watch(server.processes, window, over.clone());
        let (outcome, guessed, usage, ()) = tokio::try_join!(working, guessing, watching, draining)?;

        let (registry_calls, mut argon2_runs) = self.registry_log.read()?;
        for mut replica in server.replicas {
            replica.kill().await?;
        }
        // What was begun goes on for a while: it belongs to this slice, not to the next one.
        let mut late_runs = argon2_runs;
        while late_runs > 0 {
            sleep(LATE_RUNS_WITHIN).await;
            late_runs = self.registry_log.read()?.1;
            argon2_runs += late_runs;
        }
        if slice.work == Work::Mixed {
            self.issued = 0;
        } else if slice.target != Target::Bare && ![Work::Introspect, Work::Push].contains(&slice.work) {
            self.issued += outcome.all_answers;
        }
        if slice.target != Target::Bare && slice.work == Work::Code {
            self.codes_per_second = outcome.answers as f64 / outcome.seconds * 1.5;
        }
        Ok(Sample {
            outcome,
            wrong_secrets: guessed.refused,
            usage,
            registry_calls,
            argon2_runs,
        })
    }

    async fn record(&mut self, events: u64) -> Result<Vec<(String, f64)>> {
        let recording = Recording {
            plan: &self.plan,
            setup: &self.setup,
            dataset: &self.dataset,
            token: &mut self.token,
        };
        recording.measure(events).await
    }

    async fn server(&mut self, target: Target) -> Result<Server> {
        let mut replicas = Vec::new();
        let called = match target {
            Target::Bare => return self.bare(),
            Target::Service => slice::from_ref(&self.token),
            Target::NewReplica | Target::Draining => {
                let count = if target == Target::Draining { 2 } else { 1 };
                replicas = self.setup.start_replicas(Variant::Replicas(count)).await?;
                &replicas[..]
            }
            Target::Variant(variant) => {
                if !self.variants.contains_key(&variant) {
                    let started = self.setup.start_replicas(variant).await?;
                    self.variants.insert(variant, started);
                }
                &self.variants[&variant][..]
            }
        };
        // The one that stops is not watched.
        let watched = called.len() - usize::from(target == Target::Draining);
        Ok(Server {
            http: called[0].addresses.http.clone(),
            endpoints: called.iter().map(|replica| replica.endpoint.clone()).collect(),
            processes: Processes {
                servers: called[..watched]
                    .iter()
                    .map(Service::pid)
                    .collect::<Result<_>>()?,
                registry: Some(self.registry.pid()?),
                database: self.plan.database_pid,
            },
            replicas,
        })
    }

    fn bare(&self) -> Result<Server> {
        let (process, addresses) = &self.bare;
        Ok(Server {
            http: addresses.http.clone(),
            endpoints: vec![endpoint(&addresses.grpc, None)?],
            processes: Processes {
                servers: vec![process.pid()?],
                registry: None,
                database: None,
            },
            replicas: Vec::new(),
        })
    }

    /// Gets calls ready. The bare server signs alike, whatever the grant.
    async fn prepare(&mut self, slice: &Slice, server: &Server) -> Result<Arc<dyn Calls>> {
        let credentials = self.dataset.credentials.clone();
        if slice.work == Work::Form {
            return Ok(Arc::new(Form::connect(&server.http, credentials).await?));
        }
        let clients = Clients::connect(&server.endpoints).await?;
        if slice.target == Target::Draining {
            for (index, endpoint) in server.endpoints.iter().enumerate() {
                clients.follow(index, server.endpoints.len(), endpoint);
            }
        }
        if slice.work == Work::Mixed {
            let families = self.begin_families(&clients, CALLERS..2 * CALLERS).await?;
            let operator = self.setup.operator()?;
            return Ok(Arc::new(Mixed {
                clients,
                credentials,
                families,
                operator,
            }));
        }
        let source = match slice.work {
            Work::Introspect => {
                let authorization = format!("Bearer {}", self.setup.workload_token);
                Source::Tokens(clients.tokens(&credentials).await?, authorization.parse()?)
            }
            Work::IssueBound => {
                let each = each(PROOFS_PER_SECOND, slice);
                Source::Proofs(Proofs::sign(&credentials, each, &self.setup.public_base_url()))
            }
            _ if slice.target == Target::Bare => Source::ClientCredentials(credentials),
            Work::IssueOnce => Source::Once(credentials, AtomicUsize::new(0)),
            Work::Refresh => Source::Families(self.families(&clients).await?),
            Work::Code => {
                let each = each(self.codes_per_second, slice);
                // A redemption ends the client's family: other clients than those that renew.
                Source::Codes(self.dataset.codes(CALLERS..2 * CALLERS, each).await?)
            }
            Work::Push => Source::Pushes(credentials, seed::authorization_request()),
            _ => Source::ClientCredentials(credentials),
        };
        Ok(Arc::new(TokenCalls { clients, source }))
    }

    async fn families(&mut self, clients: &Clients) -> Result<Arc<[Family]>> {
        if self.families.is_empty() {
            self.families = self.begin_families(clients, 0..CALLERS).await?.into();
            self.issued += self.families.len() as u64;
        }
        Ok(self.families.clone())
    }

    async fn begin_families(&self, clients: &Clients, of: Range<usize>) -> Result<Vec<Family>> {
        let mut families = Vec::with_capacity(of.len());
        for codes in self.dataset.codes(of, 1).await? {
            families.push(codes.begin_family(clients).await?);
        }
        Ok(families)
    }

    /// Ends the services. No token may have left whose audit event is not in the database.
    async fn finish(&mut self) -> Result<()> {
        self.token.kill().await?;
        self.registry.kill().await?;
        let (issued, recorded) = (self.issued, issued_tokens(&self.plan.token_url).await?);
        ensure!(recorded >= issued, "{recorded} audit events of {issued} tokens");
        Ok(())
    }
}

/// What each caller needs for a slice, at so many calls a second of all.
fn each(per_second: f64, slice: &Slice) -> usize {
    let seconds = (slice.warm_up + slice.span).as_secs_f64();
    (per_second * seconds / CALLERS as f64).ceil() as usize + 1
}

/// Leaves a database that was filled at once as one that grew: with statistics, and with nothing left to
/// write back.
async fn settle(url: &str) -> Result<()> {
    // Not a connection of the services, which would not wait so long.
    let db = sea_orm::Database::connect(url).await?;
    if db.get_database_backend() == DatabaseBackend::Postgres {
        db.execute_unprepared("VACUUM ANALYZE").await?;
        db.execute_unprepared("CHECKPOINT").await?;
    }
    // SQLite writes its log back when the last connection closes.
    Ok(db.close().await?)
}

/// Counts the audit events of issued tokens.
async fn issued_tokens(url: &str) -> Result<u64> {
    let db = Database::connect(url).await?;
    let count = "SELECT CAST(COALESCE(SUM(size), 0) AS bigint) AS events FROM audit_groups";
    let count = Statement::from_string(db.backend(), count);
    let row = db.read().query_one_raw(count).await?.context("no count")?;
    let events: i64 = row.try_get("", "events")?;
    db.close().await;
    Ok(u64::try_from(events)?)
}
