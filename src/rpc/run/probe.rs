//! Asks a running service whether it is ready: the health check of a container without a shell.

use std::{io, net::SocketAddr, time::Duration};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::rpc::config::{AdminListen, load_some};

/// How long an answer may take. Health checks of containers have a limit of their own, which is longer.
const PATIENCE: Duration = Duration::from_secs(2);
/// The most that is read of an answer, in bytes.
const MAX_ANSWER_BYTES: u64 = 4096;

/// The one setting that this needs. Problems of the others are not its own.
#[derive(Debug, Deserialize)]
struct Settings {
    admin_listen: Option<AdminListen>,
}

/// Reads `--admin-listen` as the service does, and asks there. `default` is where the service listens if it is not set.
///
/// # Errors
/// Fails if the setting is no address, if nothing answers within two seconds, or with the reason why the service is not
/// ready.
pub async fn run(
    prefix: &str,
    file: Option<&str>,
    flags: impl Serialize,
    default: SocketAddr,
) -> anyhow::Result<()> {
    let settings: Settings = load_some(prefix, file, flags)?;
    match settings.admin_listen {
        None => require_ready(default).await,
        Some(AdminListen(Some(address))) => require_ready(address).await,
        Some(AdminListen(None)) => bail!("--admin-listen is off"),
    }
}

/// Fails unless `GET /readyz` is answered by 200. An unspecified address means this machine.
async fn require_ready(address: SocketAddr) -> anyhow::Result<()> {
    let answer = timeout(PATIENCE, ask(address)).await;
    let answer = answer.with_context(|| format!("{address} does not answer"))?;
    let answer = answer.with_context(|| format!("asking {address}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.split(' ').nth(1) {
        Some("200") => Ok(()),
        Some("503") => bail!("not ready: {}", body.trim()),
        _ => bail!("{address} is no admin listener"),
    }
}

/// Returns the start of the answer.
async fn ask(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    // HTTP/1.0: the answer is not chunked, and the connection ends after it.
    stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;

    use super::*;

    /// Answers one connection, or holds it open without an answer. Returns what the probe says.
    async fn probe(answer: Option<&'static str>) -> anyhow::Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 24];
            stream.read_exact(&mut request).await.unwrap();
            assert_eq!(&request, b"GET /readyz HTTP/1.0\r\n\r\n");
            match answer {
                Some(answer) => stream.write_all(answer.as_bytes()).await.unwrap(),
                None => std::future::pending().await,
            }
        });
        let result = require_ready(address).await;
        server.abort();
        result
    }

    #[tokio::test]
    async fn only_a_service_that_is_ready_is_healthy() {
        probe(Some("HTTP/1.0 200 OK\r\n\r\nready\n")).await.unwrap();
        probe(Some("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"))
            .await
            .unwrap();
        for (answer, expected) in [
            (
                "HTTP/1.0 503 Service Unavailable\r\n\r\nthe database\n",
                "not ready: the database",
            ),
            ("HTTP/1.0 404 Not Found\r\n\r\n200", "is no admin listener"),
            ("", "is no admin listener"),
            ("garbage", "is no admin listener"),
        ] {
            let error = probe(Some(answer)).await.unwrap_err().to_string();
            assert!(error.ends_with(expected), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_hangs_or_is_gone_is_not_healthy() {
        let error = probe(None).await.unwrap_err().to_string();
        assert!(error.ends_with("does not answer"), "{error}");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert!(require_ready(address).await.is_err());
    }

    #[tokio::test]
    async fn the_address_is_that_of_the_service() {
        let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        #[derive(Serialize)]
        struct Flags {
            admin_listen: &'static str,
            database_url: &'static str,
        }
        let flags = |admin_listen| Flags {
            admin_listen,
            database_url: "x",
        };
        let error = run("ACCORD_NOBODY_", None, flags("127.0.0.1:2"), nobody)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("127.0.0.1:2"), "{error}");
        let error = run("ACCORD_NOBODY_", None, flags(""), nobody).await.unwrap_err();
        assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
        let error = run("ACCORD_NOBODY_", None, flags("off"), nobody)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("--admin-listen is off"), "{error}");
        let error = run("ACCORD_NOBODY_", None, flags("somewhere"), nobody)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("--admin-listen must be"), "{error}");
    }
}
