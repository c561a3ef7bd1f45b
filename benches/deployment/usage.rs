//! What a slice uses: time on processors, memory, calls to registry-service, argon2 runs.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read,
    path::Path,
};

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;

use crate::{load::Window, protocol::Usage};

/// The processes behind a server.
pub struct Processes {
    /// Its replicas.
    pub servers: Vec<u32>,
    pub registry: Option<u32>,
    /// The parent of all processes of the database.
    pub database: Option<u32>,
}

/// Reads what processes use until the window ends or the work is over.
pub async fn watch(processes: Processes, window: Window, over: CancellationToken) -> Result<Usage> {
    let _ = timeout_at(window.begins.into(), over.cancelled()).await;
    let before = all_cpu(&processes)?;
    let _ = timeout_at(window.ends.into(), over.cancelled()).await;
    let after = all_cpu(&processes)?;
    let servers = processes.servers.iter().map(|server| memory(*server));
    Ok(Usage {
        cpu: [0, 1, 2].map(|part| Some(after[part]? - before[part]?)),
        server_memory: servers.sum::<Result<f64>>()?,
        registry_memory: processes.registry.map_or(Ok(0.0), memory)?,
    })
}

fn all_cpu(processes: &Processes) -> Result<[Option<f64>; 3]> {
    let servers = processes.servers.iter().map(|server| cpu(*server, false));
    let of = |process: Option<u32>, tree| process.map(|process| cpu(process, tree)).transpose();
    Ok([
        Some(servers.sum::<Result<f64>>()?),
        of(processes.registry, false)?,
        of(processes.database, true)?,
    ])
}

/// registry-service's log, which has a line for each call and each argon2 run at debug level.
pub struct RegistryLog {
    file: File,
    /// The beginning of a line whose end is not written yet.
    rest: String,
}

/// What `RUST_LOG` must be for that.
pub const REGISTRY_LOG_FILTER: &str = "warn,accord=debug,registry_service=debug";

impl RegistryLog {
    pub fn open(path: &Path) -> Result<Self> {
        let (file, rest) = (File::open(path)?, String::new());
        Ok(Self { file, rest })
    }

    /// Reads the lines since the last time: calls by method, and argon2 runs.
    pub fn read(&mut self) -> Result<(BTreeMap<String, u64>, u64)> {
        self.file.read_to_string(&mut self.rest)?;
        let complete = self.rest.rfind('\n').map_or(0, |end| end + 1);
        let text: String = self.rest.drain(..complete).collect();
        let (mut calls, mut runs) = (BTreeMap::new(), 0);
        for line in text.lines() {
            let line: Value = serde_json::from_str(line)?;
            let method = line["path"].as_str().and_then(|path| path.rsplit('/').next());
            match (line["message"].as_str(), method) {
                (Some("argon2 run"), _) => runs += 1,
                (Some("served"), Some(method)) if method != "ListChanges" => {
                    *calls.entry(method.to_owned()).or_default() += 1
                }
                _ => {}
            }
        }
        Ok((calls, runs))
    }
}

/// The kernel counts in hundredths of a second, whatever CONFIG_HZ is.
const TICK_MICROS: f64 = 10_000.0;

/// Microseconds that a process and its finished children spent on a processor; with `tree`, those of its
/// running children too.
fn cpu(pid: u32, tree: bool) -> Result<f64> {
    let [_, own, of_finished_children] = stat(pid)?;
    let mut ticks = own + of_finished_children;
    for entry in fs::read_dir("/proc")?.flatten().filter(|_| tree) {
        let child = entry.file_name().to_str().and_then(|name| name.parse().ok());
        // One that has just ended is among its parent's finished children.
        if let Some([parent, own, _]) = child.and_then(|child| stat(child).ok())
            && parent == pid
        {
            ticks += own;
        }
    }
    Ok(f64::from(ticks) * TICK_MICROS)
}

/// MiB of memory that a process has in use (its resident set).
pub fn memory(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kilobytes.context("no VmRSS")?.parse::<f64>()? / 1024.0)
}

/// The parent of a process, and the ticks of itself and of its finished children: see proc_pid_stat(5).
fn stat(pid: u32) -> Result<[u32; 3]> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is a name in parentheses, with anything in it.
    let (_, fields) = stat.rsplit_once(") ").context("no name")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let field = |number: usize| anyhow::Ok(fields.get(number - 3).context("too few fields")?.parse::<u32>()?);
    Ok([field(4)?, field(14)? + field(15)?, field(16)? + field(17)?])
}
