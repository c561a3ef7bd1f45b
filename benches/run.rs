//! The order of a run: for each database, rounds in which every member of every case gets one slice, so
//! that a ratio compares the same seconds, however the machine's speed changes.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};

use crate::{
    cases::{
        Case,
        Limit::{AtLeast, AtMost},
    },
    database::Server,
    deployment::process::DeploymentProcess,
    load::wrong_secrets::REJECTED,
    options::Options,
    protocol::{CALLERS, Pace, Sample, Slice, Target, Work},
    replay,
    results::{Member, Results, Series, total},
    soak,
};

const BARE: &str = "bare";
const THIS: &str = "this build";
const OTHER: &str = "other build";
/// Wrong secrets a second of a flood.
const WRONG_SECRETS: f64 = 2_000.0;
/// How long each client's first call may take together. A slice ends with the last of them.
const FIRST_CALLS_WITHIN: Duration = Duration::from_secs(120);
/// Clients whose tokens a large record holds, at ten tenants.
const RECORD_CLIENTS: usize = 500;
/// How long connections get going before a slice counts.
const WARM_UP: Duration = Duration::from_millis(100);

/// Measures what the options want. Files go below `root`.
pub async fn run(options: &Options, root: &Path) -> Result<Results> {
    let results = Results::default();
    let mut run = Run {
        options,
        root,
        results,
    };
    if options.wants(Case::Replay) {
        replay::measure(&mut run.results, options.proofs())?;
    }
    let servers = options.database.iter();
    for server in servers.filter_map(|database| Server::start(database, root)) {
        if options.wants_builds() {
            run.builds(&server).await?;
        }
        if options.wants(Case::Growth) {
            run.growth(&server).await?;
        }
        if options.wants(Case::Record) {
            run.record(&server).await?;
        }
        if options.wants(Case::Soak) {
            run.soak(&server).await?;
        }
    }
    Ok(run.results)
}

struct Run<'a> {
    options: &'a Options,
    root: &'a Path,
    results: Results,
}

impl Run<'_> {
    async fn deploy(&self, server: &Server, name: &str, clients: usize) -> Result<DeploymentProcess> {
        let program = match self.options.other_build() {
            Some(other) if name == OTHER => other,
            _ => std::env::current_exe()?,
        };
        let sizes = (clients, clients.min(self.options.active()));
        DeploymentProcess::start(server, &program, self.root, name, sizes).await
    }

    /// All cases but growth, of this build and the other one.
    async fn builds(&mut self, server: &Server) -> Result<()> {
        let clients = self.options.active();
        let mut builds = vec![self.deploy(server, THIS, clients).await?];
        if self.options.other_build().is_some() {
            builds.push(self.deploy(server, OTHER, clients).await?);
        }
        for round in 0..self.options.rounds() {
            eprintln!("{}: round {}", server.name(), round + 1);
            for (case, work) in Case::BESIDE_BARE {
                if self.options.wants(case) {
                    self.beside_bare(case, work, &mut builds, round).await?;
                }
            }
            if self.options.wants(Case::Par) {
                for build in in_rotation(builds.len(), round) {
                    self.pushes(&mut builds[build], round).await?;
                }
            }
            for case in [Case::Flood, Case::FloodNewReplica] {
                if self.options.wants(case) {
                    for build in in_rotation(builds.len(), round) {
                        self.flood(case, &mut builds[build], round).await?;
                    }
                }
            }
        }
        self.variants(&mut builds[0]).await?;
        for build in builds {
            self.compare(&build);
            build.finish().await?;
        }
        Ok(())
    }

    /// A slice of the bare server and one of each build. The bare server is called by this build's process.
    async fn beside_bare(
        &mut self,
        case: Case,
        work: Work,
        builds: &mut [DeploymentProcess],
        round: usize,
    ) -> Result<()> {
        for member in in_rotation(builds.len() + 1, round) {
            let build = &mut builds[member.saturating_sub(1)];
            let (name, target) = match case {
                _ if member == 0 => (BARE.to_owned(), Target::Bare),
                Case::NewReplica => (build.name.clone(), Target::NewReplica),
                _ => (build.name.clone(), Target::Service),
            };
            let pace = match case {
                Case::HalfLoad => self.half_load((build.database, &name))?,
                _ => Pace::Callers(CALLERS),
            };
            let sample = build.measure(self.slice(target, work, pace)).await?;
            self.results.add(case, (build.database, &name), sample);
        }
        Ok(())
    }

    fn slice(&self, target: Target, work: Work, pace: Pace) -> Slice {
        let mut slice = Slice::new(target, work, pace, self.options.span());
        match (target, work) {
            (Target::NewReplica, Work::IssueOnce) => slice.span = FIRST_CALLS_WITHIN,
            // A new replica is measured from its first moment.
            (Target::NewReplica, _) => {}
            _ => slice.warm_up = WARM_UP,
        }
        slice
    }

    /// Half of the highest load so far.
    fn half_load(&self, member: Member) -> Result<Pace> {
        let highest = self.results.series(Case::Issue, member);
        let highest = highest.context("no highest load")?;
        Ok(Pace::Rate(highest.median(Sample::throughput) / 2.0))
    }

    /// Requests that are pushed, and codes that are exchanged.
    async fn pushes(&mut self, build: &mut DeploymentProcess, round: usize) -> Result<()> {
        let members = [(codes(&build.name), Work::Code), (build.name.clone(), Work::Push)];
        for member in in_rotation(members.len(), round) {
            let (name, work) = &members[member];
            let slice = self.slice(Target::Service, *work, Pace::Callers(CALLERS));
            let sample = build.measure(slice).await?;
            self.results.add(Case::Par, (build.database, name), sample);
        }
        Ok(())
    }

    /// The same half load without and with wrong secrets.
    async fn flood(&mut self, case: Case, build: &mut DeploymentProcess, round: usize) -> Result<()> {
        let target = match case {
            Case::FloodNewReplica => Target::NewReplica,
            _ => Target::Service,
        };
        let pace = self.half_load((build.database, &build.name))?;
        let names = [quiet(&build.name), build.name.clone()];
        for flooded in in_rotation(names.len(), round) {
            let mut slice = self.slice(target, Work::Issue, pace);
            slice.wrong_secrets = (flooded == 1).then_some(WRONG_SECRETS);
            let sample = build.measure(slice).await?;
            self.results.add(case, (build.database, &names[flooded]), sample);
        }
        Ok(())
    }

    /// Token-services that are set up differently, after all other rounds: they serve on.
    async fn variants(&mut self, build: &mut DeploymentProcess) -> Result<()> {
        let (drains, drain, rate) = self.options.drain();
        for round in 0..self.options.rounds() {
            for (case, members, callers) in Case::OF_VARIANTS {
                if self.options.wants(case) {
                    for member in in_rotation(members.len(), round) {
                        let (name, variant) = members[member];
                        let target = Target::Variant(variant);
                        let slice = self.slice(target, Work::Issue, Pace::Callers(callers));
                        let sample = build.measure(slice).await?;
                        self.results.add(case, (build.database, name), sample);
                    }
                }
            }
            if self.options.wants(Case::Drain) && round < drains {
                let mut slice = self.slice(Target::Draining, Work::Issue, Pace::Rate(rate));
                slice.span = drain;
                let sample = build.measure(slice).await?;
                self.results.add(Case::Drain, (build.database, THIS), sample);
            }
        }
        self.compare_variants(build.database);
        Ok(())
    }

    /// Ratios of token-services that are set up differently, and what a stop dropped.
    fn compare_variants(&mut self, database: &'static str) {
        let results = &mut self.results;
        for (case, members, _) in Case::OF_VARIANTS {
            let (first, _) = members[0];
            for (name, _) in &members[1..] {
                results.compare(case, (database, name), first, case.limit());
                let Some((part, what, limit)) = case.cpu_limit() else {
                    continue;
                };
                let cpu = |name| {
                    let series = results.series(case, (database, name))?;
                    series.for_each_answer(|sample| sample.usage.cpu[part])
                };
                if let Some((ours, theirs)) = cpu(name).zip(cpu(first)) {
                    let what = format!("{}: {what} for a token to {first}", case.name());
                    results.figure(what, (database, name), ours / theirs, Some(limit));
                }
            }
        }
        if let Some(drains) = results.series(Case::Drain, (database, THIS)) {
            let dropped = drains.sum(|sample| total(&sample.outcome.refused));
            let answered = drains.sum(|sample| sample.outcome.all_answers as f64);
            let member = (database, THIS);
            results.figure("drain: calls dropped", member, dropped, Some(AtMost(0.0)));
            results.figure("drain: calls answered", member, answered, None);
        }
    }

    /// Ratios and figures of a build.
    fn compare(&mut self, build: &DeploymentProcess) {
        let (results, started) = (&mut self.results, &build.started);
        let member @ (database, name) = (build.database, build.name.as_str());
        for (case, _) in Case::BESIDE_BARE {
            results.compare(case, member, BARE, case.limit());
            if name == OTHER {
                results.compare(case, (database, THIS), OTHER, None);
            }
        }
        results.compare(Case::Par, member, &codes(name), Case::Par.limit());
        for case in [Case::Flood, Case::FloodNewReplica] {
            results.compare(case, member, &quiet(name), case.limit());
            flood_figures(results, case, build);
        }
        for (what, value, most) in [
            ("registry-service: idle MiB", started.registry_memory, 25.0),
            ("token-service: idle MiB", started.token_memory, 25.0),
            ("registry-service: ms to ready", started.registry_ready, 100.0),
            ("token-service: ms to ready", started.token_ready, 100.0),
        ] {
            results.figure(what, member, value, Some(AtMost(most)));
        }
        let Some(series) = results.series(Case::NewReplica, member) else {
            return;
        };
        let rate = series.median(Sample::throughput);
        let runs = series.sum(|sample| sample.argon2_runs as f64);
        let first_calls = "new-replica: first calls a second";
        results.figure(first_calls, member, rate, Some(AtLeast(5_000.0)));
        results.figure("new-replica: argon2 runs", member, runs, Some(AtMost(0.0)));
    }

    /// Few and many clients and grants, each with databases and services of its own. Calls are for clients
    /// with a secret; the others are rows that indexes have to cope with.
    async fn growth(&mut self, server: &Server) -> Result<()> {
        let mut sizes = Vec::new();
        for clients in self.options.growth() {
            let name = format!("{clients} clients");
            sizes.push(self.deploy(server, &name, clients).await?);
        }
        for round in 0..self.options.rounds() {
            for size in in_rotation(sizes.len(), round) {
                let slice = self.slice(Target::Service, Work::Issue, Pace::Callers(CALLERS));
                let sample = sizes[size].measure(slice).await?;
                let member = (server.name(), sizes[size].name.as_str());
                self.results.add(Case::Growth, member, sample);
            }
        }
        let (many, limit) = ((server.name(), sizes[1].name.as_str()), Case::Growth.limit());
        self.results.compare(Case::Growth, many, &sizes[0].name, limit);
        for size in sizes {
            size.finish().await?;
        }
        Ok(())
    }

    /// A large audit record, with 50 clients and grants at each tenant.
    async fn record(&mut self, server: &Server) -> Result<()> {
        let mut deployment = self.deploy(server, "record", RECORD_CLIENTS).await?;
        for (what, value) in deployment.record(self.options.events()).await? {
            let limit = match what.as_str() {
                "events sealed a second" => Some(AtLeast(30_000.0)),
                "seconds to verify" => Some(AtMost(60.0)),
                "ms to prove an event" => Some(AtMost(20.0)),
                "ms to trace a token" => Some(AtMost(100.0)),
                "ms for the page of connected integrations" => Some(AtMost(50.0)),
                _ => None,
            };
            let what = format!("record: {what}");
            self.results.figure(what, (server.name(), THIS), value, limit);
        }
        deployment.finish().await
    }

    /// Minutes of calls of all kinds. Its files lie beside the report.
    async fn soak(&mut self, server: &Server) -> Result<()> {
        let options = self.options;
        let mut deployment = self.deploy(server, "soak", options.active()).await?;
        let directory = self.root.parent().context("no directory")?;
        soak::run(&mut deployment, &mut self.results, options.soak(), directory).await?;
        deployment.finish().await
    }
}

/// What a flood costs beside latency.
fn flood_figures(results: &mut Results, case: Case, build: &DeploymentProcess) {
    let member @ (database, name) = (build.database, build.name.as_str());
    let quiet = results.series(case, (database, &quiet(name)));
    let (Some(flooded), Some(quiet)) = (results.series(case, member), quiet) else {
        return;
    };
    let idle = (build.started.registry_memory, build.started.token_memory);
    let sent = flooded.sum(|sample| total(&sample.wrong_secrets));
    let rejected = flooded.sum(|sample| *sample.wrong_secrets.get(REJECTED).unwrap_or(&0) as f64);
    let runs = flooded.sum(|sample| sample.argon2_runs as f64);
    let calls = |series: &Series| series.sum(|sample| total(&sample.registry_calls));
    let calls_each = (calls(flooded) - calls(quiet)) / sent;
    let refused = |series: &Series| series.sum(|sample| total(&sample.outcome.refused));
    let (refused, refused_quiet) = (refused(flooded), refused(quiet));
    let registry = flooded.most(|sample| sample.usage.registry_memory);
    let token = flooded.most(|sample| sample.usage.server_memory);
    for (what, value, most) in [
        ("wrong secrets", sent, None),
        ("wrong secrets not judged", sent - rejected, Some(0.0)),
        ("argon2 runs", runs, Some(0.0)),
        ("registry calls for each", calls_each, None),
        ("good calls refused", refused, Some(0.0)),
        ("good calls refused, quiet", refused_quiet, Some(0.0)),
        ("registry-service MiB over idle", registry - idle.0, Some(32.0)),
        ("token-service MiB over idle", token - idle.1, Some(32.0)),
    ] {
        let what = format!("{}: {what}", case.name());
        results.figure(what, member, value, most.map(AtMost));
    }
}

/// The name of a build's series without a flood.
fn quiet(name: &str) -> String {
    format!("{name}, quiet")
}

/// The name of a build's series of exchanged codes.
fn codes(name: &str) -> String {
    format!("{name}, codes")
}

/// All members, another one first in each round.
fn in_rotation(members: usize, round: usize) -> impl Iterator<Item = usize> {
    (0..members).map(move |member| (member + round) % members)
}
