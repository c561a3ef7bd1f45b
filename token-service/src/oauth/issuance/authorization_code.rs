//! The authorization code grant (RFC 6749 §4.1.3): the first tokens of a consent.

use accord::{
    error::v1::ErrorReason,
    rpc::context,
    store::audit::{Event, action},
    text::{
        id::FamilyId,
        opaque::{OpaqueToken, TokenKind},
    },
};

use super::{BoundKey, CodeRequest, Issuance, Issued, network::check_network};
use crate::{
    error::{Error, Result},
    model::{
        code::{Code, KeyMatch},
        family::{Family, Generations},
        grant::{GrantState, usage::Reuse},
        purpose,
    },
    oauth::note_rejected_client,
    store::{PendingAnswer, Redemption, RedemptionOutcome, StoredCode, StoredGrant},
};

pub(super) async fn issue(issuance: &mut Issuance<'_>, request: &CodeRequest) -> Result<Issued> {
    let store = &issuance.oauth.store;
    let token =
        OpaqueToken::parse(TokenKind::AuthorizationCode, &request.code).map_err(|_| Error::InvalidGrant)?;
    let found = store.find_code(&issuance.tenant.tenant_id, &token).await?;
    // Another client's code stays as it is, and this client learns nothing about it.
    let (code, grant) = found
        .filter(|(code, _)| code.client_id == issuance.client.client_id)
        .ok_or(Error::InvalidGrant)?;
    issuance.grant_id = Some(code.grant_id.clone());
    // Before the code counts as used or replayed: whoever lacks the key can do neither.
    check_key(issuance, &code)?;
    check_network(&grant.allowed_networks)?;
    if code.is_used(&grant) {
        return replayed(issuance, &token).await;
    }
    let is_registered = issuance.client.redirect_uris.contains(&code.redirect_uri);
    if !is_registered || !code.accepts(&request.redirect_uri, &request.code_verifier, store.now()) {
        return invalidate(issuance, &token, code).await;
    }
    // From here on the code stays as it is until the token is signed, so a rejected call can be repeated.
    issuance.check_target()?;
    match &code.family_id {
        Some(family_id) => redeem_again(issuance, &token, &code, family_id).await,
        None => redeem(issuance, &token, code, grant).await,
    }
}

/// Rejects a call with a wrong verifier or redirect URI, or a late one, and uses the code up.
async fn invalidate(issuance: &mut Issuance<'_>, token: &OpaqueToken, code: StoredCode) -> Result<Issued> {
    issuance.spend_single_use().await?;
    let event = issuance.event(action::CODE_REFUSE, &code.grant_id);
    let event = event.detail("why", "verifier, redirect URI or time").refused();
    let (store, origin) = (issuance.oauth.store.clone(), issuance.origin());
    let invalidated =
        context::run_to_completion(async move { store.invalidate_code(&origin, &code, event).await });
    match invalidated.await? {
        true => Err(Error::InvalidGrant),
        false => replayed(issuance, token).await,
    }
}

/// Redeems a code for the first time.
async fn redeem(
    issuance: &mut Issuance<'_>,
    token: &OpaqueToken,
    code: StoredCode,
    grant: StoredGrant,
) -> Result<Issued> {
    let store = &issuance.oauth.store;
    let now = store.now();
    if grant.state_with(now, Some(&**issuance.client), true) != GrantState::Pending {
        return Err(Error::InvalidGrant);
    }
    let user = issuance.user(&grant.designated_user_id).await?;
    if !(issuance.client.active && issuance.tenant.active && user.is_some_and(|user| user.active)) {
        let state = GrantState::Suspended.contract_name();
        return Err(Error::ConsentRequired(Some(state)));
    }
    let keyring = store.keyring_of(None).await?;
    let family = Family {
        family_id: FamilyId::generate(&*store.clock, &*store.random),
        tenant_id: code.tenant_id.clone(),
        grant_id: code.grant_id.clone(),
        client_id: code.client_id.clone(),
        generations: Generations::first(now),
        key_version: keyring.current(purpose::REFRESH)?.version(),
        registry: issuance.watermark.registry.position.clone(),
        expires_at: now.plus(issuance.oauth.lifetimes.family),
        ended_at: None,
    };
    let (signed, issued) = issuance.sign(&grant, Some(&family)).await?;
    let refresh_token = family.token(&keyring, family.generations.current)?;
    let redemption = Redemption {
        origin: issuance.origin(),
        code,
        grant,
        family: family.clone(),
        issued,
    };
    issuance.spend_single_use().await?;
    match issuance.oauth.store.redeem_code(redemption).await? {
        RedemptionOutcome::Redeemed { superseding, answer } => {
            if superseding {
                issuance.oauth.cache.catch_up_or_log().await;
            }
            let issued = issuance.recheck(signed, Some((&family, refresh_token))).await;
            settle(answer, issued).await
        }
        RedemptionOutcome::AlreadyUsed => replayed(issuance, token).await,
        RedemptionOutcome::GrantEnded => Err(Error::InvalidGrant),
    }
}

/// Rejects a call without a proof of the key that the code is bound to (RFC 9449 §10). The code stays as it is.
fn check_key(issuance: &Issuance<'_>, code: &Code) -> Result<()> {
    let proven = issuance.bound_key.as_ref().map(BoundKey::jkt);
    match code.match_key(proven) {
        KeyMatch::Accepted => Ok(()),
        KeyMatch::Missing => Err(Error::InvalidDpopProof(
            "a proof must come, because the code is bound to the key that the authorization request named"
                .to_owned(),
        )),
        KeyMatch::Other => {
            let event = Event::new(action::CODE_REFUSE)
                .tenant(&issuance.tenant.tenant_id)
                .subject(code.grant_id.as_str())
                .detail("why", "key of the DPoP proof");
            note_rejected_client(&issuance.client.client_id, ErrorReason::InvalidGrant, event);
            Err(Error::InvalidGrant)
        }
    }
}

/// Hands out the tokens of a redemption whose call failed before they left.
async fn redeem_again(
    issuance: &mut Issuance<'_>,
    token: &OpaqueToken,
    code: &Code,
    family_id: &FamilyId,
) -> Result<Issued> {
    let store = &issuance.oauth.store;
    let found = store.find_family(&code.tenant_id, family_id).await?;
    let family = found.filter(|family| issuance.is_live(family));
    let family = family.ok_or(Error::InvalidGrant)?.into_value();
    let keyring = store.keyring_of(Some(&family)).await?;
    let grant = issuance.active_grant(Some(&family)).await?;
    let (signed, issued) = issuance.sign(&grant, Some(&family)).await?;
    let refresh_token = family.token(&keyring, family.generations.current)?;
    issuance.spend_single_use().await?;
    let store = &issuance.oauth.store;
    match store
        .redeem_again(&issuance.origin(), code, &family, issued)
        .await?
    {
        Some(answer) => {
            let issued = issuance.recheck(signed, Some((&family, refresh_token))).await;
            settle(answer, issued).await
        }
        None => replayed(issuance, token).await,
    }
}

/// Leaves the code used if its tokens leave, or if its family has ended. Otherwise the client may repeat the call.
async fn settle(answer: PendingAnswer, issued: Result<Issued>) -> Result<Issued> {
    match issued {
        Ok(_) | Err(Error::InvalidGrant) => answer.confirm(),
        Err(_) => answer.reopen().await,
    }
    issued
}

/// Rejects a second use: the code has leaked. Ends the tokens of the first use (RFC 6749 §4.1.2); that is committed
/// although the call fails.
async fn replayed(issuance: &mut Issuance<'_>, token: &OpaqueToken) -> Result<Issued> {
    issuance.spend_single_use().await?;
    let store = &issuance.oauth.store;
    let found = store.find_code(&issuance.tenant.tenant_id, token).await?;
    let (code, grant) = found.ok_or(Error::InvalidGrant)?;
    if !code.is_used(&grant) {
        // The first use failed meanwhile, and its code became usable again.
        return Err(Error::Unavailable);
    }
    let event = issuance.event(action::CODE_REPLAY, &code.grant_id).refused();
    let family = match &grant.family_id {
        Some(family_id) => store.find_family(&code.tenant_id, family_id).await?,
        None => None,
    };
    match family {
        Some(family) if family.ended_at.is_none() => {
            issuance
                .end_family(family.into_value(), Reuse::AuthorizationCode, event)
                .await?;
        }
        _ => {
            let (store, origin) = (store.clone(), issuance.origin());
            context::run_to_completion(async move { store.record(origin, event).await }).await?;
        }
    }
    Err(Error::InvalidGrant)
}
