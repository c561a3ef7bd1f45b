//! A PostgreSQL server for one test process, and the databases on it.
//!
//! Nothing remains, even if the process is killed: a shell script runs the server and reads a pipe that only the test
//! process can write to. At the end of the pipe the script stops the server and removes its directory.

use std::{
    env, fs,
    io::Read,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use sea_orm::sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, Row, postgres::PgConnectOptions,
};
use url::Url;

use super::HeldPort;

/// Runs the server in `$1` until standard input ends, and starts it again when it stops before. `$2` is the port, `$3` the
/// directory of PostgreSQL's programs, `$4` are further options of the server, `$5` is the URL of the server that it is a
/// standby of, or empty. The rest is the command that changes the user, if this process runs as root. The script ignores
/// the signals that a terminal sends to the tests.
const WATCHDOG: &str = r#"
trap '' HUP INT TERM
dir=$1 port=$2 bin=$3 options=$4 primary=$5
shift 5
"$@" /bin/sh -c '
    dir=$1 port=$2 bin=$3 options=$4 primary=$5
    if [ -n "$primary" ]; then
        "$bin/pg_basebackup" -d "$primary" -D "$dir/data" -R -X stream -c fast || exit 1
    else
        "$bin/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 --locale=C --no-sync || exit 1
    fi
    while [ ! -e "$dir/stop" ]; do
        "$bin/postgres" -D "$dir/data" -p "$port" -c unix_socket_directories= \
            -c listen_addresses=127.0.0.1 -c max_connections=300 -c logging_collector=off $options
        sleep 0.2
    done
' server "$dir" "$port" "$bin" "$options" "$primary" >"$dir/log" 2>&1 </dev/null &
server=$!
cat >/dev/null
: >"$dir/stop"
tries=0
while kill -0 "$server" 2>/dev/null && [ "$tries" -lt 200 ]; do
    postmaster=$(head -n 1 "$dir/data/postmaster.pid" 2>/dev/null)
    [ -n "$postmaster" ] && kill -CONT "$postmaster" 2>/dev/null && kill -QUIT "$postmaster" 2>/dev/null
    tries=$((tries + 1))
    sleep 0.1
done
[ -n "$postmaster" ] && kill -KILL "$postmaster" 2>/dev/null
kill -KILL "$server" 2>/dev/null
rm -rf "$dir"
"#;

const START_TIMEOUT: Duration = Duration::from_secs(60);

/// The durability of a server's commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durability {
    /// No durability, for tests.
    None,
    /// The server syncs each commit to the disk.
    Full,
}

impl Durability {
    fn options(self) -> &'static str {
        match self {
            Self::None => {
                "-c shared_buffers=64MB -c fsync=off -c synchronous_commit=off -c full_page_writes=off \
                 -c autovacuum=off"
            }
            Self::Full => {
                "-c shared_buffers=256MB -c fsync=on -c synchronous_commit=on -c full_page_writes=on"
            }
        }
    }
}

/// A server that this process started. It stops when it is dropped or the process ends.
pub(super) struct Cluster {
    url: String,
    directory: PathBuf,
    /// Our end of the pipe that keeps the server running. Close-on-exec, so that no other child has it.
    keep_alive: Option<ChildStdin>,
    watchdog: Child,
    _held_port: HeldPort,
}

impl Cluster {
    /// Starts a server with its files in `parent`, or returns the reason for a failure.
    pub(super) fn start(parent: &Path, durability: Durability) -> Result<Self, String> {
        Self::start_of(parent, durability, "")
    }

    /// Starts a standby of the server with this URL, with its files beside it.
    pub(super) fn start_standby(primary: &Self) -> Result<Self, String> {
        let parent = primary.directory.parent().ok_or("no directory")?;
        Self::start_of(parent, Durability::Full, &primary.url)
    }

    fn start_of(parent: &Path, durability: Durability, primary: &str) -> Result<Self, String> {
        let programs = find_programs()?;
        let dir = tempfile::Builder::new()
            .prefix("accord-pg-")
            .tempdir_in(parent)
            .map_err(|error| format!("no temp directory: {error}"))?;
        let change_user = change_user(dir.path())?;
        let held_port = HeldPort::reserve();
        let port = held_port.address().port();

        let mut watchdog = Command::new("/bin/sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(dir.path())
            .arg(port.to_string())
            .arg(&programs)
            .arg(durability.options())
            .arg(primary)
            .args(change_user)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Not in the terminal's process group, so that an interrupt of the tests does not kill it.
            .process_group(0)
            .spawn()
            .map_err(|error| format!("/bin/sh: {error}"))?;
        let keep_alive = watchdog.stdin.take();
        let url = format!("postgres://postgres@127.0.0.1:{port}/postgres?sslmode=disable");
        let cluster = Self {
            url,
            // From here on the watchdog removes the directory.
            directory: dir.keep(),
            keep_alive,
            watchdog,
            _held_port: held_port,
        };
        cluster.wait_until_ready()?;
        Ok(cluster)
    }

    /// Returns the superuser's URL of the server.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Returns the directory of the server's files.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the id of the server's main process.
    pub(super) fn pid(&self) -> Result<u32, String> {
        let file = fs::read_to_string(self.directory.join("data/postmaster.pid"));
        let file = file.map_err(|error| format!("postmaster.pid: {error}"))?;
        let line = file.lines().next().unwrap_or_default();
        line.parse()
            .map_err(|_| "postmaster.pid holds no number".to_owned())
    }

    fn wait_until_ready(&self) -> Result<(), String> {
        let dir = &self.directory;
        let deadline = Instant::now() + START_TIMEOUT;
        let ours = dir.join("data").display().to_string();
        loop {
            match data_directory(&self.url) {
                Ok(directory) if directory == ours => return Ok(()),
                Ok(_) => return Err("another server took the port".to_owned()),
                Err(error) if Instant::now() > deadline || has_failed(dir) => {
                    return Err(format!("{error}; the server's log ends: {}", log_tail(dir)));
                }
                Err(_) => thread::sleep(Duration::from_millis(50)),
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.keep_alive.take());
        let _ = self.watchdog.wait();
    }
}

/// Finds the directory of `initdb` and `postgres`: on the PATH, or the newest of Debian's directories.
fn find_programs() -> Result<PathBuf, String> {
    let complete = |dir: &PathBuf| ["initdb", "postgres"].iter().all(|p| dir.join(p).is_file());
    // The PATH may hold links to the programs, which need the files beside the originals.
    let real = |dir: PathBuf| {
        let program = dir.join("initdb").canonicalize().ok()?;
        program.parent().map(Path::to_owned)
    };
    let path = env::var_os("PATH").unwrap_or_default();
    if let Some(dir) = env::split_paths(&path).filter_map(real).find(complete) {
        return Ok(dir);
    }
    let version = |dir: &PathBuf| -> u32 {
        let name = dir
            .parent()
            .and_then(Path::file_name)
            .and_then(|name| name.to_str());
        name.and_then(|name| name.parse().ok()).unwrap_or(0)
    };
    fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .filter(complete)
        .max_by_key(version)
        .ok_or_else(|| "initdb and postgres are not installed".to_owned())
}

/// PostgreSQL does not run as root. If this process is root, makes `postgres` the owner of the directory, and returns the
/// command that changes to this user.
fn change_user(dir: &Path) -> Result<Vec<String>, String> {
    const ROOT: u32 = 0;
    let owner = fs::metadata(dir).map_err(|error| error.to_string())?.uid();
    if owner != ROOT {
        return Ok(Vec::new());
    }
    let given = Command::new("chown")
        .arg("postgres:")
        .arg(dir)
        .stderr(Stdio::null())
        .status();
    if !given.is_ok_and(|status| status.success()) {
        return Err("running as root, and there is no user postgres".to_owned());
    }
    let candidates: [&[&str]; 2] = [
        &[
            "setpriv",
            "--reuid=postgres",
            "--regid=postgres",
            "--init-groups",
            "--",
        ],
        &["runuser", "-u", "postgres", "--"],
    ];
    // The user may not reach the directory.
    let works = |command: &&[&str]| {
        Command::new(command[0])
            .args(&command[1..])
            .args(["test", "-w"])
            .arg(dir)
            .current_dir("/")
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    let command = candidates.into_iter().find(works);
    let command = command
        .ok_or("neither setpriv nor runuser can change to a user postgres that reaches the directory")?;
    Ok(command.iter().map(|word| (*word).to_owned()).collect())
}

/// Returns whether the start has failed. A server that is starting logs FATAL for each connection, which is no failure.
fn has_failed(dir: &Path) -> bool {
    let failed = |line: &str| {
        line.contains("initdb: error") || line.contains("FATAL") && !line.contains("the database system is")
    };
    log_tail(dir).split(" | ").any(failed)
}

fn log_tail(dir: &Path) -> String {
    let mut log = String::new();
    if let Ok(mut file) = fs::File::open(dir.join("log")) {
        let _ = file.read_to_string(&mut log);
    }
    let lines: Vec<_> = log.lines().rev().take(5).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}

/// A database on a server. Dropping it ends all connections to it.
pub(super) struct PostgresDatabase {
    server: String,
    name: String,
    url: String,
}

impl PostgresDatabase {
    /// Creates an empty database on the server of this URL.
    pub(super) fn create(server: &str) -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let unique = u32::from_str_radix(&uuid::Uuid::new_v4().simple().to_string()[..8], 16);
        let unique = unique.map_err(|error| error.to_string())?;
        let name = format!("accord_test_{unique:08x}_{count}");

        let mut url = Url::parse(server).map_err(|_| "the server's URL is malformed".to_owned())?;
        url.set_path(&name);
        execute(server, format!("CREATE DATABASE {name}"))?;
        Ok(Self {
            server: server.to_owned(),
            name,
            url: url.into(),
        })
    }

    /// Returns the database's URL.
    pub(super) fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for PostgresDatabase {
    fn drop(&mut self) {
        let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        if let Err(error) = execute(&self.server, drop) {
            eprintln!("the test database {} was not dropped: {error}", self.name);
        }
    }
}

pub(super) fn execute(server: &str, sql: String) -> Result<(), String> {
    on_connection(server, async move |conn| {
        conn.execute(AssertSqlSafe(sql)).await.map(drop)
    })
}

/// Returns the number that a query results in.
pub(super) fn number(server: &str, sql: String) -> Result<i64, String> {
    on_connection(server, async move |conn| {
        conn.fetch_one(AssertSqlSafe(sql)).await?.try_get(0)
    })
}

fn data_directory(server: &str) -> Result<String, String> {
    on_connection(server, async |conn| {
        conn.fetch_one("SHOW data_directory").await?.try_get(0)
    })
}

/// Runs an operation on a new connection, in a thread with a runtime of its own: tests call it within a runtime, where it
/// must not block.
fn on_connection<T: Send>(
    server: &str,
    operation: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sea_orm::SqlxError> + Send,
) -> Result<T, String> {
    let run = || -> Result<T, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        runtime.block_on(async {
            let options: PgConnectOptions = server.parse().map_err(text)?;
            let mut conn = options
                .disable_statement_logging()
                .connect()
                .await
                .map_err(text)?;
            let result = operation(&mut conn).await.map_err(text);
            let _ = conn.close().await;
            result
        })
    };
    let outcome = thread::scope(|scope| scope.spawn(run).join());
    outcome.unwrap_or_else(|_| Err("the thread for the test server panicked".to_owned()))
}

fn text(error: sea_orm::SqlxError) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_server_leaves_no_files() {
        let Ok(cluster) = Cluster::start(&env::temp_dir(), Durability::None) else {
            return;
        };
        let directory = PathBuf::from(data_directory(cluster.url()).unwrap());
        assert!(directory.exists());
        let port = Url::parse(cluster.url()).unwrap().port().unwrap();
        drop(cluster);
        assert!(!directory.parent().unwrap().exists());
        std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    }

    #[test]
    fn a_durable_server_syncs_commits() {
        let Ok(cluster) = Cluster::start(&env::temp_dir(), Durability::Full) else {
            return;
        };
        assert!(fs::exists(format!("/proc/{}", cluster.pid().unwrap())).unwrap());
        for setting in ["fsync", "synchronous_commit", "full_page_writes"] {
            let shown: String = on_connection(cluster.url(), async |conn| {
                let show = AssertSqlSafe(format!("SHOW {setting}"));
                conn.fetch_one(show).await?.try_get(0)
            })
            .unwrap();
            assert_eq!(shown, "on", "{setting}");
        }
    }

    #[test]
    fn a_dropped_database_is_removed() {
        let Some(database) = super::super::postgres() else {
            return;
        };
        let url = database.url.clone();
        data_directory(&url).unwrap();
        drop(database);
        assert!(data_directory(&url).unwrap_err().contains("does not exist"));
    }
}
