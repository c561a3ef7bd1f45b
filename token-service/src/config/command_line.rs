//! token-service's commands and flags.

use accord::rpc::config::settings::ServiceFlags;
use clap::{Args, Parser, Subcommand};
use serde::Serialize;

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "token-service",
    version,
    about = "What is allowed: consents and tokens"
)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands of token-service.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve gRPC and HTTP until SIGTERM or SIGINT
    Serve(Flags),
    /// Create or update the database's tables
    Migrate {
        /// Settings.
        #[command(flatten)]
        flags: Flags,
        /// Start a new epoch: for a database that was restored from a copy
        #[arg(long)]
        new_epoch: bool,
    },
    /// Ask the running service at --admin-listen whether it is ready, for the health check of a container
    Health(Flags),
    /// Report every problem of the settings, their files and the database, without serving
    CheckConfig(Flags),
    /// Wrap the database's keys with the new master key, beside replicas that serve
    RotateMasterKey(Flags),
    /// Add a version to a data key, beside replicas that serve
    RotateDataKey {
        /// What the key is for: authorization-request, dpop-nonce, refresh, signing-key, verified-secret, idempotency, row,
        /// audit-event or audit-log
        purpose: String,
        /// Settings.
        #[command(flatten)]
        flags: Flags,
    },
}

/// Settings as flags. Each is also an environment variable (`ACCORD_TOKEN_<FLAG>`) and a key of the
/// TOML file; the flag wins over the variable, the variable over the file.
#[derive(Args, Clone, derive_more::Debug, Default, Serialize)]
#[debug("Flags {{ .. }}")]
pub struct Flags {
    /// Address to serve gRPC on [default: 127.0.0.1:50052]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Address to serve HTTP on [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    pub http_listen: Option<String>,
    /// Address to serve metrics and health on, or "off"; without TLS on any address [default: 127.0.0.1:9465]
    #[arg(long, value_name = "ADDRESS")]
    pub admin_listen: Option<String>,
    /// Where registry-service serves gRPC, such as https://registry.internal:50051. Several addresses are separated by
    /// commas; http:// is for loopback
    #[arg(long, value_name = "URL")]
    pub registry_url: Option<String>,
    /// File with this service's own workload token, mode 0600. Not needed with a client certificate; with both, the
    /// token counts
    #[arg(long, value_name = "PATH")]
    pub registry_token_file: Option<String>,
    /// PEM file of the authorities that sign registry-service's certificates
    #[arg(long, value_name = "PATH")]
    pub registry_ca: Option<String>,
    /// PEM file of this service's own client certificate, followed by its chain
    #[arg(long, value_name = "PATH")]
    pub registry_client_certificate: Option<String>,
    /// PEM file of that certificate's private key, mode 0600
    #[arg(long, value_name = "PATH")]
    pub registry_client_key: Option<String>,
    /// Life of an access token in seconds; 900 at most [default: 300]
    #[arg(long, value_name = "SECONDS")]
    pub access_token_seconds: Option<String>,
    /// Absolute life of a refresh family in days [default: 90]
    #[arg(long, value_name = "DAYS")]
    pub family_days: Option<String>,
    /// Days after its last use at which a refresh family ends; a suspension does not stop them [default: 30]
    #[arg(long, value_name = "DAYS")]
    pub family_idle_days: Option<String>,
    /// How many seconds cached registry facts may be used while the registry does not answer, at most 3600.
    /// Lengthens the second after which a revocation holds everywhere [default: 0]
    #[arg(long, value_name = "SECONDS")]
    pub registry_stale_max: Option<String>,
    /// How many calls a client may make in a second, after it is authenticated; 0 means any number [default: 5000]
    #[arg(long, value_name = "CALLS")]
    pub client_calls_per_second: Option<String>,
    /// Whether DPoP proofs must have a nonce of this service: required or optional. Required costs each client a second call
    /// now and then, and no proof can be made in advance [default: optional]
    #[arg(long, value_name = "POLICY")]
    pub dpop_nonce: Option<String>,
    /// The product's name on pages [default: Accord]
    #[arg(long, value_name = "NAME")]
    pub product_name: Option<String>,
    /// Algorithm of the first signing keys of an empty database: EdDSA, ES256, RS256 or PS256 [default: EdDSA]
    #[arg(long, value_name = "ALGORITHM")]
    pub signing_algorithm: Option<String>,
    /// Days after which signing keys rotate by themselves; 0 means never [default: 90]
    #[arg(long, value_name = "DAYS")]
    pub signing_key_days: Option<String>,
    /// PEM file of the authorities whose certificates partners may authenticate by (tls_client_auth); none of --client-ca
    #[arg(long, value_name = "PATH")]
    pub partner_ca: Option<String>,
    /// Header in which a gateway passes on the certificate of its client: xfcc or client-cert. It counts on connections that a
    /// gateway's own certificate has opened [default: none]
    #[arg(long, value_name = "HEADER")]
    pub client_certificate_header: Option<String>,
    /// Base URL of the endpoints for clients with certificates, if it is not the public one, such as https://mtls.auth.example.
    /// At other hosts HTTP takes none of partners
    #[arg(long, value_name = "URL")]
    pub mtls_base_url: Option<String>,
    /// Networks beside the public Internet that the keys of clients (jwks_uri) may be fetched from, in CIDR notation, separated
    /// by commas
    #[arg(long, value_name = "NETWORKS")]
    pub jwks_allowed_networks: Option<String>,
    /// The settings that both services have.
    #[command(flatten)]
    #[serde(flatten)]
    pub service: ServiceFlags,
}
