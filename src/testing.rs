//! What the tests of every member share: throw-away databases, and a clock and randomness that
//! tests control. Built with the feature `testing` alone; may panic, since only tests call it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::{
    fmt,
    io::Write,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, OnceLock},
};

use tempfile::TempDir;
use tonic::Status;

use crate::{
    clock::{ManualClock, UnixMillis},
    position::Epoch,
    random::SeededRandom,
    rpc::auth::{Caller, CallerDirectory},
    store::Database,
    text::opaque::OpaqueToken,
};

pub mod calls;
pub mod http2;
mod postgres;

use postgres::{Cluster, Durability, PostgresDatabase};

/// Where a [`test_clock`] starts: 2026-01-01T00:00:00Z.
pub const TEST_START: UnixMillis = UnixMillis::from_millis(1_767_225_600_000);

/// A directory in which nobody is.
#[derive(Debug)]
pub struct Nobody;

#[tonic::async_trait]
impl CallerDirectory for Nobody {
    async fn find_caller(&self, _: &OpaqueToken) -> Result<Option<Caller>, Status> {
        Ok(None)
    }
}

/// An epoch of a change feed.
pub fn epoch(text: &str) -> Epoch {
    Epoch::parse(text).unwrap()
}

/// A clock that starts at [`TEST_START`] and moves when the test says so.
pub fn test_clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(TEST_START))
}

/// Randomness that is the same in every run. Two of them give the same bytes: use one in a test,
/// or seeds of your own.
pub fn test_random() -> Arc<SeededRandom> {
    Arc::new(SeededRandom::new(0x00ac_c04d))
}

/// A database of its own for a test, empty, and gone when this is dropped.
pub struct TestDatabase {
    /// The URL for [`Database::connect`].
    pub url: String,
    /// `sqlite` or `postgres`, for messages.
    pub label: &'static str,
    /// Removes the database when dropped.
    _guard: Guard,
}

/// Never read: holds what is dropped.
#[allow(dead_code)]
enum Guard {
    Directory(TempDir),
    Postgres(PostgresDatabase),
}

impl TestDatabase {
    /// Connects as a service does.
    pub async fn connect(&self) -> Database {
        Database::connect(&self.url)
            .await
            .expect("a test database answers")
    }
}

impl fmt::Debug for TestDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TestDatabase({})", self.label)
    }
}

/// One database of each kind that can be had here. A rule about stored things holds on all of them.
pub fn databases() -> Vec<TestDatabase> {
    std::iter::once(sqlite()).chain(postgres()).collect()
}

/// A SQLite database in a directory of its own.
pub fn sqlite() -> TestDatabase {
    let dir = tempfile::tempdir_in(&scratch().0).expect("a temp directory");
    let path = dir.path().join("accord.db");
    TestDatabase {
        url: format!("sqlite://{}", path.display()),
        label: "sqlite",
        _guard: Guard::Directory(dir),
    }
}

/// The directory for what tests of this process write, and the shell that removes it. The shell reads a pipe
/// which this process alone can write to; when the pipe ends, even if the process is killed, it writes what it
/// has read to standard error: the test runner swallows what passing tests print, and has no hook at its end.
fn scratch() -> &'static (PathBuf, Child) {
    static SCRATCH: OnceLock<(PathBuf, Child)> = OnceLock::new();
    SCRATCH.get_or_init(|| {
        let directory = tempfile::Builder::new().prefix("accord-test-").tempdir();
        let directory = directory.expect("a temp directory").keep();
        let cleaner = Command::new("/bin/sh")
            .args([
                "-c",
                "trap '' HUP INT TERM; notes=$(sort -u); rm -rf \"$1\"; [ -z \"$notes\" ] || echo \"$notes\" >&2",
                "cleaner",
            ])
            .arg(&directory)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("/bin/sh runs");
        // With it, our end of its pipe stays open.
        (directory, cleaner)
    })
}

/// A PostgreSQL database: on the server of `ACCORD_TEST_POSTGRES_URL`, whose user must be allowed
/// to create databases, or else on a server of this process's own, if PostgreSQL is installed.
///
/// `None`, and a line on standard error at the process's end, if neither can be had; with
/// `ACCORD_REQUIRE_ALL=1` a panic.
pub fn postgres() -> Option<TestDatabase> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    let server = SERVER.get_or_init(find_server).as_ref()?;
    Some(database_on(&server.url))
}

fn database_on(server: &str) -> TestDatabase {
    let database = PostgresDatabase::create(server).expect("a database on the test server");
    TestDatabase {
        url: database.url().to_owned(),
        label: "postgres",
        _guard: Guard::Postgres(database),
    }
}

/// A PostgreSQL server of the caller's own whose commits are on the disk when they are answered, for
/// measuring. Stops when dropped, or when the process ends, and leaves nothing.
pub struct DurablePostgres(Cluster);

/// Starts one, its files below the first of `directories` that can hold them: running as root, its user
/// must get there. `None` as with [`postgres`], which looks for no other server.
pub fn durable_postgres(directories: &[&Path]) -> Option<DurablePostgres> {
    let mut found = Err("no directory".to_owned());
    for directory in directories {
        found = Cluster::start(directory, Durability::Full);
        if found.is_ok() {
            break;
        }
    }
    or_skipped(found).map(DurablePostgres)
}

impl DurablePostgres {
    /// An empty database, gone when it is dropped.
    pub fn database(&self) -> TestDatabase {
        database_on(self.0.url())
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        self.0.directory()
    }

    /// The process that all of its processes descend from.
    pub fn pid(&self) -> u32 {
        self.0.pid().expect("a running server says its process id")
    }
}

impl fmt::Debug for DurablePostgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DurablePostgres({})", self.directory().display())
    }
}

struct Server {
    /// The URL of a database to connect to for creating others.
    url: String,
    /// Stops the process's own server when this process ends.
    _cluster: Option<Cluster>,
}

fn find_server() -> Option<Server> {
    or_skipped(match std::env::var("ACCORD_TEST_POSTGRES_URL") {
        Ok(url) if !url.is_empty() => Ok(Server { url, _cluster: None }),
        _ => Cluster::start(&std::env::temp_dir(), Durability::None).map(|cluster| Server {
            url: cluster.url().to_owned(),
            _cluster: Some(cluster),
        }),
    })
}

/// What was found. Without it the process says at its end that its tests ran without PostgreSQL.
fn or_skipped<T>(found: Result<T, String>) -> Option<T> {
    match found {
        Ok(found) => Some(found),
        Err(reason) if std::env::var("ACCORD_REQUIRE_ALL").is_ok_and(|value| value == "1") => {
            panic!("ACCORD_REQUIRE_ALL=1, and PostgreSQL can't be had: {reason}")
        }
        Err(reason) => {
            let process = std::env::args().next().unwrap_or_default();
            let process = process.rsplit('/').next().unwrap_or_default();
            let mut cleaner = scratch().1.stdin.as_ref().expect("a pipe");
            writeln!(cleaner, "SKIPPED: {process} ran without PostgreSQL: {reason}").expect("a pipe");
            None
        }
    }
}
