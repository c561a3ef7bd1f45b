//! The refresh token grant (RFC 6749 §6, RFC 9700 §4.14): each use makes the next generation.

use accord::{opaque::RefreshToken, store::audit::Event};

use super::{Asked, Issued, NewToken};
use crate::{
    consent::State,
    error::Error,
    family::{Family, Presented, is_genuine},
};

/// How often a caller that loses the race for a generation looks again.
const ATTEMPTS: usize = 3;

pub(super) async fn issue(asked: &mut Asked<'_>, token: &str) -> Result<Issued, Error> {
    let token = RefreshToken::parse(token).map_err(|_| Error::InvalidGrant)?;
    for _ in 0..ATTEMPTS {
        if let Some(issued) = attempt(asked, &token).await? {
            return Ok(issued);
        }
    }
    Err(Error::InvalidGrant)
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
    let now = store.now();
    if !family.is_live_at(now) {
        return Err(Error::InvalidGrant);
    }
    let registry = &asked.revision.registry;
    if family.registry.epoch != registry.epoch || family.registry.seq < asked.client.families_ended_seq {
        return Err(Error::InvalidGrant);
    }
    let presented = family.presented(token.generation(), now);
    match presented {
        Presented::Current | Presented::Retry => {}
        Presented::Reused => {
            let event = about(asked, &family, "refresh_token.reuse").refused();
            let event = event.detail("generation", token.generation().to_string());
            store
                .end_family(&asked.origin(), &family, "replayed", event)
                .await?;
            return Err(Error::InvalidGrant);
        }
        Presented::Unknown => return Err(Error::InvalidGrant),
    }
    // From here on nothing is used up until the token is made: a refused call can be repeated.
    asked.check_target()?;
    let grant = store.find_grant(tenant_id, &family.grant_id).await?;
    let grant = grant.ok_or(Error::InvalidGrant)?;
    match asked.state_of(&grant).await? {
        State::Active => {}
        State::Suspended => return Err(Error::ConsentRequired(Some(State::Suspended.contract_name()))),
        _ => return Err(Error::InvalidGrant),
    }
    let scopes = asked.effective_scopes(&grant)?;
    let new = NewToken {
        grant: &grant,
        family_id: Some(&family.family_id),
        scopes: &scopes,
        ends_with: Some(family.expires_at),
        grant_type: "refresh_token",
    };
    let made = asked.make(new).await?;
    let origin = asked.origin();
    let store = &asked.service.store;
    let successor = if presented == Presented::Current {
        let event = made.event.clone();
        if !store.advance_family(&origin, &family, event).await? {
            return Ok(None);
        }
        family.generation + 1
    } else {
        store
            .record(&origin, made.event.clone().detail("retried", "true"))
            .await?;
        family.generation
    };
    let refresh_token = family.token(&store.keyring, successor)?;
    asked.answer(made, scopes, Some(refresh_token)).await.map(Some)
}

fn about(asked: &Asked<'_>, family: &Family, action: &'static str) -> Event {
    Event::new(action)
        .tenant(&asked.tenant.tenant_id)
        .client(&asked.client.client_id)
        .subject(family.grant_id.as_str())
        .detail("family_id", family.family_id.as_str())
}
