//! The refresh token grant (RFC 6749 §6, RFC 9700 §4.14.2). The rule is [`Generations::renew`].
//!
//! [`Generations::renew`]: crate::model::family::Generations::renew

use accord::{store::audit::Event, text::opaque::RefreshToken};

use super::{Asked, Issued};
use crate::{
    cache::lease::ATTEMPTS,
    error::Error,
    model::family::{Family, Renewal, is_genuine},
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

/// Renews once. Returns `None` if another caller moved the family in between.
async fn attempt(asked: &mut Asked<'_>, token: &RefreshToken) -> Result<Option<Issued>, Error> {
    let store = &asked.service.store;
    let tenant_id = &asked.tenant.tenant_id;
    let found = store.find_family(tenant_id, token.family()).await?;
    // A forged token or another client's has no effect on the family.
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
    // A replay ends the family whatever else is wrong with the call.
    let renewal = family.generations.renew(token.generation(), store.now());
    if renewal == Renewal::Replay {
        let event = about(asked, &family, token, "refresh_token.reuse").refused();
        store
            .end_family(&asked.origin(), &family, "replayed", event)
            .await?;
        asked.service.ledger.learn().await;
        return Err(Error::InvalidGrant);
    }
    // Nothing moves before these checks have passed, so a rejected call can be repeated.
    asked.check_target()?;
    let grant = asked.active_grant(Some(&family)).await?;
    let (made, issued) = asked.make(&grant, Some(&family)).await?;
    let origin = asked.origin();
    let store = &asked.service.store;
    let handed_out = match renewal {
        Renewal::HandOut(next) => {
            if !store.advance_family(origin, &family, next, issued).await? {
                return Ok(None);
            }
            next.current
        }
        Renewal::Repeat | Renewal::Replay => {
            let repeated = about(asked, &family, token, "refresh_token.repeat");
            tokio::try_join!(
                store.record(origin.clone(), repeated),
                store.record(origin, issued)
            )?;
            family.generations.current
        }
    };
    let refresh_token = family.token(&store.keyring, handed_out)?;
    let issued = asked.answer(made, Some((&family, refresh_token))).await?;
    Ok(Some(issued))
}

fn about(asked: &Asked<'_>, family: &Family, token: &RefreshToken, action: &'static str) -> Event {
    Event::new(action)
        .tenant(&asked.tenant.tenant_id)
        .client(&asked.client.client_id)
        .subject(family.grant_id.as_str())
        .detail("family_id", family.family_id.as_str())
        .detail("generation", token.generation().to_string())
}
