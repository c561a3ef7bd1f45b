//! One measurement: the load generator calls, and meanwhile the processes that serve it are watched.

use std::time::Duration;

use anyhow::bail;
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    child::{Helper, Role},
    load::{Job, Outcome, Said},
    proc::{cpu, cpu_of_tree, memory},
};

/// How often memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The processes behind a case.
#[derive(Clone, Copy, Debug)]
pub struct Watched {
    pub server: u32,
    /// registry-service, where it has a part.
    pub registry: Option<u32>,
    /// The process that all of the database's descend from.
    pub database: Option<u32>,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    pub outcome: Outcome,
    /// The most memory in use at any look.
    pub memory: Part<u64>,
    /// Microseconds on a processor for each right answer.
    pub cpu: Part<f64>,
}

/// Something of each process that has a part.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Part<T> {
    pub server: T,
    pub registry: Option<T>,
    pub database: Option<T>,
}

impl Sample {
    /// Right answers a second.
    pub fn throughput(&self) -> f64 {
        self.outcome.answers as f64 / self.outcome.seconds
    }
}

/// A load generator.
pub struct Generator(Helper);

impl Generator {
    pub fn start() -> anyhow::Result<Self> {
        Ok(Self(Helper::start(Role::Load)?))
    }

    /// Has a job done.
    pub async fn run(&mut self, job: &Job, watched: Watched) -> anyhow::Result<Sample> {
        self.begin(job).await?;
        self.finish(watched).await
    }

    /// Has a job begun; [`Self::finish`] is next.
    pub async fn begin(&mut self, job: &Job) -> anyhow::Result<()> {
        self.0.tell(job).await?;
        match self.0.hear().await? {
            Said::Begun => Ok(()),
            other => bail!("{other:?}"),
        }
    }

    /// Watches until the job is done.
    pub async fn finish(&mut self, watched: Watched) -> anyhow::Result<Sample> {
        let before = watched.cpu()?;
        let mut most = watched.memory()?;
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = looks.tick() => most = most.or_more(watched.memory()?),
                said = self.0.hear() => match said? {
                    Said::Over => break,
                    other => bail!("{other:?}"),
                },
            }
        }
        let after = watched.cpu()?;
        let outcome: Outcome = match self.0.hear().await? {
            Said::Done(outcome) => outcome,
            other => bail!("{other:?}"),
        };
        let each = |spent: Duration| spent.as_secs_f64() * 1e6 / outcome.answers.max(1) as f64;
        Ok(Sample {
            memory: most,
            cpu: Part {
                server: each(after.server - before.server),
                registry: after
                    .registry
                    .zip(before.registry)
                    .map(|(after, before)| each(after - before)),
                database: after
                    .database
                    .zip(before.database)
                    .map(|(after, before)| each(after - before)),
            },
            outcome,
        })
    }
}

impl Watched {
    fn cpu(&self) -> anyhow::Result<Part<Duration>> {
        Ok(Part {
            server: cpu(self.server)?,
            registry: self.registry.map(cpu).transpose()?,
            database: self.database.map(cpu_of_tree).transpose()?,
        })
    }

    fn memory(&self) -> anyhow::Result<Part<u64>> {
        Ok(Part {
            server: memory(self.server)?,
            registry: self.registry.map(memory).transpose()?,
            // Its processes share most of theirs: a sum would count that many times.
            database: None,
        })
    }
}

impl Part<u64> {
    fn or_more(self, other: Self) -> Self {
        Self {
            server: self.server.max(other.server),
            registry: self.registry.max(other.registry),
            database: None,
        }
    }
}
