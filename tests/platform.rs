//! What operators and their platforms do to the services: settings, log pipes, limits of the system.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use accord::{
    random::SystemRandom,
    testing::{HeldPort, certificates::Authority},
    text::opaque::{OpaqueToken, TokenKind},
};
use accord_cli::dev_file::DevFile;

use crate::{
    harness::process::{Process, accord},
    observability::scrape::fetch,
};

pub mod connections;

tests!(
    check_config_reports_every_problem_of_a_service,
    data_of_accord_dev_are_refused,
    a_signal_during_the_start_ends_the_service,
    a_second_interrupt_ends_calls_under_way,
    a_closed_log_pipe_stops_nothing,
    a_full_log_pipe_stops_nothing,
    a_service_waits_for_a_database_that_starts_later,
    a_first_key_for_rs256_waits_for_the_registry,
);

/// Runs a command that must fail. Returns what it says.
fn refused(mut command: Command) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "{command:?}: {stderr}");
    assert!(!stderr.contains("sup3rs3cret"), "{stderr}");
    stderr
}

fn write(path: &Path, content: &[u8], mode: u32) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

async fn check_config_reports_every_problem_of_a_service() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    write(&at("short"), b"short", 0o600);
    write(&at("open"), b"acw_sup3rs3cret", 0o644);
    let links = |command: &mut Command, prefix: &str| {
        command
            .env(format!("{prefix}_PORT"), "tcp://10.0.0.5:50051")
            .env(format!("{prefix}_SERVICE_HOST"), "10.0.0.5")
            .env(format!("{prefix}_PORT_50051_TCP_ADDR"), "10.0.0.5")
            .env(format!("{prefix}_LISTEN"), "")
            .env(format!("{prefix}_CONFIG"), "");
    };

    let mut registry = accord();
    registry
        .args(["registry", "check-config"])
        .env(
            "ACCORD_REGISTRY_DATABASE_URL",
            "postgres://u:sup3rs3cret@db.example/registry",
        )
        .env("ACCORD_REGISTRY_PUBLIC_BASE_URL", "https://auth.example/base")
        .env("ACCORD_REGISTRY_MASTER_KEY_FILE", at("short"));
    links(&mut registry, "ACCORD_REGISTRY");
    let stderr = refused(registry);
    assert_eq!(
        stderr,
        "accord: configuration: ACCORD_REGISTRY_DATABASE_URL must have sslmode=verify-full, because it leaves this \
         machine; ACCORD_REGISTRY_PUBLIC_BASE_URL must not have a path; ACCORD_REGISTRY_MASTER_KEY_FILE must hold \
         exactly 32 bytes and no line break\n"
    );

    let mut token = accord();
    token
        .args(["token", "check-config", "--registry-token-file"])
        .arg(at("open"))
        .args(["--http-listen", "0.0.0.0:8080", "--family-days", "0"])
        .env("ACCORD_TOKEN_ACCESS_TOKEN_SECONDS", "901")
        .env("ACCORD_TOKEN_REGISTRY_URL", "http://registry:50051");
    links(&mut token, "ACCORD_TOKEN");
    let stderr = refused(token);
    for expected in [
        "--database-url (ACCORD_TOKEN_DATABASE_URL) is missing",
        "--master-key-file (ACCORD_TOKEN_MASTER_KEY_FILE) is missing",
        "--registry-token-file must be readable only by its owner",
        "--http-listen is not a loopback address",
        "--family-days must be 1 to 3660",
        "ACCORD_TOKEN_ACCESS_TOKEN_SECONDS must be 1 to 900",
        "ACCORD_TOKEN_REGISTRY_URL must be https://host:port, or http:// with a loopback host",
    ] {
        assert!(stderr.contains(expected), "{expected}: {stderr}");
    }
    assert_eq!(stderr.matches("; ").count(), 6, "{stderr}");

    // What is right gives no error, and nothing is created.
    write(&at("key"), b"a master key of tests: 32 bytes.", 0o600);
    let database = format!("sqlite://{}", at("registry.db").display());
    let run = |command: &str| {
        let mut registry = accord();
        registry
            .args(["registry", command, "--public-base-url", "https://auth.example/"])
            .args(["--database-url", &database, "--master-key-file"])
            .arg(at("key"));
        registry
    };
    assert!(refused(run("check-config")).contains("run `migrate` first"));
    let mut both = run("check-config");
    let stderr = refused({
        both.env("ACCORD_REGISTRY_DRAIN_DELAY", "61");
        both
    });
    assert!(
        stderr.contains("run `migrate` first") && stderr.contains("must be 0 to 60"),
        "{stderr}"
    );
    assert!(!at("registry.db").exists());
    assert!(refused(run("serve")).contains("run `migrate` first"));
    assert!(!at("registry.db").exists());
    assert!(run("migrate").status().unwrap().success());
    let output = run("check-config").output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    assert_eq!(output.stdout, b"ok\n");

    // Another master key, and another service.
    let mut operator = accord();
    operator
        .args(["registry", "operator", "create", "ada", "--role", "admin"])
        .args(["--database-url", &database, "--master-key-file"])
        .arg(at("key"));
    assert!(operator.output().unwrap().status.success());
    write(&at("key"), b"a master key of other 32 bytes..", 0o600);
    for command in ["check-config", "serve"] {
        let stderr = refused(run(command));
        assert!(stderr.contains("is wrapped by the master key"), "{stderr}");
    }
    let mut migrate = accord();
    migrate.args(["token", "migrate", "--database-url", &database]);
    let stderr = refused(migrate);
    assert!(stderr.contains("another service uses this database"), "{stderr}");
}

/// A service that waits at its start for a database that says nothing.
async fn a_signal_during_the_start_ends_the_service() {
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    write(&key, b"a master key of tests: 32 bytes.", 0o600);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let database = format!(
        "postgres://u@{}/registry?sslmode=disable",
        silent.local_addr().unwrap()
    );
    let mut serve = accord();
    serve
        .args(["registry", "serve", "--public-base-url", "https://auth.example"])
        .args([
            "--listen",
            "127.0.0.1:0",
            "--database-url",
            &database,
            "--master-key-file",
        ])
        .arg(&key);
    let mut process = Process::start(serve, directory.path(), "registry");
    let _connection = silent.accept().unwrap();
    process.signal("TERM");
    assert!(process.wait().success(), "{}", process.stderr());
    assert!(process.stderr().contains("stopping"), "{}", process.stderr());
}

async fn a_second_interrupt_ends_calls_under_way() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let mut environment = Environment::start(directory.path(), accord(), File::create(&log).unwrap().into());
    let mut connection = TcpStream::connect(environment.file.http_url.trim_start_matches("http://")).unwrap();
    let half = format!(
        "POST /{}/oauth2/token HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-www-form-urlencoded\r\n\
         content-length: 9\r\nexpect: 100-continue\r\n\r\n",
        environment.file.tenant_id
    );
    connection.write_all(half.as_bytes()).unwrap();
    // The call has begun.
    connection.read_exact(&mut [0; 20]).unwrap();
    let started = Instant::now();
    environment.signal("INT");
    wait_for("the stop", || {
        fs::read_to_string(&log).unwrap().contains("stopping")
    });
    environment.signal("INT");
    assert_eq!(environment.wait().code(), Some(130));
    assert!(
        started.elapsed() < Duration::from_secs(8),
        "{:?}",
        started.elapsed()
    );
}

async fn data_of_accord_dev_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut environment = Environment::start(directory.path(), accord(), Stdio::null());
    environment.stop();
    let at = |name: &str| environment.data_dir.join(name);
    for (service, database, key) in [
        ("registry", "registry.db", "registry.key"),
        ("token", "token.db", "token.key"),
    ] {
        write(
            &at("token"),
            format!("{}\n", environment.file.workload_token).as_bytes(),
            0o600,
        );
        for command in ["check-config", "serve"] {
            let mut service_command = accord();
            service_command
                .args([service, command, "--listen", "127.0.0.1:0", "--database-url"])
                .arg(format!("sqlite://{}", at(database).display()))
                .arg("--master-key-file")
                .arg(at(key));
            match service {
                "registry" => service_command.args(["--public-base-url", "https://auth.example"]),
                _ => service_command
                    .args(["--registry-url", "http://127.0.0.1:1", "--registry-token-file"])
                    .arg(at("token")),
            };
            assert!(
                refused(service_command).contains("for development only"),
                "{service} {command}"
            );
        }
    }
}

async fn a_closed_log_pipe_stops_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut environment = Environment::start(directory.path(), accord(), Stdio::piped());
    drop(environment.process.stderr.take());
    for _ in 0..50 {
        environment.get("/no/such/page").await;
    }
    assert_eq!(environment.get("/healthz").await, 200);
    environment.stop();
}

async fn a_full_log_pipe_stops_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = accord();
    command.env("RUST_LOG", "debug");
    let mut environment = Environment::start(directory.path(), command, Stdio::piped());
    // A pipe holds 64 KiB, and each line is longer than 100 bytes.
    for _ in 0..500 {
        environment.get("/no/such/page").await;
    }
    assert_eq!(environment.get("/healthz").await, 200);
    environment.stop();
    let mut log = String::new();
    environment
        .process
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut log)
        .unwrap();
    assert!(log.len() >= 60_000, "the pipe was full: {}", log.len());
}

/// The address exists before the server does.
async fn a_service_waits_for_a_database_that_starts_later() {
    let Some(database) = accord::testing::postgres() else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    write(&key, &std::array::from_fn::<_, 32, _>(|n| n as u8), 0o600);
    let mut migrate = accord();
    migrate.args(["registry", "migrate", "--database-url", &database.url]);
    assert!(migrate.status().unwrap().success());
    let target = url::Url::parse(&database.url).unwrap();
    let server = (target.host_str().unwrap().to_owned(), target.port().unwrap());
    // A port that nothing listens on yet.
    let reserved = tokio::net::TcpSocket::new_v4().unwrap();
    reserved.set_reuseaddr(true).unwrap();
    reserved.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = reserved.local_addr().unwrap();
    let mut waiting = target.clone();
    waiting.set_ip_host(address.ip()).unwrap();
    waiting.set_port(Some(address.port())).unwrap();
    let mut serve = accord();
    serve
        .args([
            "registry",
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--drain-delay",
            "0",
        ])
        .args(["--public-base-url", "https://auth.example", "--database-url"])
        .arg(waiting.as_str())
        .arg("--master-key-file")
        .arg(&key);
    let mut process = Process::start(serve, directory.path(), "registry");
    let refused = |process: &Process| process.stderr().contains("database unavailable").then_some(());
    process.wait_for("a line about the database", refused);
    let (_, scrape) = fetch(&mut process, "/metrics").await;
    assert!(scrape.contains("\naccord_ready 0\n"), "{scrape}");
    let listener = reserved.listen(16).unwrap();
    let forwarding = tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let server = server.clone();
            tokio::spawn(async move {
                let mut far = tokio::net::TcpStream::connect(server).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    process.listening("--listen");
    process.signal("TERM");
    assert!(process.wait().success(), "{}", process.stderr());
    forwarding.abort();
}

/// The name of its registry does not resolve, and then nobody serves at its address.
async fn a_first_key_for_rs256_waits_for_the_registry() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    write(&at("key"), &std::array::from_fn::<_, 32, _>(|n| n as u8), 0o600);
    let token = OpaqueToken::generate(TokenKind::Workload, &SystemRandom);
    write(&at("token"), token.expose().as_bytes(), 0o600);
    let ca = Authority::new("test").write(directory.path(), "ca.pem");
    let held = HeldPort::reserve();
    let nobody = format!("http://{}", held.address());
    let command = |command: &str, url: &str, algorithm: &str| {
        let mut service = accord();
        service
            .args([
                "token",
                command,
                "--listen",
                "127.0.0.1:0",
                "--http-listen",
                "127.0.0.1:0",
            ])
            .args([
                "--drain-delay",
                "0",
                "--registry-url",
                url,
                "--signing-algorithm",
                algorithm,
            ])
            .args([
                "--database-url",
                &format!("sqlite://{}", at("token.db").display()),
            ])
            .arg("--master-key-file")
            .arg(at("key"))
            .arg("--registry-token-file")
            .arg(at("token"));
        if url.starts_with("https") {
            service.arg("--registry-ca").arg(&ca);
        }
        service
    };
    assert!(command("migrate", &nobody, "RS256").status().unwrap().success());
    for url in ["https://registry.invalid:50051", &nobody] {
        let mut waiting = Process::start(command("serve", url, "RS256"), directory.path(), "token");
        let tries = |process: &Process| {
            process
                .stderr()
                .contains("no answer from the registry")
                .then_some(())
        };
        waiting.wait_for("a line about the registry", tries);
        waiting.signal("TERM");
        assert!(waiting.wait().success(), "{}", waiting.stderr());
    }
    // Any other algorithm needs nobody's consent.
    let unknown = "https://registry.invalid:50051";
    let mut serving = Process::start(command("serve", unknown, "EdDSA"), directory.path(), "token");
    serving.listening("--listen");
    serving.signal("TERM");
    assert!(serving.wait().success(), "{}", serving.stderr());
}

/// A running `accord dev`, whose standard error is the test's.
struct Environment {
    process: Child,
    file: DevFile,
    data_dir: std::path::PathBuf,
    http: reqwest::Client,
}

impl Environment {
    fn start(directory: &Path, mut command: Command, stderr: Stdio) -> Self {
        let data_dir = directory.join("data");
        let mut process = command
            .args([
                "dev",
                "--registry-listen",
                "127.0.0.1:0",
                "--token-listen",
                "127.0.0.1:0",
            ])
            .args(["--http-listen", "127.0.0.1:0", "--data-dir"])
            .arg(&data_dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap();
        wait_for("dev.json", || {
            assert_eq!(process.try_wait().unwrap(), None, "ended before it was ready");
            DevFile::read(&data_dir).is_ok()
        });
        Self {
            process,
            file: DevFile::read(&data_dir).unwrap(),
            data_dir,
            http: reqwest::Client::new(),
        }
    }

    async fn get(&self, path: &str) -> u16 {
        let request = self.http.get(format!("{}{path}", self.file.http_url));
        request.send().await.unwrap().status().as_u16()
    }

    /// Returns the resident memory, in KiB.
    fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.unwrap().trim().trim_end_matches(" kB").parse().unwrap()
    }

    fn signal(&self, name: &str) {
        let mut kill = Command::new("kill");
        kill.args([format!("-{name}"), self.process.id().to_string()]);
        assert!(kill.status().unwrap().success());
    }

    fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_for("the end", || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Stops it by SIGTERM, and waits for its end.
    fn stop(&mut self) {
        self.signal("TERM");
        assert!(self.wait().success());
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn wait_for(what: &str, mut look: impl FnMut() -> bool) {
    let started = Instant::now();
    while !look() {
        assert!(started.elapsed() < Duration::from_secs(60), "no {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
