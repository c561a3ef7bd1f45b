//! How `accord audit` reaches a service: as an operator, whose token comes from a file or the environment, never from the
//! command line, which other users of the machine can read.

use std::{
    env,
    path::{Path, PathBuf},
};

use accord::{
    keys::read_secret_text,
    rpc::channel::{Addresses, HopChannel, HopToken, Target},
    text::opaque::{OpaqueToken, TokenKind},
    tls::{ClientTls, TlsFiles},
};
use anyhow::{Context, anyhow, bail};
use clap::Args;

use crate::dev_file::DevFile;

/// The variable with an operator's token.
const TOKEN: &str = "ACCORD_OPERATOR_TOKEN";
/// The longest file with a token, in bytes.
const MAX_TOKEN_BYTES: usize = 1024;

/// Where token-service is, and the operator who calls it.
#[derive(Debug, Args)]
pub struct TokenServiceAccess {
    /// The data directory of a running `accord dev`, whose token-service and operator are used without `--token-url`.
    #[arg(long, value_name = "DIR", default_value = "accord-data")]
    data_dir: PathBuf,
    /// The gRPC address of token-service: `https://host:port`, or `http://` with a loopback host. The operator's token is in
    /// ACCORD_OPERATOR_TOKEN, or in --operator-token-file.
    #[arg(id = "url", long = "token-url", value_name = "URL")]
    token_url: Option<String>,
    /// The operator.
    #[command(flatten)]
    caller: Caller,
}

/// The operator who calls a service.
#[derive(Debug, Args)]
pub struct Caller {
    /// The file with an operator's token, which only this user can read.
    #[arg(long, value_name = "FILE", requires = "url")]
    operator_token_file: Option<PathBuf>,
    /// The authorities of the service's certificate.
    #[arg(long, value_name = "FILE", requires = "url")]
    ca: Option<PathBuf>,
    /// The operator's own certificate, with its chain.
    #[arg(long, value_name = "FILE", requires_all = ["ca", "client_key"])]
    client_certificate: Option<PathBuf>,
    /// The private key of that certificate.
    #[arg(long, value_name = "FILE", requires = "client_certificate")]
    client_key: Option<PathBuf>,
}

impl TokenServiceAccess {
    /// Opens a channel whose calls carry the operator's token.
    ///
    /// # Errors
    /// Names the setting that can't be used, and never its content.
    pub fn open(&self) -> anyhow::Result<HopChannel> {
        let Some(url) = &self.token_url else {
            let file = DevFile::read(&self.data_dir)?;
            return crate::call::with_token(&file.token_grpc, &file.operator_token);
        };
        self.caller.open("--token-url", url)
    }
}

impl Caller {
    /// Opens a channel to a URL, which an argument names. Its calls carry the operator's token.
    ///
    /// # Errors
    /// Names the setting that can't be used, and never its content.
    pub(super) fn open(&self, argument: &str, url: &str) -> anyhow::Result<HopChannel> {
        let addresses = Addresses::parse(url).map_err(|rule| anyhow!("{argument} {rule}"))?;
        if addresses.has_tls() && self.ca.is_none() {
            bail!("--ca is missing: https:// in {argument} needs it");
        }
        let target = Target::new(addresses, self.tls()?).map_err(|rule| anyhow!("{argument} {rule}"))?;
        let token = operator_token(self.operator_token_file.as_deref())?;
        Ok(HopChannel::new(target, Some(HopToken::fixed(&token))))
    }

    fn tls(&self) -> anyhow::Result<Option<ClientTls>> {
        let Some(authorities) = &self.ca else {
            return Ok(None);
        };
        let files = TlsFiles {
            authorities: authorities.clone(),
            identity: self.client_certificate.clone().zip(self.client_key.clone()),
        };
        let loaded = ClientTls::load(files).map_err(|error| anyhow!("{:?}: {error}", error.file))?;
        Ok(Some(loaded))
    }
}

/// Reads an operator's token from a file, or from the environment.
pub(super) fn operator_token(file: Option<&Path>) -> anyhow::Result<OpaqueToken> {
    let parse = |text: &str, name: &str| {
        let parsed = OpaqueToken::parse(TokenKind::Operator, text.trim());
        parsed.with_context(|| format!("{name} must hold an operator's token"))
    };
    match file {
        Some(path) => {
            let text = read_secret_text(path, MAX_TOKEN_BYTES).context("--operator-token-file")?;
            parse(&text, "--operator-token-file")
        }
        None => {
            let text = env::var(TOKEN).with_context(|| format!("{TOKEN}, or --operator-token-file"))?;
            parse(&text, TOKEN)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_url_with_tls_needs_authorities() {
        let caller = Caller {
            operator_token_file: None,
            ca: None,
            client_certificate: None,
            client_key: None,
        };
        let opened = caller.open("--token-url", "https://token.example:50052");
        let error = opened.err().unwrap().to_string();
        assert_eq!(error, "--ca is missing: https:// in --token-url needs it");
    }
}
