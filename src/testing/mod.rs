//! Test support for every member of the workspace: temporary databases, and a clock and randomness that tests control.
//! Only the feature `testing` builds it. It may panic.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::{
    fmt,
    io::Write,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, OnceLock},
};

use metrics_exporter_prometheus::PrometheusBuilder;
use sea_orm::{ConnectionTrait, DatabaseTransaction, TransactionTrait};
use sea_orm_migration::MigratorTrait;
use tempfile::TempDir;
use tonic::Status;

use crate::{
    clock::{ManualClock, UnixMillis},
    keys::{DataKey, FileMasterKey, Keyring},
    position::Epoch,
    random::{SeededRandom, SystemRandom},
    rpc::auth::{Caller, CallerDirectory, Credential},
    store::{Database, Keyed, keyring::SharedKeyring},
};

pub mod calls;
pub mod certificates;
pub mod dpop;
pub mod edited_rows;
mod held_port;
pub mod http2;
pub mod https;
pub mod mutated;
mod postgres;

pub use held_port::HeldPort;
use postgres::{Cluster, Durability, PostgresDatabase};

/// The start of a [`test_clock`]: 2026-01-01T00:00:00Z.
pub const TEST_START: UnixMillis = UnixMillis::from_millis(1_767_225_600_000);

/// Returns what a scrape shows after `work`, which records on this thread.
pub async fn scraped(work: impl Future) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    work.await;
    recorder.handle().render()
}

/// Migrates the empty database at `url`, and opens it with a keyring whose master key is not kept on disk.
pub async fn migrated<M: MigratorTrait>(
    url: &str,
    purposes: &[&'static str],
) -> (Database, SharedKeyring, Arc<ManualClock>) {
    let clock = test_clock();
    let db = Database::connect(url).await.unwrap();
    db.migrate::<M>().await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let master = FileMasterKey::create(&directory.path().join("key"), &SystemRandom).unwrap();
    let keyring = SharedKeyring::open(db.clone(), master.into(), purposes, clock.clone(), &SystemRandom);
    let keyring = keyring.await.unwrap();
    (db, keyring, clock)
}

/// Connects to a database as another replica of the service that has opened `db`.
pub async fn another_replica(db: &Database, url: &str) -> Database {
    let other = Database::connect(url).await.unwrap();
    other.use_keys(db.read().keys().unwrap());
    other
}

/// A keyring with these versions of the key of a purpose, which are the same in each keyring.
pub fn keyring(purpose: &'static str, versions: &[u8]) -> Keyring {
    let mut keyring = Keyring::new(&[purpose]);
    for version in versions {
        let key = DataKey::new(i32::from(*version), &[*version; 32]).unwrap();
        keyring.insert(purpose, key, true);
    }
    keyring
}

/// A key of the first version for MACs of rows that no database has.
pub fn other_row_key() -> DataKey {
    DataKey::new(1, &[99; 32]).unwrap()
}

/// A directory without callers.
#[derive(Debug)]
pub struct NoCallers;

#[tonic::async_trait]
impl CallerDirectory for NoCallers {
    async fn find_caller(&self, _: Credential<'_>) -> Result<Option<Caller>, Status> {
        Ok(None)
    }
}

/// Parses an epoch of a change feed.
pub fn epoch(text: &str) -> Epoch {
    Epoch::parse(text).unwrap()
}

/// Returns a clock that starts at [`TEST_START`] and that only the test moves.
pub fn test_clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(TEST_START))
}

/// Returns randomness that is the same in every run. Two of them return the same bytes: use one in a test, or other
/// seeds.
pub fn test_random() -> Arc<SeededRandom> {
    Arc::new(SeededRandom::new(0x00ac_c04d))
}

/// An empty database for one test. Dropping it removes the database.
pub struct TestDatabase {
    /// The URL for [`Database::connect`].
    pub url: String,
    /// `sqlite` or `postgres`, for messages.
    pub label: &'static str,
    /// Removes the database when dropped.
    _guard: Guard,
}

/// Removes the database when dropped.
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

    /// Executes statements, as somebody who can write the database and holds no key.
    pub async fn edit(&self, statements: &str) {
        let database = sea_orm::Database::connect(&self.url).await.unwrap();
        database.execute_unprepared(statements).await.unwrap();
        database.close().await.unwrap();
    }

    /// Takes the lock of a SQLite database. What writes waits until the transaction is dropped.
    pub async fn hold_writes(&self) -> DatabaseTransaction {
        let database = sea_orm::Database::connect(&self.url).await.unwrap();
        let held = database.begin().await.unwrap();
        held.execute_unprepared("DELETE FROM changes WHERE seq < 0")
            .await
            .unwrap();
        held
    }
}

impl fmt::Debug for TestDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TestDatabase({})", self.label)
    }
}

/// Returns a database of each kind that is available.
pub fn databases() -> Vec<TestDatabase> {
    std::iter::once(sqlite()).chain(postgres()).collect()
}

/// Returns a SQLite database in a new directory.
pub fn sqlite() -> TestDatabase {
    let dir = tempfile::tempdir_in(&scratch().0).expect("a temp directory");
    let path = dir.path().join("accord.db");
    TestDatabase {
        url: format!("sqlite://{}", path.display()),
        label: "sqlite",
        _guard: Guard::Directory(dir),
    }
}

/// Returns the directory for the files of this process's tests, and the shell that removes it. The shell reads a pipe
/// that only this process can write to. At the end of the pipe, even if the process was killed, it prints what it has
/// read to standard error: the test runner hides the output of passing tests, and has no hook at its end.
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
        // The child holds our end of the pipe open.
        (directory, cleaner)
    })
}

/// Returns a PostgreSQL database: on the server of `ACCORD_TEST_POSTGRES_URL`, whose user must be allowed to create
/// databases, or else on a server that this process starts, if PostgreSQL is installed.
///
/// Without either it returns `None`, and the process prints a line to standard error at its end; with
/// `ACCORD_REQUIRE_ALL=1` it panics.
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

/// A PostgreSQL server of one test's own, which syncs each commit to the disk and starts again when it stops. It stops when it is dropped or the process
/// ends, and leaves no files.
pub struct DurablePostgres(Cluster);

/// Starts a [`DurablePostgres`] with its files in the first of `directories` that its user can reach. Returns `None` as
/// [`postgres`] does.
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
    /// Creates an empty database.
    pub fn database(&self) -> TestDatabase {
        database_on(self.0.url())
    }

    /// Starts a standby of this server.
    pub fn standby(&self) -> Self {
        Self(Cluster::start_standby(&self.0).expect("a standby starts"))
    }

    /// Returns the URL of the server's first database, for its superuser.
    pub fn url(&self) -> &str {
        self.0.url()
    }

    /// Executes a statement as the superuser.
    pub fn execute(&self, sql: &str) {
        postgres::execute(self.url(), sql.to_owned()).expect("the statement succeeds");
    }

    /// Returns the number that a query of the superuser results in.
    pub fn number(&self, sql: &str) -> i64 {
        postgres::number(self.url(), sql.to_owned()).expect("the query succeeds")
    }

    /// Sends a signal, by its name, to the server's main process.
    pub fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args([&format!("-{signal}"), &pid]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -{signal} {pid}");
    }

    /// Returns the directory of the server's files.
    pub fn directory(&self) -> &Path {
        self.0.directory()
    }

    /// Returns the id of the server's main process.
    pub fn pid(&self) -> u32 {
        self.0.pid().expect("a running server says its process id")
    }
}

/// Executes statements, separated by semicolons, on the database of a URL.
pub fn execute_on(url: &str, sql: &str) {
    try_execute_on(url, sql).expect("the statements succeed");
}

/// Does the same, and returns why it failed.
pub fn try_execute_on(url: &str, sql: &str) -> Result<(), String> {
    postgres::execute(url, sql.to_owned())
}

impl fmt::Debug for DurablePostgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DurablePostgres({})", self.directory().display())
    }
}

struct Server {
    /// The URL of a database from which others are created.
    url: String,
    /// Stops the server when this process ends.
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

/// Returns the value of a result. After an error the process prints at its end that its tests ran without PostgreSQL.
fn or_skipped<T>(found: Result<T, String>) -> Option<T> {
    match found {
        Ok(found) => Some(found),
        Err(reason) if std::env::var("ACCORD_REQUIRE_ALL").is_ok_and(|value| value == "1") => {
            panic!("ACCORD_REQUIRE_ALL=1, and PostgreSQL is not available: {reason}")
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
