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

/// Returns the message of a response, or an error that names the call.
pub fn answer<T>(call: &str, result: Result<Response<T>, Status>) -> anyhow::Result<T> {
    result.map(Response::into_inner).map_err(|status| {
        let reason = reason_of(&status).map_or("no reason", reason_name);
        anyhow!("{call}: {:?} / {reason}: {}", status.code(), status.message())
    })
}
