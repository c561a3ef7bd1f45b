//! A deployment: both services on databases of their own, filled and running. The process that holds it
//! calls them and watches what they use, as `protocol` asks. When its parent ends, it kills the services and
//! ends.

mod seed;
mod services;
mod usage;

use std::{
    sync::{Arc, atomic::AtomicUsize},
    time::{Duration, Instant},
};

use accord::store::Database;
use anyhow::{Context, Result, ensure};
use sea_orm::{ConnectionTrait, DatabaseBackend, Statement};
use serde_json::{Value, to_value};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use self::{
    seed::Dataset,
    services::{Service, Setup},
    usage::{Processes, RegistryLog, memory, watch},
};
use crate::{
    bare::{self, Addresses},
    load::{
        self, Calls, Window,
        form::Form,
        grpc::{Clients, Family, Source, TokenCalls},
        wrong_secrets::WrongSecrets,
    },
    pipe::{self, Process},
    protocol::{CALLERS, Outcome, Pace, Plan, Request, Sample, Slice, Startup, Target, Work},
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
    Ok(match request {
        Request::Deploy(plan) => {
            let (mut new, started) = Deployment::start(plan).await?;
            new.verify_every_secret().await?;
            *deployment = Some(new);
            to_value(started)?
        }
        Request::Measure(slice) => {
            let deployment = deployment.as_mut().context("no deployment")?;
            to_value(deployment.measure(&slice).await?)?
        }
        Request::Finish => {
            let deployment = deployment.take().context("no deployment")?;
            to_value(deployment.finish().await?)?
        }
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
    /// Startup when it is first called.
    bare: Option<(Process, Addresses)>,
    /// Tokens that were issued here.
    issued: u64,
    codes_per_second: f64,
}

/// A server to call, the processes behind it, and the replica that ends with the slice.
type Server = (Addresses, Processes, Option<Service>);

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
        let deployment = Self {
            registry_log: RegistryLog::open(&setup.log_file("registry"))?,
            plan,
            setup,
            dataset,
            registry,
            token,
            families: Arc::from([]),
            bare: None,
            issued: 0,
            codes_per_second: CODES_PER_SECOND,
        };
        Ok((deployment, started))
    }

    /// Later slices rely on it. It also shows that the registry's log counts calls and argon2 runs.
    async fn verify_every_secret(&mut self) -> Result<()> {
        let slice = Slice {
            target: Target::Service,
            work: Work::IssueOnce,
            warm_up: Duration::ZERO,
            span: FIRST_CALLS_WITHIN,
            pace: FIRST_CALLERS,
            wrong_secrets: None,
        };
        let sample = self.measure(&slice).await?;
        let secrets = self.dataset.credentials.len() as u64;
        let logged = sample.argon2_runs.min(sample.registry_calls.values().sum());
        ensure!(
            sample.outcome.answers == secrets,
            "not all of {secrets} secrets were verified"
        );
        ensure!(
            logged >= secrets,
            "the registry's log lacks some of {secrets} first checks"
        );
        Ok(())
    }

    async fn measure(&mut self, slice: &Slice) -> Result<Sample> {
        let (addresses, processes, replica) = self.server(slice.target).await?;
        let work = self.prepare(slice, &addresses).await?;
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
                clients: Clients::connect(&addresses.grpc).await?,
                credentials: self.dataset.credentials.clone(),
                ended: self.dataset.ended.clone(),
            };
            load::drive(Arc::new(wrong_secrets), Pace::Rate(rate), window).await
        };
        let watching = watch(processes, window, over.clone());
        let (outcome, guessed, usage) = tokio::join!(working, guessing, watching);
        let (outcome, guessed, usage) = (outcome?, guessed?, usage?);

        let (registry_calls, mut argon2_runs) = self.registry_log.read()?;
        if let Some(mut replica) = replica {
            replica.kill().await?;
        }
        // What was begun goes on for a while: it belongs to this slice, not to the next one.
        let mut late_runs = argon2_runs;
        while late_runs > 0 {
            sleep(LATE_RUNS_WITHIN).await;
            late_runs = self.registry_log.read()?.1;
            argon2_runs += late_runs;
        }
        if slice.target != Target::Bare && slice.work != Work::Introspect {
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

    async fn server(&mut self, target: Target) -> Result<Server> {
        let (registry, database) = (Some(self.registry.pid()?), self.plan.database_pid);
        Ok(match target {
            Target::Service => {
                let processes = [Some(self.token.pid()?), registry, database];
                (self.setup.token_addresses.clone(), processes, None)
            }
            Target::NewReplica => {
                let (replica, addresses) = self.setup.start_replica().await?;
                let processes = [Some(replica.pid()?), registry, database];
                (addresses, processes, Some(replica))
            }
            Target::Bare => {
                if self.bare.is_none() {
                    let mut process = Process::start(&std::env::current_exe()?, bare::ROLE)?;
                    let addresses = process.receive().await?;
                    self.bare = Some((process, addresses));
                }
                let (process, addresses) = self.bare.as_ref().context("no bare server")?;
                (addresses.clone(), [Some(process.pid()?), None, None], None)
            }
        })
    }

    /// Gets calls ready. The bare server signs alike, whatever the grant.
    async fn prepare(&mut self, slice: &Slice, addresses: &Addresses) -> Result<Arc<dyn Calls>> {
        let credentials = self.dataset.credentials.clone();
        if slice.work == Work::Form {
            return Ok(Arc::new(Form::connect(&addresses.http, credentials).await?));
        }
        let clients = Clients::connect(&addresses.grpc).await?;
        let source = match slice.work {
            Work::Introspect => {
                let authorization = format!("Bearer {}", self.setup.workload_token);
                Source::Tokens(clients.tokens(&credentials).await?, authorization.parse()?)
            }
            _ if slice.target == Target::Bare => Source::ClientCredentials(credentials),
            Work::IssueOnce => Source::Once(credentials, AtomicUsize::new(0)),
            Work::Refresh => Source::Families(self.families(&clients).await?),
            Work::Code => {
                let seconds = (slice.warm_up + slice.span).as_secs_f64();
                let each = (self.codes_per_second * seconds / CALLERS as f64).ceil() as usize + 1;
                // A redemption ends the client's family: other clients than those that renew.
                Source::Codes(self.dataset.codes(CALLERS..2 * CALLERS, each).await?)
            }
            _ => Source::ClientCredentials(credentials),
        };
        Ok(Arc::new(TokenCalls { clients, source }))
    }

    async fn families(&mut self, clients: &Clients) -> Result<Arc<[Family]>> {
        if self.families.is_empty() {
            let mut families = Vec::new();
            for codes in self.dataset.codes(0..CALLERS, 1).await? {
                families.push(codes.begin_family(clients).await?);
            }
            self.issued += families.len() as u64;
            self.families = families.into();
        }
        Ok(self.families.clone())
    }

    /// Ends the services. No token may have left whose audit event is not in the database.
    async fn finish(mut self) -> Result<()> {
        self.token.kill().await?;
        self.registry.kill().await?;
        let (issued, recorded) = (self.issued, issued_tokens(&self.plan.token_url).await?);
        ensure!(recorded >= issued, "{recorded} audit events of {issued} tokens");
        Ok(())
    }
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
    let count = "SELECT COUNT(*) AS events FROM audit_events WHERE action = 'token.issue'";
    let count = Statement::from_string(db.backend(), count);
    let row = db.read().query_one_raw(count).await?.context("no count")?;
    let events: i64 = row.try_get("", "events")?;
    db.close().await;
    Ok(u64::try_from(events)?)
}
