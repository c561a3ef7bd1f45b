//! Reads `Client-Cert` and `Client-Cert-Chain` (RFC 9440): byte sequences of structured fields (RFC 8941 §3.3.5) with
//! certificates in DER form.

use axum::http::HeaderMap;
use base64::Engine;
use tokio_rustls::rustls::pki_types::CertificateDer;

use crate::{rpc::tls::peer::ClientCertificate, text::BASE64_ANY_PADDING};

const ONE: &str = "client-cert must hold one certificate: the gateway must replace it, not append to it";
const MALFORMED: &str = "client-cert must hold a certificate in DER form, in base64 between colons";
const MALFORMED_CHAIN: &str =
    "client-cert-chain must hold certificates in DER form, in base64 between colons";

/// Returns the certificate, if there is the header.
///
/// # Errors
/// The rule that the headers break. A chain without a certificate breaks one, too (RFC 9440 §2.3).
pub(super) fn read(headers: &HeaderMap) -> Result<Option<ClientCertificate>, &'static str> {
    let mut chain = Vec::new();
    let mut values = headers.get_all("client-cert").iter();
    match (values.next(), values.next()) {
        (None, _) if !headers.contains_key("client-cert-chain") => return Ok(None),
        (Some(value), None) => {
            let text = value.to_str().map_err(|_| MALFORMED)?;
            if text.contains(',') {
                return Err(ONE);
            }
            chain.push(certificate(text).ok_or(MALFORMED)?);
        }
        _ => return Err(ONE),
    }
    for value in headers.get_all("client-cert-chain") {
        let text = value.to_str().map_err(|_| MALFORMED_CHAIN)?;
        for element in text.split(',') {
            chain.push(certificate(element).ok_or(MALFORMED_CHAIN)?);
        }
    }
    ClientCertificate::read(&chain).map(Some).ok_or(MALFORMED)
}

fn certificate(sequence: &str) -> Option<CertificateDer<'static>> {
    let sequence = sequence.trim_matches([' ', '\t']);
    let encoded = sequence.strip_prefix(':')?.strip_suffix(':')?;
    Some(BASE64_ANY_PADDING.decode(encoded).ok()?.into())
}

#[cfg(test)]
#[path = "../../tests/tls/client_certificate/rfc9440.rs"]
mod tests;
