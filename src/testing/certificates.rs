//! Certificates of authorities that tests make up.

use std::{
    fs,
    io::Write,
    net::IpAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

pub use rcgen::DnType;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, RsaKeySize, SanType,
};
use time::OffsetDateTime;
use tokio_rustls::rustls::{
    ClientConfig, ConfigBuilder,
    client::WantsClientCert,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

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
    /// E-mail addresses.
    pub emails: Vec<&'static str>,
    /// The distinguished name, one attribute a part.
    pub name: Vec<(DnType, &'static str)>,
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
            emails: Vec::new(),
            name: Vec::new(),
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

/// The kind of a certificate's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA with P-256.
    P256,
    /// ECDSA with P-384.
    P384,
    /// Ed25519.
    Ed25519,
    /// RSA of 2,048 bits.
    Rsa2048,
}

impl Pair {
    /// Makes a certificate that no authority has signed.
    pub fn self_signed(subject: &Subject, kind: KeyKind) -> Self {
        let key = match kind {
            KeyKind::P256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
            KeyKind::P384 => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384),
            KeyKind::Ed25519 => KeyPair::generate_for(&PKCS_ED25519),
            KeyKind::Rsa2048 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
        };
        let key = key.unwrap();
        Self {
            certificate: params(subject).self_signed(&key).unwrap().pem(),
            private_key: key.serialize_pem(),
        }
    }

    /// The certificate in DER form.
    pub fn der(&self) -> Vec<u8> {
        let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes());
        certificate.unwrap().to_vec()
    }

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
        Self::signed_by(None, name)
    }

    /// Makes an authority that this one has signed.
    pub fn intermediate(&self, name: &str) -> Self {
        Self::signed_by(Some(self), name)
    }

    fn signed_by(authority: Option<&Self>, name: &str) -> Self {
        let mut params = params(&Subject::default());
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = Vec::new();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = match authority {
            None => params.self_signed(&key),
            Some(authority) => params.signed_by(&key, &authority.issuer),
        };
        Self {
            certificate: certificate.unwrap().pem(),
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
    for (kind, value) in &subject.name {
        params.distinguished_name.push(kind.clone(), *value);
    }
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
        .chain(
            subject
                .emails
                .iter()
                .map(|email| SanType::Rfc822Name((*email).try_into().unwrap())),
        )
        .collect();
    let usages = [
        (subject.is_for_servers, ExtendedKeyUsagePurpose::ServerAuth),
        (subject.is_for_clients, ExtendedKeyUsagePurpose::ClientAuth),
    ];
    let usages = usages.into_iter().filter_map(|(has, usage)| has.then_some(usage));
    params.extended_key_usages = usages.collect();
    params
}

/// Finishes the configuration of a client that presents this certificate, or none.
pub fn presenting(config: ConfigBuilder<ClientConfig, WantsClientCert>, pair: Option<&Pair>) -> ClientConfig {
    let Some(pair) = pair else {
        return config.with_no_client_auth();
    };
    let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes());
    let key = PrivateKeyDer::from_pem_slice(pair.private_key.as_bytes()).unwrap();
    config
        .with_client_auth_cert(chain.map(Result::unwrap).collect(), key)
        .unwrap()
}
