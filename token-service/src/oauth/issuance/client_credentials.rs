//! The client credentials grant (RFC 6749 §4.4): a token under the tenant's active grant to the client.
//! It runs as the designated user, and comes without a refresh token.

use super::{Asked, Issued};
use crate::error::Error;

pub(super) async fn issue(asked: &mut Asked<'_>) -> Result<Issued, Error> {
    asked.check_target()?;
    let grant = asked.active_grant(None).await?;
    let (made, event) = asked.make(&grant, None).await?;
    asked.service.store.record(asked.origin(), event).await?;
    asked.answer(made, None).await
}
