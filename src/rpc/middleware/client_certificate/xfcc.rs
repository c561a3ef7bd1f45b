//! Reads `X-Forwarded-Client-Cert` as Envoy writes it: pairs `Key=value`, separated by semicolons, of which `Cert` and `Chain`
//! hold certificates in PEM form, percent-encoded.
//!
//! The other pairs are ignored: a subject is text that the client's authority chose, and only the certificate itself is read.

use axum::http::HeaderMap;
use percent_encoding::percent_decode_str;
use tokio_rustls::rustls::pki_types::CertificateDer;

use crate::{rpc::tls::peer::ClientCertificate, tls::pem};

/// The name of the header.
const NAME: &str = "x-forwarded-client-cert";
/// The rule that a header with several elements breaks. The first one of them is not the gateway's.
const SEVERAL: &str =
    "x-forwarded-client-cert must hold one element: the gateway must replace it, not append to it";
const MALFORMED: &str = "x-forwarded-client-cert is malformed";
const WITHOUT: &str = "x-forwarded-client-cert must hold one Cert=: the gateway must pass on the certificate";
const NOT_PEM: &str = "x-forwarded-client-cert must hold a certificate in PEM form, percent-encoded once";

/// How a certificate in PEM form begins (RFC 7468 §5.1).
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";

/// Returns the certificate, if there is the header.
///
/// # Errors
/// The rule that the header breaks.
pub(super) fn read(headers: &HeaderMap) -> Result<Option<ClientCertificate>, &'static str> {
    let mut values = headers.get_all(NAME).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value.to_str().map_err(|_| MALFORMED)?,
        (Some(_), Some(_)) => return Err(SEVERAL),
    };
    let pairs = pairs(value)?;
    let one = |name: &str| {
        let mut found = pairs.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        match (found.next(), found.next()) {
            (found, None) => Ok(found.map(|(_, value)| value)),
            _ => Err(WITHOUT),
        }
    };
    let leaf = one("Cert")?.ok_or(WITHOUT)?;
    let leaf = certificates(leaf)?;
    let [leaf] = &leaf[..] else {
        return Err(WITHOUT);
    };
    let chain = match one("Chain")? {
        // The chain begins with the client's certificate.
        Some(chain) => certificates(chain)?,
        None => vec![leaf.clone()],
    };
    if chain.first() != Some(leaf) {
        return Err(MALFORMED);
    }
    ClientCertificate::read(&chain).map(Some).ok_or(NOT_PEM)
}

fn certificates(encoded: &str) -> Result<Vec<CertificateDer<'static>>, &'static str> {
    let text = percent_decode_str(encoded).decode_utf8().map_err(|_| NOT_PEM)?;
    if !text.starts_with(BEGIN) || text.contains('%') {
        return Err(NOT_PEM);
    }
    pem::certificates(text.as_bytes()).map_err(|_| NOT_PEM)
}

/// Splits the one element into its pairs. A value may be in quotes, with a backslash before quotes inside of it.
fn pairs(element: &str) -> Result<Vec<(&str, String)>, &'static str> {
    let (mut pairs, mut rest) = (Vec::new(), element.trim());
    loop {
        let (key, after) = rest.split_once('=').ok_or(MALFORMED)?;
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            return Err(if key.contains(',') { SEVERAL } else { MALFORMED });
        }
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => unquoted(quoted).ok_or(MALFORMED)?,
            None => {
                let (value, after) = after.split_at(after.find([';', ',', '"']).unwrap_or(after.len()));
                (value.to_owned(), after)
            }
        };
        pairs.push((key, value));
        rest = match after.split_at_checked(1) {
            None => return Ok(pairs),
            Some((";", next)) => next,
            Some((",", _)) => return Err(SEVERAL),
            Some(_) => return Err(MALFORMED),
        };
    }
}

/// Returns the value before the closing quote, and what follows it.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let (mut value, mut chars) = (String::new(), text.chars());
    loop {
        match chars.next()? {
            '"' => return Some((value, chars.as_str())),
            '\\' => value.push(chars.next()?),
            other => value.push(other),
        }
    }
}

#[cfg(test)]
#[path = "../../tests/tls/client_certificate/xfcc.rs"]
mod tests;
