//! The refresh token grant (RFC 6749 §6, RFC 9700 §4.14.2). The rule is [`Generations::renew`], and
//! [`Generations::renew_without_rotation`] for clients under the FAPI 2.0 Security Profile.
//!
//! [`Generations::renew_without_rotation`]: crate::model::family::Generations::renew_without_rotation
//! [`Generations::renew`]: crate::model::family::Generations::renew

use accord::{
    store::audit::{Action, Event, action},
    text::opaque::RefreshToken,
};

use super::{Issuance, Issued};
use crate::{
    error::{Error, Result},
    model::{
        family::{Family, Renewal, is_genuine},
        grant::usage::Reuse,
        watermark::ATTEMPTS,
    },
};

pub(super) async fn issue(issuance: &mut Issuance<'_>, token: &str) -> Result<Issued> {
    let token = RefreshToken::parse(token).map_err(|_| Error::InvalidGrant)?;
    for _ in 0..ATTEMPTS {
        if let Some(issued) = attempt(issuance, &token).await? {
            return Ok(issued);
        }
    }
    Err(Error::Unavailable)
}

/// Renews once. Returns `None` if another caller moved the family in between.
async fn attempt(issuance: &mut Issuance<'_>, token: &RefreshToken) -> Result<Option<Issued>> {
    let store = &issuance.oauth.store;
    let tenant_id = &issuance.tenant.tenant_id;
    let found = store.find_family(tenant_id, token.family()).await?;
    // A forged token or another client's has no effect on the family.
    let client_id = &issuance.client.client_id;
    let keyring = store.keyring_of(found.as_deref()).await?;
    let is_genuine = is_genuine(&keyring, token, found.as_deref(), client_id, tenant_id)?;
    let family = found.filter(|_| is_genuine).ok_or(Error::InvalidGrant)?;
    issuance.grant_id = Some(family.grant_id.clone());
    issuance.check_grant_network(&family.grant_id).await?;
    if !issuance.is_live(&family) {
        return Err(Error::InvalidGrant);
    }
    // A replay ends the family whatever else is wrong with the call.
    let now = store.now();
    let renewal = match issuance.client.follows_fapi(now) {
        true => family.generations.renew_without_rotation(token.generation(), now),
        false => family.generations.renew(token.generation(), now),
    };
    let next = match renewal {
        Renewal::Replay => {
            issuance.spend_single_use().await?;
            let event = about(issuance, &family, token, action::REFRESH_TOKEN_REUSE).refused();
            issuance
                .end_family(family.into_value(), Reuse::RefreshToken, event)
                .await?;
            return Err(Error::InvalidGrant);
        }
        Renewal::Repeat | Renewal::Same => None,
        Renewal::HandOut(next) => Some(next),
    };
    // Nothing moves before these checks have passed, so a rejected call can be repeated.
    issuance.check_target()?;
    let grant = issuance.active_grant(Some(&*family)).await?;
    let (signed, issued) = issuance.sign(&grant, Some(&*family)).await?;
    issuance.spend_single_use().await?;
    let origin = issuance.origin();
    let store = &issuance.oauth.store;
    let handed_out = if let Some(next) = next {
        if !store.advance_family(origin, &family, next, issued).await? {
            return Ok(None);
        }
        next.current
    } else if renewal == Renewal::Same {
        store.record(origin, issued).await?;
        family.generations.current
    } else {
        let repeated = about(issuance, &family, token, action::REFRESH_TOKEN_REPEAT);
        let recorded = store.record(origin.clone(), repeated);
        tokio::try_join!(recorded, store.record(origin, issued))?;
        family.generations.current
    };
    let refresh_token = family.token(&keyring, handed_out)?;
    let issued = issuance.recheck(signed, Some((&*family, refresh_token))).await?;
    Ok(Some(issued))
}

fn about(issuance: &Issuance<'_>, family: &Family, token: &RefreshToken, action: Action) -> Event {
    issuance
        .event(action, &family.grant_id)
        .detail("family_id", family.family_id.as_str())
        .detail("generation", token.generation().to_string())
}
