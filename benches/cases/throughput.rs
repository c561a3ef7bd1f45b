//! As fast as it goes: each caller calls as soon as it has its answer.

use super::Run;
use crate::{
    bare::Bare,
    load::{Job, Work},
    measure::{Sample, Watched},
    options::{Case, Options},
    seed::Codes,
    stage::Stage,
};

/// Callers with secrets that were not verified before: fewer than may wait for a turn at a registry.
const COLD_CALLERS: usize = 16;
/// Codes a second to begin with, as a guess; then half as many again as were redeemed before.
const CODES_PER_SECOND: f64 = 4_000.0;

impl Run<'_> {
    /// Measures a bare server, if its case is wanted. It looks at no secret, so any client will do.
    pub(super) async fn bare(&mut self, case: Case, bare: &Bare, work: Work) -> anyhow::Result<()> {
        let Some(stage) = self.stages.first().filter(|_| self.options.wants(case)) else {
            return Ok(());
        };
        self.next(case.name(), None);
        let job = stage.job(work, self.options.callers, self.options.span());
        let sample = self.ask_bare(bare, job).await?;
        self.results.add(case.name(), None, sample);
        Ok(())
    }

    /// Has a bare server do a job.
    pub(super) async fn ask_bare(&mut self, bare: &Bare, job: Job) -> anyhow::Result<Sample> {
        let job = Job {
            server: bare.address.clone(),
            ..job
        };
        let watched = Watched {
            server: bare.pid()?,
            registry: None,
            database: None,
        };
        self.generator.run(&job, watched).await
    }

    /// Measures token-service on each database, if the case is wanted.
    pub(super) async fn service(&mut self, case: Case, work: impl Fn(&Stage) -> Work) -> anyhow::Result<()> {
        for number in self.wanted(case) {
            let work = work(&self.stages[number]);
            self.measure(case.name(), number, work, self.options.callers)
                .await?;
        }
        Ok(())
    }

    /// Measures `IssueToken` with codes. Each caller has a client to itself, whose grant a code renews: two
    /// at a time would get in each other's way.
    pub(super) async fn codes(&mut self) -> anyhow::Result<()> {
        for number in self.wanted(Case::Code) {
            let stage = &self.stages[number];
            let callers = self.options.callers;
            let before = self.results.latest(Case::Code.name(), stage.database);
            let rate = before.map_or(CODES_PER_SECOND, |sample| sample.throughput() * 1.5);
            let span = self.options.span() + Options::warm_up(self.options.span());
            let codes = Codes {
                callers,
                each: (rate * span.as_secs_f64() / callers as f64).ceil() as usize + 1,
                first_client: callers,
            };
            let file = codes.write(&stage.setup, &stage.seeded, &stage.directory).await?;
            self.measure(Case::Code.name(), number, Work::Code(file), callers)
                .await?;
        }
        Ok(())
    }

    /// Measures `IssueToken` by clients that a new replica of token-service has not seen yet.
    pub(super) async fn cold(&mut self) -> anyhow::Result<()> {
        for number in self.wanted(Case::Cold) {
            let database = self.stages[number].database;
            self.next(Case::Cold.name(), Some(database));
            let stage = &mut self.stages[number];
            let (replica, address) = stage.setup.start_replica().await?;
            let job = Job {
                server: address,
                ..stage.job(Work::IssueOnce, COLD_CALLERS, self.options.span())
            };
            let watched = stage.watched_replica(&replica);
            let sample = self.generator.run(&job, watched).await?;
            stage.count(&job, &sample);
            replica.end().await?;
            self.results.add(Case::Cold.name(), Some(database), sample);
        }
        Ok(())
    }

    /// Measures `IssueToken` with few and with many callers.
    pub(super) async fn callers(&mut self) -> anyhow::Result<()> {
        for number in self.wanted(Case::Callers) {
            for &callers in self.options.caller_counts() {
                let case = format!("callers-{callers}");
                self.measure(&case, number, Work::Issue, callers).await?;
            }
        }
        Ok(())
    }

    /// The stages, by number, if a case is wanted.
    pub(super) fn wanted(&self, case: Case) -> std::ops::Range<usize> {
        let stages = if self.options.wants(case) {
            self.stages.len()
        } else {
            0
        };
        0..stages
    }

    async fn measure(&mut self, case: &str, stage: usize, work: Work, callers: usize) -> anyhow::Result<()> {
        let database = self.stages[stage].database;
        self.next(case, Some(database));
        let job = self.stages[stage].job(work, callers, self.options.span());
        let sample = self.stages[stage].run(&mut self.generator, &job).await?;
        self.results.add(case, Some(database), sample);
        Ok(())
    }
}
