//! What the hosts of tests must be before anything on them proves something.

use std::{io::ErrorKind, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::harness::network::{Network, TEST_ADDRESS};

tests_on_hosts!(
    a_host_that_is_cut_off_is_silent_until_it_joins_again,
    a_host_has_its_own_loopback_and_knows_the_others,
);

/// How long a packet that arrives takes at most.
const ARRIVES: Duration = Duration::from_secs(10);
/// How long nothing must come from a host that is cut off: longer than three ARP requests without an answer.
const SILENT: Duration = Duration::from_secs(4);

async fn a_host_that_is_cut_off_is_silent_until_it_joins_again() {
    let mut network = Network::new();
    let host = network.host("echo");
    let mut echo = host
        .command("python3")
        .args(["-c", ECHO])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let connect = async || loop {
        match TcpStream::connect(("echo", 9000)).await {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => tokio::task::yield_now().await,
            connected => break connected.unwrap(),
        }
    };
    let mut kept = timeout(ARRIVES, connect()).await.unwrap();
    kept.write_all(b"a").await.unwrap();
    assert_eq!(timeout(ARRIVES, kept.read_u8()).await.unwrap().unwrap(), b'a');

    host.cut();
    kept.write_all(b"b").await.unwrap();
    let (answer, connected) = tokio::join!(
        timeout(SILENT, kept.read_u8()),
        timeout(SILENT, TcpStream::connect(("echo", 9000)))
    );
    assert!(answer.is_err(), "{answer:?}");
    assert!(connected.is_err(), "{connected:?}");

    host.join();
    assert_eq!(timeout(ARRIVES, kept.read_u8()).await.unwrap().unwrap(), b'b');
    timeout(ARRIVES, connect()).await.unwrap();
    echo.kill().unwrap();
    echo.wait().unwrap();
}

/// Returns each byte on port 9000.
const ECHO: &str = "
import socketserver
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while byte := self.request.recv(1):
            self.request.sendall(byte)
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
Server(('0.0.0.0', 9000), Echo).serve_forever()
";

async fn a_host_has_its_own_loopback_and_knows_the_others() {
    let mut network = Network::new();
    let (first, second) = (network.host("first"), network.host("second"));
    network.name("both", &[&first, &second]);
    let own = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let on_bridge = TcpListener::bind((TEST_ADDRESS, 0)).await.unwrap();
    let connects = |to: String, port: u16| {
        let connect = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)";
        let mut command = first.command("python3");
        command
            .args(["-c", connect, &to, &port.to_string()])
            .stderr(Stdio::null());
        command.status().unwrap().success()
    };
    assert!(!connects("127.0.0.1".into(), own.local_addr().unwrap().port()));
    assert!(connects(
        TEST_ADDRESS.to_string(),
        on_bridge.local_addr().unwrap().port()
    ));
    let found = first
        .command("getent")
        .args(["ahostsv4", "both"])
        .output()
        .unwrap();
    let found = String::from_utf8(found.stdout).unwrap();
    for host in [&first, &second] {
        assert!(found.contains(&host.address.to_string()), "{found}");
    }
}
