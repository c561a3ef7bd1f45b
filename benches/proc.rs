//! What the kernel says of processes: time on a processor, and memory.

use std::{fs, time::Duration};

use anyhow::Context;

/// The kernel counts in hundredths of a second, whatever its own clock does.
const TICK: Duration = Duration::from_millis(10);

/// Time that a process and its finished children spent on a processor.
pub fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let stat = Stat::read(pid)?;
    Ok((stat.own + stat.of_finished_children) * TICK)
}

/// The same of a process and all below it.
pub fn cpu_of_tree(root: u32) -> anyhow::Result<Duration> {
    let mut total = cpu(root)?;
    for entry in fs::read_dir("/proc")?.flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        // One that has just ended is among its parent's finished children.
        if let Some(stat) = pid.and_then(|pid| Stat::read(pid).ok())
            && stat.parent == root
        {
            total += stat.own * TICK;
        }
    }
    Ok(total)
}

/// Bytes of memory that a process has in use (its resident set).
pub fn memory(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kilobytes.context("no VmRSS")?.parse::<u64>()? * 1024)
}

struct Stat {
    parent: u32,
    own: u32,
    of_finished_children: u32,
}

impl Stat {
    /// See proc_pid_stat(5).
    fn read(pid: u32) -> anyhow::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The second field is a name in parentheses, with anything in it.
        let (_, fields) = stat.rsplit_once(") ").context("no name")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        let field = |number: usize| -> anyhow::Result<u32> {
            Ok(fields.get(number - 3).context("too few fields")?.parse()?)
        };
        Ok(Self {
            parent: field(4)?,
            own: field(14)? + field(15)?,
            of_finished_children: field(16)? + field(17)?,
        })
    }
}
