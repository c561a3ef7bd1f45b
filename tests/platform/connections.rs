//! What clients and the system's limits do to the listeners of a running environment.

use std::{
    fs::{self, File},
    io::Write,
    net::TcpStream,
    process::Command,
    time::{Duration, Instant},
};

use accord::testing::http2::flood;
use accord_cli::call::open;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::{Environment, wait_for};
use crate::{
    harness::{
        process::{Process, accord, wrap},
        refusal::within,
    },
    observability::scrape::fetch,
};

tests!(
    without_file_descriptors_open_connections_are_served,
    connections_that_say_nothing_keep_nobody_out,
    a_flood_of_frames_ends_with_a_line_and_others_are_served,
    a_low_soft_limit_on_files_is_raised_and_bounds_the_connections,
);

/// How many threads open connections.
const OPENERS: usize = 100;
/// More than a server takes of a flood.
const FLOOD_BYTES: usize = 64 * 1024 * 1024;

async fn without_file_descriptors_open_connections_are_served() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let accord = accord();
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -n 160; exec \"$0\" \"$@\""])
        .arg(accord.get_program());
    for (name, _) in accord.get_envs() {
        command.env_remove(name);
    }
    let mut environment = Environment::start(directory.path(), command, File::create(&log).unwrap().into());
    let http = environment.http.clone();
    let health = format!("{}/healthz", environment.file.http_url);
    assert!(http.get(&health).send().await.unwrap().status().is_success());

    let addresses = [&environment.file.registry_grpc, &environment.file.token_grpc];
    let connect = |address: &&String| TcpStream::connect(address.as_str()).unwrap();
    let mut idle: Vec<_> = (0..60).flat_map(|_| addresses.iter().map(connect)).collect();
    // HTTP/2 prefaces, so that the connections stay.
    for connection in &mut idle {
        connection
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
            .unwrap();
    }
    let warned = || {
        let log = fs::read_to_string(&log).unwrap();
        log.lines()
            .filter(|line| line.contains("new connections wait") || line.contains("can't be accepted"))
            .count()
    };
    wait_for("a line about connections", || warned() > 0);
    for _ in 0..20 {
        assert!(http.get(&health).send().await.unwrap().status().is_success());
    }
    // Three listeners, and two kinds of lines.
    assert!(
        warned() <= 6,
        "at most one line of a kind for each listener: {}",
        warned()
    );
    drop(idle);
    for address in addresses {
        let mut health = HealthClient::new(open(address).unwrap());
        health.check(HealthCheckRequest::default()).await.unwrap();
    }
    environment.stop();
}

async fn connections_that_say_nothing_keep_nobody_out() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    // The preface of HTTP/2 and empty SETTINGS (RFC 9113 sections 3.4 and 6.5).
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    // A listener of 500 places, also for clients that begin and make no call, and one of as many as it ever has. Opening 10,000
    // may take longer than they last.
    for (files, count, begin) in [
        ("2000", 600, &b""[..]),
        ("2000", 600, preface),
        ("hard", 10_000, b""),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let accord = accord();
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("ulimit -n {files}; exec \"$0\" \"$@\"")])
            .arg(accord.get_program());
        for (name, _) in accord.get_envs() {
            command.env_remove(name);
        }
        let log_file = File::create(&log).unwrap();
        let mut environment = Environment::start(directory.path(), command, log_file.into());
        let idle = environment.memory();
        let address = environment.file.http_url.trim_start_matches("http://").to_owned();
        // Many at a time: one whose backlog is full waits for a second.
        let openers: Vec<_> = (0..OPENERS)
            .map(|_| {
                let address = address.clone();
                let open = move |_| {
                    let mut connection = TcpStream::connect(&address).ok()?;
                    connection.write_all(begin).ok()?;
                    Some(connection)
                };
                std::thread::spawn(move || (0..count / OPENERS).map_while(open).collect::<Vec<_>>())
            })
            .collect();
        let silent: Vec<_> = openers
            .into_iter()
            .flat_map(|opener| opener.join().unwrap())
            .collect();
        for _ in 0..10 {
            let started = Instant::now();
            let fresh = reqwest::Client::new();
            let answer = fresh.get(format!("{}/healthz", environment.file.http_url));
            assert!(answer.send().await.unwrap().status().is_success());
            let elapsed = started.elapsed();
            assert!(elapsed < Duration::from_secs(3), "{count}: {elapsed:?}");
        }
        let used = environment.memory();
        assert!(used < idle + 64 * 1024, "{idle} KiB, then {used} KiB");
        if files == "2000" {
            wait_for("a line about connections", || {
                fs::read_to_string(&log).unwrap().contains("new connections wait")
            });
        }
        drop(silent);
        environment.stop();
    }
}

async fn a_flood_of_frames_ends_with_a_line_and_others_are_served() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let mut environment = Environment::start(directory.path(), accord(), File::create(&log).unwrap().into());
    let idle = environment.memory();
    let lines = || {
        fs::read_to_string(&log)
            .unwrap()
            .matches("a connection was ended")
            .count()
    };
    for kind in ["continuations", "resets", "headers"] {
        let before = lines();
        let address = environment.file.token_grpc.parse().unwrap();
        let flooding = tokio::task::spawn_blocking(move || flood(address, kind, FLOOD_BYTES));
        assert_eq!(environment.get("/healthz").await, 200);
        assert!(flooding.await.unwrap() < FLOOD_BYTES, "{kind}");
        assert_eq!(environment.get("/healthz").await, 200);
        // Another kind of flood may end for the same reason within the second of the line before.
        wait_for(kind, || {
            let address = environment.file.token_grpc.parse().unwrap();
            flood(address, kind, FLOOD_BYTES);
            lines() > before
        });
    }
    let used = environment.memory();
    assert!(used < idle + 32 * 1024, "{idle} KiB, then {used} KiB");
    environment.stop();
}

async fn a_low_soft_limit_on_files_is_raised_and_bounds_the_connections() {
    for (limits, files, connections) in [
        ("ulimit -S -n 1024; ulimit -H -n 4096", 4096, 1024),
        ("ulimit -n 2000", 2000, 500),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let key = directory.path().join("key");
        super::write(&key, &std::array::from_fn::<_, 32, _>(|n| n as u8), 0o600);
        let database = format!("sqlite://{}", directory.path().join("registry.db").display());
        let command = |command: &str| {
            let mut service = accord();
            service
                .args([
                    "registry",
                    command,
                    "--listen",
                    "127.0.0.1:0",
                    "--drain-delay",
                    "0",
                ])
                .args(["--admin-listen", "127.0.0.1:0"])
                .args(["--public-base-url", "https://auth.example"])
                .args(["--database-url", &database, "--master-key-file"])
                .arg(&key);
            let mut limited = Command::new("sh");
            limited.args(["-c", &format!("{limits}; exec \"$0\" \"$@\"")]);
            wrap(limited, &service)
        };
        assert!(command("migrate").status().unwrap().success());
        let mut serving = Process::start(command("serve"), directory.path(), "registry");
        serving.listening("--listen");
        // The gauge of the listener is there once it accepts.
        let mut scrape = String::new();
        within(Duration::from_secs(30), "a gauge of the listener", async || {
            scrape = fetch(&mut serving, "/metrics").await.1;
            scrape.contains("\naccord_connections_max{")
        })
        .await;
        // The listener may have raised the limit within that scrape.
        scrape = fetch(&mut serving, "/metrics").await.1;
        for line in [
            format!("process_max_fds {files}"),
            format!("accord_connections_max{{protocol=\"grpc\"}} {connections}"),
        ] {
            assert!(scrape.lines().any(|scraped| scraped == line), "{line}: {scrape}");
        }
        serving.signal("TERM");
        assert!(serving.wait().success(), "{}", serving.stderr());
    }
}
