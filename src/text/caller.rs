//! Callers of the services: operators with roles, and workloads of a kind.

use aws_lc_rs::digest::{Context, SHA256};
use clap::ValueEnum;
use strum::{AsRefStr, EnumString};

use super::{
    id::{OperatorId, WorkloadId},
    opaque::OpaqueToken,
    parts::with_lengths,
};

/// The most names of a certificate that identify a caller. A certificate with more identifies nobody.
pub const MAX_CERTIFICATE_NAMES: usize = 64;

/// A role of an operator: what it may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, AsRefStr, EnumString, ValueEnum)]
#[strum(serialize_all = "kebab-case")]
pub enum Role {
    /// Reads; writes requests, tenants, users, scopes, clients and deliveries.
    Registrar,
    /// Reads; approves and rejects requests; releases links.
    Approver,
    /// Reads; suspends, reinstates, deactivates, reactivates, revokes; rotates keys.
    Security,
    /// Reads, the audit record included.
    Auditor,
    /// Everything that operators may do.
    Admin,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 5] = [
        Role::Registrar,
        Role::Approver,
        Role::Security,
        Role::Auditor,
        Role::Admin,
    ];
}

/// The kind of an internal service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, AsRefStr, EnumString, ValueEnum)]
#[strum(serialize_all = "kebab-case")]
pub enum WorkloadKind {
    /// Forwards the calls of partners; has no authority of its own.
    Gateway,
    /// Accord's own token-service.
    TokenService,
    /// A service of the cloud product, such as the Cloud API.
    InternalService,
}

impl WorkloadKind {
    /// Every kind.
    pub const ALL: [WorkloadKind; 3] = [
        WorkloadKind::Gateway,
        WorkloadKind::TokenService,
        WorkloadKind::InternalService,
    ];
}

/// An authenticated caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A person or script that operates Accord.
    Operator {
        /// The operator's id.
        id: OperatorId,
        /// The operator's roles.
        roles: Vec<Role>,
    },
    /// An internal service.
    Workload {
        /// The workload's id.
        id: WorkloadId,
        /// The workload's kind.
        kind: WorkloadKind,
    },
}

impl Caller {
    /// Returns the caller's id.
    pub fn id(&self) -> &str {
        match self {
            Self::Operator { id, .. } => id.as_str(),
            Self::Workload { id, .. } => id.as_str(),
        }
    }
}

/// What a caller identifies itself by.
#[derive(Clone, Copy, Debug)]
pub enum Credential<'a> {
    /// A bearer token.
    Token(&'a OpaqueToken),
    /// The names of a client certificate, which the transport has verified.
    Certificate(&'a [String]),
}

impl Credential<'_> {
    /// Returns a digest that no other credential has: the key of a cache.
    pub fn digest(&self) -> [u8; 32] {
        match self {
            Self::Token(token) => token.digest(),
            Self::Certificate(names) => {
                // A token never begins like this.
                let mut context = Context::new(&SHA256);
                context.update(b"certificate");
                with_lengths(*names, |part| context.update(part));
                let mut digest = [0; 32];
                digest.copy_from_slice(context.finish().as_ref());
                digest
            }
        }
    }
}

/// The name in a client certificate that identifies a caller: a DNS name, or a SPIFFE id with a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateName(String);

/// The error for a text that is no [`CertificateName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be a DNS name in lower case without a wildcard, or a SPIFFE id such as spiffe://example.org/gateway"
)]
pub struct MalformedCertificateName;

impl CertificateName {
    /// Parses a DNS name (RFC 1123 section 2.1, at most 253 characters) in lower case, or a SPIFFE id (SPIFFE-ID section
    /// 2, at most 2,048 characters) with a path.
    pub fn parse(text: &str) -> Result<Self, MalformedCertificateName> {
        let is_name = match text.strip_prefix("spiffe://") {
            Some(id) => text.len() <= 2048 && is_spiffe_id(id),
            None => is_dns_name(text),
        };
        is_name
            .then(|| Self(text.to_owned()))
            .ok_or(MalformedCertificateName)
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Returns whether a text is a DNS name (RFC 1123 §2.1, at most 253 characters) in lower case and without a wildcard.
pub fn is_dns_name(text: &str) -> bool {
    let is_label = |label: &str| {
        let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let has_hyphen_at_end = label.starts_with('-') || label.ends_with('-');
        (1..=63).contains(&label.len()) && label.bytes().all(is_allowed) && !has_hyphen_at_end
    };
    // Otherwise it is an IPv4 address.
    let last = text.rsplit('.').next().unwrap_or_default();
    text.len() <= 253 && text.split('.').all(is_label) && !last.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns whether a text is what follows `spiffe://` in an id: a trust domain and a path.
fn is_spiffe_id(text: &str) -> bool {
    let Some((domain, path)) = text.split_once('/') else {
        return false;
    };
    let is_common = |byte: u8| byte.is_ascii_digit() || b"-._".contains(&byte);
    let in_domain = |byte: u8| byte.is_ascii_lowercase() || is_common(byte);
    let is_segment = |segment: &str| {
        let in_segment = |byte: u8| byte.is_ascii_alphabetic() || is_common(byte);
        !["", ".", ".."].contains(&segment) && segment.bytes().all(in_segment)
    };
    (1..=255).contains(&domain.len()) && domain.bytes().all(in_domain) && path.split('/').all(is_segment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_name_is_a_dns_name_or_a_spiffe_id() {
        let (long_label, long_name) = ("a".repeat(63), vec!["a".repeat(49); 5].join("."));
        let long_id = format!("spiffe://example.org/{}", "a".repeat(2048 - 21));
        for good in [
            "gateway",
            "token-1.accord.example",
            "xn--bcher-kva.example",
            "4.example",
            &long_label,
            &long_name,
            "spiffe://example.org/token-service",
            "spiffe://example.org/ns/accord/sa/Gateway_1.0",
            &long_id,
        ] {
            assert_eq!(
                CertificateName::parse(good).map(|name| name.0),
                Ok(good.to_owned())
            );
        }
        for bad in [
            "",
            "*.example",
            "Gateway.example",
            "gateway.example.",
            "a..b",
            "-a.example",
            "a-.example",
            "a_b.example",
            "b\u{fc}cher.example",
            "10.0.0.1",
            "::1",
            "gateway:443",
            "https://example.org/a",
            "SPIFFE://example.org/a",
            "spiffe://example.org",
            "spiffe://example.org/",
            "spiffe://Example.org/a",
            "spiffe:///a",
            "spiffe://example.org:1/a",
            "spiffe://example.org/a/",
            "spiffe://example.org/a//b",
            "spiffe://example.org/../b",
            "spiffe://example.org/a?b",
            "spiffe://example.org/a%20b",
            &format!("{long_label}a"),
            &format!("{long_name}.aaaa"),
            &format!("{long_id}a"),
        ] {
            assert_eq!(
                CertificateName::parse(bad),
                Err(MalformedCertificateName),
                "{bad}"
            );
        }
    }

    #[test]
    fn every_list_of_names_has_another_digest() {
        let digest = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            Credential::Certificate(&names).digest()
        };
        assert_eq!(digest(&["a", "b"]), digest(&["a", "b"]));
        for other in [&["ab"][..], &["a"], &["b", "a"], &["a", "b", ""], &[]] {
            assert_ne!(digest(&["a", "b"]), digest(other), "{other:?}");
        }
    }
}
