//! What a slice uses: time on processors, memory, calls to registry-service, argon2 runs.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read,
    path::Path,
};

use anyhow::{Context, Result};
use serde::Deserialize;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use crate::{load::Window, protocol::Usage};

/// The processes behind a server: itself, registry-service, and the one that all of the database's descend from.
pub type Processes = [Option<u32>; 3];

/// Reads what processes use until the window ends or the work is over.
pub async fn watch(processes: Processes, window: Window, over: CancellationToken) -> Result<Usage> {
    tokio::select! {
        () = sleep_until(window.begins.into()) => {}
        () = over.cancelled() => {}
    }
    let before = all_cpu(processes)?;
    tokio::select! {
        () = sleep_until(window.ends.into()) => {}
        () = over.cancelled() => {}
    }
    let after = all_cpu(processes)?;
    Ok(Usage {
        cpu: [0, 1, 2].map(|part| Some(after[part]? - before[part]?)),
        server_memory: processes[0].map_or(Ok(0.0), memory)?,
        registry_memory: processes[1].map_or(Ok(0.0), memory)?,
    })
}

fn all_cpu(processes: Processes) -> Result<[Option<f64>; 3]> {
    let [server, registry, database] = processes;
    let of = |process: Option<u32>, tree| process.map(|process| cpu(process, tree)).transpose();
    Ok([of(server, false)?, of(registry, false)?, of(database, true)?])
}

/// registry-service's log, which has a line for each call and each argon2 run at debug level.
pub struct RegistryLog {
    file: File,
    /// The beginning of a line whose end is not written yet.
    rest: String,
}

/// What `RUST_LOG` must be for that.
pub const REGISTRY_LOG_FILTER: &str = "warn,accord=debug,registry_service=debug";

#[derive(Deserialize)]
struct LogEntry {
    #[serde(default)]
    message: String,
    #[serde(default)]
    path: String,
}

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
            let line: LogEntry = serde_json::from_str(line)?;
            let method = line.path.rsplit('/').next().unwrap_or_default();
            match line.message.as_str() {
                "argon2 run" => runs += 1,
                "served" if method != "ListChanges" => *calls.entry(method.to_owned()).or_default() += 1,
                _ => {}
            }
        }
        Ok((calls, runs))
    }
}

/// The kernel counts in hundredths of a second, whatever its own clock does.
const TICK_MICROS: f64 = 10_000.0;

/// Microseconds that a process and its finished children spent on a processor; with `tree`, those of its
/// running children too.
fn cpu(pid: u32, tree: bool) -> Result<f64> {
    let process = Stat::read(pid)?;
    let mut ticks = process.own + process.of_finished_children;
    for entry in fs::read_dir("/proc")?.flatten().filter(|_| tree) {
        let child = entry.file_name().to_str().and_then(|name| name.parse().ok());
        // One that has just ended is among its parent's finished children.
        if let Some(stat) = child.and_then(|child| Stat::read(child).ok())
            && stat.parent == pid
        {
            ticks += stat.own;
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

struct Stat {
    parent: u32,
    own: u32,
    of_finished_children: u32,
}

impl Stat {
    /// See proc_pid_stat(5).
    fn read(pid: u32) -> Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The second field is a name in parentheses, with anything in it.
        let (_, fields) = stat.rsplit_once(") ").context("no name")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        let field =
            |number: usize| anyhow::Ok(fields.get(number - 3).context("too few fields")?.parse::<u32>()?);
        Ok(Self {
            parent: field(4)?,
            own: field(14)? + field(15)?,
            of_finished_children: field(16)? + field(17)?,
        })
    }
}
