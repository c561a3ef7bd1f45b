//! Both services as separate processes, set up by the command line as an operator would.

use std::{
    ffi::OsString,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    process::{Command, Output},
};

use accord::{keys::FileMasterKey, random::SystemRandom, testing::HeldPort};
use accord_cli::{call, dev::seed, dev_file::DevFile};
use tempfile::TempDir;

use super::{
    network::Host,
    process::{Process, accord},
};

/// registry-service and token-service, each with its own database.
pub struct Services {
    pub registry: Process,
    pub token: Process,
    pub target: DevFile,
    directory: TempDir,
    registry_environment: Vec<(&'static str, OsString)>,
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
            FileMasterKey::create(&at(name), &SystemRandom).unwrap();
        }
        let http_port = HeldPort::reserve();
        let http_address = http_port.address().to_string();
        let http_url = format!("http://{http_address}");
        let registry_environment = vec![
            ("ACCORD_REGISTRY_DATABASE_URL", registry_url.into()),
            (
                "ACCORD_REGISTRY_MASTER_KEY_FILE",
                at("registry.key").into_os_string(),
            ),
            ("ACCORD_REGISTRY_PUBLIC_BASE_URL", http_url.clone().into()),
            ("ACCORD_REGISTRY_LISTEN", "127.0.0.1:0".into()),
            // One operator does everything; `two_people` tests the default.
            ("ACCORD_REGISTRY_SECOND_OPERATOR", "false".into()),
            ("ACCORD_REGISTRY_DRAIN_DELAY", "0".into()),
        ];
        let registry = |arguments: &[&str]| command("registry", &registry_environment, arguments);
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
            ("ACCORD_TOKEN_DRAIN_DELAY", "0".into()),
            ("ACCORD_TOKEN_HTTP_LISTEN", http_address.into()),
        ];
        token_environment.extend(settings.iter().map(|(name, value)| (*name, value.into())));
        run(token(&token_environment, &["migrate"]));
        let serve = token(&token_environment, &["serve"]);
        let mut token_process = Process::start(serve, directory.path(), "token");
        let token_grpc = token_process.listening("--listen");
        token_process.listening("--http-listen");

        let operator = call::with_token(&registry_grpc, &operator_token).unwrap();
        let target = DevFile {
            registry_grpc,
            token_grpc,
            http_url,
            operator_token,
            workload_token,
            ..seed::run(&operator, None, &SystemRandom).await.unwrap()
        };
        Self {
            registry: registry_process,
            token: token_process,
            target,
            directory,
            registry_environment,
            token_environment,
            _http_port: http_port,
        }
    }

    /// Runs a command of registry-service, beside the running one. Returns its output.
    pub fn run_registry(&self, arguments: &[&str]) -> String {
        run(command("registry", &self.registry_environment, arguments))
    }

    /// Runs a command of token-service, beside the running one. Returns its output.
    pub fn run_token(&self, arguments: &[&str]) -> String {
        run(token(&self.token_environment, arguments))
    }

    /// Runs a command of token-service that must fail. Returns what it says.
    pub fn fail_token(&self, arguments: &[&str]) -> String {
        let output = token(&self.token_environment, arguments).output().unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Runs `accord audit resume` for `registry` or `token`, as an operator.
    pub fn resume(&self, service: &str, operator_token: &str, arguments: &[&str]) -> Output {
        let mut command = accord();
        command.args(["audit", "resume", service]).args(arguments);
        for (name, value) in self.registry_environment.iter().chain(&self.token_environment) {
            command.env(name, value);
        }
        command.env("ACCORD_OPERATOR_TOKEN", operator_token);
        command.output().unwrap()
    }

    /// Changes a variable of token-service for the next start.
    pub fn set_token(&mut self, name: &'static str, value: &str) {
        self.token_environment.retain(|(known, _)| *known != name);
        self.token_environment.push((name, value.into()));
    }

    /// Starts another replica of registry-service on the same database, with the default of `--second-operator`. Returns it
    /// with its address.
    pub fn registry_with_second_operator(&self) -> (Process, String) {
        let mut serve = command("registry", &self.registry_environment, &["serve"]);
        serve.env_remove("ACCORD_REGISTRY_SECOND_OPERATOR");
        let mut process = Process::start(serve, self.directory.path(), "registry-of-two");
        let address = process.listening("--listen");
        (process, address)
    }

    /// Starts another replica of token-service on the same database. Returns it with its gRPC address.
    pub fn another_token_service(&self) -> (Process, String) {
        let mut serve = token(&self.token_environment, &["serve"]);
        serve.env("ACCORD_TOKEN_HTTP_LISTEN", "127.0.0.1:0");
        let mut process = Process::start(serve, self.directory.path(), "token-replica");
        let address = process.listening("--listen");
        (process, address)
    }

    /// Starts a replica of each service on another host, reachable from there alone, on databases that have these URLs
    /// there. Returns them with the gRPC address of token-service.
    pub fn another_pair(&self, host: &Host, urls: &[String; 2]) -> ([Process; 2], String) {
        let start = |command: Command, name: &str| {
            let mut process = Process::start(host.on(&command), self.directory.path(), name);
            let address = process.listening("--listen");
            (process, address)
        };
        let mut serve = command("registry", &self.registry_environment, &["serve"]);
        serve.env("ACCORD_REGISTRY_DATABASE_URL", &urls[0]);
        let (registry, registry_grpc) = start(serve, "registry-elsewhere");
        let mut serve = token(&self.token_environment, &["serve"]);
        serve.env("ACCORD_TOKEN_DATABASE_URL", &urls[1]);
        serve.env("ACCORD_TOKEN_REGISTRY_URL", format!("http://{registry_grpc}"));
        serve.env("ACCORD_TOKEN_HTTP_LISTEN", "127.0.0.1:0");
        let (token, token_grpc) = start(serve, "token-elsewhere");
        ([registry, token], token_grpc)
    }

    /// Stops token-service, starts a new epoch as after a restore, and starts it again.
    pub fn restore_token_service(&mut self) {
        self.token.signal("TERM");
        assert!(self.token.wait().success());
        run(token(&self.token_environment, &["migrate", "--new-epoch"]));
        self.start_token_service_again();
    }

    /// Stops both services.
    pub fn stop(&mut self) {
        for process in [&mut self.token, &mut self.registry] {
            process.signal("TERM");
            assert!(process.wait().success());
        }
    }

    /// Starts both services on databases that were restored from copies, with new epochs.
    pub fn start_restored(&mut self, registry_url: &str, token_url: &str) {
        const URL: &str = "ACCORD_REGISTRY_DATABASE_URL";
        self.registry_environment.retain(|(known, _)| *known != URL);
        self.registry_environment.push((URL, registry_url.into()));
        self.set_token("ACCORD_TOKEN_DATABASE_URL", token_url);
        self.run_registry(&["migrate", "--new-epoch"]);
        self.run_token(&["migrate", "--new-epoch"]);
        self.start_again();
    }

    /// Starts both services after they ended.
    pub fn start_again(&mut self) {
        let serve = command("registry", &self.registry_environment, &["serve"]);
        self.registry = Process::start(serve, self.directory.path(), "registry-again");
        self.target.registry_grpc = self.registry.listening("--listen");
        let registry_url = format!("http://{}", self.target.registry_grpc);
        self.set_token("ACCORD_TOKEN_REGISTRY_URL", &registry_url);
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
    command("token", environment, arguments)
}

/// A command of a service with its configuration in the environment.
fn command(service: &str, environment: &[(&'static str, OsString)], arguments: &[&str]) -> Command {
    let mut command = accord();
    command.arg(service).args(arguments);
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

/// Writes a file that only this user can read.
pub fn write_private(path: &Path, content: &[u8]) {
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
