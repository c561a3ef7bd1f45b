//! The settings about partners' certificates and keys.

use std::path::Path;

use accord::{
    rpc::{
        config::Problems,
        middleware::client_certificate::CertificateHeader,
        tls::{
            TlsProblem,
            partner::PartnerAuthorities,
            settings::{PartnerCertificates, TlsSettings},
        },
    },
    text::{network::AllowedNetworks, uri::server_url, validation::Violations},
};
use url::Url;

use super::Settings;

impl Settings {
    /// Returns the TLS of the listeners.
    pub fn tls(&self) -> TlsSettings {
        TlsSettings {
            partners: self.partner_certificates(),
            partner_ca: self.partner_ca.clone(),
            ..self.service.tls()
        }
    }

    /// Returns where partners may present certificates. Behind a gateway: nowhere. There the header carries the client's certificate,
    /// and the connection's own must be signed by `--client-ca`. Otherwise a gateway whose certificate has expired would count as a
    /// client.
    fn partner_certificates(&self) -> PartnerCertificates {
        let host = Url::parse(&self.mtls_base_url).ok();
        let host = host.as_ref().and_then(Url::host_str);
        match host {
            _ if self.certificate_header().is_some() => PartnerCertificates::None,
            Some(host) => PartnerCertificates::AtHost(host.to_owned()),
            None if self.has_partner_ca() => PartnerCertificates::Everywhere,
            None => PartnerCertificates::None,
        }
    }

    /// Returns whether clients may present certificates at all.
    pub fn takes_client_certificates(&self) -> bool {
        self.certificate_header().is_some() || self.partner_certificates() != PartnerCertificates::None
    }

    /// Returns the header in which gateways pass on certificates, if one is configured.
    pub fn certificate_header(&self) -> Option<CertificateHeader> {
        CertificateHeader::parse(&self.client_certificate_header).unwrap_or_default()
    }

    /// Reads the authorities of partners' certificates, if they are set.
    ///
    /// # Errors
    /// A file that can't be used, and an authority that signs workloads too.
    pub fn partner_authorities(&self) -> Result<Option<PartnerAuthorities>, TlsProblem> {
        let load = || PartnerAuthorities::load(&self.partner_ca, &self.service.client_ca);
        self.has_partner_ca().then(load).transpose()
    }

    /// Returns the networks beside the public Internet that keys may be fetched from.
    pub fn jwks_allowed_networks(&self) -> AllowedNetworks {
        self.read_networks().unwrap_or_default()
    }

    fn read_networks(&self) -> Result<AllowedNetworks, Violations> {
        let texts = self.jwks_allowed_networks.split(',').map(str::trim);
        let texts: Vec<_> = texts.filter(|text| !text.is_empty()).map(str::to_owned).collect();
        AllowedNetworks::parse(&texts)
    }

    fn has_partner_ca(&self) -> bool {
        self.partner_ca != Path::new("")
    }

    pub(super) fn check_partners(&mut self, problems: &mut Problems) {
        if let Err(violations) = self.read_networks() {
            for violation in violations.iter() {
                problems.add("jwks_allowed_networks", &violation.description);
            }
        }
        match CertificateHeader::parse(&self.client_certificate_header) {
            Err(rule) => problems.add("client_certificate_header", rule),
            // The gateway's certificate proves that the gateway wrote the header.
            Ok(Some(_)) if self.service.client_ca == Path::new("") => {
                problems.add("client_certificate_header", "needs --client-ca");
            }
            Ok(None) if self.has_partner_ca() && self.service.tls_certificate == Path::new("") => {
                problems.add("partner_ca", "needs --tls-certificate");
            }
            Ok(_) => {}
        }
        if !self.mtls_base_url.is_empty() {
            match server_url(&self.mtls_base_url) {
                Ok(url) => self.mtls_base_url = url,
                Err(problem) => problems.add("mtls_base_url", &problem),
            }
            // RFC 6066 §3: the server name of a handshake is no IP address.
            let host = Url::parse(&self.mtls_base_url).ok();
            let is_name = host.is_none_or(|url| url.domain().is_some());
            if !is_name && self.certificate_header().is_none() {
                let rule = "must have a DNS name, because partners' certificates are asked for by the name of the server";
                problems.add("mtls_base_url", rule);
            }
            let has_tls = self.service.tls_certificate != Path::new("");
            if !has_tls && self.certificate_header().is_none() {
                problems.add("mtls_base_url", "needs --tls-certificate");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use accord::rpc::config::settings::Needs;

    use super::*;

    /// With TLS, and with `[partner_ca, client_certificate_header, mtls_base_url]`.
    fn settings([partner_ca, header, url]: [&str; 3]) -> Settings {
        let mut settings = Settings {
            registry_token_file: "token".into(),
            partner_ca: partner_ca.into(),
            client_certificate_header: header.into(),
            mtls_base_url: url.into(),
            ..Settings::new("sqlite://x".into(), "key".into(), "http://127.0.0.1:50051".into())
        };
        settings.service.tls_certificate = "c".into();
        settings.service.tls_private_key = "k".into();
        settings.service.client_ca = "ca".into();
        settings
    }

    #[test]
    fn browsers_are_asked_for_no_certificate_where_partners_have_a_host_of_their_own() {
        let host = "https://mtls.example:8443/";
        for (given, expected) in [
            (["", "", ""], PartnerCertificates::None),
            (["", "none", ""], PartnerCertificates::None),
            (["p", "", ""], PartnerCertificates::Everywhere),
            (
                ["p", "", host],
                PartnerCertificates::AtHost("mtls.example".into()),
            ),
            (["", "", host], PartnerCertificates::AtHost("mtls.example".into())),
            // Behind a gateway, the header alone has them.
            (["", "xfcc", host], PartnerCertificates::None),
            (["p", "client-cert", ""], PartnerCertificates::None),
        ] {
            let checked = settings(given).checked(Needs::Everything).unwrap();
            assert_eq!(checked.tls().partners, expected, "{given:?}");
            let has_some = given.iter().any(|text| !["", "none"].contains(text));
            assert_eq!(checked.takes_client_certificates(), has_some, "{given:?}");
            assert!(!checked.mtls_base_url.ends_with('/'));
        }
    }

    #[test]
    fn networks_are_listed_with_commas() {
        let given = |networks: &str| Settings {
            jwks_allowed_networks: networks.into(),
            ..settings(["", "", ""])
        };
        for (networks, expected) in [("", ""), ("10.0.0.0/8, fd00::/8", "10.0.0.0/8 fd00::/8")] {
            let checked = given(networks).checked(Needs::Everything).unwrap();
            assert_eq!(checked.jwks_allowed_networks().to_texts().join(" "), expected);
        }
        let error = given("10.0.0.1/8").checked(Needs::Everything).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("--jwks-allowed-networks must have no bits"),
            "{error}"
        );
    }

    #[test]
    fn a_setting_that_could_not_work_is_named() {
        let without = |settings: Settings, tls: bool, client_ca: bool| {
            let mut settings = settings;
            if !tls {
                settings.service.tls_certificate = "".into();
                settings.service.tls_private_key = "".into();
            }
            if !client_ca {
                settings.service.client_ca = "".into();
            }
            settings.checked(Needs::Everything).unwrap_err().to_string()
        };
        let url = "https://mtls.example";
        for (given, tls, client_ca, problem) in [
            (
                ["", "XFCC", ""],
                true,
                true,
                "--client-certificate-header must be",
            ),
            (
                ["", "xfcc", ""],
                true,
                false,
                "--client-certificate-header needs --client-ca",
            ),
            (
                ["p", "", ""],
                false,
                false,
                "--partner-ca needs --tls-certificate",
            ),
            (
                ["", "", url],
                false,
                false,
                "--mtls-base-url needs --tls-certificate",
            ),
            (
                ["", "", "https://192.0.2.1:8443"],
                true,
                true,
                "--mtls-base-url must have a DNS name",
            ),
            (
                ["", "", "http://mtls.example"],
                true,
                true,
                "--mtls-base-url must",
            ),
            (
                ["", "", "https://mtls.example/x"],
                true,
                true,
                "--mtls-base-url must",
            ),
        ] {
            let error = without(settings(given), tls, client_ca);
            assert!(error.contains(problem), "{given:?}: {error}");
        }
    }
}
