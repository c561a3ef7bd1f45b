//! PgBouncer as Debian packages it, in front of a server.

use std::{
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
    process::Command,
};

use accord::testing::HeldPort;
use tempfile::TempDir;

use super::process::{Process, on_path};

/// A running PgBouncer.
pub struct PgBouncer {
    port: HeldPort,
    _process: Process,
    _directory: TempDir,
}

impl PgBouncer {
    /// Returns the version, as major and minor. Before 1.21, it loses prepared statements in transaction mode.
    pub fn version() -> (u32, u32) {
        let output = Command::new("pgbouncer").arg("--version").output().unwrap();
        let output = String::from_utf8(output.stdout).unwrap();
        let version = output.split_whitespace().nth(1).unwrap();
        let mut numbers = version.split('.').map(|number| number.parse().unwrap());
        (numbers.next().unwrap(), numbers.next().unwrap())
    }

    /// Starts one. Sets what must be set, and leaves everything else as it is by default.
    pub fn start(server: SocketAddr, mode: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // The user that it changes to reads the files, and may not reach the program where it is.
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let program = directory.path().join("pgbouncer");
        std::fs::copy(on_path("pgbouncer").unwrap(), &program).unwrap();
        let port = HeldPort::reserve();
        let address = port.address();
        let users = directory.path().join("userlist.txt");
        std::fs::write(&users, "\"postgres\" \"\"\n").unwrap();
        let settings = format!(
            "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr = {}\nlisten_port = {}\n\
             auth_type = trust\nauth_file = {}\nunix_socket_dir =\npool_mode = {mode}\n",
            server.ip(),
            server.port(),
            address.ip(),
            address.port(),
            users.display(),
        );
        let file = directory.path().join("pgbouncer.ini");
        std::fs::write(&file, settings).unwrap();
        let mut command = Command::new(&program);
        if rustix::process::geteuid().is_root() {
            command = Command::new("setpriv");
            command.args([
                "--reuid=postgres",
                "--regid=postgres",
                "--clear-groups",
                "--pdeathsig=KILL",
            ]);
            command.arg(&program);
        }
        command.arg(&file);
        let mut process = Process::start(command, directory.path(), "pgbouncer");
        process.wait_for("listening", |_| TcpStream::connect(address).ok());
        Self {
            port,
            _process: process,
            _directory: directory,
        }
    }

    /// Returns the URL of a database, through PgBouncer.
    pub fn url(&self, database: &str) -> String {
        let mut url: url::Url = database.parse().unwrap();
        url.set_port(Some(self.port.address().port())).unwrap();
        url.into()
    }
}
