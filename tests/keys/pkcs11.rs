//! A master key in a PKCS#11 token: SoftHSM stands for the hardware.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use accord::{
    keys::FileMasterKey,
    random::SystemRandom,
    registry::v1::{ListTenantsRequest, tenant_service_client::TenantServiceClient},
};
use accord_cli::call::with_token;
use tempfile::TempDir;

use crate::{
    harness::{
        process::{Process, accord},
        services::write_private,
        suite::SOFTHSM,
    },
    observability::scrape::fetch,
};

tests!(
    a_master_key_moves_into_a_token_and_back,
    a_service_outlives_the_removal_of_its_token,
    a_token_that_can_not_be_used_is_refused_without_its_pin,
);

const PIN: &str = "8371946502";

/// A token with a key named `registry`, and a registry's database.
struct Hsm {
    directory: TempDir,
}

impl Hsm {
    fn new() -> Self {
        let hsm = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        let tokens = hsm.at("tokens");
        std::fs::create_dir(&tokens).unwrap();
        let configuration = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            tokens.display()
        );
        std::fs::write(hsm.at("softhsm2.conf"), configuration).unwrap();
        hsm.util(&[
            "--init-token",
            "--free",
            "--label",
            "accord",
            "--so-pin",
            "74120589",
        ]);
        // `softhsm2-util` leaves out white space, so the bytes are letters.
        let letters = uuid::Uuid::new_v4().simple().to_string();
        write_private(&hsm.at("imported"), letters.as_bytes());
        let imported = hsm.at("imported");
        let import = [
            "--import",
            imported.to_str().unwrap(),
            "--aes",
            "--token",
            "accord",
        ];
        hsm.util(&[&import[..], &["--label", "registry", "--id", "01"]].concat());
        write_private(&hsm.at("pin"), PIN.as_bytes());
        FileMasterKey::create(&hsm.at("file.key"), &SystemRandom).unwrap();
        hsm
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn util(&self, arguments: &[&str]) {
        let status = Command::new("softhsm2-util")
            .args(arguments)
            .args(["--pin", PIN])
            .env("SOFTHSM2_CONF", self.at("softhsm2.conf"))
            .stdout(Stdio::null())
            .status();
        assert!(status.unwrap().success(), "softhsm2-util {arguments:?}");
    }

    fn uri(&self) -> String {
        self.uri_of("accord", "registry", "pin")
    }

    fn uri_of(&self, token: &str, object: &str, pin: &str) -> String {
        let pin = self.at(pin);
        format!(
            "pkcs11:token={token};object={object}?module-path={SOFTHSM}&pin-source=file:{}",
            pin.display()
        )
    }

    fn registry(&self, arguments: &[&str]) -> Command {
        let mut command = accord();
        command
            .arg("registry")
            .args(arguments)
            .env("SOFTHSM2_CONF", self.at("softhsm2.conf"))
            .env(
                "ACCORD_REGISTRY_DATABASE_URL",
                format!("sqlite://{}", self.at("registry.db").display()),
            )
            .env("ACCORD_REGISTRY_PUBLIC_BASE_URL", "http://127.0.0.1:1")
            .env("ACCORD_REGISTRY_LISTEN", "127.0.0.1:0");
        command
    }

    /// Runs a command that must succeed. Returns its output.
    fn run(&self, arguments: &[&str]) -> String {
        let output = self.registry(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that must fail. Returns its one line of standard error.
    fn fail(&self, arguments: &[&str]) -> String {
        let output = self.registry(arguments).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(
            !output.status.success() && output.stdout.is_empty(),
            "{arguments:?}: {stderr}"
        );
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(!stderr.contains(PIN), "{stderr}");
        stderr
    }
}

async fn a_master_key_moves_into_a_token_and_back() {
    let hsm = Hsm::new();
    let (uri, file) = (hsm.uri(), hsm.at("file.key"));
    let file = file.to_str().unwrap();
    let (by_file, by_token) = (["--master-key-file", file], ["--master-key-pkcs11", &uri]);
    let create = |name, by: [&str; 2]| {
        let create = ["operator", "create", name, "--role", "admin"];
        hsm.run(&[&create[..], &by].concat())
    };
    hsm.run(&["migrate"]);
    create("ada", by_file);

    let into = ["rotate-master-key", "--new-master-key-pkcs11", &uri];
    let done = hsm.run(&[&into[..], &by_file].concat());
    assert_eq!(done, "8 data keys are wrapped by the new master key\n");
    create("bea", by_token);
    hsm.run(&[&["check-config"][..], &by_token].concat());
    let refused = hsm.fail(&[&["check-config"][..], &by_file].concat());
    assert!(
        refused.contains("the keyring is wrapped by the master key"),
        "{refused}"
    );
    // Repeated, as after a lost connection: nothing is left to do.
    let again = hsm.run(&[&into[..], &by_file].concat());
    assert_eq!(again, "all data keys are wrapped by the new master key already\n");
    hsm.run(&[&["rotate-data-key", "pepper"][..], &by_token].concat());

    let back = ["rotate-master-key", "--new-master-key-file", file];
    let done = hsm.run(&[&back[..], &by_token].concat());
    assert_eq!(done, "9 data keys are wrapped by the new master key\n");
    create("cyd", by_file);
    let refused = hsm.fail(&[&["check-config"][..], &by_token].concat());
    assert!(
        refused.contains("the keyring is wrapped by the master key"),
        "{refused}"
    );
}

async fn a_service_outlives_the_removal_of_its_token() {
    let hsm = Hsm::new();
    let uri = hsm.uri();
    let by_token = ["--master-key-pkcs11", uri.as_str()];
    hsm.run(&["migrate"]);
    let create = ["operator", "create", "ada", "--role", "admin"];
    let operator = hsm.run(&[&create[..], &by_token].concat());
    let serve = hsm.registry(&[&["serve"][..], &by_token].concat());
    let mut process = Process::start(serve, hsm.directory.path(), "registry");
    let address = process.listening("--listen");
    let works = async || {
        let channel = with_token(&address, operator.trim()).unwrap();
        let mut tenants = TenantServiceClient::new(channel);
        tenants.list_tenants(ListTenantsRequest::default()).await.unwrap();
    };
    works().await;

    std::fs::rename(hsm.at("tokens"), hsm.at("removed")).unwrap();
    std::fs::create_dir(hsm.at("tokens")).unwrap();
    works().await;
    let rotate = [&["rotate-data-key", "pepper"][..], &by_token].concat();
    let refused = hsm.fail(&rotate);
    assert!(
        refused.contains("the PKCS#11 token can't be used: no token has this label"),
        "{refused}"
    );

    // Somebody whose token is there adds a version. This replica can't open it, and goes on until others may use it.
    let elsewhere = std::fs::read_to_string(hsm.at("softhsm2.conf")).unwrap();
    let elsewhere = elsewhere.replace("/tokens\n", "/removed\n");
    std::fs::write(hsm.at("elsewhere.conf"), elsewhere).unwrap();
    let mut added = hsm.registry(&[&["rotate-data-key", "delivery"][..], &by_token].concat());
    added.env("SOFTHSM2_CONF", hsm.at("elsewhere.conf"));
    assert!(added.status().unwrap().success());
    process.wait_for("a line about the version", |process| {
        let is_named = process.stderr().contains("data keys that no master key opens");
        is_named.then_some(())
    });
    assert_eq!(fetch(&mut process, "/readyz").await.0, 200);
    works().await;
    until_ready(&mut process, 503).await;

    std::fs::remove_dir(hsm.at("tokens")).unwrap();
    std::fs::rename(hsm.at("removed"), hsm.at("tokens")).unwrap();
    hsm.run(&rotate);
    // The service opens the new version by its own session with the token.
    process.wait_for("the new version", |process| {
        let stderr = process.stderr();
        let mut lines = stderr.lines().filter_map(|line| serde_json::from_str(line).ok());
        lines.find(|line: &serde_json::Value| {
            line["message"] == "data key read" && line["purpose"] == "pepper" && line["version"] == 2
        })
    });
    until_ready(&mut process, 200).await;
    works().await;
    assert!(!process.stderr().contains(PIN));
    process.signal("TERM");
    assert!(process.wait().success());
}

/// Waits until a service says with this status whether it is ready: a new version is used after a minute.
async fn until_ready(process: &mut Process, status: u16) {
    let waiting = async {
        while fetch(process, "/readyz").await.0 != status {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), waiting)
        .await
        .unwrap();
}

async fn a_token_that_can_not_be_used_is_refused_without_its_pin() {
    let hsm = Hsm::new();
    hsm.run(&["migrate"]);
    write_private(&hsm.at("wrong-pin"), b"1111111111\n");
    write_private(&hsm.at("open-pin"), PIN.as_bytes());
    std::fs::set_permissions(
        hsm.at("open-pin"),
        std::os::unix::fs::PermissionsExt::from_mode(0o644),
    )
    .unwrap();
    hsm.util(&[
        "--import",
        hsm.at("imported").to_str().unwrap(),
        "--aes",
        "--token",
        "accord",
        "--label",
        "twice",
        "--id",
        "02",
    ]);
    hsm.util(&[
        "--import",
        hsm.at("imported").to_str().unwrap(),
        "--aes",
        "--token",
        "accord",
        "--label",
        "twice",
        "--id",
        "03",
    ]);
    std::fs::write(hsm.at("short"), [1; 16]).unwrap();
    hsm.util(&[
        "--import",
        hsm.at("short").to_str().unwrap(),
        "--aes",
        "--token",
        "accord",
        "--label",
        "short",
        "--id",
        "04",
    ]);
    let good = hsm.uri();
    for (uri, why) in [
        (
            hsm.uri_of("accord", "registry", "wrong-pin"),
            "it refuses the PIN",
        ),
        (hsm.uri_of("accord", "registry", "open-pin"), "mode 0600"),
        (hsm.uri_of("accord", "registry", "no-pin"), "no such file"),
        (
            hsm.uri_of("accord", "missing", "pin"),
            "no AES key has this label",
        ),
        (
            hsm.uri_of("accord", "twice", "pin"),
            "several AES keys have this label",
        ),
        (hsm.uri_of("accord", "short", "pin"), "other than 256 bits"),
        (
            hsm.uri_of("missing", "registry", "pin"),
            "no token has this label",
        ),
        (
            good.replace(SOFTHSM, "/usr/lib/no-module.so"),
            "the module can't be loaded",
        ),
        (format!("{good}&pin-value={PIN}"), "must not hold the PIN"),
    ] {
        let refused = hsm.fail(&["check-config", "--master-key-pkcs11", &uri]);
        assert!(refused.contains(why), "{why}: {refused}");
    }
    let file = hsm.at("file.key");
    let both = [
        "check-config",
        "--master-key-pkcs11",
        &good,
        "--master-key-file",
        file.to_str().unwrap(),
    ];
    let refused = hsm.fail(&both);
    assert!(
        refused.contains("--master-key-pkcs11 can't be set together with --master-key-file"),
        "{refused}"
    );
    hsm.run(&[
        "operator",
        "create",
        "ada",
        "--role",
        "admin",
        "--master-key-pkcs11",
        &good,
    ]);
}
