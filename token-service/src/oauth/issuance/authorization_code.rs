//! The authorization code grant (RFC 6749 §4.1.3): the first tokens of a consent.

use accord::{
    store::audit::Event,
    text::{
        id::FamilyId,
        opaque::{OpaqueToken, TokenKind},
    },
};

use super::{Asked, Issued};
use crate::{
    error::Error,
    model::{
        code::Code,
        family::{Family, Generations},
        grant::GrantState as State,
        purpose,
    },
    store::{Redeemed, Redemption},
};

pub(super) async fn issue(
    asked: &mut Asked<'_>,
    code: &str,
    redirect_uri: &str,
    code_verifier: &str,
) -> Result<Issued, Error> {
    let store = &asked.service.store;
    let token = OpaqueToken::parse(TokenKind::AuthorizationCode, code).map_err(|_| Error::InvalidGrant)?;
    let found = store.find_code(&asked.tenant.tenant_id, &token).await?;
    // Another client's code: this one learns nothing, and the code stays as it is.
    let (code, grant) = found
        .filter(|(code, _)| code.client_id == asked.client.client_id)
        .ok_or(Error::InvalidGrant)?;
    if code.used_at.is_some() {
        return replayed(asked, &token).await;
    }
    let now = store.now();
    if !code.accepts(redirect_uri, code_verifier, now) {
        let event = about(asked, &code, "code.refuse")
            .detail("why", "verifier, redirect URI or time")
            .refused();
        if !store.burn_code(&asked.origin(), &code, event).await? {
            return replayed(asked, &token).await;
        }
        return Err(Error::InvalidGrant);
    }
    // From here on the code stays as it is until the token is made: a refused call can be repeated.
    asked.check_target()?;
    if grant.state_at(now, true) != State::Pending {
        return Err(Error::InvalidGrant);
    }
    let user_is_active = asked.user_is_active(&grant.designated_user_id).await?;
    if !(asked.client.active && asked.tenant.active && user_is_active) {
        return Err(Error::ConsentRequired(Some(State::Suspended.contract_name())));
    }
    let family = Family {
        family_id: FamilyId::generate(&*store.clock, &*store.random),
        tenant_id: code.tenant_id.clone(),
        grant_id: code.grant_id.clone(),
        client_id: code.client_id.clone(),
        generations: Generations::first(now),
        key_version: store.keyring.current(purpose::REFRESH)?.version(),
        registry: asked.revision.registry.clone(),
        expires_at: now.plus(asked.service.lifetimes.family),
        ended_at: None,
    };
    let (made, issued) = asked.make(&grant, Some(&family)).await?;
    let refresh_token = family.token(&store.keyring, family.generations.current)?;
    let redemption = Redemption {
        origin: asked.origin(),
        code,
        family: family.clone(),
        issued,
    };
    match store.redeem_code(redemption).await? {
        Redeemed::Now { superseding } => {
            if superseding {
                asked.service.ledger.learn().await;
            }
            asked.answer(made, Some((&family, refresh_token))).await
        }
        Redeemed::Before => replayed(asked, &token).await,
        Redeemed::GrantEnded => Err(Error::InvalidGrant),
    }
}

/// A second use: somebody has the code who should not. The first use's tokens end (RFC 6749 §4.1.2),
/// and that stays although the call fails.
async fn replayed(asked: &Asked<'_>, token: &OpaqueToken) -> Result<Issued, Error> {
    let store = &asked.service.store;
    let (code, _) = store
        .find_code(&asked.tenant.tenant_id, token)
        .await?
        .ok_or(Error::InvalidGrant)?;
    let event = about(asked, &code, "code.replay").refused();
    let family = match &code.family_id {
        Some(family_id) => store.find_family(&code.tenant_id, family_id).await?,
        None => None,
    };
    match family {
        Some(family) if family.ended_at.is_none() => {
            store
                .end_family(&asked.origin(), &family, "code_replayed", event)
                .await?;
            asked.service.ledger.learn().await;
        }
        _ => store.record(asked.origin(), event).await?,
    }
    Err(Error::InvalidGrant)
}

fn about(asked: &Asked<'_>, code: &Code, action: &'static str) -> Event {
    Event::new(action)
        .tenant(&asked.tenant.tenant_id)
        .client(&asked.client.client_id)
        .subject(code.grant_id.as_str())
}
