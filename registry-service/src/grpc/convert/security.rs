//! The fields by which requests and clients say how a client authenticates, what limits it, and which profile it follows.

use accord::{
    clock::UnixMillis,
    registry::v1::{SecurityProfile, SubmitIntegrationRequestRequest},
    text::{
        caller::is_dns_name,
        distinguished_name::DistinguishedName,
        network::AllowedNetworks,
        uri::{MAX_URL_BYTES, key_set_url},
        validation::Violations,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use url::Url;

use crate::model::{
    client::security::{AuthMethod, Authentication, CertificateSubject, MAX_DPOP_JKTS, Security},
    integration_request::RequestedSecurityProfile,
};

/// Reads them from a request.
pub fn security(v: &mut Violations, request: &SubmitIntegrationRequestRequest) -> Option<Security> {
    let method = &request.token_endpoint_auth_method;
    let method = v.optional("token_endpoint_auth_method", method, |name| {
        name.parse::<AuthMethod>().map_err(|_| {
            "must be client_secret_basic, client_secret_post, private_key_jwt, tls_client_auth or \
             self_signed_tls_client_auth"
        })
    });
    let certificate_subject = certificate_subject(v, request);
    let jwks_uri = v.optional("jwks_uri", &request.jwks_uri, key_set_url);
    let dpop_jkts = dpop_jkts(v, "dpop_jkts", &request.dpop_jkts, 0);
    let allowed_networks = allowed_networks(v, "", &request.allowed_networks);
    Some(Security {
        authentication: Authentication {
            method: method?,
            certificate_subject: certificate_subject?,
            jwks_uri: jwks_uri?,
        },
        dpop_jkts,
        allowed_networks: allowed_networks?,
    })
}

/// Reads a list of at least `least` and at most 10 different thumbprints of keys (RFC 7638 §3).
pub fn dpop_jkts(v: &mut Violations, field: &str, jkts: &[String], least: usize) -> Vec<String> {
    let read = |v: &mut Violations, field: &str, jkt: &String| {
        let is_digest = URL_SAFE_NO_PAD.decode(jkt).is_ok_and(|bytes| bytes.len() == 32);
        let rule = "must be a SHA-256 thumbprint in base64url without padding, which has 43 characters";
        v.check(field, is_digest.then(|| jkt.clone()).ok_or(rule))
    };
    let jkts = v.distinct(field, jkts, least..=MAX_DPOP_JKTS, read);
    jkts.into_iter().map(|(_, jkt)| jkt).collect()
}

/// Reads networks, at `<prefix>allowed_networks`.
pub fn allowed_networks(v: &mut Violations, prefix: &str, networks: &[String]) -> Option<AllowedNetworks> {
    let parsed = AllowedNetworks::parse(networks);
    let rejected = parsed.map_err(|violations| {
        for violation in violations.into_vec() {
            v.add(format!("{prefix}{}", violation.field), violation.description);
        }
    });
    rejected.ok()
}

/// Reads the one name that the client's certificate must hold (RFC 8705 §2.1.2).
fn certificate_subject(
    v: &mut Violations,
    request: &SubmitIntegrationRequestRequest,
) -> Option<Option<CertificateSubject>> {
    const FIELDS: [&str; 5] = [
        "tls_client_auth_subject_dn",
        "tls_client_auth_san_dns",
        "tls_client_auth_san_uri",
        "tls_client_auth_san_ip",
        "tls_client_auth_san_email",
    ];
    let texts = [
        &request.tls_client_auth_subject_dn,
        &request.tls_client_auth_san_dns,
        &request.tls_client_auth_san_uri,
        &request.tls_client_auth_san_ip,
        &request.tls_client_auth_san_email,
    ];
    let mut subjects = Vec::new();
    let set = FIELDS.into_iter().zip(texts).enumerate();
    for (index, (field, text)) in set.filter(|(_, (_, text))| !text.is_empty()) {
        let owned = || text.clone();
        let subject = match index {
            0 => v
                .check(field, DistinguishedName::parse(text))
                .map(|_| CertificateSubject::Dn(owned())),
            1 => {
                let rule = "must be a DNS name in lower case without a wildcard";
                let name = is_dns_name(text).then(|| CertificateSubject::Dns(owned()));
                v.check(field, name.ok_or(rule))
            }
            2 => v.check(field, uri(text)).map(CertificateSubject::Uri),
            3 => {
                let rule = "must be an IP address in its canonical form (RFC 5952)";
                let address = text
                    .parse()
                    .ok()
                    .filter(|address: &std::net::IpAddr| address.to_string() == *text);
                v.check(field, address.map(CertificateSubject::Ip).ok_or(rule))
            }
            _ => v.email(field, text).map(CertificateSubject::Email),
        };
        subjects.push((field, subject));
    }
    for (field, _) in subjects.iter().skip(1) {
        v.add(*field, "must be the only one of the five tls_client_auth_ names");
    }
    match subjects.pop() {
        None => Some(None),
        Some((_, subject)) => subject.map(Some),
    }
}

/// Reads an absolute URI (RFC 3986 §4.3), of any scheme, as a certificate holds it.
fn uri(text: &str) -> Result<String, &'static str> {
    let is_uri = text.len() <= MAX_URL_BYTES
        && text.bytes().all(|byte| byte.is_ascii_graphic())
        && Url::parse(text).is_ok();
    is_uri
        .then(|| text.to_owned())
        .ok_or("must be an absolute URI of at most 2048 bytes")
}

/// Reads what a request asks for of the security profile. `amends` says whether it is an amendment.
pub fn requested_security_profile(
    v: &mut Violations,
    request: &SubmitIntegrationRequestRequest,
    amends: bool,
    now: UnixMillis,
) -> Option<RequestedSecurityProfile> {
    let from = v.future_time("profile_start_time", request.profile_start_time.as_ref(), now);
    let profile = match SecurityProfile::try_from(request.security_profile) {
        Ok(SecurityProfile::Unspecified) => Ok(RequestedSecurityProfile::Unspecified),
        Ok(SecurityProfile::Fapi20) => Ok(RequestedSecurityProfile::Fapi2 { from: from.flatten() }),
        Ok(SecurityProfile::None) if amends => Ok(RequestedSecurityProfile::None),
        Ok(SecurityProfile::None) => Err("must be unspecified: a new client follows no profile to leave"),
        Err(_) => Err("must be a known security profile"),
    };
    let profile = v.check("security_profile", profile)?;
    if request.profile_start_time.is_some()
        && !(amends && matches!(profile, RequestedSecurityProfile::Fapi2 { .. }))
    {
        v.add(
            "profile_start_time",
            "must be absent without a profile, and for a new client, which follows its profile from the beginning",
        );
    }
    Some(profile)
}

/// Writes a message with these fields, and those that say how a client authenticates and what limits it.
macro_rules! with_security {
    ($security:expr, $message:path { $($fields:tt)* }) => {{
        let security: $crate::model::client::security::Security = $security;
        let authentication = security.authentication;
        let [dn, dns, uri, ip, email] = $crate::grpc::convert::security::subject_texts(authentication.certificate_subject);
        $message {
            token_endpoint_auth_method: $crate::grpc::convert::security::method_name(authentication.method),
            jwks_uri: authentication.jwks_uri.unwrap_or_default(),
            tls_client_auth_subject_dn: dn,
            tls_client_auth_san_dns: dns,
            tls_client_auth_san_uri: uri,
            tls_client_auth_san_ip: ip,
            tls_client_auth_san_email: email,
            dpop_jkts: security.dpop_jkts,
            allowed_networks: security.allowed_networks.to_texts(),
            $($fields)*
        }
    }};
}

pub(super) use with_security;

/// Returns the texts of the five fields for the name of a certificate: subject, DNS name, URI, IP address and e-mail address.
pub fn subject_texts(subject: Option<CertificateSubject>) -> [String; 5] {
    let mut texts: [String; 5] = Default::default();
    let [dn, dns, uri, ip, email] = &mut texts;
    match subject {
        None => {}
        Some(CertificateSubject::Dn(name)) => *dn = name,
        Some(CertificateSubject::Dns(name)) => *dns = name,
        Some(CertificateSubject::Uri(name)) => *uri = name,
        Some(CertificateSubject::Ip(address)) => *ip = address.to_string(),
        Some(CertificateSubject::Email(address)) => *email = address,
    }
    texts
}

/// Writes a method to authenticate; empty for none.
pub fn method_name(method: Option<AuthMethod>) -> String {
    method
        .map(|method| method.as_ref().to_owned())
        .unwrap_or_default()
}

/// Writes the profile of a client that follows FAPI 2.0 from this time on.
pub fn security_profile(fapi_from: Option<UnixMillis>) -> SecurityProfile {
    match fapi_from {
        Some(_) => SecurityProfile::Fapi20,
        None => SecurityProfile::Unspecified,
    }
}
