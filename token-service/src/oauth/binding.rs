//! Whether the caller that brought a token holds the token's key (RFC 9449 §7.1, RFC 8705 §3) and calls from an allowed network
//! of the client. Checked only if the service reports the call's certificate, proof or address.

use std::net::IpAddr;

use accord::{
    clock::UnixMillis,
    dpop::VerifiedProof,
    text::network::AllowedNetworks,
    verify::{Confirmation, Presented, Scheme, verify_possession},
};

use crate::model::client::require_network;

/// What an internal service knows of the call that brought a token. What is empty, it does not know. No `Debug`: a proof is of
/// use to whoever reads it soon enough.
#[derive(Default)]
pub struct Binding {
    /// The DPoP proof of the call.
    pub dpop_proof: String,
    /// The method of the call.
    pub method: String,
    /// The URL of the call, as its caller wrote it.
    pub url: String,
    /// The certificate of the caller's connection, in DER.
    pub client_certificate: Vec<u8>,
    /// The address of the caller.
    pub client_address: Option<IpAddr>,
    /// The scheme in which the token came.
    pub scheme: Option<Scheme>,
}

/// The caller does not hold the key of the token, or calls from elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotBound;

impl Binding {
    /// Checks that the caller holds the key that `confirmation` names. Returns the proof, which counts once.
    ///
    /// If the scheme is not known, a token that came with a proof was sent under the scheme `DPoP`. That scheme is for tokens of a DPoP
    /// key alone (RFC 9449 §7.1), so a token of a certificate, or of no key, must come without a proof.
    pub fn check_key(
        &self,
        confirmation: Option<&Confirmation>,
        token: &str,
        now: UnixMillis,
    ) -> Result<Option<VerifiedProof>, NotBound> {
        let dpop_proof = Some(self.dpop_proof.as_str()).filter(|proof| !proof.is_empty());
        let likely = dpop_proof.map_or(Scheme::Bearer, |_| Scheme::Dpop);
        let presented = Presented {
            scheme: self.scheme.unwrap_or(likely),
            token,
            method: &self.method,
            url: &self.url,
            dpop_proof,
            client_certificate: Some(&self.client_certificate),
        };
        verify_possession(&presented, confirmation, now).map_err(|_| NotBound)
    }

    /// Checks the caller's address, if it is known, against the networks of client and grant.
    pub fn check_networks(&self, networks: [&AllowedNetworks; 2]) -> Result<(), NotBound> {
        let Some(address) = self.client_address else {
            return Ok(());
        };
        let is_allowed = |networks| require_network(networks, Some(address)).is_ok();
        networks.into_iter().all(is_allowed).then_some(()).ok_or(NotBound)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use accord::text::opaque::sha256;
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

    use super::*;

    const NOW: UnixMillis = UnixMillis::from_millis(1_800_000_000_000);

    fn certificate(der: &[u8]) -> Binding {
        Binding {
            client_certificate: der.to_vec(),
            ..Binding::default()
        }
    }

    #[test]
    fn a_certificate_is_compared_as_a_whole() {
        let thumbprint = URL_SAFE_NO_PAD.encode(sha256(b"a certificate"));
        let bound = Confirmation::Certificate(thumbprint);
        let check = |binding: &Binding| binding.check_key(Some(&bound), "token", NOW);
        assert_eq!(check(&certificate(b"a certificate")), Ok(None));
        for other in [&b""[..], b"another certificate", b"a certificate "] {
            assert_eq!(check(&certificate(other)), Err(NotBound));
        }
        // A binding to no certificate is one to none, not one to any.
        let empty = Confirmation::Certificate(URL_SAFE_NO_PAD.encode(sha256(b"")));
        assert_eq!(
            certificate(b"").check_key(Some(&empty), "token", NOW),
            Err(NotBound)
        );
    }

    #[test]
    fn a_proof_comes_with_tokens_of_its_key_alone() {
        let with_proof = Binding {
            dpop_proof: "a.b.c".into(),
            ..certificate(b"a certificate")
        };
        let thumbprint = URL_SAFE_NO_PAD.encode(sha256(b"a certificate"));
        for confirmation in [
            None,
            Some(Confirmation::Jkt("x".into())),
            Some(Confirmation::Certificate(thumbprint)),
        ] {
            let checked = with_proof.check_key(confirmation.as_ref(), "token", NOW);
            assert_eq!(checked, Err(NotBound), "{confirmation:?}");
        }
        assert_eq!(certificate(b"any").check_key(None, "token", NOW), Ok(None));
        let jkt = Confirmation::Jkt("x".into());
        let checked = certificate(b"any").check_key(Some(&jkt), "token", NOW);
        assert_eq!(checked, Err(NotBound));
    }

    #[test]
    fn networks_count_if_the_address_is_known() {
        let networks = |text: &str| AllowedNetworks::parse(&[text.to_owned()]).unwrap();
        let (client, grant) = (networks("203.0.113.0/24"), networks("203.0.113.0/28"));
        let any = AllowedNetworks::default();
        let from = |address: &str| Binding {
            client_address: Some(address.parse().unwrap()),
            ..Binding::default()
        };
        for (address, networks, expected) in [
            ("203.0.113.7", [&client, &grant], Ok(())),
            ("::ffff:203.0.113.7", [&client, &grant], Ok(())),
            ("203.0.113.99", [&client, &grant], Err(NotBound)),
            ("203.0.113.99", [&client, &any], Ok(())),
            ("198.51.100.9", [&any, &grant], Err(NotBound)),
            ("198.51.100.9", [&any, &any], Ok(())),
        ] {
            assert_eq!(from(address).check_networks(networks), expected, "{address}");
        }
        assert_eq!(Binding::default().check_networks([&client, &grant]), Ok(()));
    }
}
