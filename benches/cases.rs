//! What is measured, and in which order: rounds, each of which measures every case once, so that what a
//! ratio compares was measured within moments, however the machine's mood changes over the run.

use std::path::Path;

use crate::{
    bare::{Bare, signer::Subject},
    child::Role,
    database::Server,
    load::{Job, Work},
    measure::{Generator, Sample, Watched},
    options::{Case, Options},
    progress::Progress,
    report::{Report, Results},
    seed::{Amounts, SCOPES, cloud_api_url},
    stage::Stage,
};

/// A run: what it measures with, and what it has measured so far.
struct Run<'a> {
    options: &'a Options,
    progress: Progress,
    generator: Generator,
    stages: Vec<Stage>,
    results: Results,
}

/// Measures everything that the options want. What it writes goes below `root`.
pub async fn run(options: &Options, root: &Path) -> anyhow::Result<Report> {
    let mut run = Run {
        options,
        progress: Progress::new(),
        generator: Generator::start()?,
        stages: Vec::new(),
        results: Results::default(),
    };
    let grpc_signer = Bare::start(Role::GrpcSigner, &subject()).await?;
    let http_signer = Bare::start(Role::HttpSigner, &subject()).await?;
    for server in [Server::Sqlite] {
        let amounts = Amounts {
            clients: options.active(),
            active: options.active(),
            chains: options.callers,
        };
        let mut stage = Stage::start(&server, root, "main", amounts, &run.progress).await?;
        stage.warm(&mut run.generator, &run.progress).await?;
        run.stages.push(stage);
    }
    for round in 1..=options.rounds() {
        run.progress
            .step(None, &format!("round {round} of {}", options.rounds()));
        run.bare(Case::BareGrpc, &grpc_signer, Work::Issue).await?;
        run.service(Case::Issue, Work::Issue).await?;
        run.bare(Case::BareHttp, &http_signer, Work::Form).await?;
        run.service(Case::Form, Work::Form).await?;
    }
    for stage in run.stages {
        stage.end().await?;
    }
    run.progress.finish();
    Ok(Report::new(options, run.results))
}

/// What bare signers put into tokens: as long as what the services put there.
fn subject() -> Subject {
    Subject {
        public_base_url: "http://127.0.0.1:50000".to_owned(),
        cloud_api_url: cloud_api_url(0),
        scope: SCOPES.join(" "),
    }
}

impl Run<'_> {
    /// Measures a bare server, if its case is wanted. It looks at no secret, so any client will do.
    async fn bare(&mut self, case: Case, bare: &Bare, work: Work) -> anyhow::Result<()> {
        let Some(stage) = self.stages.first().filter(|_| self.options.wants(case)) else {
            return Ok(());
        };
        self.progress.advance(1, Some(case.name()));
        let job = Job {
            server: bare.address.clone(),
            ..stage.job(work, self.options.callers, self.options.span())
        };
        let watched = Watched {
            server: bare.pid()?,
            registry: None,
            database: None,
        };
        let sample = self.generator.run(&job, watched).await?;
        self.results.add(case.name(), None, sample);
        Ok(())
    }

    /// Measures token-service on each database, if the case is wanted.
    async fn service(&mut self, case: Case, work: Work) -> anyhow::Result<()> {
        if !self.options.wants(case) {
            return Ok(());
        }
        for stage in &mut self.stages {
            self.progress
                .advance(1, Some(&format!("{} on {}", case.name(), stage.database)));
            let job = stage.job(work.clone(), self.options.callers, self.options.span());
            let sample = stage.run(&mut self.generator, &job).await?;
            self.results.add(case.name(), Some(stage.database), sample);
        }
        Ok(())
    }
}
