//! Calls a server and measures how long the answers take: callers that wait for each answer before they
//! call again (a closed loop), or calls that come by a schedule whatever the server does (an open loop).
//!
//! In an open loop the time of a call begins when it was due, so a server that stalls is charged for the
//! calls that it held back.

pub mod form;
pub mod grpc;
pub mod mixed;
pub mod proofs;
pub mod wrong_secrets;

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use accord::random::{Random, SystemRandom};
use anyhow::{Result, bail, ensure};
use hdrhistogram::Histogram;
use tokio::{runtime::Handle, sync::mpsc, task::JoinSet};

use crate::protocol::{Outcome, Pace};

/// Latencies are told apart up to this many microseconds.
const LONGEST: u64 = 120_000_000;
/// The step of an open loop's schedule: waking up for each call would cost as much as the call.
const STEP: Duration = Duration::from_millis(1);

/// A client that may call, at the tenant that consented. Holds its secret.
#[derive(Clone)]
pub struct Credentials {
    pub tenant_id: String,
    pub client_id: String,
    pub client_secret: String,
}

/// Why a call has no right answer.
#[derive(Debug)]
pub enum Failure {
    /// The server is overloaded, or rejects a wrong secret.
    Refused(String),
    /// Nothing is left to call with.
    NothingLeft,
    Wrong(String),
}

/// Something that is called again and again.
#[tonic::async_trait]
pub trait Calls: Send + Sync {
    /// Makes one call. `caller` counts the callers in a closed loop, the calls in an open one.
    async fn call(&self, caller: usize) -> Result<(), Failure>;
}

/// The time that counts.
#[derive(Clone, Copy)]
pub struct Window {
    pub begins: Instant,
    pub ends: Instant,
}

/// Calls until the window ends or nothing is left.
pub async fn drive(calls: Arc<dyn Calls>, pace: Pace, window: Window) -> Result<Outcome> {
    let counts = Counts {
        outcome: Outcome::default(),
        microseconds: Histogram::new_with_bounds(1, LONGEST, 3)?,
        wrong: None,
        last: window.begins,
    };
    let counts = Mutex::new(counts);
    let tally = Arc::new(Tally { window, counts });
    match pace {
        Pace::Callers(callers) => closed(calls, callers, &tally).await,
        Pace::Rate(rate) => open(calls, rate, &tally).await,
    }
    tally.outcome()
}

async fn closed(calls: Arc<dyn Calls>, callers: usize, tally: &Arc<Tally>) {
    let mut calling = JoinSet::new();
    for caller in 0..callers {
        let (calls, tally) = (calls.clone(), tally.clone());
        calling.spawn(async move {
            let mut due = Instant::now();
            while due < tally.window.ends && tally.record(due, calls.call(caller).await) {
                due = Instant::now();
            }
        });
    }
    calling.join_all().await;
}

/// A thread of its own starts the calls: timers of a busy runtime are late.
async fn open(calls: Arc<dyn Calls>, rate: f64, tally: &Arc<Tally>) {
    // Nothing is sent: the channel closes when the last call has ended.
    let (running, mut ended) = mpsc::channel::<Infallible>(1);
    let (runtime, tally) = (Handle::current(), tally.clone());
    // A thread that starts late has calls to catch up with.
    let mut due = Instant::now();
    thread::spawn(move || {
        let (mut pending, mut number) = (0.0, 0);
        while due < tally.window.ends {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            pending += rate * STEP.as_secs_f64();
            while pending >= 1.0 {
                let (calls, tally, running) = (calls.clone(), tally.clone(), running.clone());
                runtime.spawn(async move {
                    tally.record(due, calls.call(number).await);
                    drop(running);
                });
                pending -= 1.0;
                number += 1;
            }
            due += STEP;
        }
    });
    ended.recv().await;
}

/// Counts what all callers see.
struct Tally {
    window: Window,
    counts: Mutex<Counts>,
}

struct Counts {
    outcome: Outcome,
    microseconds: Histogram<u64>,
    /// The first wrong answer.
    wrong: Option<String>,
    /// When the last answer came.
    last: Instant,
}

impl Tally {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an answer. Returns whether to call again.
    fn record(&self, due: Instant, answer: Result<(), Failure>) -> bool {
        let now = Instant::now();
        let mut counts = self.counts();
        let outcome = &mut counts.outcome;
        match answer {
            Ok(()) => {
                outcome.all_answers += 1;
                outcome.answers += u64::from((self.window.begins..self.window.ends).contains(&now));
            }
            Err(Failure::Refused(why)) => *outcome.refused.entry(why).or_default() += 1,
            Err(Failure::NothingLeft) => return false,
            Err(Failure::Wrong(what)) => {
                counts.wrong.get_or_insert(what);
            }
        }
        counts.last = now;
        if due >= self.window.begins {
            let micros = (now - due).as_micros() as u64;
            counts.microseconds.saturating_record(micros);
        }
        counts.wrong.is_none()
    }

    fn outcome(&self) -> Result<Outcome> {
        let counts = self.counts();
        if let Some(wrong) = &counts.wrong {
            bail!("a wrong answer: {wrong}");
        }
        let seconds = (counts.last.min(self.window.ends) - self.window.begins).as_secs_f64();
        ensure!(seconds > 0.0, "no answer came in the time that is measured");
        let at = |quantile| counts.microseconds.value_at_quantile(quantile) as f64 / 1e3;
        let mut outcome = counts.outcome.clone();
        (outcome.seconds, outcome.latency) = (seconds, [at(0.5), at(0.99), at(0.999)]);
        Ok(outcome)
    }
}

/// One of `all`, uniformly.
pub fn pick<T>(all: &[T]) -> &T {
    let mut bytes = [0; 8];
    SystemRandom.fill(&mut bytes);
    &all[(u64::from_ne_bytes(bytes) % all.len() as u64) as usize]
}
