//! The codec of every generated client and server.
//!
//! It rejects a request that can't be decoded. A request that sets a field of the contract that is not implemented yet is
//! rejected with its other violations, when its method checks its fields: a caller must not believe that an ignored field
//! has an effect.

use std::marker::PhantomData;

use tonic::{
    Status,
    codec::{DecodeBuf, Decoder},
};
use tonic_prost::ProstEncoder;

use crate::{rpc::status::Problem, text::validation::Violations};

/// A request or response of a method. `build.rs` implements it.
pub trait Checked: prost::Message + Default {
    /// Whether the message is a request.
    const REQUEST: bool = false;

    /// Writes the request id in lower case: a UUID is the same in either (RFC 9562 section 4).
    fn normalize(&mut self) {}

    /// Puts what can be written in several ways into one form: the order of a set, and a default value that is written out.
    fn canonicalize(&mut self) {}

    /// Returns the fields that are set but not implemented yet.
    fn unavailable_fields(&self) -> Vec<&'static str> {
        Vec::new()
    }
}

#[allow(
    dead_code,
    reason = "build.rs calls it for fields of later versions, of which there may be none"
)]
fn is_set<T: Default + PartialEq>(value: &T) -> bool {
    *value != T::default()
}

fn set_fields(fields: &[(bool, &'static str)]) -> Vec<&'static str> {
    let set = fields.iter().filter(|(is_set, _)| *is_set);
    set.map(|(_, field)| *field).collect()
}

include!(concat!(env!("OUT_DIR"), "/checked.rs"));

/// Returns the content that a repeated call must match: the same bytes for messages that mean the same.
pub fn content<T: Checked + Clone>(message: &T) -> Vec<u8> {
    let mut message = message.clone();
    message.canonicalize();
    message.encode_to_vec()
}

/// Encodes `T` and decodes `U`.
#[derive(Debug, Default)]
pub struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: Checked + Send + 'static,
    U: Checked + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = CheckedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        CheckedDecoder(PhantomData)
    }
}

/// Decodes `U` and checks it.
#[derive(Debug)]
pub struct CheckedDecoder<U>(PhantomData<U>);

impl<U: Checked> Decoder for CheckedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let mut message = U::decode(buffer).map_err(undecodable::<U>)?;
        message.normalize();
        let mut violations = Violations::default();
        for field in message.unavailable_fields() {
            violations.add(field, "is not available yet");
        }
        if !violations.is_empty() {
            violations.with_the_others()?;
        }
        Ok(Some(message))
    }
}

fn undecodable<U: Checked>(error: prost::DecodeError) -> Status {
    if U::REQUEST {
        Problem::unreadable("the message can't be decoded").into()
    } else {
        Status::internal(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::v1::{
        CreateClientSecretRequest, DeliveryMethod, RequestedScope, SubmitIntegrationRequestRequest,
    };

    #[test]
    fn messages_that_mean_the_same_have_the_same_content() {
        let by = |delivery: DeliveryMethod| {
            content(&CreateClientSecretRequest {
                delivery: delivery.into(),
                ..Default::default()
            })
        };
        assert_eq!(by(DeliveryMethod::Inline), by(DeliveryMethod::Unspecified));
        assert_ne!(by(DeliveryMethod::Inline), by(DeliveryMethod::Link));
        let submit = |names: [&str; 2]| {
            let scope = |name: &str| RequestedScope {
                name: name.into(),
                reason: format!("to use {name}"),
            };
            content(&SubmitIntegrationRequestRequest {
                tenant_ids: names.map(String::from).to_vec(),
                scopes: names.map(scope).to_vec(),
                ..Default::default()
            })
        };
        assert_eq!(submit(["a", "b"]), submit(["b", "a"]));
        assert_ne!(submit(["a", "b"]), submit(["a", "c"]));
    }
}
