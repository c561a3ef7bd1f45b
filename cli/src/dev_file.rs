//! `dev.json`: the addresses and the plaintext credentials of a running `accord dev`.
//!
//! No other file holds plaintext. Only its owner can read it, and it exists only while the environment is running.

use std::{
    fmt, fs, io,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// The content of `dev.json`.
#[derive(Clone, Serialize, Deserialize)]
pub struct DevFile {
    /// registry-service's gRPC address, `host:port`.
    pub registry_grpc: String,
    /// token-service's gRPC address, `host:port`.
    pub token_grpc: String,
    /// The HTTP listener's base URL, without a trailing slash.
    pub http_url: String,
    /// Bearer token of an operator with every role.
    pub operator_token: String,
    /// Bearer token of a workload of kind internal-service.
    pub workload_token: String,
    /// The demonstration tenant.
    pub tenant_id: String,
    /// The issuer of its tokens.
    pub tenant_authority_url: String,
    /// The audience of its tokens.
    pub cloud_api_url: String,
    /// Account name of its Tenant Admin.
    pub admin_account_name: String,
    /// That admin's password.
    pub admin_password: String,
    /// Account name of a user that API transactions can run as.
    pub api_user_account_name: String,
    /// The scopes of the catalogue.
    pub scopes: Vec<String>,
}

impl fmt::Debug for DevFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevFile")
            .field("registry_grpc", &self.registry_grpc)
            .field("token_grpc", &self.token_grpc)
            .field("http_url", &self.http_url)
            .finish_non_exhaustive()
    }
}

impl DevFile {
    /// Returns the path of the file in a data directory.
    pub fn path(data_dir: &Path) -> PathBuf {
        data_dir.join("dev.json")
    }

    /// Reads the file of a running environment.
    pub fn read(data_dir: &Path) -> anyhow::Result<Self> {
        let path = Self::path(data_dir);
        let text = fs::read_to_string(&path)
            .with_context(|| format!("can't read {}; is `accord dev` running there?", path.display()))?;
        serde_json::from_str(&text)
            .with_context(|| format!("{} was not written by `accord dev`", path.display()))
    }

    /// Writes the file with mode 0600, by a rename, so that a reader sees the whole file or none.
    pub fn write(&self, data_dir: &Path) -> anyhow::Result<()> {
        let partial = data_dir.join("dev.json.partial");
        remove_if_exists(&partial)?;
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&partial)?;
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&partial, Self::path(data_dir))?;
        Ok(())
    }

    /// Removes the file, if it exists.
    pub fn remove(data_dir: &Path) -> io::Result<()> {
        remove_if_exists(&Self::path(data_dir))
    }
}

fn remove_if_exists(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
