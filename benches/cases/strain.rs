//! How long an answer takes at half of the highest load, alone and while others try bad secrets.

use std::{thread, time::Duration};

use super::Run;
use crate::{
    bare::Bare,
    load::{Job, Work},
    measure::Generator,
    options::{Case, Options},
};

/// The longest p99 at half load, in milliseconds.
const LONGEST: f64 = 5.0;
/// Callers that try bad secrets, at most.
const GUESSERS: usize = 64;
/// How long the flood is on before and after anybody measures.
const MARGIN: Duration = Duration::from_secs(1);
const MIB: f64 = 1024.0 * 1024.0;
/// Memory of one argon2 run, in MiB.
const ARGON2: f64 = 19.0;
/// What else a registry may need under a flood, in MiB.
const ALLOWANCE: f64 = 32.0;

impl Run<'_> {
    pub(super) async fn strain(&mut self, bare: &Bare) -> anyhow::Result<()> {
        if !self.options.wants_any(&[Case::HalfLoad, Case::Flood]) {
            return Ok(());
        }
        self.bare_half_load(bare).await?;
        for number in 0..self.stages.len() {
            let stage = &mut self.stages[number];
            let (callers, span) = (self.options.callers, self.options.span());
            let job = stage.job(Work::Issue, callers, span);
            let highest = stage.run(&mut self.generator, &job).await?.throughput();
            let job = Job {
                pace: Some(highest / 2.0),
                ..job
            };
            self.next(Case::HalfLoad.name(), Some(self.stages[number].database));
            let stage = &mut self.stages[number];
            let quiet = stage.run(&mut self.generator, &job).await?;
            let (database, quiet_p99) = (stage.database, quiet.outcome.latency.p99);
            self.results
                .find("half load: p99, ms", database, quiet_p99, Some(LONGEST));
            self.results.add(Case::HalfLoad.name(), Some(database), quiet);
            if self.options.wants(Case::Flood) {
                self.flood(number, &job, quiet_p99).await?;
            }
        }
        Ok(())
    }

    /// What the machine itself makes of half of a load.
    async fn bare_half_load(&mut self, bare: &Bare) -> anyhow::Result<()> {
        let Some(stage) = self.stages.first() else {
            return Ok(());
        };
        let case = "bare-half-load";
        self.next(case, None);
        let job = stage.job(Work::Issue, self.options.callers, self.options.span());
        let highest = self.ask_bare(bare, job.clone()).await?.throughput();
        let job = Job {
            pace: Some(highest / 2.0),
            ..job
        };
        let sample = self.ask_bare(bare, job).await?;
        self.results.add(case, None, sample);
        Ok(())
    }

    /// The same job under a flood, which another process makes.
    async fn flood(&mut self, number: usize, job: &Job, quiet_p99: f64) -> anyhow::Result<()> {
        let stage = &mut self.stages[number];
        let (case, database) = (Case::Flood.name(), stage.database);
        self.progress.advance(1, Some(&format!("{case} on {database}")));
        let mut flooder = Generator::start()?;
        let span = job.span + Options::warm_up(job.span) + MARGIN;
        let flood = Job {
            warm_up: MARGIN,
            ..stage.job(Work::BadSecrets, GUESSERS, span)
        };
        flooder.begin(&flood).await?;
        let good = stage.run(&mut self.generator, job).await?;
        let bad = flooder.finish(stage.watched()).await?;

        // One core is left to others.
        let permits = (thread::available_parallelism()?.get() - 1).max(1) as f64;
        let idle = stage.idle.registry as f64 / MIB;
        let memory = good.memory.registry.max(bad.memory.registry).unwrap_or_default() as f64 / MIB;
        let results = &mut self.results;
        results.find(
            "flood: p99, times that without",
            database,
            good.outcome.latency.p99 / quiet_p99,
            Some(2.0),
        );
        let most = idle + permits * ARGON2 + ALLOWANCE;
        results.find("flood: registry-service, MiB", database, memory, Some(most));
        for (why, count) in &bad.outcome.refused {
            let rate = *count as f64 / bad.outcome.seconds;
            results.find(&format!("flood: {why} a second"), database, rate, None);
        }
        results.add(case, Some(database), good);
        Ok(())
    }
}
