//! Operators and workloads, by their bearer tokens.

use accord::text::opaque::{OpaqueToken, TokenKind};

use crate::{error::Error, model::caller::CallerRecord, store::Store};

/// Finds the live caller with this bearer token.
///
/// # Errors
/// [`Error::UnknownCaller`].
pub async fn authenticate(store: &Store, token: &str) -> Result<CallerRecord, Error> {
    let token = OpaqueToken::parse(TokenKind::Operator, token)
        .or_else(|_| OpaqueToken::parse(TokenKind::Workload, token))
        .map_err(|_| Error::UnknownCaller)?;
    store.find_caller(&token).await?.ok_or(Error::UnknownCaller)
}
