//! This program's own child processes: their roles, and how both ends talk, a line of JSON at a time.
//!
//! A child lives as long as the pipe to its standard input: whatever becomes of its parent, it ends.

use std::{
    io::{BufRead, Write},
    process::Stdio,
};

use anyhow::{Context, bail, ensure};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use crate::{bare, load, services::keeper};

/// What a child's command line begins with; its role follows.
pub const ARGUMENT: &str = "--role";

/// What a child is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Signs over gRPC.
    GrpcSigner,
    /// Signs over HTTP.
    HttpSigner,
    /// Verifies over gRPC.
    Verifier,
    /// Calls a server and measures.
    Load,
    /// Runs a service, and ends it when nobody wants it any more.
    Keeper,
}

impl Role {
    const ALL: [Self; 5] = [
        Self::GrpcSigner,
        Self::HttpSigner,
        Self::Verifier,
        Self::Load,
        Self::Keeper,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::GrpcSigner => "grpc-signer",
            Self::HttpSigner => "http-signer",
            Self::Verifier => "verifier",
            Self::Load => "load",
            Self::Keeper => "keeper",
        }
    }

    /// Does what the rest of a child's command line says, in the child.
    pub fn run(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<()> {
        let name = arguments.next().unwrap_or_default();
        let role = Self::ALL.into_iter().find(|role| role.name() == name);
        match role.context("no such role")? {
            Self::GrpcSigner => bare::grpc::sign(),
            Self::HttpSigner => bare::http::sign(),
            Self::Verifier => bare::grpc::verify(),
            Self::Load => load::serve(),
            Self::Keeper => keeper::run(arguments),
        }
    }
}

/// A child, as its parent sees it. Dropped, it is gone.
pub struct Helper {
    role: Role,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Helper {
    /// Starts a child in a role. A terminal's signals don't reach it.
    pub fn start(role: Role) -> anyhow::Result<Self> {
        Self::start_with(role, |command| command.stderr(Stdio::inherit()))
    }

    /// The same, with a command that is changed first.
    pub fn start_with(role: Role, change: impl FnOnce(&mut Command) -> &mut Command) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([ARGUMENT, role.name()]);
        let mut child = change(&mut command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .kill_on_drop(role != Role::Keeper)
            .spawn()
            .with_context(|| format!("starting {}", role.name()))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        Ok(Self {
            role,
            child,
            stdin: Some(stdin.context("no pipe")?),
            lines: BufReader::new(stdout.context("no pipe")?).lines(),
        })
    }

    /// The child's process id.
    pub fn pid(&self) -> anyhow::Result<u32> {
        self.child
            .id()
            .with_context(|| format!("{} has ended", self.role.name()))
    }

    pub async fn tell(&mut self, message: &impl Serialize) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        let stdin = self.stdin.as_mut().context("told to end before")?;
        stdin.write_all(&line).await?;
        Ok(stdin.flush().await?)
    }

    pub async fn hear<T: DeserializeOwned>(&mut self) -> anyhow::Result<T> {
        let Some(line) = self.lines.next_line().await? else {
            bail!("{} ended in the middle", self.role.name());
        };
        Ok(serde_json::from_str(&line)?)
    }

    /// Lets the child end by itself, and waits until it has.
    pub async fn end(&mut self) -> anyhow::Result<()> {
        self.stdin = None;
        let status = self.child.wait().await?;
        ensure!(status.success(), "{}: {status}", self.role.name());
        Ok(())
    }
}

/// In a child: the next message, or `None` when the parent has no more to say.
pub fn hear<T: DeserializeOwned>() -> anyhow::Result<Option<T>> {
    let mut line = String::new();
    if std::io::stdin().lock().read_line(&mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_str(&line)?))
}

/// In a child: says something.
pub fn tell(message: &impl Serialize) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(&line)?;
    Ok(stdout.flush()?)
}

/// In a child: ends the process when the parent has no more to say.
pub fn end_with_parent() {
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        std::process::exit(0);
    });
}
