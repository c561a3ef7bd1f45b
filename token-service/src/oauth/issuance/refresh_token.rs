//! The refresh token grant (RFC 6749 §6, RFC 9700 §4.14): each use makes the next generation.

use accord::{store::audit::Event, text::opaque::RefreshToken};

use super::{Asked, Issued};
use crate::{
    cache::lease::ATTEMPTS,
    error::Error,
    model::family::{Family, Presented, is_genuine},
};

pub(super) async fn issue(asked: &mut Asked<'_>, token: &str) -> Result<Issued, Error> {
    let token = RefreshToken::parse(token).map_err(|_| Error::InvalidGrant)?;
    for _ in 0..ATTEMPTS {
        if let Some(issued) = attempt(asked, &token).await? {
            return Ok(issued);
        }
    }
    Err(Error::Unavailable)
}

/// One attempt; `None` when another caller moved the family in between.
async fn attempt(asked: &mut Asked<'_>, token: &RefreshToken) -> Result<Option<Issued>, Error> {
    let store = &asked.service.store;
    let tenant_id = &asked.tenant.tenant_id;
    let found = store.find_family(tenant_id, token.family()).await?;
    // A forged token, or another client's, has no effect on the family.
    if !is_genuine(
        &store.keyring,
        token,
        found.as_ref(),
        &asked.client.client_id,
        tenant_id,
    )? {
        return Err(Error::InvalidGrant);
    }
    let family = found.ok_or(Error::InvalidGrant)?;
    if !asked.stands(&family) {
        return Err(Error::InvalidGrant);
    }
    let presented = family.presented(token.generation(), store.now());
    match presented {
        Presented::Current | Presented::Retry => {}
        Presented::Reused => {
            let event = about(asked, &family, "refresh_token.reuse").refused();
            let event = event.detail("generation", token.generation().to_string());
            store
                .end_family(&asked.origin(), &family, "replayed", event)
                .await?;
            asked.service.ledger.learn().await;
            return Err(Error::InvalidGrant);
        }
        Presented::Unknown => return Err(Error::InvalidGrant),
    }
    // From here on nothing is used up until the token is made: a refused call can be repeated.
    asked.check_target()?;
    let grant = asked.active_grant(Some(&family)).await?;
    let (made, event) = asked.make(&grant, Some(&family)).await?;
    let origin = asked.origin();
    let store = &asked.service.store;
    let successor = if presented == Presented::Current {
        if !store.advance_family(origin, &family, event).await? {
            return Ok(None);
        }
        family.generation + 1
    } else {
        store.record(origin, event.detail("retried", "true")).await?;
        family.generation
    };
    let refresh_token = family.token(&store.keyring, successor)?;
    let issued = asked.answer(made, Some((&family, refresh_token))).await?;
    Ok(Some(issued))
}

fn about(asked: &Asked<'_>, family: &Family, action: &'static str) -> Event {
    Event::new(action)
        .tenant(&asked.tenant.tenant_id)
        .client(&asked.client.client_id)
        .subject(family.grant_id.as_str())
        .detail("family_id", family.family_id.as_str())
}
