//! PostgreSQL on a host of its own, with TLS alone, configured as OPERATIONS says.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::harness::{document::shell_lines, network::Host, process::Process, suite::postgres_programs};

/// Of both roles. The databases are in memory and end with the test.
pub const PASSWORD: &str = "of-a-test-alone";

/// A running server.
pub struct Postgres {
    process: Process,
    /// Of its socket, and of its data.
    directory: PathBuf,
}

impl Postgres {
    /// Starts a server with the databases `registry` and `token`. Its certificate is in `certs`.
    pub fn start(host: &Host, directory: &Path, certs: &Path) -> Self {
        let directory = directory.join("postgresql");
        fs::create_dir(&directory).unwrap();
        let data = directory.join("data");
        own(&directory);
        succeed(
            as_postgres(Command::new(program("initdb")))
                .args([
                    "--auth=peer",
                    "--no-sync",
                    "--encoding=UTF8",
                    "--locale=C",
                    "--username=postgres",
                    "-D",
                ])
                .arg(&data),
        );
        place(certs, &data);
        succeed(
            Command::new("bash")
                .args([
                    "-euo",
                    "pipefail",
                    "-c",
                    &shell_lines("docs/OPERATIONS.md", "three-hosts-postgresql"),
                ])
                .current_dir(&data),
        );
        let mut server = as_postgres(Command::new(program("postgres")));
        server.arg("-D").arg(&data).arg("-c");
        server.arg(format!("unix_socket_directories={}", directory.display()));
        // Its files are in memory.
        server.args(["-c", "fsync=off"]);
        let mut process = Process::start(host.on(&server), &directory, "postgres");
        process.wait_for("a server that accepts connections", |_| {
            let mut look = psql(&directory, "SELECT 1");
            let status = look.stdout(Stdio::null()).stderr(Stdio::null()).status();
            status.unwrap().success().then_some(())
        });
        for service in ["registry", "token"] {
            succeed(&mut psql(
                &directory,
                &format!("CREATE ROLE {service} LOGIN PASSWORD '{PASSWORD}'"),
            ));
            succeed(&mut psql(
                &directory,
                &format!("CREATE DATABASE {service} OWNER {service}"),
            ));
        }
        Self { process, directory }
    }

    /// Gives it the certificate in `certs`, for new sessions.
    pub fn certify(&self, certs: &Path) {
        place(certs, &self.directory.join("data"));
        self.process.signal("HUP");
    }

    /// Ends all sessions of the services.
    pub fn end_sessions(&self) {
        succeed(&mut psql(
            &self.directory,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'accord'",
        ));
    }
}

/// Copies a server's certificate to its data.
fn place(certs: &Path, data: &Path) {
    for name in ["database.pem", "database-key.pem"] {
        fs::copy(certs.join(name), data.join(name)).unwrap();
        own(&data.join(name));
    }
}

/// A program of PostgreSQL.
fn program(name: &str) -> PathBuf {
    postgres_programs().unwrap().join(name)
}

/// PostgreSQL does not run as root.
fn as_postgres(command: Command) -> Command {
    let mut changed = Command::new("setpriv");
    changed.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--"]);
    changed.arg(command.get_program()).args(command.get_args());
    changed.current_dir("/");
    changed
}

fn psql(directory: &Path, sql: &str) -> Command {
    let mut psql = Command::new(program("psql"));
    psql.arg("-h").arg(directory).args(["-d", "postgres", "-qc", sql]);
    as_postgres(psql)
}

fn own(path: &Path) {
    succeed(Command::new("chown").arg("postgres:").arg(path));
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
}
