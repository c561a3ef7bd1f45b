//! The client credentials grant (RFC 6749 §4.4): a token under the tenant's active grant to the client.
//! It runs as the designated user, and comes without a refresh token.

use super::{Asked, Issued, NewToken};
use crate::{consent::State, error::Error};

pub(super) async fn issue(asked: &mut Asked<'_>) -> Result<Issued, Error> {
    asked.check_target()?;
    let store = &asked.service.store;
    let grant = store
        .find_current_grant(&asked.tenant.tenant_id, &asked.client.client_id)
        .await?
        .ok_or(Error::ConsentRequired(None))?;
    match asked.state_of(&grant).await? {
        State::Active => {}
        state => return Err(Error::ConsentRequired(Some(state.contract_name()))),
    }
    let scopes = asked.effective_scopes(&grant)?;
    let new = NewToken {
        grant: &grant,
        family_id: None,
        scopes: &scopes,
        ends_with: None,
        grant_type: "client_credentials",
    };
    let made = asked.make(new).await?;
    asked
        .service
        .store
        .record(&asked.origin(), made.event.clone())
        .await?;
    asked.answer(made, scopes, None).await
}
