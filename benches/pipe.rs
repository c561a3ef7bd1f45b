//! Child processes of this program, and the lines of JSON between both ends.
//!
//! A child lives as long as the pipe to its standard input, so it ends however its parent ends.

use std::{io::Write, path::Path, process::Stdio, thread};

use anyhow::{Context, Result, anyhow, ensure};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
};

/// The argument before a child's role.
pub const ROLE: &str = "--role";

/// A child, as its parent sees it.
pub struct Process {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts a program in a role. A terminal's signals don't reach it.
    pub fn start(program: &Path, role: &str) -> Result<Self> {
        let mut child = Command::new(program)
            .args([ROLE, role])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {} as {role}", program.display()))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        Ok(Self {
            child,
            stdin: stdin.context("no pipe")?,
            lines: BufReader::new(stdout.context("no pipe")?).lines(),
        })
    }

    pub fn pid(&self) -> Result<u32> {
        self.child.id().context("a child has ended")
    }

    /// Sends a request and receives the answer, or the child's error.
    pub async fn request<T: DeserializeOwned>(&mut self, request: &impl Serialize) -> Result<T> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.stdin.write_all(&line).await?;
        self.receive().await
    }

    pub async fn receive<T: DeserializeOwned>(&mut self) -> Result<T> {
        let line = self.lines.next_line().await?.context("a child has ended")?;
        serde_json::from_str::<Result<T, String>>(&line)?.map_err(|error| anyhow!(error))
    }

    /// Closes the pipe and waits until the child has ended.
    pub async fn end(self) -> Result<()> {
        let Self { mut child, stdin, .. } = self;
        drop(stdin);
        let status = child.wait().await?;
        ensure!(status.success(), "a child: {status}");
        Ok(())
    }
}

/// In a child: sends an answer.
pub fn send<T: Serialize>(answer: Result<T>) -> Result<()> {
    let mut line = serde_json::to_vec(&answer.map_err(|error| format!("{error:#}")))?;
    line.push(b'\n');
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(&line)?;
    Ok(stdout.flush()?)
}

/// In a child: the parent's requests. They end with the pipe.
pub fn requests<T: for<'de> Deserialize<'de> + Send + 'static>() -> UnboundedReceiver<T> {
    let (sender, receiver) = unbounded_channel();
    thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            match serde_json::from_str(&line).map(|request| sender.send(request)) {
                Ok(Ok(())) => {}
                _ => return,
            }
        }
    });
    receiver
}
