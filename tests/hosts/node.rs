//! A host of a service, whose settings are in a directory.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::harness::{
    network::Host,
    process::{Process, accord},
};

/// A host of a service.
pub struct Node {
    pub host: Host,
    pub process: Process,
    service: &'static str,
    pub directory: PathBuf,
}

impl Node {
    pub fn start(host: Host, service: &'static str, directory: &Path) -> Self {
        let directory = directory.join(&host.name);
        let process = serve(&host, service, &directory);
        Self {
            host,
            process,
            service,
            directory,
        }
    }

    /// Ends the process as a crash does.
    pub fn kill(&mut self) {
        self.process.signal("KILL");
        self.process.wait();
    }

    /// Starts it again, and waits until it serves.
    pub fn start_again(&mut self) {
        self.process = serve(&self.host, self.service, &self.directory);
        self.process.listening("--listen");
    }
}

fn serve(host: &Host, service: &str, directory: &Path) -> Process {
    Process::start(
        host.on(&command(service, directory, &["serve"])),
        directory,
        service,
    )
}

/// A command of a service on a host whose settings are in `directory`.
pub fn command(service: &str, directory: &Path, arguments: &[&str]) -> Command {
    let mut command = accord();
    command.arg(service).args(arguments);
    command.envs(variables(&directory.join(format!("{service}.env"))));
    command.env("PGPASSFILE", directory.join(format!("{service}-pgpass")));
    let prefix = format!("ACCORD_{}", service.to_uppercase());
    command.env(
        format!("{prefix}_CONFIG"),
        directory.join(format!("{service}.toml")),
    );
    command.env(
        format!("{prefix}_MASTER_KEY_FILE"),
        directory.join(format!("{service}.key")),
    );
    if service == "registry" {
        // One operator does everything; `two_people` tests the default.
        command.env("ACCORD_REGISTRY_SECOND_OPERATOR", "false");
    }
    command
}

/// The lines of a file of variables, as systemd reads it.
fn variables(path: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().filter_map(|line| line.split_once('='));
    lines
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}
