//! Limits of connections. Time is paused: it advances whenever nothing else happens.

#![allow(clippy::unwrap_used)]

use std::{convert::Infallible, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{Request, StatusCode},
    routing::get,
};
use futures_util::stream;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinHandle,
};

use super::*;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// Serves a page and an endless stream, once as gRPC (HTTP/2 alone) and once as HTTP.
struct Server {
    grpc: SocketAddr,
    http: SocketAddr,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Server {
    async fn start() -> Self {
        let grpc = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (grpc_address, http_address) = (grpc.local_addr().unwrap(), http.local_addr().unwrap());
        let endless = || async { Body::from_stream(stream::pending::<Result<Bytes, Infallible>>()) };
        let routes = Router::new()
            .route("/", get(|| async { "fine" }))
            .route("/endless", get(endless));
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let serving = tokio::spawn(async move {
            tokio::join!(
                serve_grpc(grpc, routes.clone(), &stopped),
                serve_http(http, routes, &stopped),
            );
        });
        Self {
            grpc: grpc_address,
            http: http_address,
            stop,
            serving,
        }
    }
}

/// Sends bytes and then nothing. Returns what the server sent, and how long it kept the connection.
async fn send_and_wait(server: SocketAddr, bytes: &[u8]) -> (Vec<u8>, Duration) {
    let mut connection = TcpStream::connect(server).await.unwrap();
    let started = Instant::now();
    connection.write_all(bytes).await.unwrap();
    let mut received = Vec::new();
    // A reset ends a connection too.
    let _ = connection.read_to_end(&mut received).await;
    (received, started.elapsed())
}

/// Opens an HTTP/2 connection that answers pings. The task ends with the connection.
async fn http2(server: SocketAddr) -> (SendRequest<Body>, JoinHandle<()>) {
    let stream = TokioIo::new(TcpStream::connect(server).await.unwrap());
    let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    (sender, tokio::spawn(async move { drop(connection.await) }))
}

async fn get_page(
    sender: &mut SendRequest<Body>,
    path: &str,
) -> Option<hyper::Response<hyper::body::Incoming>> {
    let request = Request::get(format!("http://a{path}"))
        .body(Body::empty())
        .unwrap();
    sender.ready().await.ok()?;
    let response = sender.send_request(request).await.ok()?;
    assert_eq!(response.status(), StatusCode::OK);
    Some(response)
}

fn seconds(least: u64, most: u64) -> std::ops::RangeInclusive<Duration> {
    Duration::from_secs(least)..=Duration::from_secs(most)
}

#[tokio::test(start_paused = true)]
async fn a_client_must_begin_within_ten_seconds() {
    let server = Server::start().await;
    for address in [server.grpc, server.http] {
        for bytes in [&b""[..], b"P", b"PRI * HTTP/2.0\r\n\r\nSM\r\n"] {
            let (received, kept) = send_and_wait(address, bytes).await;
            assert!(received.is_empty(), "{bytes:?}");
            assert!(seconds(10, 11).contains(&kept), "{bytes:?}: {kept:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn slow_headers_end() {
    let server = Server::start().await;
    for bytes in [&b"GET / HT"[..], b"GET / HTTP/1.1\r\nhost: a\r\nx: "] {
        let (_, kept) = send_and_wait(server.http, bytes).await;
        assert!(seconds(10, 81).contains(&kept), "{bytes:?}: {kept:?}");
    }
    // A byte every few seconds does not help.
    let mut connection = TcpStream::connect(server.http).await.unwrap();
    let started = Instant::now();
    connection
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\nx: ")
        .await
        .unwrap();
    let mut end = [0; 64];
    while timeout(Duration::from_secs(5), connection.read(&mut end))
        .await
        .is_err()
    {
        assert!(started.elapsed() < Duration::from_secs(90));
        let _ = connection.write_all(b"x").await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_http1_connection_outlives_the_pools_of_clients() {
    let server = Server::start().await;
    let mut connection = TcpStream::connect(server.http).await.unwrap();
    for _ in 0..3 {
        connection.write_all(REQUEST).await.unwrap();
        let mut received = vec![0; 1024];
        let length = connection.read(&mut received).await.unwrap();
        assert!(received[..length].starts_with(b"HTTP/1.1 200 "));
        sleep(Duration::from_secs(76)).await;
    }
    let (received, kept) = send_and_wait(server.http, REQUEST).await;
    assert!(received.starts_with(b"HTTP/1.1 200 "));
    assert!(seconds(76, 85).contains(&kept), "{kept:?}");
}

#[tokio::test(start_paused = true)]
async fn an_idle_http2_connection_ends_and_one_with_a_stream_goes_on() {
    let server = Server::start().await;
    for address in [server.grpc, server.http] {
        let started = Instant::now();
        let (mut idle, ended) = http2(address).await;
        drop(get_page(&mut idle, "/").await.unwrap());
        let (mut busy, busy_ended) = http2(address).await;
        let _response = get_page(&mut busy, "/endless").await.unwrap();
        ended.await.unwrap();
        assert!(
            seconds(300, 601).contains(&started.elapsed()),
            "{:?}",
            started.elapsed()
        );
        sleep(Duration::from_secs(700)).await;
        assert!(!busy_ended.is_finished());
        // Not even a stream lasts for ever.
        busy_ended.await.unwrap();
        assert!(
            seconds(3600, 4000).contains(&started.elapsed()),
            "{:?}",
            started.elapsed()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_busy_connection_ends_with_notice_after_an_hour() {
    let server = Server::start().await;
    let started = Instant::now();
    let (mut sender, ended) = http2(server.grpc).await;
    while !ended.is_finished() && get_page(&mut sender, "/").await.is_some() {
        sleep(Duration::from_secs(60)).await;
    }
    assert!(
        seconds(3600, 4050).contains(&started.elapsed()),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn the_drain_does_not_wait_for_connections_that_have_not_begun() {
    let server = Server::start().await;
    let _silent = TcpStream::connect(server.grpc).await.unwrap();
    let (mut sender, ended) = http2(server.grpc).await;
    drop(get_page(&mut sender, "/").await.unwrap());
    let stopped = Instant::now();
    server.stop.cancel();
    server.serving.await.unwrap();
    ended.await.unwrap();
    assert!(
        stopped.elapsed() < Duration::from_secs(1),
        "{:?}",
        stopped.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_line_about_accepting_is_logged_once_a_minute() {
    let mut logged = None;
    assert!(is_due(&mut logged));
    assert!(!is_due(&mut logged));
    sleep(LOG_PERIOD).await;
    assert!(is_due(&mut logged));
}
