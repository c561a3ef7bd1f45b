//! registry-service and token-service as separate processes of the real binary, at their defaults, set up
//! by the command line as an operator would.

pub mod keeper;

use std::{
    fs::{File, OpenOptions},
    io::Write,
    net::TcpListener,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use accord::random::{Random, SystemRandom};
use anyhow::{Context, bail};
use tokio::{process::Command, time::sleep};
use tonic::transport::Endpoint;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use self::keeper::Kept;

/// How long a service may take until it serves.
const PATIENCE: Duration = Duration::from_secs(60);

/// What both services need in order to start, and what it takes to call them.
pub struct Setup {
    directory: PathBuf,
    pub registry_url: String,
    pub token_url: String,
    /// `host:port` of each listener.
    pub registry_grpc: String,
    pub token_grpc: String,
    pub token_http: String,
    /// The bearer token of an internal service.
    pub workload_token: String,
}

/// A service that serves.
pub struct Service {
    kept: Kept,
    /// From starting the program until its health said that it serves.
    pub ready_after: Duration,
}

impl Service {
    pub fn pid(&self) -> u32 {
        self.kept.pid
    }

    /// Kills it; what holds it is of no use then.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.kept.kill().await
    }

    pub async fn end(mut self) -> anyhow::Result<()> {
        self.kill().await
    }
}

impl Setup {
    /// Makes keys, tables and callers. What it writes goes to `directory`.
    pub async fn make(directory: PathBuf, registry_url: String, token_url: String) -> anyhow::Result<Self> {
        for name in ["registry.key", "token.key"] {
            let mut key = [0; 32];
            SystemRandom.fill(&mut key);
            write_private(&directory.join(name), &key)?;
        }
        let mut setup = Self {
            directory,
            registry_url,
            token_url,
            registry_grpc: free_address()?,
            token_grpc: free_address()?,
            token_http: free_address()?,
            workload_token: String::new(),
        };
        setup.run("registry", &["migrate"]).await?;
        let own = ["workload", "create", "token-service", "--kind", "token-service"];
        let own = setup.run("registry", &own).await?;
        write_private(&setup.directory.join("registry-token"), own.as_bytes())?;
        let other = ["workload", "create", "cloud-api", "--kind", "internal-service"];
        setup.workload_token = setup.run("registry", &other).await?;
        setup.run("token", &["migrate"]).await?;
        Ok(setup)
    }

    pub fn master_key_file(&self, service: &str) -> PathBuf {
        self.directory.join(format!("{service}.key"))
    }

    pub fn public_base_url(&self) -> String {
        format!("http://{}", self.token_http)
    }

    pub async fn start_registry(&self) -> anyhow::Result<Service> {
        self.start("registry", &self.registry_grpc, &[]).await
    }

    pub async fn start_token(&self) -> anyhow::Result<Service> {
        self.start("token", &self.token_grpc, &[]).await
    }

    /// Another replica of token-service, and where it serves gRPC.
    pub async fn start_replica(&self) -> anyhow::Result<(Service, String)> {
        let (grpc, http) = (free_address()?, free_address()?);
        let listeners = ["--listen", grpc.as_str(), "--http-listen", http.as_str()];
        Ok((self.start("token", &grpc, &listeners).await?, grpc))
    }

    async fn start(&self, service: &str, grpc: &str, flags: &[&str]) -> anyhow::Result<Service> {
        let mut arguments = vec!["serve"];
        arguments.extend(flags);
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.directory.join(format!("{service}.log")))?;
        let keeper = Kept::prepare(&self.command(service, &arguments), log)?;
        let started = Instant::now();
        let kept = keeper.start().await?;
        while !serves(grpc).await {
            if started.elapsed() > PATIENCE {
                bail!("{service}-service does not serve; see its log");
            }
            sleep(Duration::from_millis(1)).await;
        }
        Ok(Service {
            kept,
            ready_after: started.elapsed(),
        })
    }

    /// Runs a command of a service to its end; what it prints, without the line break.
    async fn run(&self, service: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.command(service, arguments).output().await?;
        if !output.status.success() {
            bail!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
    }

    /// A command of a service, with nothing of the caller's configuration in its environment.
    fn command(&self, service: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_accord"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ACCORD_") {
                command.env_remove(name);
            }
        }
        command.arg(service).args(arguments).kill_on_drop(true);
        if service == "registry" {
            command
                .env("ACCORD_REGISTRY_DATABASE_URL", &self.registry_url)
                .env("ACCORD_REGISTRY_MASTER_KEY_FILE", self.master_key_file(service))
                .env("ACCORD_REGISTRY_PUBLIC_BASE_URL", self.public_base_url())
                .env("ACCORD_REGISTRY_LISTEN", &self.registry_grpc);
        } else {
            command
                .env("ACCORD_TOKEN_DATABASE_URL", &self.token_url)
                .env("ACCORD_TOKEN_MASTER_KEY_FILE", self.master_key_file(service))
                .env(
                    "ACCORD_TOKEN_REGISTRY_URL",
                    format!("http://{}", self.registry_grpc),
                )
                .env(
                    "ACCORD_TOKEN_REGISTRY_TOKEN_FILE",
                    self.directory.join("registry-token"),
                )
                .env("ACCORD_TOKEN_LISTEN", &self.token_grpc)
                .env("ACCORD_TOKEN_HTTP_LISTEN", &self.token_http);
        }
        command
    }
}

async fn serves(address: &str) -> bool {
    let Ok(endpoint) = Endpoint::from_shared(format!("http://{address}")) else {
        return false;
    };
    let Ok(channel) = endpoint.connect().await else {
        return false;
    };
    let mut health = HealthClient::new(channel);
    // Asked on one connection until it serves: connecting again would cost more than asking.
    while let Ok(answer) = health.check(HealthCheckRequest::default()).await {
        if answer.into_inner().status() == ServingStatus::Serving {
            return true;
        }
        sleep(Duration::from_millis(1)).await;
    }
    false
}

fn write_private(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let mut options = OpenOptions::new();
    let opened = options.write(true).create_new(true).mode(0o600).open(path);
    Ok(opened
        .with_context(|| path.display().to_string())?
        .write_all(content)?)
}

/// An address that was free a moment ago: each service must know the other's before it is there.
fn free_address() -> anyhow::Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}
