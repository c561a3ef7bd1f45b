//! PostgreSQL on three hosts under Patroni, with etcd, and HAProxy where the test runs: the files of
//! `deploy/postgresql-cluster`, with other directories.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use accord::testing::certificates::{Authority, Subject};
use reqwest::Certificate;
use tempfile::TempDir;
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::sleep,
};

use crate::harness::{
    document::file,
    network::{Host, Network},
    process::Process,
    suite::postgres_programs,
};

/// Each host with the names in its certificate: its own, and the one by which services know the database.
const NODES: [(&str, [&str; 2]); 3] = [
    ("db-1", ["db-1.accord.internal", DATABASE]),
    ("db-2", ["db-2.accord.internal", DATABASE]),
    ("db-3", ["db-3.accord.internal", DATABASE]),
];
/// Leads to HAProxy on the service's own host.
const DATABASE: &str = "database.accord.internal";
const PASSWORD: &str = "secret";
/// How long the cluster may take to be complete.
const COMPLETE: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(100);

/// A host of the database.
pub struct Node {
    pub host: Host,
    directory: PathBuf,
    etcd: Process,
    patroni: Process,
}

impl Node {
    fn start(host: Host, names: &[&'static str], authority: &Authority, directory: PathBuf) -> Self {
        let certificates = directory.join("etc");
        for part in ["etc", "run", "etcd", "postgresql"] {
            fs::create_dir_all(directory.join(part)).unwrap();
        }
        let subject = Subject {
            dns_names: names.to_vec(),
            ..Subject::default()
        };
        authority.issue(&subject).write(&certificates, "node");
        authority.write(&certificates, "ca.pem");
        let at = |path: &str| directory.join(path).display().to_string();
        let moved = [
            ("/etc/accord-database", at("etc")),
            ("/var/lib/etcd", at("etcd")),
            ("/var/lib/postgresql", at("postgresql")),
            ("/var/run/postgresql", at("run")),
        ];
        let programs = postgres_programs().unwrap().display().to_string();
        let patroni = deployed("patroni.yml").replace("/usr/lib/postgresql/15/bin", &programs);
        let patroni = with(&patroni, &moved);
        fs::write(directory.join("patroni.yml"), patroni).unwrap();
        let mut etcd = as_postgres(&host, &directory, "etcd");
        set(&mut etcd, &with(&deployed("etcd.env"), &moved), &host.name);
        let mut chown = Command::new("chown");
        assert!(
            chown
                .args(["-R", "postgres:"])
                .arg(&directory)
                .status()
                .unwrap()
                .success()
        );
        let patroni = patroni_of(&host, &directory);
        Self {
            etcd: Process::start(etcd, &directory, "etcd"),
            patroni: Process::start(patroni, &directory, "patroni"),
            host,
            directory,
        }
    }

    /// Starts Patroni after it was killed.
    pub fn start_patroni_again(&mut self) {
        self.patroni = Process::start(
            patroni_of(&self.host, &self.directory),
            &self.directory,
            "patroni",
        );
    }

    /// Sends a signal to every process of the host.
    pub fn signal_all(&self, signal: &str) {
        signal_to(signal, &self.processes());
    }

    /// Kills Patroni and PostgreSQL.
    pub fn kill_database(&self) {
        let etcd = self.etcd.id().to_string();
        let processes: Vec<_> = self.processes().into_iter().filter(|id| *id != etcd).collect();
        signal_to("KILL", &processes);
    }

    /// Sends a signal to Patroni alone.
    pub fn signal_patroni(&self, signal: &str) {
        self.patroni.signal(signal);
    }

    fn processes(&self) -> Vec<String> {
        let output = Command::new("ip")
            .args(["netns", "pids", &self.host.name])
            .output();
        let output = String::from_utf8(output.unwrap().stdout).unwrap();
        output.lines().map(str::to_owned).collect()
    }

    /// Runs a statement as the superuser, on the host itself. Returns the first value.
    pub fn query(&self, sql: &str) -> Result<String, String> {
        let mut psql = as_postgres(&self.host, &self.directory, "psql");
        psql.args([
            "--no-psqlrc",
            "--quiet",
            "--tuples-only",
            "--no-align",
            "--command",
            sql,
        ]);
        psql.env("PGHOST", self.directory.join("run"));
        let output = psql.output().unwrap();
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout).unwrap().trim().to_owned()),
            false => Err(String::from_utf8(output.stderr).unwrap()),
        }
    }

    fn log(&self) -> String {
        [self.patroni.stdout(), self.patroni.stderr()].concat()
    }
}

/// The database.
pub struct Cluster {
    pub nodes: Vec<Node>,
    _haproxy: Process,
    http: reqwest::Client,
    directory: TempDir,
}

/// What Patroni says of a member.
#[derive(Debug, serde::Deserialize)]
struct Member {
    role: String,
    state: String,
}

impl Cluster {
    /// Starts three hosts, and waits until each commit goes to two of them.
    pub async fn start(network: &mut Network) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // The user postgres finds its files below.
        fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let authority = Authority::new("database");
        let hosts = NODES.map(|(name, names)| {
            let host = network.host(name);
            network.name(names[0], &[&host]);
            host
        });
        let mut names = OpenOptions::new().append(true).open("/etc/hosts").unwrap();
        writeln!(names, "127.0.0.1 {DATABASE}").unwrap();
        let nodes = hosts
            .into_iter()
            .zip(NODES)
            .map(|(host, (name, names))| Node::start(host, &names, &authority, directory.path().join(name)));
        let nodes = nodes.collect();
        let ca = authority.write(directory.path(), "ca.pem");
        let haproxy = with(
            &deployed("haproxy.cfg"),
            &[("/etc/haproxy/accord-database-ca.pem", ca.display().to_string())],
        );
        fs::write(directory.path().join("haproxy.cfg"), haproxy).unwrap();
        let mut command = Command::new("haproxy");
        command
            .arg("-db")
            .arg("-f")
            .arg(directory.path().join("haproxy.cfg"));
        let certificate = Certificate::from_pem(authority.certificate.as_bytes()).unwrap();
        let http = reqwest::Client::builder()
            .tls_certs_only([certificate])
            .timeout(Duration::from_secs(1));
        let cluster = Self {
            nodes,
            _haproxy: Process::start(command, directory.path(), "haproxy"),
            http: http.build().unwrap(),
            directory,
        };
        cluster.is_complete_soon().await;
        cluster
    }

    /// Creates a database with its owner. Returns the URL, through HAProxy.
    pub async fn database(&self, name: &str) -> String {
        let leader = &self.nodes[self.leader().await.unwrap()];
        let role = format!("CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'");
        for sql in [role, format!("CREATE DATABASE {name} OWNER {name}")] {
            leader.query(&sql).unwrap();
        }
        let ca = self.directory.path().join("ca.pem");
        let options = format!("sslmode=verify-full&sslrootcert={}", ca.display());
        format!("postgres://{name}:{PASSWORD}@{DATABASE}/{name}?{options}")
    }

    /// The URL of a database on one host, past HAProxy.
    pub fn directly(&self, url: &str, node: usize) -> String {
        url.replace(DATABASE, NODES[node].1[0])
    }

    /// Returns what the hosts say of the members that they know.
    async fn members(&self) -> Vec<Member> {
        #[derive(serde::Deserialize)]
        struct Answer {
            members: Vec<Member>,
        }
        for (_, [name, _]) in NODES {
            let answer = self.http.get(format!("https://{name}:8008/cluster")).send().await;
            if let Ok(answer) = answer
                && let Ok(answer) = answer.json::<Answer>().await
            {
                return answer.members;
            }
        }
        Vec::new()
    }

    /// Returns which host leads. It says so itself.
    pub async fn leader(&self) -> Option<usize> {
        for (index, (_, [name, _])) in NODES.iter().enumerate() {
            let answer = self.http.get(format!("https://{name}:8008/primary")).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Some(index);
            }
        }
        None
    }

    /// Waits until all three run, and commits wait for one that follows.
    pub async fn is_complete_soon(&self) {
        let started = Instant::now();
        loop {
            let members = self.members().await;
            let count = |role: &str| {
                let running = members
                    .iter()
                    .filter(|member| member.role == role && member.state == "running");
                running.count()
            };
            if (count("leader"), count("sync_standby"), count("replica")) == (1, 1, 1)
                && self.leader().await.is_some()
            {
                return;
            }
            assert!(started.elapsed() < COMPLETE, "{members:?}\n{}", self.logs());
            sleep(POLL).await;
        }
    }

    /// Lets the leader hand over to another host. Returns what waits for the end of that.
    pub fn switch_over(&self) -> JoinHandle<Output> {
        let node = &self.nodes[0];
        let mut switch = as_postgres(&node.host, &node.directory, "patronictl");
        let file = node.directory.join("patroni.yml");
        switch.arg("-c").arg(file).args(["switchover", "--force"]);
        spawn_blocking(move || switch.output().unwrap())
    }

    /// The last lines of each Patroni, with those of PostgreSQL.
    pub fn logs(&self) -> String {
        let tails = self.nodes.iter().map(|node| {
            let log = node.log();
            let lines: Vec<_> = log.lines().rev().take(12).collect();
            let lines: Vec<_> = lines.into_iter().rev().collect();
            format!("{}:\n{}\n", node.host.name, lines.join("\n"))
        });
        tails.collect()
    }
}

/// A file of `deploy/postgresql-cluster`.
fn deployed(name: &str) -> String {
    fs::read_to_string(file("deploy/postgresql-cluster").join(name)).unwrap()
}

fn with(text: &str, changes: &[(&str, String)]) -> String {
    let mut text = text.to_owned();
    for (path, moved) in changes {
        text = text.replace(path, moved);
    }
    text
}

/// Sets the variables of a file that is written for db-1.
fn set(command: &mut Command, file: &str, node: &str) {
    for line in file
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
    {
        let (name, value) = line.split_once('=').unwrap();
        match name {
            // Names all three.
            "ETCD_INITIAL_CLUSTER" => command.env(name, value),
            _ if name.ends_with("_PASSWORD") => command.env(name, PASSWORD),
            _ => command.env(name, value.replace("db-1", node)),
        };
    }
}

fn patroni_of(host: &Host, directory: &Path) -> Command {
    let mut command = as_postgres(host, directory, "patroni");
    command.arg(directory.join("patroni.yml"));
    set(&mut command, &deployed("patroni.env"), &host.name);
    command
}

fn as_postgres(host: &Host, directory: &Path, program: &str) -> Command {
    let mut command = host.command("setpriv");
    command.args([
        "--reuid=postgres",
        "--regid=postgres",
        "--init-groups",
        "--",
        program,
    ]);
    command.env("HOME", directory).current_dir(directory);
    command
}

fn signal_to(signal: &str, processes: &[String]) {
    let kill = Command::new("kill")
        .arg(format!("-{signal}"))
        .args(processes)
        .stderr(Stdio::null())
        .status();
    // One of them may have ended meanwhile.
    kill.unwrap();
}
