//! registry-service and token-service as processes of the real binary, at their defaults, set up by the
//! command line as an operator would.

use std::{
    fs::{self, File, Permissions},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use accord::random::{Random, SystemRandom};
use anyhow::{Context, Result, bail, ensure};
use tokio::{
    process::{Child, Command},
    time::sleep,
};
use tonic::transport::Endpoint;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::usage::REGISTRY_LOG_FILTER;
use crate::{bare::Addresses, protocol::Plan};

const READY_WITHIN: Duration = Duration::from_secs(60);

/// What both services need in order to start, and what their callers need.
pub struct Setup {
    plan: Plan,
    /// The `accord` program.
    program: PathBuf,
    /// `host:port` of each listener.
    registry_grpc: String,
    pub token_addresses: Addresses,
    /// The bearer token of an internal service.
    pub workload_token: String,
}

/// A service that serves. Dropped, it is killed.
pub struct Service {
    child: Child,
    /// Milliseconds from starting the program until its health is SERVING.
    pub ready_after: f64,
}

impl Service {
    pub fn pid(&self) -> Result<u32> {
        self.child.id().context("a service has ended by itself")
    }

    /// Kills it, as a crash does.
    pub async fn kill(&mut self) -> Result<()> {
        self.pid()?;
        Ok(self.child.kill().await?)
    }
}

impl Setup {
    /// Creates keys, tables and callers.
    pub async fn create(plan: &Plan) -> Result<Self> {
        for name in ["registry.key", "token.key"] {
            let mut key = [0; 32];
            SystemRandom.fill(&mut key);
            write_private(&plan.directory.join(name), &key)?;
        }
        let mut setup = Self {
            plan: plan.clone(),
            program: program()?,
            registry_grpc: free_addresses()?.grpc,
            token_addresses: free_addresses()?,
            workload_token: String::new(),
        };
        setup.run("registry", &["migrate"]).await?;
        let own = ["workload", "create", "token-service", "--kind", "token-service"];
        let own = setup.run("registry", &own).await?;
        write_private(&plan.directory.join("registry-token"), own.as_bytes())?;
        let other = ["workload", "create", "cloud-api", "--kind", "internal-service"];
        setup.workload_token = setup.run("registry", &other).await?;
        setup.run("token", &["migrate"]).await?;
        Ok(setup)
    }

    pub fn master_key_file(&self, service: &str) -> PathBuf {
        self.plan.directory.join(format!("{service}.key"))
    }

    pub fn public_base_url(&self) -> String {
        format!("http://{}", self.token_addresses.http)
    }

    /// Starts both services.
    pub async fn start(&self) -> Result<(Service, Service)> {
        let registry = self.serve("registry", &self.registry_grpc, &[]).await?;
        let token = self.serve("token", &self.token_addresses.grpc, &[]).await?;
        Ok((registry, token))
    }

    /// Starts another replica of token-service.
    pub async fn start_replica(&self) -> Result<(Service, Addresses)> {
        let addresses = free_addresses()?;
        let listeners = ["--listen", &addresses.grpc, "--http-listen", &addresses.http];
        let replica = self.serve("token", &addresses.grpc, &listeners).await?;
        Ok((replica, addresses))
    }

    pub fn log_file(&self, service: &str) -> PathBuf {
        self.plan.directory.join(format!("{service}.log"))
    }

    async fn serve(&self, service: &str, grpc: &str, flags: &[&str]) -> Result<Service> {
        let mut log = File::options();
        let log = log.create(true).append(true).open(self.log_file(service))?;
        let mut command = self.command(service);
        command.arg("serve").args(flags).stderr(log);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let started = Instant::now();
        let mut child = command.spawn()?;
        let mut health = HealthClient::new(Endpoint::from_shared(format!("http://{grpc}"))?.connect_lazy());
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
        let ready_after = started.elapsed().as_secs_f64() * 1e3;
        Ok(Service { child, ready_after })
    }

    /// Runs a command of a service, and returns what it prints without the line break.
    async fn run(&self, service: &str, arguments: &[&str]) -> Result<String> {
        let output = self.command(service).args(arguments).output().await?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{arguments:?}: {errors}");
        Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
    }

    /// A command of a service, with nothing of the caller's configuration in its environment.
    fn command(&self, service: &str) -> Command {
        let mut command = Command::new(&self.program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ACCORD_") {
                command.env_remove(name);
            }
        }
        let key = |name: &str| format!("ACCORD_{}_{name}", service.to_uppercase());
        command.arg(service).kill_on_drop(true);
        command.env(key("MASTER_KEY_FILE"), self.master_key_file(service));
        if service == "registry" {
            command.env(key("DATABASE_URL"), &self.plan.registry_url);
            command.env(key("PUBLIC_BASE_URL"), self.public_base_url());
            command.env(key("LISTEN"), &self.registry_grpc);
            command.env("RUST_LOG", REGISTRY_LOG_FILTER);
        } else {
            command.env(key("DATABASE_URL"), &self.plan.token_url);
            command.env(key("REGISTRY_URL"), format!("http://{}", self.registry_grpc));
            command.env(
                key("REGISTRY_TOKEN_FILE"),
                self.plan.directory.join("registry-token"),
            );
            command.env(key("LISTEN"), &self.token_addresses.grpc);
            command.env(key("HTTP_LISTEN"), &self.token_addresses.http);
        }
        command
    }
}

/// The `accord` program: beside this one in a directory where a build was kept, else that of this build.
fn program() -> Result<PathBuf> {
    let beside = std::env::current_exe()?.with_file_name("accord");
    if beside.is_file() {
        return Ok(beside);
    }
    Ok(env!("CARGO_BIN_EXE_accord").into())
}

fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    fs::write(path, content)?;
    Ok(fs::set_permissions(path, Permissions::from_mode(0o600))?)
}

/// Addresses that were free a moment ago: each service must know the other's before it starts.
fn free_addresses() -> Result<Addresses> {
    let free = || anyhow::Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string());
    Ok(Addresses {
        grpc: free()?,
        http: free()?,
    })
}
