//! gRPC calls of the command line and the demonstration: channels with and without a bearer token, and errors that
//! name the call and the reason.

use accord::{
    rpc::{
        channel::{self, HopChannel},
        status::{reason_name, reason_of},
    },
    text::opaque::{OpaqueToken, TokenKind},
};
use anyhow::{Context, anyhow};
use tonic::{
    Response, Status,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt;

/// Opens a channel whose calls carry the bearer token of an operator or workload. `address` is `host:port`.
pub fn with_token(address: &str, token: &str) -> anyhow::Result<HopChannel> {
    let token = OpaqueToken::parse(TokenKind::Operator, token)
        .or_else(|_| OpaqueToken::parse(TokenKind::Workload, token))
        .context("the bearer token")?;
    channel::connect(&format!("http://{address}"), &token).map_err(|rule| anyhow!("the address {rule}"))
}

/// Opens a channel whose calls carry no credential.
pub fn open(address: &str) -> anyhow::Result<Channel> {
    Ok(Endpoint::from_shared(format!("http://{address}"))?.connect_lazy())
}

/// Returns the message of a response, or an error that names the call and the fields that are not valid.
pub fn answer<T>(call: &str, result: Result<Response<T>, Status>) -> anyhow::Result<T> {
    result.map(Response::into_inner).map_err(|status| {
        let reason = reason_of(&status).map_or("no reason", reason_name);
        let violations = status.get_details_bad_request().map(|bad| bad.field_violations);
        let violations = violations.into_iter().flatten();
        let violations: String = violations
            .map(|violation| format!("; {} {}", violation.field, violation.description))
            .collect();
        anyhow!(
            "{call}: {:?} / {reason}: {}{violations}",
            status.code(),
            status.message()
        )
    })
}

#[cfg(test)]
mod tests {
    use accord::text::validation::Violations;

    use super::*;

    #[test]
    fn an_error_names_the_fields_that_are_not_valid() {
        let mut violations = Violations::default();
        violations.add("jti", "must be a lowercase ULID");
        let refused = answer::<()>("TraceToken", Err(violations.into()));
        let error = refused.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.ends_with("; jti must be a lowercase ULID"), "{error}");
    }
}
