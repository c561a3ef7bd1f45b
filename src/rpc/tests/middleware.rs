#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    io::{Read, Seek},
    sync::{Arc, Mutex},
};

use tokio::sync::{Semaphore, mpsc::unbounded_channel};
use tonic::Code;

use super::*;
use crate::{
    random::SystemRandom,
    rpc::{
        auth::{
            Access, Authorizer, Caller, CallerDirectory, Credential, Permissions, Principal, WorkloadKind,
        },
        grpc::Grpc,
        middleware::client_certificate::{CertificateHeader, ClientCertificates},
    },
    store::{
        audit::{self, Actor, ActorKind, Filter},
        fixture::migrated,
    },
    testing::{NoCallers, TEST_START, test_clock},
    text::{id::WorkloadId, page::PageRequest},
};

fn with(name: &'static str, value: &str) -> HeaderMap {
    HeaderMap::from_iter([(HeaderName::from_static(name), value.parse().unwrap())])
}

/// Calls `/a.A/Open`, which does `work`, through the gRPC middleware.
async fn call<F>(headers: HeaderMap, work: impl Fn() -> F + Clone + Send + 'static) -> Response<Body>
where
    F: Future<Output = ()> + Send + 'static,
{
    call_at("/a.A/Open", headers, work).await
}

async fn call_at<F>(
    path: &str,
    headers: HeaderMap,
    work: impl Fn() -> F + Clone + Send + 'static,
) -> Response<Body>
where
    F: Future<Output = ()> + Send + 'static,
{
    let paths = ["/a.A/Open", "/a.A/GetThing", "/a.A/Issue"];
    let permissions = Permissions::new(&paths.map(|path| (path, Access::Anyone)));
    let permissions = permissions.ending_with_caller(&["/a.A/Issue"]);
    let authorizer = Authorizer::new(permissions, Arc::new(NoCallers), test_clock());
    let method = service_fn(move |_: Request<Body>| {
        let work = work();
        async move {
            work.await;
            Ok(Response::new(Body::empty()))
        }
    });
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = path.parse().unwrap();
    *request.method_mut() = Method::POST;
    *request.headers_mut() = headers;
    let content_type = HeaderValue::from_static("application/grpc");
    request.headers_mut().insert("content-type", content_type);
    let shared = Shared::for_test(Cutoff::default());
    let stack = stack(Grpc { authorizer }, shared, method);
    stack.oneshot(request).await.unwrap()
}

fn code(response: &Response<Body>) -> Code {
    let value = response.headers().get("grpc-status");
    value.map_or(Code::Ok, |value| Code::from_bytes(value.as_bytes()))
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_at_its_deadline_or_after_the_longest_time() {
    let started = Instant::now();
    let response = call(with("grpc-timeout", "250m"), std::future::pending::<()>).await;
    assert_eq!(code(&response), Code::DeadlineExceeded);
    assert_eq!(started.elapsed(), Duration::from_millis(250));

    let started = Instant::now();
    let response = call(with("grpc-timeout", "9H"), std::future::pending::<()>).await;
    assert_eq!(code(&response), Code::DeadlineExceeded);
    assert_eq!(started.elapsed(), MAX_CALL_TIME);
}

#[tokio::test]
async fn the_request_id_is_in_the_context_and_in_the_response() {
    let seen = Arc::new(Mutex::new(String::new()));
    let inside = seen.clone();
    let response = call(with(REQUEST_ID, "from-outside-1"), move || {
        let inside = inside.clone();
        async move { *inside.lock().unwrap() = context::request_id() }
    })
    .await;
    let answered = response.headers().get(REQUEST_ID).unwrap();
    assert_eq!(answered, "from-outside-1");
    assert!(answered.is_sensitive(), "HPACK would index it");
    assert_eq!(*seen.lock().unwrap(), "from-outside-1");
}

#[tokio::test]
async fn a_call_whose_caller_hangs_up_has_a_log_line() {
    // Reaches the log line without a subscriber first. Otherwise the thread of another test could register it while this
    // test's subscriber is the only one, and it would stay silent.
    drop(Box::pin(call(HeaderMap::new(), std::future::pending::<()>)).now_or_never());
    let file = Arc::new(tempfile::tempfile().unwrap());
    let lines = tracing_subscriber::fmt().with_writer(file.clone()).finish();
    let logging = tracing::subscriber::set_default(lines);
    let mut hung_up = Box::pin(call(HeaderMap::new(), std::future::pending::<()>));
    assert!(hung_up.as_mut().now_or_never().is_none());
    drop(hung_up);
    call(HeaderMap::new(), || std::future::ready(())).await;
    drop(logging);
    let (mut file, mut text) = (&*file, String::new());
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(
        text.contains("/a.A/Open") && text.contains("the caller hung up"),
        "{text}"
    );
}

#[tokio::test]
async fn a_call_that_does_more_than_to_read_is_completed_although_its_caller_hangs_up() {
    let (completed, mut completions) = unbounded_channel();
    let hung_up = Arc::new(Semaphore::new(0));
    for path in ["/a.A/GetThing", "/a.A/Issue", "/a.A/Open"] {
        let (hung_up, completed) = (hung_up.clone(), completed.clone());
        let work = move || {
            let (hung_up, completed) = (hung_up.clone(), completed.clone());
            async move {
                let _ = hung_up.acquire().await.unwrap();
                completed.send((path, context::request_id())).unwrap();
            }
        };
        let mut call = Box::pin(call_at(path, with(REQUEST_ID, "of-the-caller"), work));
        assert!(call.as_mut().now_or_never().is_none());
    }
    drop(completed);
    hung_up.add_permits(1);
    let expected = ("/a.A/Open", "of-the-caller".to_owned());
    assert_eq!(completions.recv().await, Some(expected));
    assert_eq!(completions.recv().await, None, "the other calls ended");
}

/// Begins a call with this body whose method reads it and never ends, and hangs up. Returns what counts and what ends such calls.
async fn hung_up(body: Body) -> (DetachedCalls, Cutoff) {
    let permissions = Permissions::new(&[("/a.A/Open", Access::Anyone)]);
    let authorizer = Authorizer::new(permissions, Arc::new(NoCallers), test_clock());
    let method = service_fn(|request: Request<Body>| async {
        axum::body::to_bytes(request.into_body(), 1024).await.unwrap();
        std::future::pending().await
    });
    let cutoff = Cutoff::default();
    let shared = Shared::for_test(cutoff.clone());
    let detached = shared.detached.clone();
    let mut request = Request::post("/a.A/Open").body(body).unwrap();
    let content_type = HeaderValue::from_static("application/grpc");
    request.headers_mut().insert("content-type", content_type);
    let mut call = Box::pin(stack(Grpc { authorizer }, shared, method).oneshot(request));
    assert!(call.as_mut().now_or_never().is_none());
    drop(call);
    (detached, cutoff)
}

#[tokio::test]
async fn a_call_ends_with_its_caller_until_its_message_was_read() {
    let endless = futures_util::stream::pending::<Result<axum::body::Bytes, Infallible>>();
    let (unread, cutoff) = hung_up(Body::from_stream(endless)).await;
    unread.finished().await;
    assert_eq!(cutoff.calls(), 0);

    let (read, cutoff) = hung_up(Body::empty()).await;
    let mut finished = Box::pin(read.finished());
    for _ in 0..10 {
        assert!(finished.as_mut().now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    cutoff.end_calls();
    finished.await;
    assert_eq!(cutoff.calls(), 1, "the end of a drain ends it");
}

#[tokio::test]
async fn a_rejection_keeps_its_status_although_its_record_takes_longer_than_the_deadline() {
    let (place, db) = migrated().await.remove(0);
    let access = ["/a.A/GetThing", "/a.A/Open"].map(|path| (path, Access::Anyone));
    let authorizer = Authorizer::new(Permissions::new(&access), Arc::new(NoCallers), test_clock());
    let mut shared = Shared::for_test(Cutoff::default());
    let rejected = RejectedCalls::new(db.clone(), test_clock());
    shared.rejected = Some(rejected.clone());
    let detached = shared.detached.clone();
    let method = service_fn(async |_: Request<Body>| {
        let (kind, id) = (ActorKind::Operator, "opr_1".to_owned());
        context::note_caller(Actor { kind, id }, None);
        let problem = Problem::new(Code::PermissionDenied, ErrorReason::PermissionDenied, "no");
        Ok(Status::from(problem).into_http())
    });
    let stack = stack(Grpc { authorizer }, shared, method);
    let call = |path| {
        let request = Request::post(path).header("content-type", "application/grpc");
        let request = request.header("grpc-timeout", "100m").body(Body::empty());
        stack.clone().oneshot(request.unwrap())
    };
    let held = place.hold_writes().await;
    for path in ["/a.A/GetThing", "/a.A/Open"] {
        let began = Instant::now();
        assert_eq!(code(&call(path).await.unwrap()), Code::PermissionDenied, "{path}");
        assert!(began.elapsed() > Duration::from_millis(100), "{path}");
    }
    drop(held);
    // A call that goes on without its caller ends after its record.
    assert!(Box::pin(call("/a.A/Open")).now_or_never().is_none());
    detached.finished().await;
    // A call waits for its event for a moment only.
    rejected.write_all().await;
    let page = PageRequest::first(500);
    let events = audit::list(db.read(), &Filter::default(), &page).await.unwrap();
    assert_eq!(events.into_parts().0.len(), 3);
}

#[test]
fn only_a_well_formed_request_id_is_accepted() {
    assert_eq!(request_id(&with(REQUEST_ID, "abc-DEF_123")), "abc-DEF_123");
    for bad in ["short", "has space in it", "x\"; drop", &"a".repeat(65)] {
        assert_ne!(request_id(&with(REQUEST_ID, bad)), bad);
    }
}

/// Knows each certificate as a gateway's, and counts the look-ups.
#[derive(Debug, Default)]
struct Counting(AtomicUsize);

#[tonic::async_trait]
impl CallerDirectory for Counting {
    async fn find_caller(&self, _: Credential<'_>) -> Result<Option<Caller>, Status> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let id = WorkloadId::generate(&*test_clock(), &SystemRandom);
        let kind = WorkloadKind::Gateway;
        Ok(Some(Caller::Workload { id, kind }))
    }
}

#[tokio::test]
async fn a_certificate_is_looked_up_once_for_each_call() {
    let directory = Arc::new(Counting::default());
    let access = Access::Callers(&[], &[WorkloadKind::Gateway]);
    let permissions = Permissions::new(&[("/a.A/Inner", access)]);
    let authorizer = Authorizer::new(permissions, directory.clone(), test_clock());
    let mut shared = Shared::for_test(Cutoff::default());
    shared.gateways.authorizer = authorizer.clone();
    // The address of the caller, its permission, and the certificate of the gateway's client all rest on whose connection it is.
    let method = service_fn(async |request: Request<Body>| {
        let principal = request.extensions().get::<Principal>();
        assert!(matches!(principal, Some(Principal::Caller(..))), "{principal:?}");
        assert!(matches!(
            context::address(),
            Some(crate::store::audit::CallerAddress::Forwarded(_))
        ));
        let header = ClientCertificates::new(Some(CertificateHeader::Xfcc));
        let malformed = header.find(request.extensions(), request.headers());
        assert_eq!(malformed.unwrap_err().code(), Code::InvalidArgument);
        Ok(Response::new(Body::empty()))
    });
    let stack = stack(Grpc { authorizer }, shared, method);
    for calls in 1..3 {
        let request = Request::post("/a.A/Inner")
            .header("content-type", "application/grpc")
            .header("x-forwarded-for", "203.0.113.7")
            .header("x-forwarded-client-cert", "malformed")
            .extension(CallerCertificate {
                names: ["gateway.internal".to_owned()].into(),
                not_after: TEST_START,
            });
        let request = request.body(Body::empty()).unwrap();
        let response = stack.clone().oneshot(request).await.unwrap();
        assert_eq!(code(&response), Code::Ok);
        assert_eq!(directory.0.load(Ordering::Relaxed), calls);
    }
}
