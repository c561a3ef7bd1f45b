//! Certificates of authorities that tests make up.

use std::{
    fs,
    io::Write,
    net::IpAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use time::OffsetDateTime;

use crate::clock::UnixMillis;

/// What a certificate says. By default it names nobody, is for servers and clients, and valid from 2020 to 2050.
#[derive(Clone, Debug)]
pub struct Subject {
    /// DNS names.
    pub dns_names: Vec<&'static str>,
    /// URIs, such as SPIFFE ids.
    pub uris: Vec<&'static str>,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// Whether its extended key usage has serverAuth.
    pub is_for_servers: bool,
    /// Whether its extended key usage has clientAuth.
    pub is_for_clients: bool,
    /// When it begins to be valid.
    pub not_before: UnixMillis,
    /// The last second in which it is valid.
    pub not_after: UnixMillis,
}

impl Default for Subject {
    fn default() -> Self {
        Self {
            dns_names: Vec::new(),
            uris: Vec::new(),
            addresses: Vec::new(),
            is_for_servers: true,
            is_for_clients: true,
            not_before: UnixMillis::from_millis(1_577_836_800_000),
            not_after: UnixMillis::from_millis(2_524_608_000_000),
        }
    }
}

impl Subject {
    /// A server on loopback, `localhost`.
    pub fn localhost() -> Self {
        Self {
            dns_names: vec!["localhost"],
            addresses: vec![IpAddr::from([127, 0, 0, 1])],
            ..Self::default()
        }
    }

    /// A client with a SPIFFE id.
    pub fn spiffe(id: &'static str) -> Self {
        Self {
            uris: vec![id],
            ..Self::default()
        }
    }
}

/// A certificate and its private key, in PEM form.
#[derive(Clone)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub private_key: String,
}

impl Pair {
    /// Writes `<name>.pem` and `<name>-key.pem` into a directory, or replaces them. Returns their paths.
    pub fn write(&self, directory: &Path, name: &str) -> (PathBuf, PathBuf) {
        let certificate = directory.join(format!("{name}.pem"));
        let private_key = directory.join(format!("{name}-key.pem"));
        fs::write(&certificate, &self.certificate).unwrap();
        let mut file = fs::OpenOptions::new();
        let file = file.write(true).create(true).truncate(true).mode(0o600);
        let mut file = file.open(&private_key).unwrap();
        file.write_all(self.private_key.as_bytes()).unwrap();
        (certificate, private_key)
    }
}

/// A certificate authority.
pub struct Authority {
    /// Its certificate in PEM form.
    pub certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes an authority.
    pub fn new(name: &str) -> Self {
        let mut params = params(&Subject::default());
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = Vec::new();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        Self {
            certificate,
            issuer: Issuer::new(params, key),
        }
    }

    /// Signs a certificate.
    pub fn issue(&self, subject: &Subject) -> Pair {
        let key = KeyPair::generate().unwrap();
        let certificate = params(subject).signed_by(&key, &self.issuer).unwrap();
        Pair {
            certificate: certificate.pem(),
            private_key: key.serialize_pem(),
        }
    }

    /// Writes the authority's certificate to a file.
    pub fn write(&self, directory: &Path, name: &str) -> PathBuf {
        let path = directory.join(name);
        fs::write(&path, &self.certificate).unwrap();
        path
    }
}

fn params(subject: &Subject) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let time = |time: UnixMillis| OffsetDateTime::from_unix_timestamp(time.as_secs()).unwrap();
    (params.not_before, params.not_after) = (time(subject.not_before), time(subject.not_after));
    let dns_names = subject.dns_names.iter();
    params.subject_alt_names = dns_names
        .map(|name| SanType::DnsName((*name).try_into().unwrap()))
        .chain(
            subject
                .uris
                .iter()
                .map(|uri| SanType::URI((*uri).try_into().unwrap())),
        )
        .chain(subject.addresses.iter().copied().map(SanType::IpAddress))
        .collect();
    let usages = [
        (subject.is_for_servers, ExtendedKeyUsagePurpose::ServerAuth),
        (subject.is_for_clients, ExtendedKeyUsagePurpose::ClientAuth),
    ];
    let usages = usages.into_iter().filter_map(|(has, usage)| has.then_some(usage));
    params.extended_key_usages = usages.collect();
    params
}
