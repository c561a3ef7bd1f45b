//! A deployment as the planning process sees it: a process of its own, which it asks to call the services and to measure.

use std::path::Path;

use accord::testing::TestDatabase;
use anyhow::{Context, Result, ensure};

use super::ROLE;
use crate::{
    database::Server,
    pipe::Process,
    protocol::{Plan, Request, Sample, Slice, Startup, Target, Work},
};

/// A deployment, in a process of its own.
pub struct DeploymentProcess {
    pub name: String,
    pub database: &'static str,
    pub plan: Plan,
    pub started: Startup,
    process: Process,
    _databases: [Option<TestDatabase>; 2],
}

impl DeploymentProcess {
    /// Deploys a build, whose files go below `root`, for so many clients, of which so many have a secret.
    pub async fn start(
        server: &Server,
        program: &Path,
        root: &Path,
        name: &str,
        (clients, active): (usize, usize),
    ) -> Result<Self> {
        let database = server.name();
        eprintln!("{database}: {name}: {clients} clients");
        let directory = root.join(format!("{database} {name}").replace(' ', "-"));
        std::fs::create_dir(&directory)?;
        let (registry_url, registry_database) = server.create(&directory, "registry");
        let (token_url, token_database) = server.create(&directory, "token");
        let mut process = Process::start(program, ROLE)?;
        let plan = Plan {
            directory,
            registry_url,
            token_url,
            database_pid: server.pid(),
            clients,
            active,
        };
        let started = process.request(&Request::Deploy(plan.clone())).await;
        Ok(Self {
            name: name.to_owned(),
            database,
            plan,
            started: started.with_context(|| format!("{database}: {name}"))?,
            process,
            _databases: [registry_database, token_database],
        })
    }

    pub async fn measure(&mut self, slice: Slice) -> Result<Sample> {
        // Whatever a drain drops is a figure with a limit.
        let may_overload = slice.wrong_secrets.is_some()
            || [Target::NewReplica, Target::Draining].contains(&slice.target)
            || slice.work == Work::Mixed;
        let what = format!("{}: {}: {slice:?}", self.database, self.name);
        let sample = self.process.request(&Request::Measure(slice)).await;
        let sample: Sample = sample.with_context(|| what.clone())?;
        let refused = &sample.outcome.refused;
        ensure!(may_overload || refused.is_empty(), "{what}: {refused:?}");
        Ok(sample)
    }

    /// Fills the audit record with at least so many events. Returns what was measured there.
    pub async fn record(&mut self, events: u64) -> Result<Vec<(String, f64)>> {
        self.process.request(&Request::Record(events)).await
    }

    pub async fn finish(mut self) -> Result<()> {
        let () = self.process.request(&Request::Finish).await?;
        self.process.end().await
    }
}
