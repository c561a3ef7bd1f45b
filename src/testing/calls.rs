//! Calls as tests make them: with a bearer token or without, and what their answers have to be.

use std::collections::HashMap;

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

/// A channel whose calls bring one caller's token; every generated client's `new` takes it.
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

/// A channel whose calls bring this `authorization` header; none if it is empty.
pub fn authorized(channel: &Channel, value: &str) -> CallerChannel {
    let value = (!value.is_empty()).then(|| value.parse().unwrap());
    InterceptedService::new(channel.clone(), Bearer(value))
}

/// What a method answers to a caller, whatever the call itself is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The method itself answered.
    Admitted,
    /// The caller is known and not permitted.
    Denied,
    /// The caller is not known.
    Unknown,
}

/// Full service name and method name of the contract's methods, of the services that `wanted` accepts.
pub fn methods(wanted: impl Fn(&str) -> bool) -> Vec<(String, String)> {
    let files = prost_types::FileDescriptorSet::decode(crate::FILE_DESCRIPTOR_SET).unwrap();
    let mut methods = Vec::new();
    for file in &files.file {
        for service in &file.service {
            let name = format!("{}.{}", file.package(), service.name());
            if wanted(&name) {
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
        // A method may reject a credential in the message for the same reason.
        (Code::Unauthenticated, "UNAUTHENTICATED") if status.message() == unauthenticated().message() => {
            Admission::Unknown
        }
        (Code::Unimplemented, "") | (Code::Unknown, _) => panic!("{method}: {status:?}"),
        _ => Admission::Admitted,
    }
}

/// The text with another last character.
pub fn altered(text: &str) -> String {
    let last = if text.ends_with('0') { '1' } else { '0' };
    format!("{}{last}", &text[..text.len() - 1])
}

/// The message of an answer.
#[track_caller]
pub fn ok<T>(result: Result<Response<T>, Status>) -> T {
    match result {
        Ok(response) => response.into_inner(),
        Err(status) => panic!("{status:?}"),
    }
}

/// Asserts the code, the reason and that it is Accord's status. Returns the metadata.
#[track_caller]
pub fn assert_refused<T>(result: Result<T, Status>, code: Code, reason: &str) -> HashMap<String, String> {
    let status = result.err().expect("the call should be refused");
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
    let status = result.err().expect("the call should be refused");
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
    assert_refused::<T>(Err(status), Code::InvalidArgument, "INVALID_FIELDS");
}
