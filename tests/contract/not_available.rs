//! Parts of the contract that come with later versions: methods return UNIMPLEMENTED, fields are rejected.

use accord::rpc::status::{ErrorReason, reason_of};
use accord_cli::call;
use prost::Message;
use prost_types::{FieldDescriptorProto, FileDescriptorSet, field_descriptor_proto::Type};
use tonic::{Code, Request, Status, client::Grpc, codegen::http::uri::PathAndQuery};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt;

use crate::harness::dev;

tests!(methods_and_fields_of_later_versions_are_rejected);

/// Methods that return UNIMPLEMENTED.
const NOT_AVAILABLE: &str = "TraceToken";

/// A message in its encoded form.
#[derive(Debug, Default)]
struct Encoded(Vec<u8>);

impl Message for Encoded {
    fn encode_raw(&self, buffer: &mut impl prost::bytes::BufMut) {
        buffer.put_slice(&self.0);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: prost::encoding::WireType,
        buffer: &mut impl prost::bytes::Buf,
        context: prost::encoding::DecodeContext,
    ) -> Result<(), prost::DecodeError> {
        prost::encoding::skip_field(wire_type, tag, buffer, context)
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {}
}

/// A message that sets this one field.
fn with(field: &FieldDescriptorProto) -> Vec<u8> {
    let (wire_type, value): (u32, &[u8]) = match field.r#type() {
        Type::String | Type::Bytes => (2, b"\x01x"),
        Type::Message => (2, b"\x00"),
        Type::Bool | Type::Enum => (0, b"\x01"),
        other => panic!("{other:?}"),
    };
    let mut message = Vec::new();
    prost::encoding::encode_varint(
        u64::from(field.number() as u32) << 3 | u64::from(wire_type),
        &mut message,
    );
    message.extend(value);
    message
}

/// The violations of a status, sorted; none of any other status.
fn violations(answer: Result<(), Status>) -> Vec<String> {
    let details = answer.err().and_then(|status| status.get_details_bad_request());
    let violations = details.map(|bad| bad.field_violations).unwrap_or_default();
    let mut texts: Vec<_> = violations
        .into_iter()
        .map(|v| format!("{} {}", v.field, v.description))
        .collect();
    texts.sort_unstable();
    texts
}

async fn methods_and_fields_of_later_versions_are_rejected() {
    let (_directory, dev) = dev::start().await;
    let call = async |path: &str, message: Vec<u8>| {
        let address = if path.starts_with("/accord.token") {
            &dev.file.token_grpc
        } else {
            &dev.file.registry_grpc
        };
        let mut answer = Err(Status::unknown("nobody called"));
        for token in [&dev.file.operator_token, &dev.file.workload_token] {
            let mut grpc = Grpc::new(call::with_token(address, token).unwrap());
            grpc.ready().await.unwrap();
            let request = Request::new(Encoded(message.clone()));
            let path: PathAndQuery = path.parse().unwrap();
            answer = grpc
                .unary(request, path, ProstCodec::<Encoded, Encoded>::default())
                .await;
            if !matches!(&answer, Err(status) if status.code() == Code::PermissionDenied) {
                break;
            }
        }
        answer.map(drop)
    };
    let (mut methods, mut fields) = (Vec::new(), 0);
    let set = FileDescriptorSet::decode(accord::FILE_DESCRIPTOR_SET).unwrap();
    for file in set
        .file
        .iter()
        .filter(|file| file.package().starts_with("accord."))
    {
        let comments = &file.source_code_info.as_ref().unwrap().location;
        for (service, method) in file
            .service
            .iter()
            .flat_map(|s| s.method.iter().map(move |m| (s, m)))
        {
            let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
            if let Err(status) = call(&path, Vec::new()).await
                && status.code() == Code::Unimplemented
            {
                assert_eq!(reason_of(&status), Some(ErrorReason::NotAvailable), "{path}");
                methods.push(method.name());
            }
            let named = |message: &prost_types::DescriptorProto| {
                method.input_type().ends_with(&format!(".{}", message.name()))
            };
            let message = file.message_type.iter().position(named).unwrap();
            for (index, field) in file.message_type[message].field.iter().enumerate() {
                let location = [4, message as i32, 2, index as i32];
                let comment = comments.iter().find(|comment| comment.path == location).unwrap();
                if !comment.leading_comments().starts_with(" Not available yet") {
                    continue;
                }
                let (alone, with) = (call(&path, Vec::new()).await, call(&path, with(field)).await);
                // All violations at once: also those of the fields that are missing.
                let mut expected = violations(alone);
                expected.push(format!("{} is not available yet", field.name()));
                expected.sort_unstable();
                assert_eq!(violations(with), expected, "{path}");
                fields += 1;
            }
        }
    }
    methods.sort_unstable();
    methods.dedup();
    assert_eq!(methods.join(" "), NOT_AVAILABLE);
    assert_eq!(fields, 0, "as many as build.rs names");
    dev.stop().await.unwrap();
}
