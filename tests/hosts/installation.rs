//! The three-host form: every process on a host of its own, set up by the lines of OPERATIONS.
//!
//! The test is the host of partners and of operators.

use std::{
    error::Error,
    fs,
    io::Write,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use accord::{
    random::SystemRandom,
    registry::v1::{ListWorkloadsRequest, operator_service_client::OperatorServiceClient},
    rpc::channel::{Addresses, HopChannel, Target},
    tls::{self, ClientTls, Connector, Destination, Name, TlsFiles},
    token::v1::{ListRevocationsRequest, token_service_client::TokenServiceClient},
};
use accord_cli::{dev::seed, dev_file::DevFile};
use reqwest::Certificate;
use tempfile::TempDir;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use super::{
    gateway::{GATEWAY_FILES, Gateway},
    node::{Node, command},
    postgres::Postgres,
    resource_server::{self, ResourceServer},
    settings::{FILES, certs, configure, place, succeed},
};
use crate::harness::{document::shell_lines, network::Network, partner::World};

/// What partners see.
const PUBLIC_NAME: &str = "auth.example";
/// How long a process may take to do its work.
const PATIENCE: Duration = Duration::from_secs(30);
/// Those of an operator, of an internal service and of a resource server.
const OWN_FILES: [(&str, &str); 5] = [
    ("ca.pem", "ca.pem"),
    ("internal-service-client.pem", "internal-service-client.pem"),
    (
        "internal-service-client-key.pem",
        "internal-service-client-key.pem",
    ),
    ("operator-client.pem", "operator-client.pem"),
    ("operator-client-key.pem", "operator-client-key.pem"),
];

/// Those of a resource server.
const RESOURCE_FILES: &[(&str, &str)] = OWN_FILES.split_at(3).0;

/// What [`Installation::answers`] says of a call that no service has answered.
pub const NO_CONNECTION: &str = "no connection";

/// Everything, running.
pub struct Installation {
    pub registries: Vec<Node>,
    pub tokens: Vec<Node>,
    pub gateway: Gateway,
    pub resource_server: ResourceServer,
    pub target: DevFile,
    pub database: Postgres,
    directory: TempDir,
}

impl Installation {
    /// Sets everything up and waits until the gateway reaches the services.
    pub async fn start() -> Self {
        let mut network = Network::new();
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        // PostgreSQL's user must reach its files.
        fs::set_permissions(at, fs::Permissions::from_mode(0o711)).unwrap();
        certs(at, "certs", &[]);
        place(&at.join("certs"), &at.join("own"), &OWN_FILES);
        let database = network.host("db.example");
        let registries = ["host1.example", "host2.example"].map(|name| network.host(name));
        let tokens = ["token-1", "token-2", "host3.example"].map(|name| network.host(name));
        let gateway = network.host(PUBLIC_NAME);
        let resource_server = network.host("api.example");
        network.name("registry-service", &registries.each_ref());
        network.name("token-service", &tokens.each_ref());

        let database = Postgres::start(&database, at, &at.join("certs"));
        let mut keys = [[0; 32]; 2];
        for host in registries.iter().chain(&tokens) {
            configure(&at.join(&host.name), &at.join("certs"), &mut keys);
        }
        let first = at.join(&registries[0].name);
        for service in ["registry", "token"] {
            succeed(&mut registries[0].on(&command(service, &first, &["migrate"])));
        }
        let callers = format!(
            "registry-service() {{ {} registry \"$@\"; }}\n{}",
            env!("CARGO_BIN_EXE_accord"),
            shell_lines("docs/OPERATIONS.md", "three-hosts-callers")
        );
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", &callers]);
        bash.envs(
            command("registry", &first, &[])
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        succeed(&mut registries[0].on(&bash));

        let mut registries = registries.map(|host| Node::start(host, "registry", at));
        let mut tokens = tokens.map(|host| Node::start(host, "token", at));
        for node in registries.iter_mut().chain(&mut tokens) {
            node.process.wait_for("readiness", |process| {
                process.stderr().contains("\"ready\"").then_some(())
            });
        }
        let target = seed(&at.join("own")).await;
        let own = at.join(&resource_server.name);
        place(&at.join("certs"), &own, RESOURCE_FILES);
        let installation = Self {
            registries: registries.into(),
            tokens: tokens.into(),
            gateway: Gateway::start(gateway, at),
            resource_server: ResourceServer::start(resource_server, own, &target),
            target,
            database,
            directory,
        };
        installation.is_reached().await;
        installation
    }

    /// Waits until the gateway reaches a replica of each service.
    async fn is_reached(&self) {
        let client = self.client(None);
        let jwks = format!("{}/jwks.json", self.target.tenant_authority_url);
        let answers = async {
            while !client
                .get(&jwks)
                .send()
                .await
                .is_ok_and(|answer| answer.status().is_success())
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let reached = timeout(PATIENCE, answers).await;
        let log = self.gateway.process.stdout();
        assert!(
            reached.is_ok(),
            "{:?}\n{}",
            log.lines().last(),
            self.gateway.process.stderr()
        );
    }

    /// The channels of an operator and of an internal service, to all replicas.
    pub fn world(&self) -> World {
        World {
            target: self.target.clone(),
            operator: self.channel("https://registry-service:50051", "operator-client"),
            token_operator: self.channel("https://token-service:50052", "operator-client"),
            workload: self.channel("https://token-service:50052", "internal-service-client"),
            anyone: self.open("token-service", 50052),
        }
    }

    /// A channel of a client of `accord certs`.
    pub fn channel(&self, url: &str, client: &str) -> HopChannel {
        channel(&self.own(), url, client)
    }

    /// A channel without a client certificate, to one replica at a time.
    fn open(&self, name: &'static str, port: u16) -> Channel {
        let files = TlsFiles {
            authorities: self.own().join("ca.pem"),
            identity: None,
        };
        connect(files, name, Destination::Name(Name::new(name, port)))
    }

    /// An internal service's channel to one replica of token-service.
    pub fn replica(&self, node: &Node) -> Channel {
        let address = SocketAddr::from((node.host.address, 50052));
        connect(
            resource_server::files(&self.own()),
            "token-service",
            Destination::Address(address),
        )
    }

    /// A partner's HTTP client; its calls come from this address.
    pub fn client(&self, address: Option<std::net::Ipv4Addr>) -> reqwest::Client {
        let authority = fs::read(self.own().join("ca.pem")).unwrap();
        reqwest::Client::builder()
            .tls_certs_only([Certificate::from_pem(&authority).unwrap()])
            .redirect(reqwest::redirect::Policy::none())
            .local_address(address.map(Into::into))
            .no_proxy()
            .build()
            .unwrap()
    }

    /// The certificate that each listener presents.
    pub async fn presented(&self) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut listeners = vec![(&self.gateway.host, 443, PUBLIC_NAME)];
        listeners.extend(
            self.registries
                .iter()
                .map(|node| (&node.host, 50051, "registry-service")),
        );
        for port in [50052, 8080] {
            listeners.extend(self.tokens.iter().map(|node| (&node.host, port, "token-service")));
        }
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_file(self.own().join("ca.pem")).unwrap();
        roots.add(authority).unwrap();
        let config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        let mut presented = Vec::new();
        for (host, port, name) in listeners {
            let address = SocketAddr::from((host.address, port));
            let connection = TcpStream::connect(address).await.unwrap();
            let connection = connector
                .connect(ServerName::try_from(name).unwrap(), connection)
                .await
                .unwrap();
            let (_, tls) = connection.get_ref();
            presented.push((address, tls.peer_certificates().unwrap()[0].to_vec()));
        }
        presented
    }

    fn own(&self) -> PathBuf {
        self.directory.path().join("own")
    }

    /// Replaces every certificate of services, clients and gateway by one of the same authority.
    pub fn replace_certificates(&self) {
        let at = self.directory.path();
        let (next, ca_dir) = (tempfile::tempdir_in(at).unwrap(), at.join("certs"));
        let next = next.path();
        certs(
            at,
            next.to_str().unwrap(),
            &["--ca-dir", ca_dir.to_str().unwrap()],
        );
        self.replace(next, |_| true);
    }

    /// Makes the certificates of all hosts once more, of another authority. Returns their directory.
    pub fn other_authority(&self) -> PathBuf {
        certs(self.directory.path(), "other", &[]);
        self.directory.path().join("other")
    }

    /// The first certificates.
    pub fn first_authority(&self) -> PathBuf {
        self.directory.path().join("certs")
    }

    /// Lets everybody trust these authorities alone.
    pub fn trust(&self, authorities: &[&Path]) {
        let trusted = tempfile::tempdir_in(self.directory.path()).unwrap();
        let authorities = authorities
            .iter()
            .map(|certs| fs::read_to_string(certs.join("ca.pem")).unwrap());
        fs::write(trusted.path().join("ca.pem"), authorities.collect::<String>()).unwrap();
        self.replace(trusted.path(), |name| name == "ca.pem");
    }

    /// Replaces the certificates of database, services and clients, not that of the gateway for the public.
    pub fn certify(&self, certs: &Path) {
        self.database.certify(certs);
        self.replace(certs, |name| {
            !["ca.pem", "gateway.pem", "gateway-key.pem"].contains(&name)
        });
    }

    fn replace(&self, certs: &Path, is_replaced: impl Fn(&str) -> bool) {
        let replace = |directory: &Path, files: &[(&str, &str)]| {
            let files = files.iter().filter(|(name, _)| is_replaced(name));
            place(certs, directory, &files.copied().collect::<Vec<_>>());
        };
        for node in self.registries.iter().chain(&self.tokens) {
            replace(&node.directory, &FILES);
        }
        replace(&self.gateway.directory, &GATEWAY_FILES);
        replace(&self.resource_server.directory, RESOURCE_FILES);
        replace(&self.own(), &OWN_FILES);
    }

    /// Returns how each listener for gRPC answers the client of `accord certs` in this directory: an operator at
    /// registry-service, an internal service at token-service.
    pub async fn answers(&self, identities: &Path) -> Vec<Result<(), String>> {
        let files = |client: &str| {
            TlsFiles::new(
                self.own().join("ca.pem"),
                identities.join(format!("{client}.pem")),
                identities.join(format!("{client}-key.pem")),
            )
        };
        let open = |node: &Node, client: &str, name: &'static str, port: u16| {
            let address = SocketAddr::from((node.host.address, port));
            connect(files(client), name, Destination::Address(address))
        };
        let mut answers = Vec::new();
        for node in &self.registries {
            let channel = open(node, "operator-client", "registry-service", 50051);
            let mut operators = OperatorServiceClient::new(channel);
            let listed = operators.list_workloads(ListWorkloadsRequest::default()).await;
            answers.push(listed.map(drop));
        }
        for node in &self.tokens {
            let channel = open(node, "internal-service-client", "token-service", 50052);
            let mut tokens = TokenServiceClient::new(channel);
            let listed = tokens.list_revocations(ListRevocationsRequest::default()).await;
            answers.push(listed.map(drop));
        }
        let cause = |status: Status| match status.source() {
            Some(cause) => format!("{NO_CONNECTION}: {}", tls::cause(cause)),
            None => format!("{status:?}"),
        };
        answers.into_iter().map(|answer| answer.map_err(cause)).collect()
    }
}

/// A test that fails shows what the processes said last.
impl Drop for Installation {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let nodes = self.registries.iter().chain(&self.tokens);
        let processes = nodes.map(|node| (&node.host.name, &node.process));
        let others = [
            (&self.gateway.host.name, &self.gateway.process),
            (&self.resource_server.host.name, &self.resource_server.process),
        ];
        for (name, process) in processes.chain(others) {
            let log = process.stderr();
            let last: Vec<_> = log.lines().rev().take(12).collect();
            for line in last.iter().rev() {
                let _ = writeln!(std::io::stderr(), "{name}: {line}");
            }
        }
    }
}

/// Adds a tenant as an operator, whose certificate is in `own`. Returns what partners and internal services know.
async fn seed(own: &Path) -> DevFile {
    let operator = channel(own, "https://registry-service:50051", "operator-client");
    DevFile {
        registry_grpc: "registry-service:50051".into(),
        token_grpc: "token-service:50052".into(),
        http_url: format!("https://{PUBLIC_NAME}"),
        ..seed::run(&operator, None, &SystemRandom).await.unwrap()
    }
}

fn connect(files: TlsFiles, name: &'static str, address: Destination) -> Channel {
    let connector = Connector {
        tls: ClientTls::load(files).unwrap(),
        server_name: ServerName::try_from(name).unwrap(),
        address,
    };
    let endpoint = Endpoint::from_shared(format!("http://{name}")).unwrap();
    let origin = format!("https://{name}").parse().unwrap();
    endpoint.origin(origin).connect_with_connector_lazy(connector)
}

fn channel(own: &Path, url: &str, client: &str) -> HopChannel {
    let at = |name: String| own.join(name);
    let files = TlsFiles::new(
        at("ca.pem".into()),
        at(format!("{client}.pem")),
        at(format!("{client}-key.pem")),
    );
    let tls = ClientTls::load(files).unwrap();
    HopChannel::new(
        Target::new(Addresses::parse(url).unwrap(), Some(tls)).unwrap(),
        None,
    )
}
