//! The client credentials grant (RFC 6749 §4.4): a token under the tenant's active grant to the client.
//! It runs as the designated user, and comes without a refresh token.

use super::{Issuance, Issued};
use crate::error::Result;

pub(super) async fn issue(issuance: &mut Issuance<'_>) -> Result<Issued> {
    // First, so that the usage of the grant has a rejection for another target.
    let grant = issuance.active_grant(None).await?;
    issuance.check_target()?;
    let (token, event) = issuance.sign(&grant, None).await?;
    issuance.spend_single_use().await?;
    issuance.oauth.store.record(issuance.origin(), event).await?;
    issuance.recheck(token, None).await
}
