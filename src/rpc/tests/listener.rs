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
    net::TcpStream,
    task::{JoinHandle, spawn_blocking},
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};

use super::*;
use crate::{
    rpc::{
        http::Http,
        middleware::Shared,
        tls::{
            peer::CallerCertificate,
            tests::{client, server_tls},
        },
    },
    testing::{
        certificates::{Authority, Pair, Subject},
        http2::flood,
    },
};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// Serves a page and an endless stream, once as gRPC (HTTP/2 alone) and once as HTTP.
struct Server {
    grpc: SocketAddr,
    http: SocketAddr,
    drain: Drain,
    serving: JoinHandle<()>,
}

impl Server {
    async fn start() -> Self {
        Self::start_with(None).await
    }

    async fn start_with(tls: Option<ServerTls>) -> Self {
        let grpc = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (grpc_address, http_address) = (grpc.local_addr().unwrap(), http.local_addr().unwrap());
        let endless = || async { Body::from_stream(stream::pending::<Result<Bytes, Infallible>>()) };
        let routes = Router::new()
            .route("/", get(|| async { "fine" }))
            .route("/endless", get(endless))
            .route("/peer", get(peer));
        let drain = Drain::default();
        let draining = drain.clone();
        let serving = tokio::spawn(async move {
            tokio::join!(
                serve_grpc(grpc, tls.as_ref(), routes.clone(), &draining),
                serve_http(http, tls.as_ref(), routes, &draining),
            );
        });
        Self {
            grpc: grpc_address,
            http: http_address,
            drain,
            serving,
        }
    }
}

/// Responds with the names of the client's certificate.
async fn peer(request: Request<Body>) -> String {
    let peer = request.extensions().get::<CallerCertificate>();
    peer.map_or_else(|| "none".to_owned(), |peer| peer.names.join(" "))
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
    server.drain.stop.cancel();
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

#[tokio::test]
async fn a_client_must_shake_hands_and_begin_within_ten_seconds() {
    let authority = Authority::new("test");
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_with(Some(server_tls(&authority, directory.path()))).await;
    for address in [server.grpc, server.http] {
        for bytes in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01"] {
            tokio::time::pause();
            let (received, kept) = send_and_wait(address, bytes).await;
            tokio::time::resume();
            assert!(received.is_empty(), "{bytes:?}");
            assert!(seconds(10, 11).contains(&kept), "{bytes:?}: {kept:?}");
        }
        for bytes in [&b""[..], b"PRI * HTTP/2.0\r\n"] {
            let started = Instant::now();
            let stream = TcpStream::connect(address).await.unwrap();
            let connector = TlsConnector::from(client(&authority, None));
            let name = ServerName::try_from("localhost").unwrap();
            let mut stream = connector.connect(name, stream).await.unwrap();
            stream.write_all(bytes).await.unwrap();
            stream.flush().await.unwrap();
            // Not before: a handshake waits for nothing but the network, and paused time would run ahead of it.
            tokio::time::pause();
            let _ = stream.read_to_end(&mut Vec::new()).await;
            let kept = started.elapsed();
            tokio::time::resume();
            assert!(seconds(9, 12).contains(&kept), "{bytes:?}: {kept:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_speaks_tls_to_plaintext_or_the_reverse_is_turned_away_at_once() {
    let authority = Authority::new("test");
    let directory = tempfile::tempdir().unwrap();
    let tls = Server::start_with(Some(server_tls(&authority, directory.path()))).await;
    let plaintext = Server::start().await;
    for (address, bytes) in [
        (tls.grpc, &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..]),
        (tls.http, REQUEST),
        (plaintext.grpc, b"\x16\x03\x01\x00\x05"),
        (plaintext.http, b"\x16\x03\x01\x00\x05"),
        // No TLS at all.
        (tls.http, &[0x16; 4096]),
    ] {
        let (_, kept) = send_and_wait(address, bytes).await;
        assert!(kept < Duration::from_secs(1), "{bytes:?}: {kept:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_during_the_drain_is_refused_and_a_long_call_ends_with_a_status() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let drain = Drain::default();
    let http = Http {
        ends_with_caller: &[],
        router: Router::new().route("/for-ever", get(std::future::pending::<()>)),
        error: |status| {
            let mut response = axum::http::Response::new(Body::from(format!("{:?}", status.code())));
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response
        },
    };
    let routes = http.into_routes(Shared::for_test(drain.cutoff.clone()));
    let draining = drain.clone();
    let serving = tokio::spawn(async move { serve_http(listener, None, routes, &draining).await });
    let mut call = TcpStream::connect(address).await.unwrap();
    call.write_all(b"GET /for-ever HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    sleep(Duration::from_secs(1)).await;
    let stopped = Instant::now();
    drain.stop.cancel();
    sleep(Duration::from_secs(1)).await;
    let refused = TcpStream::connect(address).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    let mut answer = String::new();
    call.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("\r\nUnavailable\r\n"),
        "{answer}"
    );
    serving.await.unwrap();
    assert!(
        seconds(10, 11).contains(&stopped.elapsed()),
        "{:?}",
        stopped.elapsed()
    );
    assert_eq!(drain.cutoff.calls(), 1);
}

#[tokio::test]
async fn a_flood_ends_its_connection_and_others_are_served() {
    let server = Server::start().await;
    let (mut other, _ended) = http2(server.grpc).await;
    for kind in ["continuations", "resets", "headers"] {
        for address in [server.grpc, server.http] {
            let sent = spawn_blocking(move || flood(address, kind, 64 * 1024 * 1024));
            let sent = sent.await.unwrap();
            assert!(sent < 64 * 1024 * 1024, "{kind}: took all {sent} bytes");
            drop(get_page(&mut other, "/").await.unwrap());
        }
    }
}

/// Opens an HTTP/2 connection over TLS.
async fn http2_over_tls(
    server: SocketAddr,
    authority: &Authority,
    pair: Option<&Pair>,
) -> (SendRequest<Body>, JoinHandle<()>) {
    let stream = TcpStream::connect(server).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(client(authority, pair));
    let stream = TokioIo::new(connector.connect(name, stream).await.unwrap());
    let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    (sender, tokio::spawn(async move { drop(connection.await) }))
}

async fn peer_of(sender: &mut SendRequest<Body>) -> String {
    let request = Request::get("http://a/peer").body(Body::empty()).unwrap();
    sender.ready().await.unwrap();
    let response = sender.send_request(request).await.unwrap();
    let body = http_body_util::BodyExt::collect(response.into_body()).await;
    String::from_utf8(body.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn a_request_has_the_certificate_of_its_connection_and_ends_with_its_authority() {
    let (authority, directory) = (Authority::new("test"), tempfile::tempdir().unwrap());
    let tls = server_tls(&authority, directory.path());
    let server = Server::start_with(Some(tls.clone())).await;
    let id = "spiffe://accord.example/gateway";
    let pair = authority.issue(&Subject::spiffe(id));
    let (mut identified, ended) = http2_over_tls(server.grpc, &authority, Some(&pair)).await;
    let (mut anonymous, anonymous_ended) = http2_over_tls(server.grpc, &authority, None).await;
    let (mut over_http, _) = http2_over_tls(server.http, &authority, Some(&pair)).await;
    for _ in 0..2 {
        assert_eq!(peer_of(&mut identified).await, id);
        assert_eq!(peer_of(&mut anonymous).await, "none");
    }
    // HTTP asks for certificates, too: of gateways and partners.
    assert_eq!(peer_of(&mut over_http).await, id);

    tls.current().retired.cancel();
    ended.await.unwrap();
    assert!(!anonymous_ended.is_finished());
    assert_eq!(peer_of(&mut anonymous).await, "none");
}
