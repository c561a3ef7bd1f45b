//! Both services as separate processes, set up by the command line as an operator would.

use std::{
    ffi::OsString,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    process::Command,
};

use accord::random::{Random, SystemRandom};
use accord_cli::{dev::seed, dev_file::DevFile};
use tempfile::TempDir;
use tokio::net::TcpSocket;

use super::process::{Process, accord};

/// registry-service and token-service, each with its own database.
pub struct Services {
    pub registry: Process,
    pub token: Process,
    pub target: DevFile,
    directory: TempDir,
    token_environment: Vec<(&'static str, OsString)>,
    _http_port: HeldPort,
}

impl Services {
    /// Migrates, creates the callers, starts both, and adds a tenant for tests.
    pub async fn start(registry_url: &str, token_url: &str) -> Self {
        Self::start_with(registry_url, token_url, &[]).await
    }

    /// Does the same with more settings of token-service, or of both if they have no prefix.
    pub async fn start_with(registry_url: &str, token_url: &str, settings: &[(&'static str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["registry.key", "token.key"] {
            let mut key = [0; 32];
            SystemRandom.fill(&mut key);
            write_private(&at(name), &key);
        }
        let http_port = HeldPort::reserve();
        let http_address = http_port.0.local_addr().unwrap().to_string();
        let http_url = format!("http://{http_address}");
        let registry = |arguments: &[&str]| {
            let mut command = accord();
            command
                .arg("registry")
                .args(arguments)
                .env("ACCORD_REGISTRY_DATABASE_URL", registry_url)
                .env("ACCORD_REGISTRY_MASTER_KEY_FILE", at("registry.key"))
                .env("ACCORD_REGISTRY_PUBLIC_BASE_URL", &http_url)
                .env("ACCORD_REGISTRY_LISTEN", "127.0.0.1:0");
            command
        };
        run(registry(&["migrate"]));
        let mut create_operator = vec!["operator", "create", "everything"];
        for role in ["registrar", "approver", "security", "auditor", "admin"] {
            create_operator.extend(["--role", role]);
        }
        let operator_token = run(registry(&create_operator));
        let workload = |name, kind| run(registry(&["workload", "create", name, "--kind", kind]));
        let token_service = workload("token-service", "token-service");
        let workload_token = workload("pages", "internal-service");
        write_private(&at("registry-token"), token_service.as_bytes());

        let mut serve = registry(&["serve"]);
        serve.envs(
            settings
                .iter()
                .filter(|(name, _)| !name.starts_with("ACCORD_"))
                .copied(),
        );
        let mut registry_process = Process::start(serve, directory.path(), "registry");
        let registry_grpc = registry_process.listening("--listen");

        let mut token_environment = vec![
            ("ACCORD_TOKEN_DATABASE_URL", token_url.into()),
            ("ACCORD_TOKEN_MASTER_KEY_FILE", at("token.key").into_os_string()),
            (
                "ACCORD_TOKEN_REGISTRY_URL",
                format!("http://{registry_grpc}").into(),
            ),
            (
                "ACCORD_TOKEN_REGISTRY_TOKEN_FILE",
                at("registry-token").into_os_string(),
            ),
            ("ACCORD_TOKEN_LISTEN", "127.0.0.1:0".into()),
            ("ACCORD_TOKEN_HTTP_LISTEN", http_address.into()),
        ];
        token_environment.extend(settings.iter().map(|(name, value)| (*name, value.into())));
        run(token(&token_environment, &["migrate"]));
        let serve = token(&token_environment, &["serve"]);
        let mut token_process = Process::start(serve, directory.path(), "token");
        let token_grpc = token_process.listening("--listen");
        token_process.listening("--http-listen");

        let seeded = seed::run(&registry_grpc, &operator_token, None, &SystemRandom)
            .await
            .unwrap();
        let target = DevFile {
            registry_grpc,
            token_grpc,
            http_url,
            operator_token,
            workload_token,
            tenant_id: seeded.tenant.tenant_id,
            tenant_authority_url: seeded.tenant.tenant_authority_url,
            cloud_api_url: seeded.tenant.cloud_api_url,
            admin_account_name: seed::ADMIN_ACCOUNT_NAME.to_owned(),
            admin_password: seeded.admin_password,
            api_user_account_name: seed::API_USER_ACCOUNT_NAME.to_owned(),
            scopes: Vec::new(),
        };
        Self {
            registry: registry_process,
            token: token_process,
            target,
            directory,
            token_environment,
            _http_port: http_port,
        }
    }

    /// Starts another replica of token-service on the same database. Returns it with its gRPC address.
    pub fn another_token_service(&self) -> (Process, String) {
        let mut serve = token(&self.token_environment, &["serve"]);
        serve.env("ACCORD_TOKEN_HTTP_LISTEN", "127.0.0.1:0");
        let mut process = Process::start(serve, self.directory.path(), "token-replica");
        let address = process.listening("--listen");
        (process, address)
    }

    /// Stops token-service, starts a new epoch as after a restore, and starts it again.
    pub fn restore_token_service(&mut self) {
        self.token.signal("TERM");
        assert!(self.token.wait().success());
        run(token(&self.token_environment, &["migrate", "--new-epoch"]));
        self.start_token_service_again();
    }

    /// Starts token-service after it ended.
    pub fn start_token_service_again(&mut self) {
        let serve = token(&self.token_environment, &["serve"]);
        self.token = Process::start(serve, self.directory.path(), "token-again");
        self.target.token_grpc = self.token.listening("--listen");
    }
}

/// A token-service command with its configuration in the environment.
fn token(environment: &[(&'static str, OsString)], arguments: &[&str]) -> Command {
    let mut command = accord();
    command.arg("token").args(arguments);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    command
}

/// Runs a command to its end. Returns its output without the line break.
fn run(mut command: Command) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

fn write_private(path: &Path, content: &[u8]) {
    use std::io::Write;
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .unwrap()
        .write_all(content)
        .unwrap();
}

/// Reserves a port, because the issuer's URL must be known before its listener exists.
///
/// The socket is bound and never listens, so the service, which sets `SO_REUSEADDR` as this does, can
/// listen there, and as often as it starts again.
struct HeldPort(TcpSocket);

impl HeldPort {
    fn reserve() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        Self(socket)
    }
}
