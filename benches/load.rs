//! The load generator: a process of its own that calls a server as long and as often as it is told, looks
//! at every answer, and says how long each took.

mod asking;
mod drive;
mod form;
mod grpc;
mod guessing;
mod issuing;
mod picks;
mod renewing;
pub mod stock;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use self::{
    asking::Asking,
    drive::Plan,
    form::Posting,
    grpc::Connections,
    guessing::Guessing,
    issuing::{AtRandom, InTurn},
    renewing::{Redeeming, Refreshing},
    stock::Stock,
};
use crate::child;

/// What to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// `host:port` of the server.
    pub server: String,
    pub work: Work,
    pub callers: usize,
    /// How long to measure; sooner over if there is nothing left to call with.
    pub span: Duration,
    /// How long to call before that.
    pub warm_up: Duration,
    /// Calls a second by a schedule; without it each caller calls as soon as it has its answer.
    pub pace: Option<f64>,
    /// The file of those in whose name calls are made.
    pub people: PathBuf,
}

/// What to call.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Work {
    /// `IssueToken` with client credentials, by clients picked at random.
    Issue,
    /// The same by every client once.
    IssueOnce,
    /// The token endpoint with client credentials, by clients picked at random.
    Form,
    /// `IssueToken` with refresh tokens, a chain for each caller; those of the file come first.
    Refresh(PathBuf),
    /// `IssueToken` with the codes of the file.
    Code(PathBuf),
    /// `IntrospectToken` with tokens that `issuer` gives out first.
    Introspect {
        issuer: String,
        /// The bearer token to ask with.
        workload_token: String,
    },
    /// `IssueToken` with bad secrets, which must be refused.
    BadSecrets,
}

/// What the load generator says while it works.
#[derive(Debug, Serialize, Deserialize)]
pub enum Said {
    /// From now on it counts.
    Begun,
    /// From now on it does not.
    Over,
    /// The job is done.
    Done(Outcome),
    /// The job is not: a wrong answer, or none.
    Failed(String),
}

/// What became of a job.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// How long was measured, in seconds.
    pub seconds: f64,
    /// Right answers within that time.
    pub answers: u64,
    /// Right answers before, within and after it.
    pub all_answers: u64,
    pub latency: Latency,
    /// Refusals, by code and reason.
    pub refused: BTreeMap<String, u64>,
}

/// Milliseconds from sending, or from when it was time to send, to the answer.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Latency {
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl Latency {
    /// Reads a histogram whose unit is so many times in a millisecond.
    pub fn of(histogram: &Histogram<u64>, per_millisecond: f64) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / per_millisecond;
        Self {
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: at(1.0),
        }
    }
}

/// In a child: does jobs until there are no more.
pub fn serve() -> anyhow::Result<()> {
    let runtime = Runtime::new()?;
    let mut stock = Stock::default();
    while let Some(job) = child::hear::<Job>()? {
        let last = match runtime.block_on(work(&job, &mut stock)) {
            Ok(outcome) => Said::Done(outcome),
            Err(error) => Said::Failed(format!("{:?}: {error:#}", job.work)),
        };
        child::tell(&last)?;
    }
    Ok(())
}

async fn work(job: &Job, stock: &mut Stock) -> anyhow::Result<Outcome> {
    let (plan, people) = (Plan::of(job), stock.people(&job.people)?);
    let (server, callers) = (&job.server, job.callers);
    if let Work::Form = job.work {
        return plan
            .drive(Posting::callers(server, callers, &people).await?)
            .await;
    }
    let connections = Connections::open(server).await?;
    match &job.work {
        Work::Form | Work::Issue => {
            plan.drive(AtRandom::callers(&connections, callers, &people))
                .await
        }
        Work::IssueOnce => plan.drive(InTurn::callers(&connections, callers, &people)).await,
        Work::Refresh(file) => {
            let chains = stock.chains(file, callers)?;
            plan.drive(Refreshing::callers(&connections, chains, &people))
                .await
        }
        Work::Code(file) => {
            let shares = stock::codes(file, callers)?;
            plan.drive(Redeeming::callers(&connections, shares, &people))
                .await
        }
        Work::Introspect {
            issuer,
            workload_token,
        } => {
            let asking = Asking::callers(&connections, callers, &people, issuer, workload_token).await?;
            plan.drive(asking).await
        }
        Work::BadSecrets => {
            plan.drive(Guessing::callers(&connections, callers, &people))
                .await
        }
    }
}
