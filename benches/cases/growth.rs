//! What a token costs as clients and grants become many. Each size has databases and services of its own,
//! all of them there for the whole run, and is measured in every round.
//!
//! Calls are for at most 1,000 clients, picked uniformly, whose secrets are verified before: the rest are
//! rows that indexes and pages have to cope with.

use std::path::Path;

use super::Run;
use crate::{database::Server, load::Work, options::Case, seed::Amounts, stage::Stage};

pub struct Stages(Vec<(usize, Stage)>);

impl Stages {
    /// Makes them, if the case is wanted.
    pub async fn start(run: &mut Run<'_>, servers: &[Server], root: &Path) -> anyhow::Result<Self> {
        let mut stages = Vec::new();
        if !run.options.wants(Case::Growth) {
            return Ok(Self(stages));
        }
        for server in servers {
            for &clients in run.options.growth() {
                let amounts = Amounts {
                    clients,
                    active: clients.min(run.options.active()),
                    chains: 0,
                };
                let name = format!("growth-{clients}");
                let mut stage = Stage::start(server, root, &name, amounts, &run.progress).await?;
                stage.warm(&mut run.generator, &run.progress).await?;
                stages.push((clients, stage));
            }
        }
        Ok(Self(stages))
    }

    /// Measures each size on each database.
    pub async fn measure(&mut self, run: &mut Run<'_>) -> anyhow::Result<()> {
        for (clients, stage) in &mut self.0 {
            let case = format!("growth-{clients}");
            run.next(&case, Some(stage.database));
            let job = stage.job(Work::Issue, run.options.callers, run.options.span());
            let sample = stage.run(&mut run.generator, &job).await?;
            run.results.add(&case, Some(stage.database), sample);
        }
        Ok(())
    }

    pub async fn end(self) -> anyhow::Result<()> {
        for (_, stage) in self.0 {
            stage.end().await?;
        }
        Ok(())
    }
}
