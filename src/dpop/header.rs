//! The headers of RFC 9449 in HTTP.

use http::{HeaderMap, HeaderName};

use super::ProofError;

/// The header of a proof (RFC 9449 §4.1). Names of headers have no letter case.
pub const DPOP: HeaderName = HeaderName::from_static("dpop");

/// The header of a nonce for the next proof (RFC 9449 §8).
pub const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// Returns the proof of a request, `None` without one. It is not checked yet.
///
/// # Errors
/// [`ProofError::Repeated`] for several headers, and for several values in one, as a proxy joins them (RFC 9110 §5.3);
/// [`ProofError::Malformed`] for an empty one, and for characters that no JWT has.
pub fn from_headers(headers: &HeaderMap) -> Result<Option<&str>, ProofError> {
    let mut values = headers.get_all(DPOP).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() || value.as_bytes().contains(&b',') {
        return Err(ProofError::Repeated);
    }
    let proof = value.to_str().map_err(|_| ProofError::Malformed)?;
    if proof.is_empty() {
        return Err(ProofError::Malformed);
    }
    Ok(Some(proof))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_request_has_one_proof_or_none() {
        let proof = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|(name, value)| {
                let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                (name, value.parse().unwrap())
            });
            let mut headers = HeaderMap::new();
            pairs.for_each(|(name, value): (_, http::HeaderValue)| {
                headers.append(name, value);
            });
            from_headers(&headers).map(|proof| proof.map(str::to_owned))
        };
        assert_eq!(proof(&[]), Ok(None));
        for name in ["DPoP", "dpop", "DPOP"] {
            assert_eq!(proof(&[(name, "a.b.c")]), Ok(Some("a.b.c".into())), "{name}");
        }
        for repeated in [
            &[("DPoP", "a.b.c"), ("dpop", "a.b.c")][..],
            &[("DPoP", "a.b.c, a.b.c")],
            &[("DPoP", "a.b.c,")],
        ] {
            assert_eq!(proof(repeated), Err(ProofError::Repeated));
        }
        for malformed in ["", "\u{e9}"] {
            assert_eq!(proof(&[("DPoP", malformed)]), Err(ProofError::Malformed));
        }
    }
}
