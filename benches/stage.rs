//! Both services on databases of their own, filled and running, and what the load generator needs in
//! order to call them.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, ensure};
use serde::Serialize;
use tokio::time::sleep;

use crate::{
    database::{Made, Server, issued_tokens, settle},
    load::{Job, Work},
    measure::{Generator, Sample, Watched},
    options::Options,
    proc::memory,
    progress::Progress,
    seed::{self, Amounts, Seeded},
    services::{Service, Setup},
};

/// How long services do nothing before their memory counts as that of idle ones.
const IDLE_FOR: Duration = Duration::from_secs(1);

pub struct Stage {
    /// `sqlite` or `postgres`.
    pub database: &'static str,
    pub setup: Setup,
    pub seeded: Seeded,
    pub directory: PathBuf,
    /// Memory of the services before anybody called.
    pub idle: Idle,
    registry: Service,
    token: Service,
    database_pid: Option<u32>,
    /// Tokens that this stage gave out.
    issued: u64,
    _databases: [Made; 2],
}

/// Bytes of memory of services that do nothing.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Idle {
    pub registry: u64,
    pub token: u64,
}

impl Stage {
    /// Makes the databases, fills them, and starts the services. `name` tells it from other stages.
    pub async fn start(
        server: &Server,
        root: &Path,
        name: &str,
        amounts: Amounts,
        progress: &Progress,
    ) -> anyhow::Result<Self> {
        let database = server.name();
        progress.step(None, &format!("{database}: {name}"));
        let directory = root.join(format!("{database}-{name}"));
        std::fs::create_dir(&directory)?;
        let databases = ["registry", "token"].map(|name| server.create(&directory, name));
        let [registry_url, token_url] = databases.each_ref().map(|made| made.url.clone());
        let setup = Setup::make(directory.clone(), registry_url, token_url).await?;
        let seeded = seed::run(&setup, &directory, amounts, progress).await?;
        for made in &databases {
            settle(&made.url).await?;
        }
        let registry = setup.start_registry().await?;
        let token = setup.start_token().await?;
        sleep(IDLE_FOR).await;
        let idle = Idle {
            registry: memory(registry.pid())?,
            token: memory(token.pid())?,
        };
        Ok(Self {
            database,
            setup,
            seeded,
            directory,
            idle,
            registry,
            token,
            database_pid: server.pid(),
            issued: 0,
            _databases: databases,
        })
    }

    /// Lets every client that has a secret get a token once, so that its secret is a known one.
    pub async fn warm(&mut self, generator: &mut Generator, progress: &Progress) -> anyhow::Result<()> {
        progress.step(None, &format!("{}: every secret is verified once", self.database));
        let job = Job {
            callers: 16,
            span: Duration::from_secs(600),
            warm_up: Duration::ZERO,
            ..self.job(Work::IssueOnce, 16, Duration::ZERO)
        };
        self.run(generator, &job).await.map(drop)
    }

    /// A job against token-service.
    pub fn job(&self, work: Work, callers: usize, span: Duration) -> Job {
        let server = match work {
            Work::Form => &self.setup.token_http,
            _ => &self.setup.token_grpc,
        };
        Job {
            server: server.clone(),
            work,
            callers,
            span,
            warm_up: Options::warm_up(span),
            pace: None,
            people: self.seeded.people.clone(),
        }
    }

    /// Has a job done, and counts the tokens.
    pub async fn run(&mut self, generator: &mut Generator, job: &Job) -> anyhow::Result<Sample> {
        let sample = generator.run(job, self.watched()).await;
        let sample = sample.with_context(|| format!("on {}", self.database))?;
        self.count(job, &sample);
        Ok(sample)
    }

    /// Counts the tokens that a job got.
    pub fn count(&mut self, job: &Job, sample: &Sample) {
        if !matches!(job.work, Work::Introspect { .. } | Work::BadSecrets) {
            self.issued += sample.outcome.all_answers;
        }
    }

    /// Ends both services, as a crash would, and starts them again.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        // A process holds its addresses until it is gone.
        self.token.kill().await?;
        self.registry.kill().await?;
        self.registry = self.setup.start_registry().await?;
        self.token = self.setup.start_token().await?;
        Ok(())
    }

    /// How long each service took to start.
    pub fn ready_after(&self) -> [(&'static str, Duration); 2] {
        [
            ("registry-service", self.registry.ready_after),
            ("token-service", self.token.ready_after),
        ]
    }

    pub fn watched(&self) -> Watched {
        Watched {
            server: self.token.pid(),
            registry: Some(self.registry.pid()),
            database: self.database_pid,
        }
    }

    /// The same with another process in place of token-service.
    pub fn watched_replica(&self, replica: &Service) -> Watched {
        Watched {
            server: replica.pid(),
            ..self.watched()
        }
    }

    /// Ends both services. No token may have left whose audit event is not in the database.
    pub async fn end(self) -> anyhow::Result<()> {
        self.token.end().await?;
        self.registry.end().await?;
        let recorded = issued_tokens(&self.setup.token_url).await?;
        ensure!(
            recorded >= self.issued,
            "{}: {} tokens came, and {recorded} are in the audit trail",
            self.database,
            self.issued,
        );
        Ok(())
    }
}
