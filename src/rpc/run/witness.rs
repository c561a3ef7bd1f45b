//! The witness: a copy of the log's signed heads outside of the database. An attacker who can edit the database can restore an older
//! state of all of it, but not of what is elsewhere.
//!
//! Nothing waits for the witness: a head that can't be pushed is counted, and the next one follows it.

use std::{
    fs::OpenOptions,
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use http::{Method, Request, Uri, header::CONTENT_TYPE};
use http_body_util::Full;
use metrics::{Counter, counter};
use prost::bytes::Bytes;
use tokio::{
    sync::watch::Receiver,
    task::{JoinHandle, spawn_blocking},
    time::{sleep, timeout},
};
use tonic::{
    body::Body,
    transport::{Channel, ClientTlsConfig, Endpoint},
};
use tower::{Service, ServiceExt};
use url::Url;

use crate::{log_limit::LogLimit, metrics::AUDIT_WITNESS_FAILURES, text::uri::is_loopback};

/// The shortest time between two heads.
const PERIOD: Duration = Duration::from_secs(60);
/// How long a push may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A failure is logged at most once in this time.
const LOG_PERIOD: Duration = Duration::from_secs(600);

static LIMIT: LogLimit = LogLimit::new(LOG_PERIOD);

/// Where heads are pushed.
#[derive(Clone, PartialEq, Eq, derive_more::Debug)]
pub enum Witness {
    /// A file that they are appended to, each with an empty line after it.
    #[debug("File")]
    File(PathBuf),
    /// A URL that each is sent to, by HTTP/2 POST.
    #[debug("Url")]
    Url(Uri),
}

impl Witness {
    /// Reads the setting: an absolute path, or an `https://` URL, or `http://` with a loopback host.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const RULE: &str = "must be an absolute path, an https:// URL, or http:// with a loopback host";
        if Path::new(text).is_absolute() {
            return Ok(Self::File(text.into()));
        }
        let url = Url::parse(text).map_err(|_| RULE)?;
        let is_loopback = url.host().is_some_and(|host| is_loopback(&host));
        let is_bare = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
        match (url.scheme(), is_loopback) {
            _ if !is_bare => Err("must hold no user name, password or fragment"),
            ("https", _) | ("http", true) => url.as_str().parse().map(Self::Url).map_err(|_| RULE),
            _ => Err(RULE),
        }
    }

    /// Pushes a checkpoint. `earlier` is the append that an earlier push may have left behind: a file system that hangs holds
    /// a thread, and a second one would hang beside it.
    async fn push(&self, checkpoint: &str, earlier: &mut Option<Append>) -> anyhow::Result<()> {
        match self {
            Self::File(path) => {
                if let Some(earlier) = earlier {
                    let _ = earlier.await;
                }
                let (path, note) = (path.clone(), format!("{checkpoint}\n"));
                let append = spawn_blocking(move || append(&path, note.as_bytes()));
                let appended = earlier.insert(append).await;
                *earlier = None;
                Ok(appended??)
            }
            Self::Url(url) => post(url, checkpoint).await,
        }
    }
}

/// A write to the witness file.
type Append = JoinHandle<io::Result<()>>;

/// Pushes each new head, at most one a minute. Ends when the sender does.
pub(super) async fn push(witness: &Witness, mut heads: Receiver<String>) {
    let failures: Counter = counter!(AUDIT_WITNESS_FAILURES);
    let mut append = None;
    while heads.changed().await.is_ok() {
        let checkpoint = heads.borrow_and_update().clone();
        let pushed = timeout(TIMEOUT, witness.push(&checkpoint, &mut append)).await;
        let pushed = pushed.unwrap_or_else(|_elapsed| bail_late());
        if let Err(error) = pushed {
            failures.increment(1);
            if LIMIT.check("").is_some() {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "the audit witness did not take a checkpoint"
                );
            }
        }
        sleep(PERIOD).await;
    }
}

fn bail_late() -> anyhow::Result<()> {
    bail!("it did not answer in time")
}

/// Appends to a file, and returns once the disk has it. Begins a new line after a note that was not written to its end.
fn append(path: &Path, note: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(path)?;
    let mut end = [b'\n'];
    if file.metadata()?.len() > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut end)?;
    }
    if end != *b"\n" {
        file.write_all(b"\n")?;
    }
    file.write_all(note)?;
    file.sync_all()
}

async fn post(url: &Uri, checkpoint: &str) -> anyhow::Result<()> {
    let mut endpoint = Endpoint::from(url.clone())
        .connect_timeout(TIMEOUT)
        .timeout(TIMEOUT);
    if url.scheme_str() == Some("https") {
        endpoint = endpoint.tls_config(ClientTlsConfig::new().with_native_roots())?;
    }
    let mut channel: Channel = endpoint.connect().await?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(url)
        .header(CONTENT_TYPE, "text/plain; charset=utf-8")
        .body(Body::new(Full::new(Bytes::copy_from_slice(
            checkpoint.as_bytes(),
        ))))?;
    let response = channel.ready().await?.call(request).await.context("the answer")?;
    match response.status().is_success() {
        true => Ok(()),
        false => bail!("it answered {}", response.status()),
    }
}

#[cfg(test)]
#[path = "../tests/witness.rs"]
mod tests;
