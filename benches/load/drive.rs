//! Lets callers call, and measures: as fast as they can, or by a schedule.
//!
//! By a schedule, a call's time begins when it was due, even if its caller was still waiting for the
//! answer before: a server that stalls is not forgiven the calls that it held back. A thread tells callers
//! when it is time.

use std::{
    collections::BTreeMap,
    future::Future,
    thread,
    time::{Duration, Instant},
};

use anyhow::bail;
use hdrhistogram::Histogram;
use tokio::{
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    task::JoinSet,
    time::sleep_until,
};

use super::{Job, Latency, Outcome, Said};
use crate::child;

/// The longest latency that is told apart, in microseconds.
const LONGEST: u64 = 120_000_000;

/// What became of a call.
pub enum Answer {
    /// It was answered as it should be.
    Right,
    /// It was refused as it should be.
    Refused(String),
    /// There is nothing left to call with.
    NothingLeft,
    /// Anything else.
    Wrong(String),
}

/// Who calls, one call after the other.
pub trait Caller: Send + 'static {
    fn call(&mut self) -> impl Future<Output = Answer> + Send;
}

/// How long to call, and when.
pub struct Plan {
    warm_up: Duration,
    span: Duration,
    pace: Option<f64>,
}

/// What counts.
#[derive(Clone, Copy)]
struct Window {
    begins: Instant,
    ends: Instant,
}

/// What callers saw.
#[derive(Default)]
struct Tally {
    /// Microseconds of each call that began in the window.
    took: Vec<u64>,
    answers: u64,
    all_answers: u64,
    refused: BTreeMap<String, u64>,
}

impl Plan {
    pub fn of(job: &Job) -> Self {
        Self {
            warm_up: job.warm_up,
            span: job.span,
            pace: job.pace,
        }
    }

    /// Lets all of them call to the end of the plan. One wrong answer ends it at once.
    pub async fn drive<C: Caller>(self, callers: Vec<C>) -> anyhow::Result<Outcome> {
        let begins = Instant::now() + self.warm_up;
        let window = Window {
            begins,
            ends: begins + self.span,
        };
        let due = schedule(self.pace, callers.len(), window.ends);
        let mut calling = JoinSet::new();
        for (caller, due) in callers.into_iter().zip(due) {
            calling.spawn(call(caller, due, window));
        }
        let mut total = Tally::default();
        let (mut begun, mut over) = (false, false);
        loop {
            tokio::select! {
                () = sleep_until(window.begins.into()), if !begun => {
                    begun = true;
                    child::tell(&Said::Begun)?;
                }
                () = sleep_until(window.ends.into()), if !over => {
                    over = true;
                    child::tell(&Said::Over)?;
                }
                tally = calling.join_next() => match tally {
                    Some(tally) => total.add(tally??),
                    None => break,
                }
            }
        }
        if !begun {
            bail!("nothing was left to call with before anything was measured");
        }
        if !over {
            child::tell(&Said::Over)?;
        }
        let measured = window.ends.min(Instant::now()) - window.begins;
        total.outcome(measured)
    }
}

/// How far apart the times of a schedule are: a thread that wakes up for each call would be as much work
/// for the machine as the call.
const STEP: Duration = Duration::from_millis(1);

/// For each caller, when to call; all of them in turn, a few in every [`STEP`].
fn schedule(pace: Option<f64>, callers: usize, ends: Instant) -> Vec<Option<UnboundedReceiver<Instant>>> {
    let Some(pace) = pace else {
        return (0..callers).map(|_| None).collect();
    };
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..callers).map(|_| unbounded_channel()).unzip();
    thread::spawn(move || {
        let mut in_turn = senders.iter().cycle();
        let (mut due, mut calls) = (Instant::now(), 0.0);
        while due < ends {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            calls += pace * STEP.as_secs_f64();
            for sender in in_turn.by_ref().take(calls as usize) {
                if sender.send(due).is_err() {
                    return;
                }
            }
            calls = calls.fract();
            due += STEP;
        }
    });
    receivers.into_iter().map(Some).collect()
}

async fn call<C: Caller>(
    mut caller: C,
    mut due: Option<UnboundedReceiver<Instant>>,
    window: Window,
) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    loop {
        let since = match &mut due {
            None => Instant::now(),
            Some(due) => match due.recv().await {
                Some(since) => since,
                None => break,
            },
        };
        if since >= window.ends {
            break;
        }
        let answer = caller.call().await;
        let now = Instant::now();
        let counts = (window.begins..window.ends).contains(&now);
        match answer {
            Answer::Right => {
                tally.all_answers += 1;
                tally.answers += u64::from(counts);
                if since >= window.begins {
                    tally.took.push(u64::try_from((now - since).as_micros())?);
                }
            }
            Answer::Refused(why) => *tally.refused.entry(why).or_default() += u64::from(counts),
            Answer::NothingLeft => break,
            Answer::Wrong(why) => bail!(why),
        }
    }
    Ok(tally)
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.took.extend(other.took);
        self.answers += other.answers;
        self.all_answers += other.all_answers;
        for (why, count) in other.refused {
            *self.refused.entry(why).or_default() += count;
        }
    }

    fn outcome(self, measured: Duration) -> anyhow::Result<Outcome> {
        let mut latency = Histogram::<u64>::new_with_bounds(1, LONGEST, 3)?;
        for took in &self.took {
            latency.saturating_record(*took);
        }
        Ok(Outcome {
            seconds: measured.as_secs_f64(),
            answers: self.answers,
            all_answers: self.all_answers,
            latency: Latency::of(&latency, 1e3),
            refused: self.refused,
        })
    }
}
