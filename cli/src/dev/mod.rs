//! `accord dev`: both services in one process, on SQLite, with a demo tenant.
//!
//! For development only: it listens on loopback, and writes credentials to `dev.json`.

// `--help` prints the comments of the flags, so URLs in them have no angle brackets.
#![allow(rustdoc::bare_urls)]

use std::{
    fs::{self, File},
    net::SocketAddr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use accord::{
    clock::SharedClock,
    keys::FileMasterKey,
    random::SharedRandom,
    rpc::{
        config::settings::{Needs, ServiceSettings},
        listener,
        run::{Listeners, Service, run},
    },
    text::opaque::OpaqueToken,
};
use anyhow::{Context, bail};
use clap::Args;
use registry_service::server::RegistryServer;
use token_service::server::TokenServer;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{call, dev_file::DevFile, resource};

mod callers;
pub mod seed;

/// Flags of `accord dev`.
#[derive(Clone, Debug, Args)]
pub struct DevArgs {
    /// The directory of databases, master keys and dev.json.
    #[arg(long, default_value = "accord-data")]
    pub data_dir: PathBuf,
    /// The gRPC address of registry-service; port 0 selects a free one.
    #[arg(long, default_value = "127.0.0.1:50051")]
    pub registry_listen: SocketAddr,
    /// The gRPC address of token-service; port 0 selects a free one.
    #[arg(long, default_value = "127.0.0.1:50052")]
    pub token_listen: SocketAddr,
    /// The HTTP address of token-service; port 0 selects a free one.
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub http_listen: SocketAddr,
    /// The base of the Tenant Authority URLs behind a gateway, such as https://localhost:8443; by default the URL of the
    /// HTTP listener.
    #[arg(long, value_name = "URL")]
    pub public_base_url: Option<String>,
    /// The address of a small Cloud API of the demo tenant, for trying tokens; by default there is none.
    #[arg(long, value_name = "ADDRESS")]
    pub api_listen: Option<SocketAddr>,
}

impl DevArgs {
    /// Rejects a listener that other machines could reach: without TLS, everything is plaintext here.
    fn require_loopback(&self) -> anyhow::Result<()> {
        let listeners = [
            ("--registry-listen", Some(self.registry_listen)),
            ("--token-listen", Some(self.token_listen)),
            ("--http-listen", Some(self.http_listen)),
            ("--api-listen", self.api_listen),
        ];
        for (flag, address) in listeners {
            if address.is_some_and(|address| !address.ip().to_canonical().is_loopback()) {
                bail!("{flag} must be a loopback address: this is for development only");
            }
        }
        Ok(())
    }
}

/// A running development environment.
#[derive(Debug)]
pub struct Dev {
    /// The content of dev.json.
    pub file: DevFile,
    data_dir: PathBuf,
    /// Stops everything except registry-service, which token-service needs until it ends.
    shutdown: CancellationToken,
    registry_shutdown: CancellationToken,
    registry: JoinHandle<anyhow::Result<()>>,
    token: JoinHandle<anyhow::Result<()>>,
    /// Held while this process uses the data directory.
    _lock: File,
}

impl Dev {
    /// Starts both services, waits until all listeners respond, and writes dev.json.
    ///
    /// # Errors
    /// If the data directory is in use, a port is taken, or a service does not start.
    pub async fn start(args: &DevArgs, clock: SharedClock, random: SharedRandom) -> anyhow::Result<Self> {
        args.require_loopback()?;
        let lock = lock(&args.data_dir)?;
        DevFile::remove(&args.data_dir)?;
        let registry_listener = listener::bind("--registry-listen", args.registry_listen, None).await?;
        let token_listener = listener::bind("--token-listen", args.token_listen, None).await?;
        let http_listener = listener::bind("--http-listen", args.http_listen, None).await?;
        let api_listener = match args.api_listen {
            Some(address) => Some(listener::bind("--api-listen", address, None).await?),
            None => None,
        };
        let registry_grpc = registry_listener.local_addr()?.to_string();
        let token_grpc = token_listener.local_addr()?.to_string();
        let http_url = format!("http://{}", http_listener.local_addr()?);

        let (listen, base) = (registry_listener.local_addr()?, http_url.clone());
        let registry = open_registry(args, listen, base, &clock, &random).await?;
        let callers = callers::renew(registry.store()).await?;
        let token = open_token_service(args, &registry_grpc, &callers.token_service, &clock, &random).await?;

        let (registry_shutdown, shutdown) = (CancellationToken::new(), CancellationToken::new());
        let listeners = Listeners::plaintext(registry_listener, None);
        let registry = tokio::spawn(run(registry, listeners, registry_shutdown.clone()));
        let listeners = Listeners::plaintext(token_listener, Some(http_listener));
        let token = tokio::spawn(run(token, listeners, shutdown.clone()));

        let api_url = match &api_listener {
            Some(listener) => Some(format!("http://{}/v1", listener.local_addr()?)),
            None => None,
        };
        let operator = call::with_token(&registry_grpc, callers.operator.expose())?;
        let file = DevFile {
            registry_grpc,
            token_grpc,
            http_url,
            operator_token: callers.operator.expose().to_owned(),
            workload_token: callers.internal_service.expose().to_owned(),
            ..seed::run(&operator, api_url.as_deref(), &*random).await?
        };
        let dev = Self {
            file,
            data_dir: args.data_dir.clone(),
            shutdown,
            registry_shutdown,
            registry,
            token,
            _lock: lock,
        };
        dev.wait_until_ready().await?;
        if let Some(listener) = api_listener {
            let api = resource::serve(listener, &dev.file, clock, dev.shutdown.clone()).await?;
            tokio::spawn(api);
        }
        dev.file.write(&args.data_dir)?;
        Ok(dev)
    }

    /// Runs until `shutdown`, then stops as [`Self::stop`] does.
    pub async fn run_until(mut self, shutdown: CancellationToken) -> anyhow::Result<()> {
        tokio::select! {
            () = shutdown.cancelled() => self.stop().await,
            ended = &mut self.registry => {
                DevFile::remove(&self.data_dir)?;
                ended?.context("registry-service")?;
                bail!("registry-service ended");
            }
            ended = &mut self.token => {
                DevFile::remove(&self.data_dir)?;
                ended?.context("token-service")?;
                bail!("token-service ended");
            }
        }
    }

    /// Removes dev.json, then drains both services.
    pub async fn stop(self) -> anyhow::Result<()> {
        DevFile::remove(&self.data_dir)?;
        self.shutdown.cancel();
        self.token.await?.context("token-service")?;
        self.registry_shutdown.cancel();
        self.registry.await?.context("registry-service")?;
        Ok(())
    }

    /// Waits until health and the HTTP listener report that the services are ready.
    async fn wait_until_ready(&self) -> anyhow::Result<()> {
        use tonic_health::pb::{
            HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
        };
        let mut pause = tokio::time::interval(std::time::Duration::from_millis(20));
        for _ in 0..500 {
            pause.tick().await;
            let mut serving = 0;
            for address in [&self.file.registry_grpc, &self.file.token_grpc] {
                let mut health = HealthClient::new(crate::call::open(address)?);
                let response = health.check(HealthCheckRequest::default()).await;
                serving +=
                    usize::from(response.is_ok_and(|r| r.get_ref().status() == ServingStatus::Serving));
            }
            let http = reqwest::get(format!("{}/healthz", self.file.http_url)).await;
            if serving == 2 && http.is_ok_and(|response| response.status().is_success()) {
                return Ok(());
            }
        }
        bail!("the services were not ready within ten seconds")
    }
}

/// Opens registry-service with its database and master key in the data directory. `http_url` is its base URL by default.
async fn open_registry(
    args: &DevArgs,
    listen: SocketAddr,
    http_url: String,
    clock: &SharedClock,
    random: &SharedRandom,
) -> anyhow::Result<RegistryServer> {
    let settings = registry_service::config::Settings {
        listen,
        service: ServiceSettings {
            address_calls_per_second: 0,
            ..ServiceSettings::new(
                sqlite(&args.data_dir, "registry.db")?,
                master_key(&args.data_dir, "registry.key", random)?,
            )
        },
        public_base_url: args.public_base_url.clone().unwrap_or(http_url),
        // One person tries Accord, so nobody could be the second operator.
        second_operator: false,
        ..Default::default()
    }
    .checked(Needs::Everything)?;
    RegistryServer::migrate(&settings).await?;
    let registry = RegistryServer::open(&settings, clock.clone(), random.clone()).await?;
    registry.database().mark_for_development().await?;
    Ok(registry)
}

/// Opens token-service with its database and master key in the data directory. `token` is its own at the registry.
async fn open_token_service(
    args: &DevArgs,
    registry_grpc: &str,
    token: &OpaqueToken,
    clock: &SharedClock,
    random: &SharedRandom,
) -> anyhow::Result<TokenServer> {
    let mut settings = token_service::config::Settings::new(
        sqlite(&args.data_dir, "token.db")?,
        master_key(&args.data_dir, "token.key", random)?,
        format!("http://{registry_grpc}"),
    );
    // Switches rate limits off, so that throughput can be tried.
    settings.client_calls_per_second = 0;
    settings.service.address_calls_per_second = 0;
    let settings = settings.checked(Needs::Database)?;
    TokenServer::migrate(&settings).await?;
    let server = TokenServer::open_with_token(&settings, token, clock.clone(), random.clone()).await?;
    server.database().mark_for_development().await?;
    Ok(server)
}

/// Creates the data directory if it is missing, and locks it.
fn lock(data_dir: &Path) -> anyhow::Result<File> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .with_context(|| format!("can't create {}", data_dir.display()))?;
    let path = data_dir.join("lock");
    let lock = File::create(&path).with_context(|| format!("can't create {}", path.display()))?;
    if lock.try_lock().is_err() {
        bail!("{} is in use by another `accord dev`", data_dir.display());
    }
    Ok(lock)
}

/// Returns the URL of a database file. The driver decodes `%`, takes `?` for the start of parameters, and drops leading
/// slashes.
fn sqlite(data_dir: &Path, name: &str) -> anyhow::Result<String> {
    let path = data_dir.canonicalize()?.join(name);
    let path = path
        .to_str()
        .context("the path of the data directory is not UTF-8")?;
    Ok(format!(
        "sqlite://{}",
        path.replace('%', "%25").replace('?', "%3F")
    ))
}

fn master_key(data_dir: &Path, name: &str, random: &SharedRandom) -> anyhow::Result<PathBuf> {
    let path = data_dir.join(name);
    if !path.exists() {
        let created = FileMasterKey::create(&path, &**random);
        created.with_context(|| path.display().to_string())?;
    }
    Ok(path)
}
