//! Where the browser goes with an answer to the client (RFC 6749 §4.1.2).

use url::Url;
use zeroize::Zeroizing;

use crate::error::Error;

/// The redirect URI with an answer to the client: what it says, the client's `state` if it sent one, and
/// `iss` (RFC 9207). A query that the URI has stays as it is. The URI must be known to be the client's.
///
/// # Errors
/// [`Error::RegistryAnswer`] for what is no URI.
pub fn answer_url(
    redirect_uri: &str,
    state_parameter: &str,
    issuer: &str,
    says: &[(&str, &str)],
) -> Result<Zeroizing<String>, Error> {
    let mut url =
        Url::parse(redirect_uri).map_err(|_| Error::RegistryAnswer("unreadable redirect URI".to_owned()))?;
    {
        let mut query = url.query_pairs_mut();
        for (name, value) in says {
            query.append_pair(name, value);
        }
        if !state_parameter.is_empty() {
            query.append_pair("state", state_parameter);
        }
        query.append_pair("iss", issuer);
    }
    Ok(Zeroizing::new(String::from(url)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_answer_keeps_the_query_and_encodes_what_it_adds() {
        let issuer = "https://accord.example/acme";
        let answer = |uri, state, says| answer_url(uri, state, issuer, &[says]).unwrap().to_string();
        assert_eq!(
            answer("https://p.example/cb", "a b&c=d+%#é", ("code", "acc_1")),
            "https://p.example/cb?code=acc_1&state=a+b%26c%3Dd%2B%25%23%C3%A9\
             &iss=https%3A%2F%2Faccord.example%2Facme"
        );
        assert_eq!(
            answer("https://p.example/cb?x=%7e&y", "", ("error", "access_denied")),
            "https://p.example/cb?x=%7e&y&error=access_denied&iss=https%3A%2F%2Faccord.example%2Facme"
        );
        assert_eq!(
            answer("http://127.0.0.1:9/cb?", "s", ("code", "acc_1")),
            "http://127.0.0.1:9/cb?code=acc_1&state=s&iss=https%3A%2F%2Faccord.example%2Facme"
        );
    }
}
