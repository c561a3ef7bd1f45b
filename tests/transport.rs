//! Both services over TLS, by the certificates of `accord certs`, at an address that other machines reach.

use std::{
    fs,
    net::UdpSocket,
    path::Path,
    process::{Command, Output},
};

use accord::{
    keys::FileMasterKey,
    random::SystemRandom,
    text::opaque::{OpaqueToken, TokenKind},
};

use crate::harness::{
    process::{Process, accord},
    services::write_private,
};

tests!(grpcurl_reaches_both_services_by_certificates_that_are_replaced_meanwhile);

/// Returns an address of this machine that is not loopback, if it has one.
pub fn address() -> Option<String> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Sends nothing; only looks up the route.
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    let is_elsewhere = !address.is_loopback() && !address.is_unspecified();
    is_elsewhere.then(|| address.to_string())
}

fn certs(directory: &Path, arguments: &[&str]) {
    let mut certs = accord();
    certs.arg("certs").arg("--dir").arg(directory).args(arguments);
    let output = certs.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn service(name: &str, command: &str, directory: &Path, address: &str, certs: &Path) -> Command {
    let prefix = format!("ACCORD_{}", name.to_uppercase());
    let mut service = accord();
    service
        .args([name, command])
        .env(
            format!("{prefix}_DATABASE_URL"),
            format!("sqlite://{}", directory.join(format!("{name}.db")).display()),
        )
        .env(format!("{prefix}_MASTER_KEY_FILE"), directory.join("key"))
        .env(format!("{prefix}_LISTEN"), format!("{address}:0"))
        .env(
            format!("{prefix}_TLS_CERTIFICATE"),
            certs.join(format!("{name}.pem")),
        )
        .env(
            format!("{prefix}_TLS_PRIVATE_KEY"),
            certs.join(format!("{name}-key.pem")),
        )
        .env(format!("{prefix}_CLIENT_CA"), certs.join("ca.pem"))
        .env(format!("{prefix}_DRAIN_DELAY"), "1");
    match name {
        "registry" => service.env("ACCORD_REGISTRY_PUBLIC_BASE_URL", "https://auth.example"),
        _ => service
            .env("ACCORD_TOKEN_HTTP_LISTEN", format!("{address}:0"))
            .env("ACCORD_TOKEN_REGISTRY_URL", "http://127.0.0.1:1")
            .env("ACCORD_TOKEN_REGISTRY_TOKEN_FILE", directory.join("token")),
    };
    service
}

fn health(address: &str, arguments: &[&str]) -> Output {
    let mut grpcurl = Command::new("grpcurl");
    grpcurl.args(["-max-time", "20"]).args(arguments);
    grpcurl
        .args([address, "grpc.health.v1.Health/Check"])
        .output()
        .unwrap()
}

fn assert_serving(answer: &Output) {
    // NOT_SERVING contains the word, too.
    let is_serving = String::from_utf8_lossy(&answer.stdout).contains("\"SERVING\"");
    assert!(is_serving, "{answer:?}");
}

async fn grpcurl_reaches_both_services_by_certificates_that_are_replaced_meanwhile() {
    let address = address().expect("an address besides loopback");
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let (first, second) = (at("first"), at("second"));
    certs(&first, &["--host", &address]);
    certs(
        &second,
        &["--host", &address, "--ca-dir", first.to_str().unwrap()],
    );
    // The services follow this link, as they follow a secret that Kubernetes mounts.
    let current = at("current");
    std::os::unix::fs::symlink(&first, &current).unwrap();
    FileMasterKey::create(&at("key"), &SystemRandom).unwrap();
    let token = OpaqueToken::generate(TokenKind::Workload, &SystemRandom);
    write_private(&at("token"), token.expose().as_bytes());

    let mut running = Vec::new();
    for name in ["registry", "token"] {
        let command = |command: &str| service(name, command, directory.path(), &address, &current);
        assert!(command("migrate").status().unwrap().success());
        let checked = command("check-config").output().unwrap();
        assert!(checked.status.success(), "{checked:?}");
        let mut process = Process::start(command("serve"), directory.path(), name);
        let grpc = process.listening("--listen");
        process.wait_for("readiness", |process| {
            process.stderr().contains("\"ready\"").then_some(())
        });
        running.push((process, grpc));
    }

    let file = |name: &str| first.join(name).to_str().unwrap().to_owned();
    let ca = file("ca.pem");
    let (certificate, key) = (file("operator-client.pem"), file("operator-client-key.pem"));
    let trusting = ["-cacert", &*ca];
    let identified = ["-cacert", &*ca, "-cert", &*certificate, "-key", &*key];
    for (process, grpc) in &mut running {
        for arguments in [&trusting[..], &identified] {
            assert_serving(&health(grpc, arguments));
        }
        for (arguments, logged) in [
            (
                &["-plaintext"][..],
                "the client speaks plaintext, and this listener speaks TLS",
            ),
            (&[], "the client does not accept this server's certificate"),
        ] {
            let answer = health(grpc, arguments);
            assert!(!answer.status.success(), "{arguments:?}: {answer:?}");
            process.wait_for(logged, |process| process.stderr().contains(logged).then_some(()));
        }
    }

    let (token, _) = &mut running[1];
    let http = token.listening("--http-listen");
    let authority = reqwest::Certificate::from_pem(&fs::read(&ca).unwrap()).unwrap();
    let client = || {
        let client = reqwest::Client::builder()
            .tls_certs_only([authority.clone()])
            .no_proxy();
        client.build().unwrap()
    };
    let kept = client();
    let url = format!("https://{http}/healthz");
    assert_eq!(kept.get(&url).send().await.unwrap().status(), 200);

    std::os::unix::fs::symlink(&second, at("next")).unwrap();
    fs::rename(at("next"), &current).unwrap();
    for (process, grpc) in &mut running {
        process.signal("HUP");
        let changed = "new connections get the changed certificate";
        process.wait_for(changed, |process| {
            process.stderr().contains(changed).then_some(())
        });
        assert_serving(&health(grpc, &identified));
    }
    for client in [&kept, &client()] {
        assert_eq!(client.get(&url).send().await.unwrap().status(), 200);
    }

    // Not ready first, while it still answers.
    let (token, _) = &mut running[1];
    token.signal("TERM");
    token.wait_for("the stop", |process| {
        process.stderr().contains("stopping").then_some(())
    });
    let answer = kept.get(&url).send().await.unwrap();
    assert_eq!(answer.status(), 503);
    for (process, _) in &mut running {
        if !process.stderr().contains("stopping") {
            process.signal("TERM");
        }
        assert!(process.wait().success(), "{}", process.stderr());
    }
}
