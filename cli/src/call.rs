//! gRPC calls of the command line and the demonstration: channels with and without a bearer token,
//! and errors that name the call and its reason.

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

/// A channel whose calls bring an operator's or workload's bearer token. `address` is `host:port`.
///
/// # Errors
/// When the token or the address is malformed.
pub fn with_token(address: &str, token: &str) -> anyhow::Result<HopChannel> {
    let token = OpaqueToken::parse(TokenKind::Operator, token)
        .or_else(|_| OpaqueToken::parse(TokenKind::Workload, token))
        .context("the bearer token")?;
    channel::connect(&format!("http://{address}"), &token).context("the address")
}

/// A channel whose calls bring nothing but their message.
///
/// # Errors
/// When the address is malformed.
pub fn open(address: &str) -> anyhow::Result<Channel> {
    Ok(Endpoint::from_shared(format!("http://{address}"))?.connect_lazy())
}

/// The message of an answer, or an error that names the call.
///
/// # Errors
/// When the call failed.
pub fn answer<T>(call: &str, result: Result<Response<T>, Status>) -> anyhow::Result<T> {
    result.map(Response::into_inner).map_err(|status| {
        let reason = reason_of(&status).map_or("no reason", reason_name);
        anyhow!("{call}: {:?} / {reason}: {}", status.code(), status.message())
    })
}
