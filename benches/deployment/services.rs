//! registry-service and token-service as processes of the real binary, at their defaults, set up by the
//! command line as an operator would.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use accord::{keys::FileMasterKey, random::SystemRandom, rpc::channel::HopChannel, testing::HeldPort};
use accord_cli::call;
use anyhow::{Context, Result, bail, ensure};
use tokio::{
    process::{Child, Command},
    time::sleep,
};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::{collector, usage::REGISTRY_LOG_FILTER};
use crate::{
    bare::Addresses,
    protocol::{Plan, Variant},
};

const READY_WITHIN: Duration = Duration::from_secs(60);

/// What both services need in order to start, and what their callers need.
pub struct Setup {
    plan: Plan,
    /// The `accord` program.
    program: PathBuf,
    registry_port: HeldPort,
    token_ports: Ports,
    /// The bearer token of an internal service.
    pub workload_token: String,
    operator_token: String,
}

/// A service that serves. Dropped, it is killed.
pub struct Service {
    child: Child,
    /// Milliseconds from starting the program until its health is SERVING.
    pub ready_after: f64,
    pub addresses: Addresses,
    pub endpoint: Endpoint,
    /// Of a replica, which has addresses of its own.
    _ports: Option<Ports>,
}

/// For gRPC and for HTTP.
type Ports = [HeldPort; 2];

impl Service {
    pub fn pid(&self) -> Result<u32> {
        self.child.id().context("a service has ended by itself")
    }

    /// Kills it, as a crash does.
    pub async fn kill(&mut self) -> Result<()> {
        self.pid()?;
        Ok(self.child.kill().await?)
    }

    /// Stops it as a supervisor does, and waits until it has ended.
    pub async fn stop(&mut self) -> Result<()> {
        let pid = self.pid()?.to_string();
        Command::new("kill").args(["-TERM", &pid]).status().await?;
        let ended = self.child.wait().await?;
        ensure!(ended.success(), "token-service ended with {ended}");
        Ok(())
    }
}

impl Setup {
    /// Creates keys, tables and callers.
    pub async fn create(plan: &Plan) -> Result<Self> {
        for name in ["registry.key", "token.key"] {
            FileMasterKey::create(&plan.directory.join(name), &SystemRandom)?;
        }
        let mut setup = Self {
            plan: plan.clone(),
            program: program(),
            registry_port: HeldPort::reserve(),
            token_ports: reserve(),
            workload_token: String::new(),
            operator_token: String::new(),
        };
        setup.run("registry", "migrate").await?;
        let own = "workload create token-service --kind token-service";
        let own = setup.run("registry", own).await?;
        fs::write(setup.registry_token_file(), own)?;
        fs::set_permissions(setup.registry_token_file(), Permissions::from_mode(0o600))?;
        let other = "workload create cloud-api --kind internal-service";
        setup.workload_token = setup.run("registry", other).await?;
        let operator = "operator create ada --role registrar --role approver";
        setup.operator_token = setup.run("registry", operator).await?;
        setup.run("token", "migrate").await?;
        Ok(setup)
    }

    pub fn master_key_file(&self, service: &str) -> PathBuf {
        self.plan.directory.join(format!("{service}.key"))
    }

    pub fn registry_token_file(&self) -> PathBuf {
        self.plan.directory.join("registry-token")
    }

    pub fn registry_url(&self) -> String {
        format!("http://{}", self.registry_port.address())
    }

    /// A channel of an operator to registry-service.
    pub fn operator(&self) -> Result<HopChannel> {
        call::with_token(&self.registry_port.address().to_string(), &self.operator_token)
    }

    pub fn public_base_url(&self) -> String {
        format!("http://{}", addresses(&self.token_ports).http)
    }

    /// Starts both services.
    pub async fn start(&self) -> Result<(Service, Service)> {
        let (grpc, http) = (self.registry_port.address().to_string(), String::new());
        let registry = self.command("registry", "serve");
        let registry = self
            .serve("registry", registry, Addresses { grpc, http }, None)
            .await?;
        Ok((registry, self.start_token().await?))
    }

    /// Starts token-service.
    pub async fn start_token(&self) -> Result<Service> {
        let (token, addresses) = (self.command("token", "serve"), addresses(&self.token_ports));
        self.serve("token", token, addresses, None).await
    }

    /// Starts other replicas of token-service, set up like a variant: one, or so many.
    pub async fn start_replicas(&self, variant: Variant) -> Result<Vec<Service>> {
        let count = match variant {
            Variant::Replicas(count) => count,
            _ => 1,
        };
        let mut replicas = Vec::with_capacity(count);
        for _ in 0..count {
            replicas.push(self.start_replica(variant).await?);
        }
        Ok(replicas)
    }

    async fn start_replica(&self, variant: Variant) -> Result<Service> {
        let ports = reserve();
        let addresses = addresses(&ports);
        let mut command = self.command("token", "serve");
        command.args(["--listen", &addresses.grpc, "--http-listen", &addresses.http]);
        let tls = (variant == Variant::MutualTls).then(|| self.plan.directory.join("certs"));
        match (variant, &tls) {
            (_, Some(certs)) => {
                if !certs.exists() {
                    let mut create = Command::new(&self.program);
                    let created = create.args(["certs", "--dir"]).arg(certs).output().await?;
                    ensure!(created.status.success(), "{created:?}");
                }
                command.arg("--tls-certificate").arg(certs.join("token.pem"));
                command.arg("--tls-private-key").arg(certs.join("token-key.pem"));
                command.arg("--client-ca").arg(certs.join("ca.pem"));
            }
            (Variant::Silent, _) => {
                command.args(["--admin-listen", "off"]);
            }
            (Variant::Traced, _) => {
                let url = collector::start().await?;
                command.env("OTEL_EXPORTER_OTLP_ENDPOINT", url);
                command.env("OTEL_TRACES_SAMPLER", "parentbased_traceidratio");
                command.env("OTEL_TRACES_SAMPLER_ARG", "0.01");
            }
            _ => {}
        }
        let mut service = self.serve("token", command, addresses, tls.as_deref()).await?;
        service._ports = Some(ports);
        Ok(service)
    }

    pub fn log_file(&self, service: &str) -> PathBuf {
        self.plan.directory.join(format!("{service}.log"))
    }

    /// Starts a service, with the certificates of `accord certs` in a directory if it speaks TLS.
    async fn serve(
        &self,
        service: &str,
        mut command: Command,
        addresses: Addresses,
        certs: Option<&Path>,
    ) -> Result<Service> {
        let endpoint = endpoint(&addresses.grpc, certs)?;
        let mut log = File::options();
        let log = log.create(true).append(true).open(self.log_file(service))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let started = Instant::now();
        let mut child = command.spawn()?;
        let mut health = HealthClient::new(endpoint.connect_lazy());
        loop {
            let answer = health.check(HealthCheckRequest::default()).await;
            if answer.is_ok_and(|answer| answer.get_ref().status() == ServingStatus::Serving) {
                break;
            }
            if child.try_wait()?.is_some() || started.elapsed() > READY_WITHIN {
                let log = fs::read_to_string(self.log_file(service))?;
                bail!("{service}-service is not ready: {log}");
            }
            sleep(Duration::from_millis(1)).await;
        }
        Ok(Service {
            child,
            ready_after: started.elapsed().as_secs_f64() * 1e3,
            addresses,
            endpoint,
            _ports: None,
        })
    }

    /// Runs a command of a service, and returns what it prints without the line break.
    pub async fn run(&self, service: &str, arguments: &str) -> Result<String> {
        let output = self.command(service, arguments).output().await?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{arguments}: {errors}");
        Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
    }

    /// The `accord` program, with nothing of the caller's environment.
    pub fn accord(&self) -> Command {
        clean(&self.program)
    }

    /// A command of a service: by its own program if a release was kept beside this one, else by `accord`.
    fn command(&self, service: &str, arguments: &str) -> Command {
        let mut command = match beside(&format!("{service}-service")) {
            Some(alone) => clean(&alone),
            None => {
                let mut command = self.accord();
                command.arg(service);
                command
            }
        };
        command.args(arguments.split(' '));
        let key = |name: &str| format!("ACCORD_{}_{name}", service.to_uppercase());
        command.env(key("MASTER_KEY_FILE"), self.master_key_file(service));
        // Metrics are recorded, as they are by default.
        command.env(key("ADMIN_LISTEN"), "127.0.0.1:0");
        if service == "registry" {
            command.env(key("DATABASE_URL"), &self.plan.registry_url);
            command.env(key("PUBLIC_BASE_URL"), self.public_base_url());
            command.env(key("LISTEN"), self.registry_port.address().to_string());
            // One operator adds the clients of the mixed load.
            command.env(key("SECOND_OPERATOR"), "false");
            command.env("RUST_LOG", REGISTRY_LOG_FILTER);
        } else {
            command.env(key("DATABASE_URL"), &self.plan.token_url);
            command.env(key("REGISTRY_URL"), self.registry_url());
            command.env(key("REGISTRY_TOKEN_FILE"), self.registry_token_file());
            let addresses = addresses(&self.token_ports);
            command.env(key("LISTEN"), addresses.grpc);
            command.env(key("HTTP_LISTEN"), addresses.http);
            command.env(key("CLIENT_CALLS_PER_SECOND"), "0");
            command.env(key("ADDRESS_CALLS_PER_SECOND"), "0");
        }
        command
    }
}

/// The `accord` program: beside this one in a directory where a build was kept, else that of this build.
fn program() -> PathBuf {
    beside("accord").unwrap_or_else(|| env!("CARGO_BIN_EXE_accord").into())
}

/// A program in the directory of this one, if it is there.
fn beside(name: &str) -> Option<PathBuf> {
    let path = std::env::current_exe().ok()?.with_file_name(name);
    path.is_file().then_some(path)
}

/// A program with nothing of the caller's environment.
fn clean(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().kill_on_drop(true);
    command
}

/// How to connect over gRPC, with the certificates of `accord certs` in a directory if it is over TLS.
pub fn endpoint(grpc: &str, certs: Option<&Path>) -> Result<Endpoint> {
    let Some(certs) = certs else {
        return Ok(Endpoint::from_shared(format!("http://{grpc}"))?);
    };
    let read = |name: &str| fs::read(certs.join(name));
    let identity = Identity::from_pem(read("gateway-client.pem")?, read("gateway-client-key.pem")?);
    let tls = ClientTlsConfig::new()
        .domain_name("token-service")
        .identity(identity);
    let tls = tls.ca_certificate(Certificate::from_pem(read("ca.pem")?));
    Ok(Endpoint::from_shared(format!("https://{grpc}"))?.tls_config(tls)?)
}

fn reserve() -> Ports {
    [HeldPort::reserve(), HeldPort::reserve()]
}

fn addresses(ports: &Ports) -> Addresses {
    let [grpc, http] = ports.each_ref().map(|port| port.address().to_string());
    Addresses { grpc, http }
}
