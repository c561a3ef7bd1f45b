//! The runner: every test of the binary by its module, what each module needs of the machine, and how many
//! tests were skipped without it.

use std::{
    collections::BTreeSet,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use libtest_mimic::{Arguments, Trial};

use super::{document::file, pgbouncer::PgBouncer, process::on_path};

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
    /// What copies and restores databases of PostgreSQL.
    PgDump,
    /// The programs of a PostgreSQL server.
    Postgres,
    SoftHsm,
    Promtool,
    Prometheus,
    /// helm, and what decodes manifests.
    Helm,
    /// What loads compose files.
    Compose,
    /// What builds images, with a root to build them on and the services' binaries.
    Buildah,
    /// What checks units. Nothing needs to run under systemd.
    Systemd,
    /// The right to mount, which root has.
    Mount,
    /// An address of this machine that is not loopback.
    Address,
    /// Network namespaces, which root has where the kernel allows them.
    Namespaces,
    /// etcd, Patroni and HAProxy.
    Patroni,
}

impl Tool {
    /// Returns what is missing.
    fn missing(self) -> Option<&'static str> {
        let programs: &[&'static str] = match self {
            Self::Grpcurl => &["grpcurl"],
            Self::Envoy => &["envoy", "openssl"],
            Self::Chromium => &["chromium", "chromedriver"],
            Self::Curl => &["curl", "openssl"],
            Self::PgBouncer => {
                let is_new = on_path("pgbouncer").is_some() && PgBouncer::version() >= (1, 21);
                return (!is_new).then_some("pgbouncer 1.21");
            }
            Self::PgDump => &["pg_dump", "pg_restore"],
            Self::Postgres => return postgres_programs().is_none().then_some("initdb"),
            Self::SoftHsm if !std::path::Path::new(SOFTHSM).exists() => return Some("module of SoftHSM"),
            Self::SoftHsm => &["softhsm2-util"],
            Self::Promtool => &["promtool"],
            Self::Prometheus => &["prometheus"],
            Self::Helm => &["helm", "kubernetes-manifests"],
            Self::Compose => &["compose-manifest", "openssl", "psql"],
            Self::Buildah if !image_root().is_file() => return Some("root for images"),
            Self::Buildah if !service_binaries().join("token-service").is_file() => {
                return Some("binaries of the services (cargo build)");
            }
            Self::Buildah => &["buildah", "strip", "unshare", "setpriv"],
            Self::Systemd => &["systemd-analyze", "systemd-sysusers", "systemd-tmpfiles"],
            Self::Patroni => &["patroni", "patronictl", "etcd", "haproxy", "psql", "setpriv"],
            Self::Mount => return (!super::disk::can_mount()).then_some("right to mount"),
            Self::Address => {
                return crate::transport::address()
                    .is_none()
                    .then_some("address besides loopback");
            }
            Self::Namespaces => {
                return (!super::network::can_isolate()).then_some("network namespaces (ip, unshare)");
            }
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
                    .args([
                        "-c",
                        find,
                        "authlib",
                        "cryptography",
                        "grpc",
                        "jwt",
                        "requests_oauthlib",
                        "schemathesis",
                    ])
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

/// The PKCS#11 module of SoftHSM, where Debian installs it.
pub const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// The directory of PostgreSQL's programs: the newest of Debian's.
pub fn postgres_programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let programs = versions.flatten().map(|version| version.path().join("bin"));
    programs.filter(|bin| bin.join("initdb").is_file()).max()
}

/// The script of axe-core, where `.ci/run` puts it.
pub fn axe() -> PathBuf {
    file("target/ci-tools/axe/node_modules/axe-core/axe.min.js")
}

/// Where `.ci/run` puts what the programs of `tests/go` are built from, and what it has built.
pub fn go_directory() -> PathBuf {
    file("target/ci-tools/go")
}

/// A root with the C library alone, on which an image is built, where `.ci/run` puts it.
pub fn image_root() -> PathBuf {
    file("target/ci-tools/image-root.tar")
}

/// Where the services' binaries are: beside `accord`, or where `ACCORD_TEST_BINARIES` says.
pub fn service_binaries() -> PathBuf {
    let beside = || Path::new(env!("CARGO_BIN_EXE_accord")).parent().unwrap().into();
    std::env::var_os("ACCORD_TEST_BINARIES").map_or_else(beside, PathBuf::from)
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
        let mut lacking: BTreeSet<_> = BTreeSet::new();
        // An isolated process runs one test, whose tools are there.
        if !super::network::is_isolated() {
            lacking.extend(tools.iter().filter_map(|tool| tool.missing()));
        }
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
    let mut arguments = Arguments::from_args();
    // As the other suites.
    let threads = std::env::var("RUST_TEST_THREADS").ok();
    arguments.test_threads = arguments
        .test_threads
        .or(threads.and_then(|threads| threads.parse().ok()));
    let conclusion = libtest_mimic::run(&arguments, trials);
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
