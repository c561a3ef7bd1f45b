//! Two replicas of each service over mutual TLS on one PostgreSQL, behind Envoy. Each replica runs one of two builds, and
//! keeps its addresses when it is replaced.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use accord::{
    random::SystemRandom,
    rpc::channel::{Addresses, HopChannel, Target},
    testing::{HeldPort, TestDatabase},
    tls::{ClientTls, TlsFiles},
};
use accord_cli::{call, dev::seed, dev_file::DevFile};
use tempfile::TempDir;

use crate::{
    harness::{
        envoy::{Gateway, Place, Upstreams},
        partner::World,
        process::{Process, accord_at},
        secured::{configured, prepare, succeed},
    },
    observability::scrape::fetch,
};

/// Replicas of each service.
const REPLICAS: usize = 2;

pub struct Fleet {
    pub gateway: Gateway,
    pub world: World,
    /// Those of the registry, then those of token-service.
    pub replicas: Vec<Replica>,
    pub databases: [TestDatabase; 2],
    directory: TempDir,
}

pub struct Replica {
    service: &'static str,
    number: usize,
    grpc: HeldPort,
    /// Of token-service alone.
    http: HeldPort,
    /// `None` before it starts.
    process: Option<Process>,
}

impl Fleet {
    /// Migrates with a build, and starts all replicas of it.
    pub async fn start(build: &Path, databases: [TestDatabase; 2]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::reserve();
        let replica = |service, number| Replica {
            service,
            number,
            grpc: HeldPort::reserve(),
            http: HeldPort::reserve(),
            process: None,
        };
        let services = ["registry", "token"].into_iter();
        let mut replicas: Vec<_> = services
            .flat_map(|service| (0..REPLICAS).map(move |number| replica(service, number)))
            .collect();
        let setup = Setup {
            directory: directory.path(),
            databases: &databases,
            public_base_url: place.url(),
            registries: urls(&replicas[..REPLICAS]),
        };
        prepare(directory.path(), |service, arguments| {
            setup.command(build, service, arguments)
        });
        succeed(&mut setup.command(build, "token", &["migrate"]));
        for replica in &mut replicas {
            replica.start(setup.serve(build, replica), directory.path());
        }
        let upstreams: Vec<_> = (0..REPLICAS)
            .map(|number| Upstreams {
                registry_grpc: replicas[number].grpc.address(),
                token_grpc: replicas[REPLICAS + number].grpc.address(),
                token_http: replicas[REPLICAS + number].http.address(),
            })
            .collect();
        let channel = |replicas, client| channel(directory.path(), replicas, client);
        let operator = channel(&replicas[..REPLICAS], "operator-client");
        let world = World {
            token_operator: channel(&replicas[REPLICAS..], "operator-client"),
            workload: channel(&replicas[REPLICAS..], "internal-service-client"),
            // Strangers come through the gateway.
            anyone: call::open("127.0.0.1:1").unwrap(),
            target: DevFile {
                http_url: place.url(),
                ..seed::run(&operator, None, &SystemRandom).await.unwrap()
            },
            operator,
        };
        let gateway = Gateway::start_with_mtls(place, &upstreams, &directory.path().join("certs"));
        Self {
            gateway,
            world,
            replicas,
            directory,
            databases,
        }
    }

    fn setup(&self) -> Setup<'_> {
        Setup {
            directory: self.directory.path(),
            databases: &self.databases,
            public_base_url: self.gateway.url(),
            registries: urls(&self.replicas[..REPLICAS]),
        }
    }

    /// Migrates both databases with a build.
    pub fn migrate(&self, build: &Path) {
        for service in ["registry", "token"] {
            succeed(&mut self.setup().command(build, service, &["migrate"]));
        }
    }

    /// Stops a replica as a supervisor does, and starts it with a build.
    pub fn replace(&mut self, index: usize, build: &Path) {
        let process = self.replicas[index].process.as_mut().unwrap();
        process.signal("TERM");
        assert!(process.wait().success(), "{}", process.stderr());
        let serve = self.setup().serve(build, &self.replicas[index]);
        self.replicas[index].start(serve, self.directory.path());
    }

    /// Stops a replica, and starts it with a build that refuses to serve. Returns what it says.
    pub fn refused(&mut self, index: usize, build: &Path) -> String {
        self.replicas[index].process = None;
        let serve = self.setup().serve(build, &self.replicas[index]);
        let mut process = Process::start(serve, self.directory.path(), "refused");
        assert!(!process.wait().success());
        process.stderr()
    }
}

impl Replica {
    fn start(&mut self, serve: Command, directory: &Path) {
        let mut process = Process::start(serve, directory, &self.name());
        process.listening("--listen");
        self.process = Some(process);
    }

    /// Returns the warnings and errors in its log.
    pub fn warnings(&self) -> Vec<String> {
        let log = self.process.as_ref().unwrap().stderr();
        let lines = log.lines().filter(|line| !line.contains("\"level\":\"INFO\""));
        lines.map(|line| format!("{}: {line}", self.name())).collect()
    }

    pub fn name(&self) -> String {
        format!("{}-{}", self.service, self.number)
    }

    /// Returns how many calls it has answered since it started, those of health checks left out.
    pub async fn calls(&mut self) -> u64 {
        let process = self.process.as_mut().unwrap();
        let (_, scrape) = fetch(process, "/metrics").await;
        let counts = scrape.lines().filter(|line| {
            line.starts_with("accord_call_duration_seconds_count") && !line.to_lowercase().contains("health")
        });
        let count = |line: &str| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap();
        counts.map(count).sum()
    }
}

/// What the commands of all replicas share.
struct Setup<'a> {
    directory: &'a Path,
    databases: &'a [TestDatabase; 2],
    public_base_url: String,
    registries: String,
}

impl Setup<'_> {
    /// A command of a service, as an operator runs it.
    fn command(&self, build: &Path, service: &str, arguments: &[&str]) -> Command {
        let mut command = configured(accord_at(build), self.directory, service, arguments);
        let name = |setting: &str| format!("ACCORD_{}_{setting}", service.to_uppercase());
        let database = &self.databases[usize::from(service == "token")];
        command.env(name("DATABASE_URL"), &database.url);
        // The default, as in production: balancers learn of a stop before it comes.
        command.env_remove(name("DRAIN_DELAY"));
        match service {
            "registry" => command.env(name("PUBLIC_BASE_URL"), &self.public_base_url),
            _ => command.env(name("REGISTRY_URL"), &self.registries),
        };
        command
    }

    fn serve(&self, build: &Path, replica: &Replica) -> Command {
        let mut command = self.command(build, replica.service, &["serve"]);
        let name = |setting: &str| format!("ACCORD_{}_{setting}", replica.service.to_uppercase());
        command.env(name("LISTEN"), replica.grpc.address().to_string());
        if replica.service == "token" {
            command.env(name("HTTP_LISTEN"), replica.http.address().to_string());
        }
        command
    }
}

/// The addresses of replicas, as settings have them.
fn urls(replicas: &[Replica]) -> String {
    let urls = replicas
        .iter()
        .map(|replica| format!("https://{}", replica.grpc.address()));
    urls.collect::<Vec<_>>().join(",")
}

/// A channel of a client of `accord certs` to all replicas of a service.
fn channel(directory: &Path, replicas: &[Replica], client: &str) -> HopChannel {
    let at = |name: &str| -> PathBuf { directory.join("certs").join(name) };
    let files = TlsFiles {
        authorities: at("ca.pem"),
        identity: Some((at(&format!("{client}.pem")), at(&format!("{client}-key.pem")))),
    };
    let addresses = Addresses::parse(&urls(replicas)).unwrap();
    HopChannel::new(
        Target::new(addresses, Some(ClientTls::load(files).unwrap())).unwrap(),
        None,
    )
}
