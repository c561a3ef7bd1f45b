#![allow(clippy::unwrap_used, clippy::panic)]

use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;

async fn start() -> (Admin, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let metrics = PrometheusBuilder::new().build_recorder().handle();
    (serve(listener, metrics), address)
}

/// Sends bytes, and returns all that is answered.
async fn send(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    answer
}

async fn get(address: SocketAddr, path: &str) -> String {
    send(address, &format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")).await
}

#[tokio::test]
async fn a_service_lives_before_it_is_ready_and_says_why_it_is_not() {
    let (admin, address) = start().await;
    for (problem, status) in [
        (Some("the service is starting"), "503"),
        (None, "200"),
        (Some("the database can't be written"), "503"),
    ] {
        if status == "200" || problem != Some("the service is starting") {
            admin.readiness.set(problem.map(str::to_owned));
        }
        let ready = get(address, "/readyz").await;
        assert!(ready.starts_with(&format!("HTTP/1.1 {status} ")), "{ready}");
        assert!(
            ready.ends_with(&format!("{}\n", problem.unwrap_or("ready"))),
            "{ready}"
        );
        let live = get(address, "/livez").await;
        assert!(
            live.starts_with("HTTP/1.1 200 ") && live.ends_with("alive\n"),
            "{live}"
        );
    }
}

#[tokio::test]
async fn only_its_three_paths_are_served_and_only_to_get_and_head() {
    let (_admin, address) = start().await;
    let metrics = get(address, "/metrics").await;
    assert!(metrics.starts_with("HTTP/1.1 200 "), "{metrics}");
    assert!(
        metrics.contains("content-type: text/plain; version=0.0.4"),
        "{metrics}"
    );
    for (request, status) in [
        ("GET / HTTP/1.1\r\nhost: a\r\n\r\n", 404),
        ("GET /metrics/ HTTP/1.1\r\nhost: a\r\n\r\n", 404),
        (
            "POST /metrics HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n",
            405,
        ),
        ("HEAD /livez HTTP/1.1\r\nhost: a\r\n\r\n", 200),
        ("\u{16}\u{3}\u{1} TLS\r\n\r\n", 400),
        (
            &format!(
                "GET /livez HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n",
                "y".repeat(20_000)
            ),
            431,
        ),
    ] {
        let answer = send(address, request).await;
        let expected = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&expected), "{request:.40}: {answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn connections_that_say_nothing_end_and_leave_room_for_others() {
    let (_admin, address) = start().await;
    let mut silent = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    // The paused clock moves on while everything waits for these connections to end.
    let live = get(address, "/livez").await;
    assert!(live.starts_with("HTTP/1.1 200 "), "{live}");
    for mut stream in silent {
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn dropping_it_ends_the_listener() {
    let (admin, address) = start().await;
    assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200 "));
    drop(admin);
    // The task ends at its next turn.
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_taken_default_costs_the_listener_and_a_taken_setting_the_start() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    super::start("tests", None, address).await.unwrap();
    let set = Some(AdminListen(Some(address)));
    let error = super::start("tests", set, address).await.unwrap_err();
    assert!(
        error.to_string().contains(&format!("--admin-listen {address}")),
        "{error:#}"
    );
}
