//! What keeps a service from starting: one row for each rule, for `check-config` and `serve`.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Command};

use accord::{
    random::{Random, SystemRandom},
    store::Database,
    testing::certificates::{Authority, Subject},
    text::opaque::{OpaqueToken, TokenKind},
};
use sea_orm::ConnectionTrait;

use crate::harness::process::accord;

tests!(
    each_rule_of_registry_service_is_reported_by_the_name_of_its_setting,
    each_rule_of_token_service_is_reported_by_the_name_of_its_setting,
    a_schema_of_another_version_is_refused_unless_it_is_one_version_newer,
);

/// A directory with everything that a service needs, and some files that it must refuse.
struct Place {
    directory: tempfile::TempDir,
    service: &'static str,
}

impl Place {
    fn new(service: &'static str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::new("test");
        authority
            .issue(&Subject::localhost())
            .write(directory.path(), "good");
        authority
            .issue(&Subject::localhost())
            .write(directory.path(), "other");
        let for_servers = Subject {
            is_for_clients: false,
            ..Subject::localhost()
        };
        authority.issue(&for_servers).write(directory.path(), "public");
        let spiffe = Subject::spiffe("spiffe://accord.example/token-service");
        authority.issue(&spiffe).write(directory.path(), "spiffe");
        authority.write(directory.path(), "ca.pem");
        let place = Self { directory, service };
        let mut key = [0; 32];
        SystemRandom.fill(&mut key);
        place.write("master.key", &key, 0o600);
        place.write("open.key", &key, 0o644);
        place.write("short.key", &key[..31], 0o600);
        place.write("equal.key", &[7; 32], 0o600);
        let token = OpaqueToken::generate(TokenKind::Workload, &SystemRandom);
        place.write("token", token.expose().as_bytes(), 0o600);
        place.write("open-token", token.expose().as_bytes(), 0o644);
        place.write("garbage.pem", b"sup3rs3cret", 0o600);
        place.write("open.toml", b"listen = '127.0.0.1:0'", 0o644);
        place.write("unknown.toml", b"listne = '127.0.0.1:0'", 0o600);
        let migrated = place.command("migrate", &[]).status().unwrap();
        assert!(migrated.success());
        place
    }

    fn write(&self, name: &str, content: &[u8], mode: u32) {
        let path = self.at(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn database(&self) -> String {
        format!("sqlite://{}", self.at("accord.db").display())
    }

    /// A command of the service with good settings, and with these instead. A value that begins with `@` is a file here.
    fn command(&self, command: &str, changes: &[(&str, &str)]) -> Command {
        let prefix = format!("ACCORD_{}_", self.service.to_uppercase());
        let mut set = accord();
        set.args([self.service, command])
            .env(format!("{prefix}DATABASE_URL"), self.database())
            .env(format!("{prefix}MASTER_KEY_FILE"), self.at("master.key"))
            .env(format!("{prefix}LISTEN"), "127.0.0.1:0");
        match self.service {
            "registry" => set.env("ACCORD_REGISTRY_PUBLIC_BASE_URL", "https://auth.example"),
            _ => set
                .env("ACCORD_TOKEN_HTTP_LISTEN", "127.0.0.1:0")
                .env("ACCORD_TOKEN_REGISTRY_URL", "http://127.0.0.1:1")
                .env("ACCORD_TOKEN_REGISTRY_TOKEN_FILE", self.at("token")),
        };
        for (key, value) in changes {
            set.env(format!("{prefix}{key}"), self.value(value));
        }
        set
    }

    fn value(&self, value: &str) -> String {
        let path = |name| self.at(name).to_str().unwrap().to_owned();
        value.strip_prefix('@').map_or_else(|| value.to_owned(), path)
    }

    /// Asserts that both commands report this, and no value.
    fn refuses(&self, changes: &[(&str, &str)], expected: &str) {
        for command in ["check-config", "serve"] {
            let output = self.command(command, changes).output().unwrap();
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert!(!output.status.success(), "{command} {changes:?}");
            let line = stderr.lines().find(|line| line.starts_with("accord: "));
            let line = line.unwrap_or_else(|| panic!("{command} {changes:?}: {stderr}"));
            let expected = expected.replace('_', &format!("ACCORD_{}_", self.service.to_uppercase()));
            let expected = expected.replace('~', "_");
            assert!(line.contains(&expected), "{command} {changes:?}: {line}");
            for (key, value) in changes {
                let value = self.value(value);
                // The path of the configuration file is a place, and tells where the wrong key is.
                let is_shown = *key == "CONFIG" || value.len() < 4;
                assert!(
                    is_shown || !stderr.contains(&value),
                    "{command} {changes:?}: {stderr}"
                );
            }
            assert!(!stderr.contains("sup3rs3cret"), "{stderr}");
        }
    }

    fn accepts(&self, changes: &[(&str, &str)]) {
        let output = self.command("check-config", changes).output().unwrap();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{changes:?}: {output:?}"
        );
    }
}

/// In what is expected, `_` stands for the prefix of variables, and `~` for an underscore.
const BOTH: &[(&[(&str, &str)], &str)] = &[
    // Transport.
    (
        &[("LISTEN", "0.0.0.0:0")],
        "_LISTEN is not a loopback address, and needs --tls-certificate",
    ),
    (&[("LISTEN", "[::]:0")], "_LISTEN is not a loopback address"),
    (
        &[("TLS_CERTIFICATE", "@good.pem")],
        "--tls-private-key (_TLS~PRIVATE~KEY) is missing",
    ),
    (
        &[("TLS_PRIVATE_KEY", "@good-key.pem")],
        "--tls-certificate (_TLS~CERTIFICATE) is missing",
    ),
    (
        &[("CLIENT_CA", "@ca.pem")],
        "_CLIENT~CA needs --tls-certificate and --tls-private-key",
    ),
    (
        &[
            ("TLS_CERTIFICATE", "@missing.pem"),
            ("TLS_PRIVATE_KEY", "@good-key.pem"),
        ],
        "_TLS~CERTIFICATE can't be read: no such file",
    ),
    (
        &[
            ("TLS_CERTIFICATE", "@garbage.pem"),
            ("TLS_PRIVATE_KEY", "@good-key.pem"),
        ],
        "_TLS~CERTIFICATE must hold certificates in PEM form",
    ),
    (
        &[
            ("TLS_CERTIFICATE", "@good.pem"),
            ("TLS_PRIVATE_KEY", "@other-key.pem"),
        ],
        "_TLS~PRIVATE~KEY is not the key of the certificate",
    ),
    (
        &[("TLS_CERTIFICATE", "@good.pem"), ("TLS_PRIVATE_KEY", "@open.key")],
        "_TLS~PRIVATE~KEY must be readable only by its owner",
    ),
    (
        &[
            ("TLS_CERTIFICATE", "@spiffe.pem"),
            ("TLS_PRIVATE_KEY", "@spiffe-key.pem"),
        ],
        "_TLS~CERTIFICATE has a certificate with a SPIFFE id alone: clients verify DNS names",
    ),
    (
        &[
            ("TLS_CERTIFICATE", "@good.pem"),
            ("TLS_PRIVATE_KEY", "@good-key.pem"),
            ("CLIENT_CA", "@garbage.pem"),
        ],
        "_CLIENT~CA must hold certificates in PEM form",
    ),
    (
        &[("TLS_MIN_VERSION", "1.1")],
        "_TLS~MIN~VERSION must be 1.2 or 1.3",
    ),
    (&[("DRAIN_DELAY", "61")], "_DRAIN~DELAY must be 0 to 60"),
    // Files of secrets.
    (
        &[("MASTER_KEY_FILE", "")],
        "--master-key-file (_MASTER~KEY~FILE) is missing",
    ),
    (
        &[("MASTER_KEY_FILE", "@missing.key")],
        "_MASTER~KEY~FILE can't be read or written: no such file",
    ),
    (
        &[("MASTER_KEY_FILE", "@short.key")],
        "_MASTER~KEY~FILE must hold exactly 32 bytes",
    ),
    (&[("MASTER_KEY_FILE", "@equal.key")], "all are equal"),
    (
        &[("MASTER_KEY_FILE", "@open.key")],
        "_MASTER~KEY~FILE must be readable only by its owner",
    ),
    (
        &[("CONFIG", "@open.toml")],
        "open.toml must be readable only by its owner",
    ),
    // Names.
    (&[("CONFIG", "@unknown.toml")], "`listne` ("),
    (&[("LISTNE", "127.0.0.1:7777")], "_LISTNE is unknown"),
    // Databases.
    (
        &[("DATABASE_URL", "")],
        "--database-url (_DATABASE~URL) is missing",
    ),
    (
        &[("DATABASE_URL", "postgres://u:sup3rs3cret@db.example/accord")],
        "_DATABASE~URL must have sslmode=verify-full",
    ),
    (
        &[(
            "DATABASE_URL",
            "postgres://u:sup3rs3cret@db.example/accord?sslmode=require",
        )],
        "_DATABASE~URL must have sslmode=verify-full",
    ),
    (
        &[(
            "DATABASE_URL",
            "postgres://u:sup3rs3cret@db.example/accord?sslmode=verify-ca",
        )],
        "_DATABASE~URL must have sslmode=verify-full",
    ),
    (
        &[("DATABASE_URL", "sqlite://no/such/file.db")],
        "the database does not exist: run `migrate` first",
    ),
];

async fn each_rule_of_registry_service_is_reported_by_the_name_of_its_setting() {
    let place = Place::new("registry");
    for (changes, expected) in BOTH {
        place.refuses(changes, expected);
    }
    for (url, expected) in [
        ("", "--public-base-url (_PUBLIC~BASE~URL) is missing"),
        ("http://auth.example", "_PUBLIC~BASE~URL must"),
        (
            "https://auth.example/base",
            "_PUBLIC~BASE~URL must not have a path",
        ),
        ("https://auth.example?q=1", "_PUBLIC~BASE~URL must"),
        ("https://auth.example#part", "_PUBLIC~BASE~URL must"),
    ] {
        place.refuses(&[("PUBLIC_BASE_URL", url)], expected);
    }
    accepted(&place);
    let mut create = place.command(
        "workload",
        &[
            ("TLS_CERTIFICATE", "@good.pem"),
            ("TLS_PRIVATE_KEY", "@good-key.pem"),
            ("CLIENT_CA", "@ca.pem"),
        ],
    );
    create.args(["create", "gateway", "--kind", "gateway"]);
    create.args(["--certificate-name", "spiffe://accord.example/gateway"]);
    assert!(create.status().unwrap().success());
    place.refuses(&[], "--client-ca is missing");
    // Together with what is wrong with other settings.
    let wrong = [("PUBLIC_BASE_URL", "https://auth.example/base")];
    let output = place.command("check-config", &wrong).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    for expected in ["must not have a path", "--client-ca is missing"] {
        assert!(stderr.contains(expected), "{expected}: {stderr}");
    }
}

async fn each_rule_of_token_service_is_reported_by_the_name_of_its_setting() {
    let place = Place::new("token");
    for (changes, expected) in BOTH {
        place.refuses(changes, expected);
    }
    for (key, value, expected) in [
        (
            "HTTP_LISTEN",
            "0.0.0.0:0",
            "_HTTP~LISTEN is not a loopback address",
        ),
        ("REGISTRY_URL", "", "--registry-url (_REGISTRY~URL) is missing"),
        ("REGISTRY_URL", "http://registry:50051", "_REGISTRY~URL must be"),
        (
            "REGISTRY_TOKEN_FILE",
            "@open-token",
            "_REGISTRY~TOKEN~FILE must be readable only by its owner",
        ),
        (
            "REGISTRY_TOKEN_FILE",
            "@garbage.pem",
            "_REGISTRY~TOKEN~FILE holds no token",
        ),
        (
            "ACCESS_TOKEN_SECONDS",
            "901",
            "_ACCESS~TOKEN~SECONDS must be 1 to 900",
        ),
        ("FAMILY_DAYS", "0", "_FAMILY~DAYS must be 1 to 3660"),
        ("FAMILY_IDLE_DAYS", "3661", "_FAMILY~IDLE~DAYS must be 1 to 3660"),
        (
            "REGISTRY_STALE_MAX",
            "3601",
            "_REGISTRY~STALE~MAX must be 0 to 3600",
        ),
    ] {
        place.refuses(&[(key, value)], expected);
    }
    for (changes, expected) in TO_REGISTRY {
        place.refuses(changes, expected);
    }
    place.accepts(&[
        HTTPS,
        REGISTRY_CA,
        ("REGISTRY_CLIENT_CERTIFICATE", "@spiffe.pem"),
        ("REGISTRY_CLIENT_KEY", "@spiffe-key.pem"),
    ]);
    accepted(&place);
}

const HTTPS: (&str, &str) = ("REGISTRY_URL", "https://registry.example:50051");
const REGISTRY_CA: (&str, &str) = ("REGISTRY_CA", "@ca.pem");

/// The way of token-service to the registry.
const TO_REGISTRY: &[(&[(&str, &str)], &str)] = &[
    (
        &[HTTPS],
        "--registry-ca (_REGISTRY~CA) is missing: https:// in --registry-url needs it",
    ),
    (&[REGISTRY_CA], "_REGISTRY~CA needs https:// in --registry-url"),
    (
        &[
            ("REGISTRY_CLIENT_CERTIFICATE", "@spiffe.pem"),
            ("REGISTRY_CLIENT_KEY", "@spiffe-key.pem"),
        ],
        "_REGISTRY~CLIENT~CERTIFICATE needs https:// in --registry-url",
    ),
    (
        &[HTTPS, ("REGISTRY_CA", "@garbage.pem")],
        "_REGISTRY~CA must hold certificates in PEM form",
    ),
    (
        &[HTTPS, ("REGISTRY_CA", "@missing.pem")],
        "_REGISTRY~CA can't be read: no such file",
    ),
    (
        &[HTTPS, REGISTRY_CA, ("REGISTRY_CLIENT_CERTIFICATE", "@spiffe.pem")],
        "--registry-client-key (_REGISTRY~CLIENT~KEY) is missing: --registry-client-certificate needs it",
    ),
    (
        &[HTTPS, REGISTRY_CA, ("REGISTRY_CLIENT_KEY", "@spiffe-key.pem")],
        "--registry-client-certificate (_REGISTRY~CLIENT~CERTIFICATE) is missing: --registry-client-key needs it",
    ),
    (
        &[
            HTTPS,
            REGISTRY_CA,
            ("REGISTRY_CLIENT_CERTIFICATE", "@spiffe.pem"),
            ("REGISTRY_CLIENT_KEY", "@other-key.pem"),
        ],
        "_REGISTRY~CLIENT~KEY is not the key of the certificate",
    ),
    (
        &[
            HTTPS,
            REGISTRY_CA,
            ("REGISTRY_CLIENT_CERTIFICATE", "@spiffe.pem"),
            ("REGISTRY_CLIENT_KEY", "@open.key"),
        ],
        "_REGISTRY~CLIENT~KEY must be readable only by its owner",
    ),
    (
        &[
            HTTPS,
            REGISTRY_CA,
            ("REGISTRY_CLIENT_CERTIFICATE", "@public.pem"),
            ("REGISTRY_CLIENT_KEY", "@public-key.pem"),
        ],
        "_REGISTRY~CLIENT~CERTIFICATE has a certificate whose extended key usage is not for clients (clientAuth)",
    ),
    (
        &[("REGISTRY_TOKEN_FILE", "")],
        "--registry-token-file (_REGISTRY~TOKEN~FILE) is missing",
    ),
];

/// What looks wrong, and is not.
fn accepted(place: &Place) {
    let pair = [
        ("TLS_CERTIFICATE", "@good.pem"),
        ("TLS_PRIVATE_KEY", "@good-key.pem"),
    ];
    place.accepts(&[]);
    place.accepts(&[
        pair[0],
        pair[1],
        ("LISTEN", "0.0.0.0:0"),
        ("CLIENT_CA", "@ca.pem"),
    ]);
    place.accepts(&[pair[0], pair[1], ("TLS_MIN_VERSION", "1.2")]);
    place.accepts(&[
        ("PORT", "tcp://10.0.0.5:50051"),
        ("SERVICE_HOST", "10.0.0.5"),
        ("TLS_CERTIFICATE", ""),
    ]);
}

async fn a_schema_of_another_version_is_refused_unless_it_is_one_version_newer() {
    for service in ["registry", "token"] {
        let place = Place::new(service);
        let change = async |sql: &str| {
            let db = Database::connect(&place.database()).await.unwrap();
            let tx = db.write().await.unwrap();
            tx.execute_unprepared(sql).await.unwrap();
            tx.commit().await.unwrap();
            db.close().await;
        };
        let table = format!("{service}_service_migrations");
        let add = |name: &str| format!("INSERT INTO {table} (version, applied_at) VALUES ('{name}', 0)");
        change(&add("m29990101_000001_next")).await;
        place.accepts(&[]);
        change(&add("m29990101_000002_after_next")).await;
        place.refuses(&[], "more than one version newer than this build");
        let migrate = place.command("migrate", &[]).output().unwrap();
        assert!(!migrate.status.success());
        change(&format!("DELETE FROM {table}")).await;
        place.refuses(&[], "run `migrate` first");
    }
}
