//! The command `health` of both services, as a container's health check runs it.

use std::{
    io::{Read, Write},
    net::TcpListener,
    process::Output,
    thread,
};

use super::said;
use crate::harness::process::accord;

tests!(health_says_what_the_admin_listener_says,);

/// Runs `health` of a service with this answer at its admin listener. Nothing else is set, and nothing else is needed.
fn health(service: &str, answer: &'static str) -> Output {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 24];
        stream.read_exact(&mut request).unwrap();
        assert!(request.starts_with(b"GET /readyz HTTP/"));
        stream.write_all(answer.as_bytes()).unwrap();
    });
    let variable = format!("ACCORD_{}_ADMIN_LISTEN", service.to_uppercase());
    let output = accord()
        .args([service, "health"])
        .env(variable, address.to_string())
        .output();
    server.join().unwrap();
    output.unwrap()
}

async fn health_says_what_the_admin_listener_says() {
    for service in ["registry", "token"] {
        let ready = health(service, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        assert!(
            ready.status.success() && ready.stderr.is_empty(),
            "{}",
            said(&ready)
        );
        let away = "HTTP/1.1 503 Service Unavailable\r\n\r\nthe database does not answer\n";
        let away = health(service, away);
        assert!(!away.status.success());
        assert!(
            said(&away).ends_with("not ready: the database does not answer\n"),
            "{}",
            said(&away)
        );
    }
    let mut off = accord();
    off.args(["registry", "health"])
        .env("ACCORD_REGISTRY_ADMIN_LISTEN", "off");
    let off = off.output().unwrap();
    assert!(
        !off.status.success() && said(&off).contains("--admin-listen is off"),
        "{}",
        said(&off)
    );
}
