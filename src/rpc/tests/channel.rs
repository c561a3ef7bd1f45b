#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    io::Write,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;

use super::*;
use crate::{
    clock::SystemClock,
    random::SeededRandom,
    registry::v1::{
        self as pb, directory_service_client::DirectoryServiceClient,
        tenant_service_client::TenantServiceClient,
    },
    rpc::{
        context::CallContext,
        tls::{
            handshake,
            peer::Peer,
            server::ServerTls,
            settings::{PartnerCertificates, TlsSettings},
        },
    },
    testing::certificates::{Authority, Pair, Subject},
    text::opaque::TokenKind,
    tls::{ClientTls, TlsFiles},
};

#[path = "channel/over_tls.rs"]
mod over_tls;

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[tokio::test(start_paused = true)]
async fn the_next_hop_gets_less_time_the_same_request_id_and_the_trace() {
    let context = CallContext {
        address: None,
        request_id: "request-1".into(),
        deadline: Instant::now() + Duration::from_secs(10),
        trace: TraceParent::parse(TRACE),
        notes: Default::default(),
    };
    let mut headers = HeaderMap::new();
    let deadline = context::scope(context, async { prepare(&mut headers) }).await;
    assert_eq!(deadline.unwrap() - Instant::now(), Duration::from_secs(9));
    assert_eq!(headers.get(REQUEST_ID).unwrap(), "request-1");
    assert_eq!(headers.get("traceparent").unwrap(), TRACE);
}

#[tokio::test(start_paused = true)]
async fn no_call_is_sent_after_the_deadline() {
    let context = CallContext {
        address: None,
        request_id: "request-1".into(),
        deadline: Instant::now(),
        trace: None,
        notes: Default::default(),
    };
    let prepared = context::scope(context, async { prepare(&mut HeaderMap::new()) }).await;
    assert_eq!(prepared.unwrap_err().code(), Code::DeadlineExceeded);
}

/// What a replica does with calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behaviour {
    Answer,
    Hang,
    SayUnavailable,
    BreakOff,
    /// Answers with more than a channel takes.
    AnswerTooMuch,
    /// Rejects every token but this one.
    Require(&'static str),
}

/// A replica of the registry that answers every method with an empty message.
#[derive(Clone)]
struct Replica {
    behaviour: Arc<Mutex<Behaviour>>,
    /// The `grpc-timeout` of each call.
    calls: Arc<Mutex<Vec<String>>>,
    address: SocketAddr,
    stop: CancellationToken,
}

impl Drop for Replica {
    fn drop(&mut self) {
        // One clone serves, the other is the test's.
        if Arc::strong_count(&self.calls) <= 2 {
            self.stop.cancel();
        }
    }
}

impl Replica {
    async fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let replica = Self {
            behaviour: Arc::new(Mutex::new(behaviour)),
            calls: Arc::default(),
            address: listener.local_addr().unwrap(),
            stop: CancellationToken::new(),
        };
        let (health, service) = tonic_health::server::health_reporter();
        health.set_service_status("", ServingStatus::Serving).await;
        let serving = replica.clone();
        let calls = tower::service_fn(move |request: Request<axum::body::Body>| {
            let serving = serving.clone();
            async move { Ok::<_, Infallible>(serving.answer(request).await) }
        });
        let routes = axum::Router::new()
            .route_service("/grpc.health.v1.Health/Check", service)
            .fallback_service(calls);
        let stop = replica.stop.clone();
        tokio::spawn(async move {
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let mut connections = tokio::task::JoinSet::new();
            while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
                let (server, service) = (server.clone(), TowerToHyperService::new(routes.clone()));
                let stream = TokioIo::new(accepted.unwrap().0);
                connections.spawn(async move { server.serve_connection(stream, service).await.is_ok() });
            }
            // Dropping the set ends the connections, as the end of the process would.
        });
        replica
    }

    fn set(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
    }

    fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }

    async fn answer(self, request: Request<axum::body::Body>) -> Response<Body> {
        let (timeout, token) = {
            let header = |name: &str| {
                request
                    .headers()
                    .get(name)
                    .map(|value| value.to_str().unwrap().to_owned())
            };
            (header("grpc-timeout").unwrap(), header("authorization"))
        };
        drop(request);
        self.calls.lock().unwrap().push(timeout);
        let behaviour = *self.behaviour.lock().unwrap();
        let empty = Bytes::from_static(&[0; 5]);
        let whole = |empty| {
            let trailers =
                HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))]);
            let frames = [
                Ok(Frame::data(empty)),
                Ok::<_, Infallible>(Frame::trailers(trailers)),
            ];
            Body::new(StreamBody::new(futures_util::stream::iter(frames)))
        };
        let body = match behaviour {
            Behaviour::Require(required) if token.as_deref() != Some(required) => {
                return crate::rpc::auth::unauthenticated().into_http();
            }
            Behaviour::Answer | Behaviour::Require(_) => whole(empty),
            Behaviour::Hang => std::future::pending().await,
            Behaviour::SayUnavailable => return Status::from(Problem::unavailable()).into_http(),
            Behaviour::AnswerTooMuch => whole(Bytes::from(vec![0; MAX_RESPONSE_BYTES + 1])),
            Behaviour::BreakOff => {
                let frames = [Ok(Frame::data(empty)), Err(std::io::Error::other("cut"))];
                Body::new(StreamBody::new(futures_util::stream::iter(frames)))
            }
        };
        let mut response = Response::new(body);
        let content_type = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert("content-type", content_type);
        response
    }
}

/// A channel to these replicas.
fn channel(replicas: &[&Replica], token: Option<HopToken>) -> HopChannel {
    let urls: Vec<_> = replicas.iter().map(|r| format!("http://{}", r.address)).collect();
    let addresses = Addresses::parse(&urls.join(",")).unwrap();
    HopChannel::new(Target::new(addresses, None).unwrap(), token)
}

async fn read(channel: &HopChannel) -> Result<(), Code> {
    let mut directory = DirectoryServiceClient::new(channel.clone());
    let read = directory.list_changes(pb::ListChangesRequest::default()).await;
    read.map(drop).map_err(|status| status.code())
}

async fn authenticate_client(channel: &HopChannel) -> Result<(), Code> {
    let mut directory = DirectoryServiceClient::new(channel.clone());
    let request = pb::AuthenticateClientRequest::default();
    let answer = directory.authenticate_client(request).await;
    answer.map(drop).map_err(|status| status.code())
}

async fn create_tenant(channel: &HopChannel) -> Result<(), Code> {
    let mut tenants = TenantServiceClient::new(channel.clone());
    let answer = tenants.create_tenant(pb::CreateTenantRequest::default()).await;
    answer.map(drop).map_err(|status| status.code())
}

#[tokio::test]
async fn calls_are_balanced_over_the_replicas_that_answer() {
    let [a, b] = [
        Replica::start(Behaviour::Answer).await,
        Replica::start(Behaviour::Answer).await,
    ];
    let channel = channel(&[&a, &b], None);
    for _ in 0..20 {
        read(&channel).await.unwrap();
    }
    let counts = [a.take_calls().len(), b.take_calls().len()];
    assert!(
        counts[0] + counts[1] == 20 && counts[0].abs_diff(counts[1]) <= 2,
        "{counts:?}"
    );
    a.stop.cancel();
    for _ in 0..20 {
        read(&channel).await.unwrap();
        create_tenant(&channel).await.unwrap();
    }
}

#[tokio::test]
async fn a_replica_that_fails_in_any_way_fails_no_read() {
    for fault in [Behaviour::Hang, Behaviour::SayUnavailable, Behaviour::BreakOff] {
        let [a, b] = [
            Replica::start(fault).await,
            Replica::start(Behaviour::Answer).await,
        ];
        let channel = channel(&[&a, &b], None);
        for _ in 0..20 {
            read(&channel).await.unwrap();
        }
        // It leaves the rotation after the first failure, and is back when it says that it serves.
        assert!((1..=3).contains(&a.take_calls().len()), "{fault:?}");
        a.set(Behaviour::Answer);
        let back = async {
            while a.take_calls().is_empty() {
                read(&channel).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), back).await.unwrap();
    }
}

#[tokio::test]
async fn an_answer_that_is_too_large_fails_its_call_alone() {
    let [a, b] = [
        Replica::start(Behaviour::AnswerTooMuch).await,
        Replica::start(Behaviour::Answer).await,
    ];
    let channel = channel(&[&a, &b], None);
    let mut answers = Vec::new();
    for _ in 0..20 {
        answers.push(read(&channel).await);
    }
    let too_large = answers.iter().filter(|answer| **answer == Err(Code::OutOfRange));
    assert_eq!(too_large.count(), a.take_calls().len());
    let counts = [
        answers.iter().filter(|answer| answer.is_ok()).count(),
        b.take_calls().len(),
    ];
    assert_eq!(counts, [10, 10], "both stay in the rotation");
}

#[tokio::test]
async fn what_costs_argon2_is_sent_twice_at_most_and_other_changes_once() {
    let [a, b] = [
        Replica::start(Behaviour::BreakOff).await,
        Replica::start(Behaviour::BreakOff).await,
    ];
    let channel = channel(&[&a, &b], None);
    assert_eq!(authenticate_client(&channel).await, Err(Code::Unavailable));
    assert_eq!([a.take_calls().len(), b.take_calls().len()], [1, 1]);
    assert_eq!(create_tenant(&channel).await, Err(Code::Unavailable));
    assert_eq!(a.take_calls().len() + b.take_calls().len(), 1);
}

/// A server whose connections say, once they hold a call, that they accept no more and have begun none, as those of a drain.
async fn closing_server() -> SocketAddr {
    // Frames of RFC 9113: empty SETTINGS, and GOAWAY with last stream 0 and NO_ERROR.
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    const HEADERS: u8 = 1;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_exact(&mut [0; 24]).await.unwrap();
            stream.write_all(&SETTINGS).await.unwrap();
            loop {
                let mut head = [0; 9];
                stream.read_exact(&mut head).await.unwrap();
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                stream.read_exact(&mut vec![0; length as usize]).await.unwrap();
                if head[3] == HEADERS {
                    break;
                }
            }
            stream.write_all(&GOAWAY).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn a_call_that_a_closing_connection_did_not_accept_is_sent_to_another_replica() {
    let (replica, closing) = (Replica::start(Behaviour::Answer).await, closing_server().await);
    let urls = format!("http://{closing},http://{}", replica.address);
    let channel = HopChannel::new(Target::new(Addresses::parse(&urls).unwrap(), None).unwrap(), None);
    for _ in 0..2 {
        create_tenant(&channel).await.unwrap();
    }
    assert_eq!(replica.take_calls().len(), 2);
}

#[tokio::test]
async fn the_deadline_is_kept_across_the_retry() {
    let [a, b] = [
        Replica::start(Behaviour::Hang).await,
        Replica::start(Behaviour::Hang).await,
    ];
    let channel = channel(&[&a, &b], None);
    let started = Instant::now();
    let context = CallContext {
        address: None,
        request_id: "request-1".into(),
        deadline: started + Duration::from_secs(1),
        trace: None,
        notes: Default::default(),
    };
    let answer = context::scope(context, read(&channel)).await;
    assert_eq!(answer, Err(Code::DeadlineExceeded));
    assert!(started.elapsed() < Duration::from_secs(1));
    let micros = |replica: &Replica| {
        let calls = replica.take_calls();
        assert_eq!(calls.len(), 1);
        calls[0].trim_end_matches('u').parse::<u64>().unwrap()
    };
    let (first, second) = (micros(&a), micros(&b));
    let (first, second) = (first.max(second), first.min(second));
    assert!(first <= 900_000 && second <= 500_000, "{first} {second}");
}

/// A channel to an address that nobody serves. `later` resolves its name from the second look-up on. Returns how many
/// look-ups have begun, too.
async fn channel_to_nobody(later: fn(SocketAddr) -> Option<SocketAddr>) -> (HopChannel, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut target = Target::new(Addresses::parse(&format!("http://{address}")).unwrap(), None).unwrap();
    let lookups = Arc::new(AtomicUsize::new(0));
    let counted = lookups.clone();
    target.resolver = Arc::new(move |_, _| {
        let is_first = counted.fetch_add(1, Ordering::SeqCst) == 0;
        let answer = if is_first { Some(address) } else { later(address) };
        Box::pin(async move {
            match answer {
                Some(address) => Ok(vec![address]),
                None => std::future::pending().await,
            }
        })
    });
    (HopChannel::new(target, None), lookups)
}

#[tokio::test]
async fn failing_calls_begin_one_look_up_at_a_time_and_few_of_them() {
    let (hanging, lookups) = channel_to_nobody(|_| None).await;
    while lookups.load(Ordering::SeqCst) < 2 {
        assert_eq!(create_tenant(&hanging).await, Err(Code::Unavailable));
    }
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    for _ in 0..300 {
        assert_eq!(create_tenant(&hanging).await, Err(Code::Unavailable));
    }
    assert_eq!(lookups.load(Ordering::SeqCst), 2, "the second one has not ended");
    assert!(tasks() <= before + 3, "{} after {before}", tasks());

    let (failing, lookups) = channel_to_nobody(Some).await;
    let started = Instant::now();
    for _ in 0..300 {
        assert_eq!(create_tenant(&failing).await, Err(Code::Unavailable));
    }
    let most = 1 + started.elapsed().as_millis() / 100;
    let begun = lookups.load(Ordering::SeqCst);
    assert!(begun as u128 <= most, "{begun} look-ups, {most} at most");
}

#[tokio::test]
async fn a_token_file_is_read_again_when_its_token_is_rejected() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    let random = SeededRandom::new(7);
    let [old, new] = [(); 2].map(|()| OpaqueToken::generate(TokenKind::Workload, &random));
    let write = |token: &OpaqueToken| {
        let _ = std::fs::remove_file(&path);
        let mut file = std::fs::OpenOptions::new();
        let mut file = file.write(true).create_new(true).mode(0o600).open(&path).unwrap();
        file.write_all(token.expose().as_bytes()).unwrap();
    };
    write(&old);
    let token = HopToken::from_file(&path).unwrap();
    assert_eq!(format!("{token:?}"), "HopToken { .. }");
    let accepted: &'static str = format!("Bearer {}", new.expose()).leak();
    let replica = Replica::start(Behaviour::Require(accepted)).await;
    let channel = channel(&[&replica], Some(token.clone()));
    assert_eq!(read(&channel).await, Err(Code::Unauthenticated));
    write(&new);
    token.forget_read_time();
    // A call that may not be repeated was rejected before it had an effect.
    create_tenant(&channel).await.unwrap();
    assert_eq!(replica.take_calls().len(), 3);
}
