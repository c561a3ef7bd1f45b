//! The order of a run: for each database, rounds in which every member of every case gets one slice, so
//! that a ratio compares the same seconds, however the machine's speed changes.

use std::{collections::BTreeMap, path::Path, time::Duration};

use accord::testing::TestDatabase;
use anyhow::{Context, Result, ensure};

use crate::{
    cases::{
        Case,
        Limit::{AtLeast, AtMost},
    },
    database::Server,
    deployment,
    load::wrong_secrets::REJECTED,
    options::Options,
    pipe::Process,
    protocol::{CALLERS, Pace, Plan, Request, Sample, Slice, Startup, Target, Work},
    results::{Member, Results, Series},
};

const BARE: &str = "bare";
const THIS: &str = "this build";
const OTHER: &str = "other build";
/// Wrong secrets a second of a flood.
const WRONG_SECRETS: f64 = 2_000.0;
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
    let servers = options.database.iter();
    for server in servers.filter_map(|database| Server::start(database, root)) {
        if options.wants_builds() {
            run.builds(&server).await?;
        }
        if options.wants(Case::Growth) {
            run.growth(&server).await?;
        }
    }
    Ok(run.results)
}

struct Run<'a> {
    options: &'a Options,
    root: &'a Path,
    results: Results,
}

/// A deployment, in a process of its own.
struct DeploymentProcess {
    name: String,
    database: &'static str,
    process: Process,
    started: Startup,
    _databases: [Option<TestDatabase>; 2],
}

impl DeploymentProcess {
    async fn measure(&mut self, slice: Slice) -> Result<Sample> {
        let may_overload = slice.wrong_secrets.is_some() || slice.target == Target::NewReplica;
        let what = format!("{}: {}: {slice:?}", self.database, self.name);
        let sample = self.process.request(&Request::Measure(slice)).await;
        let sample: Sample = sample.with_context(|| what.clone())?;
        let refused = &sample.outcome.refused;
        ensure!(may_overload || refused.is_empty(), "{what}: {refused:?}");
        Ok(sample)
    }

    async fn finish(mut self) -> Result<()> {
        let () = self.process.request(&Request::Finish).await?;
        self.process.end().await
    }
}

impl Run<'_> {
    async fn deploy(
        &self,
        server: &Server,
        program: &Path,
        name: &str,
        clients: usize,
    ) -> Result<DeploymentProcess> {
        let database = server.name();
        eprintln!("{database}: {name}: {clients} clients");
        let directory = self.root.join(format!("{database} {name}").replace(' ', "-"));
        std::fs::create_dir(&directory)?;
        let (registry_url, registry_database) = server.create(&directory, "registry");
        let (token_url, token_database) = server.create(&directory, "token");
        let mut process = Process::start(program, deployment::ROLE)?;
        let plan = Plan {
            directory,
            registry_url,
            token_url,
            database_pid: server.pid(),
            clients,
            active: clients.min(self.options.active()),
        };
        let started = process.request(&Request::Deploy(plan)).await;
        Ok(DeploymentProcess {
            name: name.to_owned(),
            database,
            process,
            started: started.with_context(|| format!("{database}: {name}"))?,
            _databases: [registry_database, token_database],
        })
    }

    /// All cases but growth, of this build and the other one.
    async fn builds(&mut self, server: &Server) -> Result<()> {
        let (this, clients) = (std::env::current_exe()?, self.options.active());
        let mut builds = vec![self.deploy(server, &this, THIS, clients).await?];
        if let Some(other) = self.options.other_build() {
            builds.push(self.deploy(server, &other, OTHER, clients).await?);
        }
        for round in 0..self.options.rounds() {
            eprintln!("{}: round {}", server.name(), round + 1);
            for (case, work) in Case::BESIDE_BARE {
                if self.options.wants(case) {
                    self.beside_bare(case, work, &mut builds, round).await?;
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
            let name = if member == 0 {
                BARE.to_owned()
            } else {
                build.name.clone()
            };
            let target = match case {
                _ if member == 0 => Target::Bare,
                Case::NewReplica => Target::NewReplica,
                _ => Target::Service,
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
        // A new replica is measured from its first moment.
        let is_new = target == Target::NewReplica;
        Slice {
            target,
            work,
            pace,
            warm_up: if is_new { Duration::ZERO } else { WARM_UP },
            span: self.options.span(),
            wrong_secrets: None,
        }
    }

    /// Half of the highest load so far.
    fn half_load(&self, member: Member) -> Result<Pace> {
        let highest = self.results.series(Case::Issue, member);
        let highest = highest.context("no highest load")?;
        Ok(Pace::Rate(highest.median(Sample::throughput) / 2.0))
    }

    /// The same half load without and with wrong secrets.
    async fn flood(&mut self, case: Case, build: &mut DeploymentProcess, round: usize) -> Result<()> {
        let is_new = case == Case::FloodNewReplica;
        let target = if is_new {
            Target::NewReplica
        } else {
            Target::Service
        };
        let pace = self.half_load((build.database, &build.name))?;
        for flooded in in_rotation(2, round) {
            let (name, wrong_secrets) = match flooded {
                0 => (quiet(&build.name), None),
                _ => (build.name.clone(), Some(WRONG_SECRETS)),
            };
            let slice = Slice {
                wrong_secrets,
                ..self.slice(target, Work::Issue, pace)
            };
            let sample = build.measure(slice).await?;
            self.results.add(case, (build.database, &name), sample);
        }
        Ok(())
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
            results.figure(what.to_owned(), member, value, Some(AtMost(most)));
        }
        let Some(series) = results.series(Case::NewReplica, member) else {
            return;
        };
        let rate = series.median(Sample::throughput);
        let runs = series.sum(|sample| sample.argon2_runs as f64);
        let first_calls = "new-replica: first calls a second".to_owned();
        results.figure(first_calls, member, rate, Some(AtLeast(5_000.0)));
        results.figure(
            "new-replica: argon2 runs".to_owned(),
            member,
            runs,
            Some(AtMost(0.0)),
        );
    }

    /// Few and many clients and grants, each with databases and services of its own. Calls are for clients
    /// with a secret; the others are rows that indexes have to cope with.
    async fn growth(&mut self, server: &Server) -> Result<()> {
        let (this, mut sizes) = (std::env::current_exe()?, Vec::new());
        for clients in self.options.growth() {
            let name = format!("{clients} clients");
            sizes.push(self.deploy(server, &this, &name, clients).await?);
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

fn total(counts: &BTreeMap<String, u64>) -> f64 {
    counts.values().sum::<u64>() as f64
}

/// The name of a build's series without a flood.
fn quiet(name: &str) -> String {
    format!("{name}, quiet")
}

/// All members, another one first in each round.
fn in_rotation(members: usize, round: usize) -> impl Iterator<Item = usize> {
    (0..members).map(move |member| (member + round) % members)
}
