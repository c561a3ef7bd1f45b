//! `accord certs`: a private authority and certificates, for trying TLS between the services.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, ErrorKind, Write},
    net::IpAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use accord::clock::UnixMillis;
use anyhow::{Context, bail};
use clap::Args;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use time::OffsetDateTime;

/// How long all certificates are valid, in days.
const DAYS: u64 = 365;
/// How much earlier they begin, for machines whose clocks are behind.
const EARLIER: Duration = Duration::from_secs(300);
/// What servers present, each with the DNS name under which a container network finds it.
const SERVERS: [(&str, &str); 4] = [
    ("registry", "registry-service"),
    ("token", "token-service"),
    ("gateway", "gateway"),
    ("database", "database"),
];
/// What clients present, each with its SPIFFE id.
const CLIENTS: [(&str, &str); 4] = [
    ("token-service-client", "spiffe://accord.example/token-service"),
    ("gateway-client", "spiffe://accord.example/gateway"),
    ("operator-client", "spiffe://accord.example/operator"),
    (
        "internal-service-client",
        "spiffe://accord.example/internal-service",
    ),
];

/// Flags of `accord certs`.
#[derive(Clone, Debug, Args)]
pub struct CertsArgs {
    /// The directory to write to; it is created.
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// A further DNS name or address of the servers; may be repeated.
    #[arg(long = "host", value_name = "NAME_OR_IP")]
    pub hosts: Vec<String>,
    /// A directory of earlier certificates, whose authority signs these too.
    #[arg(long, value_name = "DIR")]
    pub ca_dir: Option<PathBuf>,
}

/// Writes an authority and certificates. Says on `out` which, and how to use them.
///
/// # Errors
/// If one of the files exists: nothing is written then.
pub fn run(args: &CertsArgs, now: UnixMillis, out: &mut impl Write) -> anyhow::Result<()> {
    let authority = match &args.ca_dir {
        Some(directory) => Authority::read(directory)?,
        None => Authority::new(now)?,
    };
    let mut files = vec![
        ("ca.pem".to_owned(), authority.certificate.clone()),
        ("ca-key.pem".to_owned(), authority.issuer.key().serialize_pem()),
    ];
    for (name, dns_name) in SERVERS {
        let mut names = vec![
            host("localhost")?,
            host("127.0.0.1")?,
            host("::1")?,
            host(dns_name)?,
        ];
        for given in &args.hosts {
            names.push(host(given).with_context(|| format!("--host {given}"))?);
        }
        files.extend(authority.issue(name, names, ExtendedKeyUsagePurpose::ServerAuth, now)?);
    }
    for (name, id) in CLIENTS {
        let names = vec![SanType::URI(id.try_into()?)];
        files.extend(authority.issue(name, names, ExtendedKeyUsagePurpose::ClientAuth, now)?);
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&args.dir)
        .with_context(|| format!("can't create {}", args.dir.display()))?;
    if let Some((name, _)) = files.iter().find(|(name, _)| args.dir.join(name).exists()) {
        bail!(
            "{} exists already: nothing was written",
            args.dir.join(name).display()
        );
    }
    for (name, content) in &files {
        let path = args.dir.join(name);
        create(&path, content).with_context(|| format!("can't write {}", path.display()))?;
    }
    // A closed standard output is no reason to fail.
    let _ = write!(out, "{}", summary(&args.dir));
    Ok(())
}

/// What was written, and the flags that use it.
fn summary(directory: &Path) -> String {
    let dir = directory.display();
    let mut text = format!(
        "Certificates in {dir}, valid for {DAYS} days. They are for trying: ca-key.pem signs whatever its holder likes.\n\n\
         Servers:\n"
    );
    for (name, dns_name) in SERVERS {
        text +=
            &format!("  {name}.pem, {name}-key.pem: localhost, 127.0.0.1, ::1, {dns_name} and each --host\n");
    }
    text += "Clients:\n";
    for (name, id) in CLIENTS {
        text += &format!("  {name}.pem, {name}-key.pem: {id}\n");
    }
    text + &format!(
        "\nregistry-service serve --tls-certificate {dir}/registry.pem --tls-private-key {dir}/registry-key.pem \
             --client-ca {dir}/ca.pem ...\n\
             token-service serve --tls-certificate {dir}/token.pem --tls-private-key {dir}/token-key.pem \
             --client-ca {dir}/ca.pem --registry-url https://localhost:50051 --registry-ca {dir}/ca.pem \
             --registry-client-certificate {dir}/token-service-client.pem \
             --registry-client-key {dir}/token-service-client-key.pem ...\n\
             grpcurl -cacert {dir}/ca.pem -cert {dir}/operator-client.pem -key {dir}/operator-client-key.pem \
             localhost:50051 list\n"
    )
}

/// A certificate authority.
struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(now: UnixMillis) -> anyhow::Result<Self> {
        let mut params = params("Accord, for trying", now)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        let issuer = Issuer::new(params, key);
        Ok(Self { certificate, issuer })
    }

    fn read(directory: &Path) -> anyhow::Result<Self> {
        let read = |name: &str| {
            let path = directory.join(name);
            fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))
        };
        let (certificate, key) = (read("ca.pem")?, read("ca-key.pem")?);
        let key = KeyPair::from_pem(&key).context("ca-key.pem holds no key")?;
        let issuer = Issuer::from_ca_cert_pem(&certificate, key).context("ca.pem holds no authority")?;
        Ok(Self { certificate, issuer })
    }

    /// Signs a certificate. Returns its file and that of its key.
    fn issue(
        &self,
        name: &str,
        names: Vec<SanType>,
        usage: ExtendedKeyUsagePurpose,
        now: UnixMillis,
    ) -> anyhow::Result<[(String, String); 2]> {
        let mut params = params(name, now)?;
        params.subject_alt_names = names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok([
            (format!("{name}.pem"), certificate.pem()),
            (format!("{name}-key.pem"), key.serialize_pem()),
        ])
    }
}

fn params(name: &str, now: UnixMillis) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let end = now.plus(Duration::from_secs(DAYS * 24 * 3600));
    params.not_before = OffsetDateTime::from_unix_timestamp(now.minus(EARLIER).as_secs())?;
    params.not_after = OffsetDateTime::from_unix_timestamp(end.as_secs())?;
    Ok(params)
}

/// Returns the name of a host in a certificate: an address, or a DNS name.
fn host(text: &str) -> anyhow::Result<SanType> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let is_label = |label: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(allowed)
    };
    if !text.split('.').all(is_label) {
        bail!("must be a DNS name or an IP address");
    }
    Ok(SanType::DnsName(text.try_into()?))
}

/// Creates a file; one of a key, for its owner alone.
fn create(path: &Path, content: &str) -> io::Result<()> {
    let is_key = path.to_string_lossy().ends_with("-key.pem");
    let mode = if is_key { 0o600 } else { 0o644 };
    let mut file = OpenOptions::new();
    let mut file = file.write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content.as_bytes())?;
    match file.sync_all() {
        // Some file systems can't.
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use accord::{
        clock::{Clock, SystemClock},
        rpc::tls::{
            server::ServerTls,
            settings::{PartnerCertificates, TlsSettings},
        },
    };

    use super::*;

    fn certs(dir: PathBuf, hosts: &[&str], ca_dir: Option<PathBuf>) -> anyhow::Result<String> {
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut out = Vec::new();
        run(&CertsArgs { dir, hosts, ca_dir }, SystemClock.now(), &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn the_servers_can_be_started_with_the_files() {
        let directory = tempfile::tempdir().unwrap();
        let dir = directory.path().join("certs");
        let printed = certs(dir.clone(), &["auth.example", "10.0.0.7"], None).unwrap();
        assert!(printed.contains("spiffe://accord.example/gateway"), "{printed}");
        for (name, _) in SERVERS {
            let settings = TlsSettings {
                certificate: dir.join(format!("{name}.pem")),
                private_key: dir.join(format!("{name}-key.pem")),
                client_ca: dir.join("ca.pem"),
                partner_ca: PathBuf::new(),
                min_version: "1.3".to_owned(),
                partners: PartnerCertificates::None,
            };
            let tls = ServerTls::load(settings, std::sync::Arc::new(SystemClock)).unwrap();
            let days = tls.unwrap().not_after().since(SystemClock.now()).as_secs() / (24 * 3600);
            assert!((DAYS - 1..=DAYS).contains(&days), "{days}");
        }
        for file in fs::read_dir(&dir).unwrap() {
            let file = file.unwrap();
            let is_key = file.file_name().to_string_lossy().ends_with("-key.pem");
            let mode = file.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode == 0o600, is_key, "{file:?} {mode:o}");
            let content = fs::read_to_string(file.path()).unwrap();
            assert_eq!(content.contains("PRIVATE KEY"), is_key, "{file:?}");
            assert!(
                printed.contains(&*file.file_name().to_string_lossy()),
                "{printed}"
            );
        }
    }

    #[test]
    fn no_file_is_overwritten_and_a_wrong_host_writes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let dir = directory.path().join("certs");
        for wrong in [
            "",
            "a b",
            "https://auth.example",
            "auth.example:8443",
            "*.example",
        ] {
            assert!(certs(dir.clone(), &[wrong], None).is_err(), "{wrong}");
        }
        assert!(!dir.exists());
        certs(dir.clone(), &[], None).unwrap();
        let before = fs::read(dir.join("ca.pem")).unwrap();
        let error = certs(dir.clone(), &[], None).unwrap_err().to_string();
        assert!(error.contains("ca.pem exists already"), "{error}");
        assert_eq!(fs::read(dir.join("ca.pem")).unwrap(), before);
    }

    #[test]
    fn an_earlier_authority_signs_again() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        certs(at("old"), &[], None).unwrap();
        certs(at("new"), &[], Some(at("old"))).unwrap();
        let read = |name: &str| fs::read(at(name)).unwrap();
        assert_eq!(read("old/ca.pem"), read("new/ca.pem"));
        assert_ne!(read("old/registry.pem"), read("new/registry.pem"));
    }
}
