//! What is measured, and in which order: rounds, each of which measures every case once, so that what a
//! ratio compares was measured within moments, however the machine's mood changes over the run.

mod growth;
mod start;
mod strain;
mod throughput;
mod verify;

use std::path::Path;

use crate::{
    bare::{Bare, signer::Subject},
    child::Role,
    database::Server,
    load::Work,
    measure::Generator,
    options::{Case, Options},
    progress::Progress,
    report::{Report, Results},
    seed::{Amounts, SCOPES, cloud_api_url},
    stage::Stage,
};

/// Cases that need no stage of their own.
const ON_THE_MAIN_STAGE: [Case; 14] = [
    Case::BareGrpc,
    Case::Issue,
    Case::BareHttp,
    Case::Form,
    Case::Refresh,
    Case::Code,
    Case::BareVerify,
    Case::Introspect,
    Case::Offline,
    Case::Cold,
    Case::Callers,
    Case::HalfLoad,
    Case::Flood,
    Case::Start,
];

/// A run: what it measures with, and what it has measured so far.
struct Run<'a> {
    options: &'a Options,
    progress: Progress,
    generator: Generator,
    /// One for each database.
    stages: Vec<Stage>,
    results: Results,
}

/// Measures everything that the options want. What it writes goes below `root`.
pub async fn run(options: &Options, root: &Path) -> anyhow::Result<Report> {
    // First here, last to go: databases are gone before their server.
    let servers = Server::all(options.database, root);
    let mut report = Report::begin(options, root, &servers)?;
    let mut run = Run {
        options,
        progress: Progress::new(),
        generator: Generator::start()?,
        stages: Vec::new(),
        results: Results::default(),
    };
    if options.wants_any(&ON_THE_MAIN_STAGE) {
        run.set_stages(&servers, root).await?;
    }
    let mut growth = growth::Stages::start(&mut run, &servers, root).await?;
    let bare = BareServers::start(&run).await?;
    for round in 1..=options.rounds() {
        run.progress
            .step(None, &format!("round {round} of {}", options.rounds()));
        run.round(&bare).await?;
        growth.measure(&mut run).await?;
    }
    growth.end().await?;
    run.measure_start().await?;
    for stage in std::mem::take(&mut run.stages) {
        stage.end().await?;
    }
    run.progress.finish();
    report.finish(run.results);
    Ok(report)
}

/// The limits, each a process.
struct BareServers {
    grpc_signer: Bare,
    http_signer: Bare,
    verifier: Option<Bare>,
}

impl BareServers {
    async fn start(run: &Run<'_>) -> anyhow::Result<Self> {
        // What bare signers put into tokens is as long as what the services put there.
        let subject = Subject {
            public_base_url: "http://127.0.0.1:50000".to_owned(),
            cloud_api_url: cloud_api_url(0),
            scope: SCOPES.join(" "),
        };
        let verifier = match run.stages.first() {
            Some(stage) => Some(Bare::start(Role::Verifier, &verify::signing_key(stage).await?).await?),
            None => None,
        };
        Ok(Self {
            grpc_signer: Bare::start(Role::GrpcSigner, &subject).await?,
            http_signer: Bare::start(Role::HttpSigner, &subject).await?,
            verifier,
        })
    }
}

impl Run<'_> {
    async fn set_stages(&mut self, servers: &[Server], root: &Path) -> anyhow::Result<()> {
        let amounts = Amounts {
            clients: self.options.active(),
            active: self.options.active(),
            chains: self.options.callers,
        };
        for server in servers {
            let mut stage = Stage::start(server, root, "main", amounts, &self.progress).await?;
            self.results.idle(&stage);
            stage.warm(&mut self.generator, &self.progress).await?;
            self.stages.push(stage);
        }
        Ok(())
    }

    async fn round(&mut self, bare: &BareServers) -> anyhow::Result<()> {
        self.bare(Case::BareGrpc, &bare.grpc_signer, Work::Issue).await?;
        self.service(Case::Issue, |_| Work::Issue).await?;
        self.bare(Case::BareHttp, &bare.http_signer, Work::Form).await?;
        self.service(Case::Form, |_| Work::Form).await?;
        self.service(Case::Refresh, |stage| Work::Refresh(stage.seeded.chains.clone()))
            .await?;
        self.codes().await?;
        if let (Some(verifier), Some(stage)) = (&bare.verifier, self.stages.first()) {
            let work = verify::introspection(stage);
            self.bare(Case::BareVerify, verifier, work).await?;
        }
        self.service(Case::Introspect, verify::introspection).await?;
        self.offline().await?;
        self.cold().await?;
        self.callers().await?;
        self.strain(&bare.grpc_signer).await
    }

    /// Says what is measured next.
    fn next(&self, case: &str, database: Option<&str>) {
        match database {
            Some(database) => self.progress.advance(1, Some(&format!("{case} on {database}"))),
            None => self.progress.advance(1, Some(case)),
        }
    }
}
