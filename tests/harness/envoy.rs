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
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
};

use accord::testing::HeldPort;
use accord_cli::dev_file::DevFile;
use reqwest::{Certificate, Client, ClientBuilder, Identity};
use tempfile::TempDir;

use super::{
    document::{file, shell_lines},
    process::{Process, accord},
};

/// The port that an Envoy will listen on.
pub struct Place(HeldPort);

impl Place {
    /// Takes a free port.
    pub fn reserve() -> Self {
        Self(HeldPort::reserve())
    }

    fn port(&self) -> u16 {
        self.0.address().port()
    }

    /// The gateway's URL, without a trailing slash.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.port())
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
    place: Place,
    client: Client,
    directory: TempDir,
}

impl Gateway {
    /// Starts Envoy, with a certificate and a descriptor set made as `deploy/README.md` says, and waits
    /// until it listens.
    pub async fn start(place: Place, upstreams: impl Into<Upstreams>) -> Self {
        Self::start_changed(place, upstreams, |text| text).await
    }

    /// Does the same with a configuration that `change` returns.
    pub async fn start_changed(
        place: Place,
        upstreams: impl Into<Upstreams>,
        change: impl FnOnce(String) -> String,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = change(configuration(place.port(), upstreams.into()));
        std::fs::write(directory.path().join("envoy.yaml"), file).unwrap();
        Self::start_in(directory, place)
    }

    /// Starts Envoy in front of services that require mutual TLS, each with any number of replicas. `certs` holds the
    /// certificates that `accord certs` wrote.
    pub fn start_with_mtls(place: Place, replicas: &[Upstreams], certs: &Path) -> Self {
        Self::start_from_fragments(place, replicas, certs, None)
    }

    /// Also opens the listener for partners' certificates, on the port of `partners`.
    pub fn start_with_partners(place: Place, partners: &Place, upstreams: Upstreams, certs: &Path) -> Self {
        Self::start_from_fragments(place, &[upstreams], certs, Some(partners))
    }

    fn start_from_fragments(
        place: Place,
        replicas: &[Upstreams],
        certs: &Path,
        partners: Option<&Place>,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::os::unix::fs::symlink(certs, at("certs")).unwrap();
        std::fs::create_dir(at("envoy-mtls")).unwrap();
        let text = std::fs::read_to_string(file("deploy/envoy.yaml")).unwrap();
        let listens = format!("port_value: {} ", place.port());
        std::fs::write(at("envoy.yaml"), text.replace("port_value: 8443 ", &listens)).unwrap();
        for name in ["authorities.yaml", "gateway-client.yaml"] {
            let name = format!("envoy-mtls/{name}");
            std::fs::copy(file(&format!("deploy/{name}")), at(&name)).unwrap();
        }
        let mut text = std::fs::read_to_string(file("deploy/envoy-mtls/clusters.yaml")).unwrap();
        type Address = fn(&Upstreams) -> SocketAddr;
        let services: [(&str, Address); 3] = [
            ("token-service, port_value: 50052", |replica| replica.token_grpc),
            ("registry-service, port_value: 50051", |replica| {
                replica.registry_grpc
            }),
            ("token-service, port_value: 8080", |replica| replica.token_http),
        ];
        for (listed, address) in services {
            assert_eq!(text.matches(listed).count(), 1, "{listed}");
            let line = text
                .lines()
                .find(|line| line.contains(listed))
                .unwrap()
                .to_owned();
            let lines = replicas.iter().map(|replica| {
                let used = address(replica);
                line.replace(listed, &format!("{}, port_value: {}", used.ip(), used.port()))
            });
            text = text.replace(&line, &lines.collect::<Vec<_>>().join("\n"));
        }
        std::fs::write(at("envoy-mtls/clusters.yaml"), text).unwrap();
        let joined = match partners {
            None => "mtls",
            Some(partners) => {
                let text = std::fs::read_to_string(file("deploy/envoy-mtls/partners.yaml")).unwrap();
                let listens = format!("port_value: {} ", partners.port());
                let text = text.replace("port_value: 8444 ", &listens);
                std::fs::write(at("envoy-mtls/partners.yaml"), text).unwrap();
                "partners"
            }
        };
        run(Command::new("bash")
            .args(["-euo", "pipefail", "-c", &shell_lines("deploy/README.md", joined)])
            .current_dir(directory.path()));
        std::fs::rename(at("envoy-mtls.yaml"), at("envoy.yaml")).unwrap();
        Self::start_in(directory, place)
    }

    fn start_in(directory: TempDir, place: Place) -> Self {
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

        std::fs::copy(
            file("deploy/public-certificate.yaml"),
            directory.path().join("public-certificate.yaml"),
        )
        .unwrap();

        let mut command = Command::new("envoy");
        command
            .args(["-c", "envoy.yaml", "--concurrency", "2", "--log-level", "warn"])
            // Lets several gateways run side by side, and flushes the log every 50 ms.
            .args(["--disable-hot-restart", "--file-flush-interval-msec", "50"])
            .current_dir(directory.path());
        let mut process = Process::start(command, directory.path(), "envoy");
        let address = place.0.address();
        process.wait_for("a gateway that listens", |_| TcpStream::connect(address).ok());
        let client = trusting(&directory.path().join("certificate.pem"))
            .build()
            .unwrap();
        Self {
            process,
            place,
            client,
            directory,
        }
    }

    /// Its URL, without a trailing slash.
    pub fn url(&self) -> String {
        self.place.url()
    }

    /// Its address, for requests that no HTTP client sends.
    pub fn address(&self) -> SocketAddr {
        self.place.0.address()
    }

    /// A client that trusts its certificate alone, speaks HTTP/2, and follows no redirect.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// A client like [`Self::client`] with HTTP/1.1.
    pub fn http1_client(&self) -> Client {
        trusting(&self.certificate()).http1_only().build().unwrap()
    }

    /// A client like [`Self::client`] from another address of loopback, which the limits count separately.
    pub fn client_from(&self, address: Ipv4Addr) -> Client {
        let client = trusting(&self.certificate()).local_address(IpAddr::from(address));
        client.build().unwrap()
    }

    /// A client like [`Self::client`] that presents a certificate. The text holds its private key and its chain, too.
    pub fn client_with(&self, pem: &str) -> Client {
        let identity = Identity::from_pem(pem.as_bytes()).unwrap();
        trusting(&self.certificate()).identity(identity).build().unwrap()
    }

    /// The file of its self-signed certificate, in PEM form.
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
        // Marks ports already replaced, so that no later replacement matches them.
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
