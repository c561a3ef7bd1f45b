//! The runner: every test of the binary by its module, what each module needs of the machine, and how many
//! tests were skipped without it.

use std::{
    collections::BTreeSet,
    io::Write,
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
};

use libtest_mimic::{Arguments, Trial};

use super::document::file;

/// A test's name and its body.
pub type Test = (&'static str, fn());

/// Defines `tests()`: the list of a module's tests, each an `async fn` without arguments.
macro_rules! tests {
    ($($test:ident),+ $(,)?) => {
        pub fn tests() -> Vec<$crate::harness::suite::Test> {
            vec![$((
                concat!(module_path!(), "::", stringify!($test)),
                || $crate::harness::suite::block_on($test()),
            )),+]
        }
    };
}

/// Runs a test on a runtime of its own.
pub fn block_on(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.unwrap().block_on(test);
}

/// What some tests need besides Rust.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tool {
    Grpcurl,
    Envoy,
    Chromium,
    Axe,
    Curl,
    Go,
    Java,
    Node,
    Python,
    PgBouncer,
    /// The right to mount, which root has.
    Mount,
}

impl Tool {
    /// Returns what is missing.
    fn missing(self) -> Option<&'static str> {
        let programs: &[&'static str] = match self {
            Self::Grpcurl => &["grpcurl"],
            Self::Envoy => &["envoy", "openssl"],
            Self::Chromium => &["chromium", "chromedriver"],
            Self::Curl => &["curl", "openssl"],
            Self::PgBouncer => &["pgbouncer"],
            Self::Mount => return (!super::disk::can_mount()).then_some("right to mount"),
            Self::Axe => return (!axe().is_file()).then_some("axe-core"),
            Self::Go if !go_directory().join("modules").is_dir() => return Some("modules for Go"),
            Self::Go => &["go"],
            Self::Java if !java_libraries().is_dir() => return Some("libraries for Java"),
            Self::Java => &["java", "javac"],
            Self::Node if !node_modules().is_dir() => return Some("modules for Node.js"),
            Self::Node => &["node"],
            Self::Python => {
                let find = "import importlib.util as util, sys; \
                            sys.exit(not all(map(util.find_spec, sys.argv[1:])))";
                let search = python()
                    .args(["-c", find, "authlib", "grpc", "requests_oauthlib", "schemathesis"])
                    .stderr(Stdio::null())
                    .status();
                let found = search.is_ok_and(|status| status.success());
                return (!found).then_some("libraries for Python");
            }
        };
        programs
            .iter()
            .find(|program| on_path(program).is_none())
            .copied()
    }
}

/// A program on PATH.
pub fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut candidates = std::env::split_paths(&path).map(|directory| directory.join(program));
    candidates.find(|candidate| candidate.is_file())
}

/// The script of axe-core, where `.ci/run` puts it.
pub fn axe() -> PathBuf {
    file("target/ci-tools/axe/node_modules/axe-core/axe.min.js")
}

/// Where `.ci/run` puts what the programs of `tests/go` are built from, and what it has built.
pub fn go_directory() -> PathBuf {
    file("target/ci-tools/go")
}

/// The libraries of `tests/java`, where `.ci/run` puts them.
pub fn java_libraries() -> PathBuf {
    file("target/ci-tools/java/lib")
}

/// The modules of `tests/node`, where `.ci/run` puts them.
pub fn node_modules() -> PathBuf {
    file("target/ci-tools/node/node_modules")
}

/// A Python that looks for libraries where `.ci/run` puts them, too.
pub fn python() -> Command {
    let mut places = vec![file("target/ci-tools/python")];
    places.extend(std::env::split_paths(
        &std::env::var_os("PYTHONPATH").unwrap_or_default(),
    ));
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", std::env::join_paths(places).unwrap());
    command
}

/// Runs the modules' tests. A test whose tools are missing counts as ignored, with `ACCORD_REQUIRE_ALL=1` as
/// failed.
pub fn run(modules: Vec<(&[Tool], Vec<Test>)>) -> ExitCode {
    let required = std::env::var("ACCORD_REQUIRE_ALL").is_ok_and(|value| value == "1");
    let (mut trials, mut missing) = (Vec::new(), BTreeSet::new());
    for (tools, tests) in modules {
        let lacking: BTreeSet<_> = tools.iter().filter_map(|tool| tool.missing()).collect();
        let why = lacking
            .iter()
            .map(|tool| format!("no {tool}"))
            .collect::<Vec<_>>()
            .join(", ");
        for (name, test) in tests {
            let name = name.split_once("::").map_or(name, |(_, name)| name);
            let (why, kind, lacks) = (why.clone(), why.clone(), !lacking.is_empty());
            let trial = Trial::test(name, move || {
                if lacks {
                    return Err(why.into());
                }
                test();
                Ok(())
            });
            trials.push(trial.with_kind(kind).with_ignored_flag(lacks && !required));
        }
        missing.extend(lacking);
    }
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials);
    if conclusion.num_ignored > 0 {
        let missing = missing
            .into_iter()
            .map(|tool| format!("no {tool}"))
            .collect::<Vec<_>>();
        let (count, missing) = (conclusion.num_ignored, missing.join(", "));
        let _ = writeln!(std::io::stderr(), "{count} end-to-end tests skipped: {missing}\n");
    }
    conclusion.exit_code()
}
