//! Both services over mutual TLS, with identities by certificates alone: two replicas of registry-service, and
//! token-service. Set up by the command line as an operator would.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use accord::{
    keys::FileMasterKey,
    random::SystemRandom,
    rpc::channel::{Addresses, HopChannel, Target},
    tls::{ClientTls, TlsFiles},
};
use accord_cli::dev::seed;
use tempfile::TempDir;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use super::{
    envoy::Upstreams,
    partner::World,
    process::{Process, accord},
    proxy::Proxy,
};

/// A replica of registry-service.
pub struct Replica {
    pub process: Process,
    pub address: String,
    /// Between it and token-service.
    pub proxy: Proxy,
}

/// The services, with a directory of the certificates of `accord certs`.
pub struct Secured {
    pub registries: Vec<Replica>,
    pub token: Process,
    pub token_grpc: String,
    pub token_http: String,
    directory: TempDir,
}

impl Secured {
    /// Migrates, makes certificates, creates the callers, and starts the services.
    pub async fn start() -> Self {
        Self::start_by(|serve| serve).await
    }

    /// Does the same with another command that starts token-service.
    pub async fn start_by(starts: impl FnOnce(Command) -> Command) -> Self {
        Self::start_at("https://auth.example", starts).await
    }

    /// Does the same with another public base URL.
    pub async fn start_at(public_base_url: &str, starts: impl FnOnce(Command) -> Command) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        prepare(at, |service, arguments| command(at, service, arguments));
        let mut registries = Vec::new();
        for name in ["registry-a", "registry-b"] {
            let mut serve = command(at, "registry", &["serve"]);
            serve.env("ACCORD_REGISTRY_PUBLIC_BASE_URL", public_base_url);
            let mut process = Process::start(serve, at, name);
            let address = process.listening("--listen");
            registries.push(Replica {
                process,
                proxy: Proxy::start(address.parse().unwrap()).await,
                address,
            });
        }
        let urls: Vec<_> = registries
            .iter()
            .map(|replica| format!("https://{}", replica.proxy.address))
            .collect();
        succeed(&mut command(at, "token", &["migrate"]));
        let mut serve = command(at, "token", &["serve"]);
        serve.env("ACCORD_TOKEN_REGISTRY_URL", urls.join(","));
        let mut token = Process::start(starts(serve), at, "token");
        let token_grpc = token.listening("--listen");
        let token_http = token.listening("--http-listen");
        Self {
            registries,
            token,
            token_grpc,
            token_http,
            directory,
        }
    }

    /// The directory of the certificates.
    pub fn certs(&self) -> PathBuf {
        self.directory.path().join("certs")
    }

    /// A command of registry-service without one of its settings.
    pub fn registry_without(&self, setting: &str, arguments: &[&str]) -> Output {
        let mut command = command(self.directory.path(), "registry", arguments);
        command.env_remove(setting).output().unwrap()
    }

    /// The files for TLS of a client of `accord certs`; without a certificate for the empty name.
    pub fn files(&self, client: &str) -> TlsFiles {
        let at = |name: String| self.certs().join(name);
        let identity =
            (!client.is_empty()).then(|| (at(format!("{client}.pem")), at(format!("{client}-key.pem"))));
        TlsFiles {
            authorities: at("ca.pem".into()),
            identity,
        }
    }

    /// A channel of a client of `accord certs` to an address.
    pub fn channel(&self, address: &str, client: &str) -> HopChannel {
        let addresses = Addresses::parse(&format!("https://{address}")).unwrap();
        let tls = ClientTls::load(self.files(client)).unwrap();
        HopChannel::new(Target::new(addresses, Some(tls)).unwrap(), None)
    }

    /// The channels of all callers, and a tenant with its users.
    pub async fn world(&self) -> World {
        let operator = self.channel(&self.registries[0].address, "operator-client");
        let target = seed::run(&operator, None, &SystemRandom).await.unwrap();
        let authority = std::fs::read_to_string(self.certs().join("ca.pem")).unwrap();
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(authority))
            .domain_name("localhost");
        let anyone = Endpoint::from_shared(format!("https://{}", self.token_grpc)).unwrap();
        World {
            operator,
            token_operator: self.channel(&self.token_grpc, "operator-client"),
            workload: self.channel(&self.token_grpc, "internal-service-client"),
            anyone: anyone.tls_config(tls).unwrap().connect_lazy(),
            target,
        }
    }

    /// Where a gateway finds the services.
    pub fn upstreams(&self) -> Upstreams {
        let parse = |address: &str| address.parse::<SocketAddr>().unwrap();
        Upstreams {
            registry_grpc: parse(&self.registries[0].address),
            token_grpc: parse(&self.token_grpc),
            token_http: parse(&self.token_http),
        }
    }
}

/// Makes certificates and a master key, migrates the registry, and creates an operator and the workloads. `command` is one of
/// a service.
pub fn prepare(at: &Path, command: impl Fn(&str, &[&str]) -> Command) {
    succeed(accord().arg("certs").arg("--dir").arg(at.join("certs")));
    FileMasterKey::create(&at.join("key"), &SystemRandom).unwrap();
    succeed(&mut command("registry", &["migrate"]));
    let mut create = vec!["operator", "create", "everything"];
    for role in ["registrar", "approver", "security", "auditor", "admin"] {
        create.extend(["--role", role]);
    }
    create.extend(["--certificate-name", "spiffe://accord.example/operator"]);
    let created = succeed(&mut command("registry", &create));
    assert!(created.stdout.is_empty(), "there is no token to print");
    assert!(String::from_utf8_lossy(&created.stderr).contains("takes the place of a token"));
    for (name, kind) in [
        ("token-service", "token-service"),
        ("gateway", "gateway"),
        ("internal-service", "internal-service"),
    ] {
        let id = format!("spiffe://accord.example/{name}");
        let create = [
            "workload",
            "create",
            name,
            "--kind",
            kind,
            "--certificate-name",
            &id,
        ];
        succeed(&mut command("registry", &create));
    }
}

fn command(directory: &Path, service: &str, arguments: &[&str]) -> Command {
    configured(accord(), directory, service, arguments)
}

/// A command of a service on SQLite, with its configuration in the environment.
pub fn configured(mut command: Command, directory: &Path, service: &str, arguments: &[&str]) -> Command {
    let prefix = format!("ACCORD_{}", service.to_uppercase());
    let certs = directory.join("certs");
    command.arg(service).args(arguments);
    let database = format!("sqlite://{}", directory.join(format!("{service}.db")).display());
    command.env(format!("{prefix}_DATABASE_URL"), database);
    command.env(format!("{prefix}_LISTEN"), "127.0.0.1:0");
    command.env(format!("{prefix}_DRAIN_DELAY"), "0");
    for (key, path) in [
        ("MASTER_KEY_FILE", directory.join("key")),
        ("TLS_CERTIFICATE", certs.join(format!("{service}.pem"))),
        ("TLS_PRIVATE_KEY", certs.join(format!("{service}-key.pem"))),
        ("CLIENT_CA", certs.join("ca.pem")),
    ] {
        command.env(format!("{prefix}_{key}"), path);
    }
    match service {
        "registry" => command
            .env("ACCORD_REGISTRY_PUBLIC_BASE_URL", "https://auth.example")
            // One operator does everything; `two_people` tests the default.
            .env("ACCORD_REGISTRY_SECOND_OPERATOR", "false"),
        _ => command
            .env("ACCORD_TOKEN_HTTP_LISTEN", "127.0.0.1:0")
            .env("ACCORD_TOKEN_REGISTRY_URL", "https://127.0.0.1:1")
            .env("ACCORD_TOKEN_REGISTRY_CA", certs.join("ca.pem"))
            .env(
                "ACCORD_TOKEN_REGISTRY_CLIENT_CERTIFICATE",
                certs.join("token-service-client.pem"),
            )
            .env(
                "ACCORD_TOKEN_REGISTRY_CLIENT_KEY",
                certs.join("token-service-client-key.pem"),
            ),
    };
    command
}

pub fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    output
}
