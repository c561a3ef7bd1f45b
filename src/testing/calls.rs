//! gRPC calls of tests, with or without a bearer token, and assertions about their responses.

use std::{
    collections::HashMap,
    fmt::Debug,
    time::{Duration, Instant},
};

use prost::Message;
use tonic::{
    Code, Request, Response, Status,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt;

use crate::rpc::auth::unauthenticated;

/// A channel whose calls carry one caller's token. Every generated client accepts it.
pub type CallerChannel = InterceptedService<Channel, Bearer>;

/// Adds an `authorization` header, or none.
#[derive(Clone, Debug)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// Opens a channel whose calls carry this `authorization` header, or none if it is empty.
pub fn authorized(channel: &Channel, value: &str) -> CallerChannel {
    let value = (!value.is_empty()).then(|| value.parse().unwrap());
    InterceptedService::new(channel.clone(), Bearer(value))
}

/// Whether a method admits a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The method was reached.
    Admitted,
    /// The caller has no permission.
    Denied,
    /// The caller is unknown.
    Unknown,
}

/// Returns the full service name and the method name of all methods of the services for which `filter` holds.
pub fn methods(filter: impl Fn(&str) -> bool) -> Vec<(String, String)> {
    let files = prost_types::FileDescriptorSet::decode(crate::FILE_DESCRIPTOR_SET).unwrap();
    let mut methods = Vec::new();
    for file in &files.file {
        for service in &file.service {
            let name = format!("{}.{}", file.package(), service.name());
            if filter(&name) {
                methods.extend(
                    service
                        .method
                        .iter()
                        .map(|method| (name.clone(), method.name().to_owned())),
                );
            }
        }
    }
    methods
}

/// Calls a method with an empty message.
pub async fn admission(channel: CallerChannel, (service, method): &(String, String)) -> Admission {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.unwrap();
    let path: PathAndQuery = format!("/{service}/{method}").parse().unwrap();
    let result = grpc
        .unary(Request::new(()), path, ProstCodec::<(), ()>::default())
        .await;
    let Err(status) = result.map(drop) else {
        return Admission::Admitted;
    };
    let reason = status
        .get_details_error_info()
        .map(|info| info.reason)
        .unwrap_or_default();
    match (status.code(), reason.as_str()) {
        (Code::PermissionDenied, "PERMISSION_DENIED") => Admission::Denied,
        // A method may reject a credential in the message with the same reason.
        (Code::Unauthenticated, "UNAUTHENTICATED") if status.message() == unauthenticated().message() => {
            Admission::Unknown
        }
        (Code::Unimplemented, "") | (Code::Unknown, _) => panic!("{method}: {status:?}"),
        _ => Admission::Admitted,
    }
}

/// Replaces the last character of a text.
pub fn altered(text: &str) -> String {
    let last = if text.ends_with('0') { '1' } else { '0' };
    format!("{}{last}", &text[..text.len() - 1])
}

/// Returns the message of a response.
#[track_caller]
pub fn ok<T>(result: Result<Response<T>, Status>) -> T {
    match result {
        Ok(response) => response.into_inner(),
        Err(status) => panic!("{status:?}"),
    }
}

/// How long a database makes writers wait for its lock, at least.
const LOCK_WAIT: Duration = Duration::from_secs(3);

/// Begins a call that waits for a lock, hangs up once its server works on it, and releases the lock. Does so again if the machine was so
/// slow that the call may have stopped to wait.
pub async fn hang_up_before_lock<T: Debug, L>(
    lock: impl AsyncFn() -> L,
    call: impl AsyncFn() -> T,
    other: impl AsyncFn(),
) {
    loop {
        let held = lock().await;
        let began = Instant::now();
        let answer = hang_up_during(call(), &other).await;
        drop(held);
        if began.elapsed() < LOCK_WAIT {
            assert!(answer.is_none(), "the call did not wait for the lock: {answer:?}");
            return;
        }
    }
}

/// Begins a call that can't end yet, and hangs up once its server works on it. `other` makes a further call over the same connection:
/// its answer says that the server has read what was sent before. Returns the answer if the call ended all the same.
async fn hang_up_during<T: Debug>(call: impl Future<Output = T>, other: impl AsyncFn()) -> Option<T> {
    let mut call = Box::pin(call);
    tokio::select! {
        biased;
        answer = &mut call => return Some(answer),
        () = other() => {}
    }
    drop(call);
    other().await;
    None
}

/// Asserts the code, the reason and the domain of a status. Returns its metadata.
#[track_caller]
pub fn assert_rejected<T>(result: Result<T, Status>, code: Code, reason: &str) -> HashMap<String, String> {
    let status = result.err().expect("the call should fail");
    let info = status.get_details_error_info();
    let info = info.unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    assert_eq!(
        (status.code(), info.reason.as_str(), info.domain.as_str()),
        (code, reason, "accord"),
        "{status:?}"
    );
    info.metadata
}

/// Asserts INVALID_ARGUMENT/INVALID_FIELDS with violations of exactly these fields, in any order.
#[track_caller]
pub fn assert_violations<T>(result: Result<T, Status>, fields: &[&str]) {
    let status = result.err().expect("the call should fail");
    let violations = status.get_details_bad_request().map(|bad| bad.field_violations);
    let mut found: Vec<_> = violations
        .unwrap_or_default()
        .into_iter()
        .map(|violation| violation.field)
        .collect();
    found.sort_unstable();
    let mut expected = fields.to_vec();
    expected.sort_unstable();
    assert_eq!(found, expected, "{status:?}");
    assert_rejected::<T>(Err(status), Code::InvalidArgument, "INVALID_FIELDS");
}
