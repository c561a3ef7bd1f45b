//! Who tells the address of a caller, over real connections.

#![allow(clippy::unwrap_used)]

use std::{net::SocketAddr, path::Path, sync::Arc};

use axum::{Router, body::Body, http::Response, routing::get};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};
use tonic::Status;

use super::*;
use crate::{
    random::SystemRandom,
    rpc::{
        auth::{Caller, CallerDirectory, Credential, Permissions, WorkloadKind},
        context,
        http::Http,
        listener::{Drain, serve_http},
        middleware::Shared,
        status::Problem,
        tls::{
            server::ServerTls,
            tests::{client, server_tls},
        },
    },
    testing::{
        certificates::{Authority, Pair, Subject},
        test_clock,
    },
    text::id::WorkloadId,
};

/// Knows a gateway and an internal service, and can't tell about any other.
#[derive(Debug)]
struct Workloads;

#[tonic::async_trait]
impl CallerDirectory for Workloads {
    async fn find_caller(&self, credential: Credential<'_>) -> Result<Option<Caller>, Status> {
        let Credential::Certificate(names) = credential else {
            return Ok(None);
        };
        let kind = match &*names[0] {
            "spiffe://accord.example/gateway" => WorkloadKind::Gateway,
            "spiffe://accord.example/api" => WorkloadKind::InternalService,
            "spiffe://accord.example/stranger" => return Ok(None),
            _ => return Err(Problem::unavailable().into()),
        };
        let id = WorkloadId::generate(&*test_clock(), &SystemRandom);
        Ok(Some(Caller::Workload { id, kind }))
    }
}

/// Serves a page that says where its caller is.
async fn serve(tls: Option<ServerTls>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let drain = Drain::default();
    let mut shared = Shared::for_test(drain.cutoff.clone());
    shared.gateways = Gateways {
        authorizer: Authorizer::new(Permissions::new(&[]), Arc::new(Workloads), test_clock()),
        has_tls: tls.is_some(),
        trusted_hops: 1,
    };
    let http = Http {
        ends_with_caller: &[],
        router: Router::new().route("/", get(async || format!("{:?}", context::address()))),
        error: |_| Response::new(Body::empty()),
    };
    let routes = http.into_routes(shared);
    tokio::spawn(async move { serve_http(listener, tls.as_ref(), routes, &drain).await });
    address
}

/// Asks where this caller is. It claims to be a gateway that forwards 203.0.113.7.
async fn ask(server: SocketAddr, tls: Option<(&Authority, Option<&Pair>)>) -> String {
    const REQUEST: &[u8] =
        b"GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 203.0.113.7\r\nconnection: close\r\n\r\n";
    let mut stream = TcpStream::connect(server).await.unwrap();
    let mut answer = String::new();
    match tls {
        None => {
            stream.write_all(REQUEST).await.unwrap();
            stream.read_to_string(&mut answer).await.unwrap();
        }
        Some((authority, pair)) => {
            let connector = TlsConnector::from(client(authority, pair));
            let name = ServerName::try_from("localhost").unwrap();
            let mut stream = connector.connect(name, stream).await.unwrap();
            stream.write_all(REQUEST).await.unwrap();
            let _ = stream.read_to_string(&mut answer).await;
        }
    }
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    body.to_owned()
}

fn tls_of(authority: &Authority, directory: &Path) -> Option<ServerTls> {
    Some(server_tls(authority, directory))
}

#[tokio::test]
async fn a_forwarded_address_counts_if_the_connection_has_the_certificate_of_a_gateway() {
    let (authority, directory) = (Authority::new("test"), tempfile::tempdir().unwrap());
    let server = serve(tls_of(&authority, directory.path())).await;
    let pair = |id| authority.issue(&Subject::spiffe(id));
    let forwarded = "Some(Forwarded(203.0.113.7))";
    let own = "Some(Peer(127.0.0.1))";
    for (id, expected) in [
        ("spiffe://accord.example/gateway", forwarded),
        ("spiffe://accord.example/api", own),
        ("spiffe://accord.example/stranger", own),
        ("spiffe://accord.example/unanswered", "None"),
    ] {
        let asked = ask(server, Some((&authority, Some(&pair(id))))).await;
        assert_eq!(asked, expected, "{id}");
    }
    assert_eq!(ask(server, Some((&authority, None))).await, own);
    // Without TLS, whoever is on this host may be the gateway.
    assert_eq!(ask(serve(None).await, None).await, forwarded);
}
