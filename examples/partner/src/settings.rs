//! The settings: flags, or environment variables.

// `--help` prints the comments of the flags, so that their URLs have no brackets.
#![allow(rustdoc::bare_urls)]

use std::{net::SocketAddr, path::PathBuf};

use clap::Parser;
use oauth2::{ClientId, ClientSecret};
use url::{Host, Url};

use crate::error::StartError;

/// The paths of this application besides the redirect URI.
const OWN_PATHS: [&str; 6] = [
    "/",
    "/connect",
    "/contacts",
    "/refresh",
    "/disconnect",
    "/style.css",
];

/// The command line. The secret is in a file: other users can read arguments.
#[derive(Debug, Parser)]
#[command(
    name = "example-partner",
    version,
    about = "A sample partner of Accord: connects to one tenant and reads its contacts"
)]
pub struct Flags {
    /// The Tenant Authority URL that you received
    #[arg(long, env = "PARTNER_ISSUER", value_name = "URL")]
    pub issuer: String,
    /// The Client ID that you received
    #[arg(long, env = "PARTNER_CLIENT_ID", value_name = "ID")]
    pub client_id: String,
    /// A file with the Client Secret that you received
    #[arg(long, env = "PARTNER_CLIENT_SECRET_FILE", value_name = "PATH")]
    pub client_secret_file: PathBuf,
    /// The Cloud API URL that you received
    #[arg(long, env = "PARTNER_CLOUD_API_URL", value_name = "URL")]
    pub cloud_api_url: String,
    /// The address to serve
    #[arg(
        long,
        env = "PARTNER_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:9090"
    )]
    pub listen: SocketAddr,
    /// The redirect URI, exactly as registered
    #[arg(
        long,
        env = "PARTNER_REDIRECT_URI",
        value_name = "URL",
        default_value = "http://127.0.0.1:9090/callback"
    )]
    pub redirect_uri: String,
    /// A PEM file of a private certificate authority to trust as well
    #[arg(long, env = "PARTNER_CA_FILE", value_name = "PATH")]
    pub ca_file: Option<PathBuf>,
}

/// Checked settings. `Debug` shows no secret: [`ClientSecret`] prints none.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The Tenant Authority URL, which must equal the `issuer` of the metadata byte for byte.
    pub issuer: String,
    /// The Client ID.
    pub client_id: ClientId,
    /// The Client Secret.
    pub client_secret: ClientSecret,
    /// The Cloud API URL, without a slash at the end. It is also the `resource` of token requests.
    pub cloud_api_url: String,
    /// The registered redirect URI. This application serves its path.
    pub redirect_uri: Url,
    /// Certificates of a private authority, in PEM.
    pub ca_pem: Option<Vec<u8>>,
}

impl Settings {
    /// Reads the files of the flags, and checks all settings.
    pub fn load(flags: &Flags) -> Result<Self, StartError> {
        let read =
            |path: &PathBuf| std::fs::read(path).map_err(|error| StartError::File(path.clone(), error));
        let secret = String::from_utf8(read(&flags.client_secret_file)?)
            .map_err(|_| StartError::Setting("client-secret-file", "must be text"))?;
        let settings = Self {
            issuer: flags.issuer.clone(),
            client_id: ClientId::new(flags.client_id.clone()),
            client_secret: ClientSecret::new(secret.trim_end().to_owned()),
            cloud_api_url: flags.cloud_api_url.clone(),
            redirect_uri: protected("redirect-uri", &flags.redirect_uri)?,
            ca_pem: flags.ca_file.as_ref().map(read).transpose()?,
        };
        settings.checked()
    }

    /// Checks all settings.
    pub fn checked(self) -> Result<Self, StartError> {
        for (name, value) in [("issuer", &self.issuer), ("cloud-api-url", &self.cloud_api_url)] {
            protected(name, value)?;
            if value.ends_with('/') {
                return Err(StartError::Setting(name, "must not end with a slash"));
            }
        }
        protected("redirect-uri", self.redirect_uri.as_str())?;
        let path = self.redirect_uri.path();
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"/-._~".contains(&b);
        if self.redirect_uri.query().is_some() || !path.bytes().all(is_plain) {
            return Err(StartError::Setting(
                "redirect-uri",
                "must have a plain path and no query",
            ));
        }
        if OWN_PATHS.contains(&path) {
            return Err(StartError::Setting(
                "redirect-uri",
                "must have a path of its own, such as /callback",
            ));
        }
        if self.client_secret.secret().is_empty() {
            return Err(StartError::Setting("client-secret-file", "must not be empty"));
        }
        Ok(self)
    }

    /// Returns whether browsers reach this application over TLS.
    pub(crate) fn is_https(&self) -> bool {
        self.redirect_uri.scheme() == "https"
    }
}

/// Parses a URL that may receive codes and tokens: https, or http on this machine.
pub(crate) fn protected(name: &'static str, text: &str) -> Result<Url, StartError> {
    let url = Url::parse(text).map_err(|_| StartError::Setting(name, "must be a URL"))?;
    let loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    let plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    match url.scheme() {
        "https" if plain => Ok(url),
        "http" if plain && loopback => Ok(url),
        _ => Err(StartError::Setting(
            name,
            "must be https, or http on a loopback host",
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn settings() -> Settings {
        Settings {
            issuer: "https://accord.example/firm".into(),
            client_id: ClientId::new("cli_1".into()),
            client_secret: ClientSecret::new("acs_hidden".into()),
            cloud_api_url: "https://api.firm.example/v1".into(),
            redirect_uri: "http://127.0.0.1:9090/callback".parse().unwrap(),
            ca_pem: None,
        }
    }

    #[test]
    fn urls_are_https_or_loopback() {
        assert!(settings().checked().is_ok());
        for bad in [
            "",
            "accord.example/firm",
            "http://accord.example/firm",
            "https://user@accord.example/firm",
            "https://accord.example/firm#x",
            "https://accord.example/firm/",
            "ftp://127.0.0.1/firm",
        ] {
            let other = Settings {
                issuer: bad.into(),
                ..settings()
            };
            assert!(other.checked().is_err(), "{bad}");
        }
        let local = Settings {
            issuer: "http://127.0.0.1:8080/firm".into(),
            ..settings()
        };
        assert!(local.checked().is_ok());
    }

    #[test]
    fn the_redirect_uri_has_a_path_of_its_own() {
        for (uri, accepted) in [
            ("https://app.example/oauth/callback", true),
            ("https://app.example", false),
            ("https://app.example/connect", false),
            ("https://app.example/{x}", false),
            ("https://app.example/callback?x", false),
            ("http://app.example/callback", false),
        ] {
            let other = Settings {
                redirect_uri: uri.parse().unwrap(),
                ..settings()
            };
            assert_eq!(other.checked().is_ok(), accepted, "{uri}");
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        assert!(!format!("{:?}", settings()).contains("acs_hidden"));
    }
}
