//! Runs a service for a parent that may be killed: the keeper starts it, and ends it when the pipe from
//! the parent does. The services themselves would go on for ever.

use std::{
    fs::File,
    process::{Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, bail};

use crate::child::{self, Helper, Role};

/// In a child: starts the command when the parent says so, and says its process id.
pub fn run(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let mut command = Command::new(arguments.next().context("no command")?);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
    if child::hear::<()>()?.is_none() {
        return Ok(());
    }
    let kept = command.spawn()?;
    child::tell(&kept.id())?;
    let kept = Arc::new(Mutex::new(kept));
    let ending = kept.clone();
    thread::spawn(move || {
        let _ = child::hear::<()>();
        let _ = ending.lock().unwrap_or_else(PoisonError::into_inner).kill();
    });
    loop {
        let status: Option<ExitStatus> = kept.lock().unwrap_or_else(PoisonError::into_inner).try_wait()?;
        match status {
            // Killed, as it was to be.
            Some(status) if status.code().is_none() => return Ok(()),
            Some(status) => bail!("a service ended by itself: {status}"),
            None => thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// A keeper that waits for the word to start.
pub struct Prepared(Helper);

/// A process that runs as long as this is there.
pub struct Kept {
    helper: Helper,
    pub pid: u32,
}

impl Kept {
    /// Makes all ready for a command, so that starting it is one step.
    pub fn prepare(command: &tokio::process::Command, log: File) -> anyhow::Result<Prepared> {
        let command = command.as_std();
        let helper = Helper::start_with(Role::Keeper, |keeper| {
            keeper.arg(command.get_program()).args(command.get_args());
            for (name, value) in command.get_envs() {
                match value {
                    Some(value) => keeper.env(name, value),
                    None => keeper.env_remove(name),
                };
            }
            keeper.stderr(log)
        })?;
        Ok(Prepared(helper))
    }

    /// Kills the process, and waits until it is gone.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.helper.end().await
    }
}

impl Prepared {
    pub async fn start(self) -> anyhow::Result<Kept> {
        let Self(mut helper) = self;
        helper.tell(&()).await?;
        let pid = helper.hear().await?;
        Ok(Kept { helper, pid })
    }
}
