//! The real Envoy with `deploy/envoy.yaml`, on loopback, in front of services or of a test's stand-ins.
//!
//! The gateway's URL is the public base URL of the services behind it, so it is known before they start:
//!
//! ```ignore
//! let place = envoy::Place::reserve();
//! let (_directory, dev) = dev::start_behind(&place.url()).await;
//! let gateway = Gateway::start(place, &dev.file).await;
//! gateway.client().get(format!("{}/...", gateway.url()))
//! ```

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
};

use accord_cli::dev_file::DevFile;
use reqwest::{Certificate, Client, ClientBuilder};
use tempfile::TempDir;
use tokio::net::TcpSocket;

use super::{
    document::{file, shell_lines},
    process::{Process, accord},
};

/// The port that an Envoy will listen on.
pub struct Place {
    port: u16,
    /// Bound but not listening: no other process gets the port, and Envoy, which shares it by `SO_REUSEPORT`, gets
    /// every connection.
    _held: TcpSocket,
}

impl Place {
    /// Takes a free port.
    pub fn reserve() -> Self {
        let held = TcpSocket::new_v4().unwrap();
        held.set_reuseport(true).unwrap();
        held.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let port = held.local_addr().unwrap().port();
        Self { port, _held: held }
    }

    /// The gateway's URL, without a trailing slash.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }
}

/// The services behind the gateway.
#[derive(Clone, Copy, Debug)]
pub struct Upstreams {
    pub registry_grpc: SocketAddr,
    pub token_grpc: SocketAddr,
    pub token_http: SocketAddr,
}

impl From<&DevFile> for Upstreams {
    fn from(file: &DevFile) -> Self {
        let http = file.http_url.strip_prefix("http://").unwrap();
        Self {
            registry_grpc: file.registry_grpc.parse().unwrap(),
            token_grpc: file.token_grpc.parse().unwrap(),
            token_http: http.parse().unwrap(),
        }
    }
}

/// A running gateway. It ends when it is dropped.
pub struct Gateway {
    process: Process,
    port: u16,
    client: Client,
    directory: TempDir,
}

impl Gateway {
    /// Starts Envoy, with a certificate and a descriptor set made as `deploy/README.md` says, and waits
    /// until it listens.
    pub async fn start(place: Place, upstreams: impl Into<Upstreams>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = configuration(place.port, upstreams.into());
        std::fs::write(directory.path().join("envoy.yaml"), file).unwrap();
        run(accord()
            .args(["descriptors", "--out", "accord.bin"])
            .current_dir(directory.path()));
        run(Command::new("bash")
            .args([
                "-euo",
                "pipefail",
                "-c",
                &shell_lines("deploy/README.md", "certificate"),
            ])
            .current_dir(directory.path()));

        let mut command = Command::new("envoy");
        command
            .args(["-c", "envoy.yaml", "--concurrency", "2", "--log-level", "warn"])
            // Several gateways at a time share nothing; log lines are there soon.
            .args(["--disable-hot-restart", "--file-flush-interval-msec", "50"])
            .current_dir(directory.path());
        let mut process = Process::start(command, directory.path(), "envoy");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, place.port));
        process.wait_for("a gateway that listens", |_| TcpStream::connect(address).ok());
        let client = trusting(&directory.path().join("certificate.pem"))
            .build()
            .unwrap();
        Self {
            process,
            port: place.port,
            client,
            directory,
        }
    }

    /// Its URL, without a trailing slash.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// Its address, for requests that no HTTP client sends.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// A client that trusts its certificate alone, speaks HTTP/2, and follows no redirect.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// A client like [`Self::client`] with HTTP/1.1.
    pub fn http1_client(&self) -> Client {
        trusting(&self.certificate()).http1_only().build().unwrap()
    }

    /// The file of its certificate, in PEM form; it is its own authority.
    pub fn certificate(&self) -> PathBuf {
        self.directory.path().join("certificate.pem")
    }

    /// The lines of the access log so far.
    pub fn log(&self) -> Vec<serde_json::Value> {
        let text = self.process.stdout();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let line = |line| serde_json::from_str(line).unwrap();
        whole.lines().map(line).collect()
    }

    /// Waits for a line of the access log.
    pub fn logged(&mut self, what: &str, fits: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let lines = |process: &Process| {
            let text = process.stdout();
            let whole = text.rfind('\n').map(|end| text[..end].to_owned())?;
            let mut lines = whole.lines().map(|line| serde_json::from_str(line).unwrap());
            lines.find(|line| fits(line))
        };
        self.process.wait_for(what, lines)
    }

    /// Everything that Envoy has written to both streams.
    pub fn printed(&self) -> String {
        format!("{}{}", self.process.stdout(), self.process.stderr())
    }
}

/// A client that trusts this certificate alone.
fn trusting(certificate: &Path) -> ClientBuilder {
    let pem = std::fs::read(certificate).unwrap();
    let certificate = Certificate::from_pem(&pem).unwrap();
    Client::builder()
        .tls_certs_only([certificate])
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
}

/// `deploy/envoy.yaml` with other ports, and nothing else changed.
fn configuration(port: u16, upstreams: Upstreams) -> String {
    let mut text = std::fs::read_to_string(file("deploy/envoy.yaml")).unwrap();
    for (listed, used) in [
        (8443, port),
        (50051, upstreams.registry_grpc.port()),
        (50052, upstreams.token_grpc.port()),
        (8080, upstreams.token_http.port()),
    ] {
        let listed = format!("port_value: {listed} ");
        // Named so that a port given before can't be taken for one that is yet to be replaced.
        let used = format!("port_value: PORT{used} ");
        assert_eq!(text.matches(&listed).count(), 1, "{listed}");
        text = text.replace(&listed, &used);
    }
    assert_eq!(text.matches("address: 127.0.0.1").count(), 4, "loopback alone");
    text.replace("port_value: PORT", "port_value: ")
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
}
