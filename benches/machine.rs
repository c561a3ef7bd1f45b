//! What the machine is: figures say nothing without it.

use std::{
    fmt,
    fs::{self, File},
    io::Write,
    path::Path,
    thread,
    time::Instant,
};

use serde::Serialize;

use crate::{database::Server, report::median};

/// How often a write is made durable, to see how long that takes.
const SYNCS: usize = 200;

#[derive(Serialize)]
pub struct Machine {
    cores: usize,
    processor: String,
    kernel: String,
    memory_kib: u64,
    /// What was going on before: the mean number of running processes over a minute.
    load_before: String,
    disks: Vec<Disk>,
}

/// Where a database keeps its files.
#[derive(Serialize)]
struct Disk {
    database: &'static str,
    file_system: String,
    /// Median of writing a page and making it durable, in milliseconds.
    fdatasync_ms: f64,
}

impl Machine {
    pub fn look(root: &Path, servers: &[Server]) -> anyhow::Result<Self> {
        let field = |file: &str, name: &str| -> String {
            let text = fs::read_to_string(file).unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with(name));
            let value = line.and_then(|line| line.split_once(':'));
            value
                .map(|(_, value)| value.trim().to_owned())
                .unwrap_or_default()
        };
        let memory = field("/proc/meminfo", "MemTotal");
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let disks = servers
            .iter()
            .map(|server| Disk::look(server.name(), server.directory(root), root));
        Ok(Self {
            cores: thread::available_parallelism()?.get(),
            processor: field("/proc/cpuinfo", "model name"),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .unwrap_or_default()
                .trim()
                .to_owned(),
            memory_kib: memory.trim_end_matches(" kB").parse().unwrap_or_default(),
            load_before: load.split(' ').next().unwrap_or_default().to_owned(),
            disks: disks.collect::<anyhow::Result<_>>()?,
        })
    }
}

impl Disk {
    fn look(database: &'static str, directory: &Path, root: &Path) -> anyhow::Result<Self> {
        // PostgreSQL's directory is its own user's alone.
        let writable = if directory.starts_with(root) {
            root
        } else {
            directory
        };
        Ok(Self {
            database,
            file_system: file_system(&directory.canonicalize()?),
            fdatasync_ms: fdatasync(writable)?,
        })
    }
}

/// The type of the file system that a path is on.
fn file_system(path: &Path) -> String {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let under = mounts.filter(|(point, _)| path.starts_with(point));
    let deepest = under.max_by_key(|(point, _)| point.len());
    deepest.map(|(_, kind)| kind.to_owned()).unwrap_or_default()
}

fn fdatasync(directory: &Path) -> anyhow::Result<f64> {
    let path = directory.join("fdatasync");
    let mut file = File::create(&path)?;
    let mut took = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let since = Instant::now();
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        took.push(since.elapsed().as_secs_f64() * 1e3);
    }
    fs::remove_file(path)?;
    Ok(median(took))
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} cores, {}, Linux {}, {:.1} GiB; load before: {}",
            self.cores,
            self.processor,
            self.kernel,
            self.memory_kib as f64 / (1024.0 * 1024.0),
            self.load_before,
        )?;
        for disk in &self.disks {
            let Disk {
                database,
                file_system,
                fdatasync_ms,
            } = disk;
            writeln!(f, "{database} on {file_system}, fdatasync {fdatasync_ms:.3} ms")?;
        }
        Ok(())
    }
}
