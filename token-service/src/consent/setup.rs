//! Takes authorization requests in.

use accord::{
    store::Creation,
    text::{
        id::{ClientId, TenantId},
        validation::Violations,
    },
};

use super::{Consents, Facts};
use crate::{
    error::Error,
    model::{
        client::Client,
        setup::{AuthorizationRequest, NewSetup, Setup, select_scopes},
        tenant::Tenant,
    },
};

/// Starts a setup.
///
/// # Errors
/// Those of [`parties`]; [`Error::WrongState`] when client or tenant is suspended; [`Error::InvalidScope`] for
/// a scope that is not the client's or when it has none; [`Error::InvalidTarget`];
/// [`Error::RequestIdReused`].
pub async fn start(
    consents: &Consents,
    facts: &mut Facts,
    creation: &Creation,
    request: AuthorizationRequest,
) -> Result<Setup, Error> {
    // A repeated call gets its first answer, whatever the registry says by now.
    if let Some(setup) = consents.store.replay_setup(creation).await? {
        return Ok(setup);
    }
    let (tenant, client) = parties(
        facts,
        &request.tenant_id,
        &request.client_id,
        &request.redirect_uri,
    )
    .await?;
    require_active("tenant", tenant.active)?;
    require_active("client", client.active)?;
    let scopes = select_scopes(&client.scopes, &request.scopes)?;
    if scopes.is_empty() {
        return Err(Error::InvalidScope);
    }
    if !request.resource.is_empty() && request.resource != tenant.cloud_api_url {
        return Err(Error::InvalidTarget);
    }
    let new = NewSetup {
        request,
        tenant_display_name: tenant.display_name,
        profile: client.profile,
        client_version: client.version,
        scopes,
    };
    consents.store.create_setup(creation, new).await
}

/// Reads tenant and client of an authorization request, and compares the redirect URI byte for byte with the
/// client's. Only after it succeeds may an error go to the redirect URI (RFC 6749 §4.1.2.1).
///
/// # Errors
/// [`Error::NotFound`] for an unknown tenant or client, and for a client that is not registered for the
/// tenant; [`Error::Invalid`] for a redirect URI that is not registered.
pub async fn parties(
    facts: &mut Facts,
    tenant_id: &TenantId,
    client_id: &ClientId,
    redirect_uri: &str,
) -> Result<(Tenant, Client), Error> {
    let tenant = facts.tenant(tenant_id).await?.ok_or(Error::NotFound("tenant"))?;
    let client = facts.client(client_id).await?;
    let client = client
        .filter(|client| client.value.tenant_ids.contains(tenant_id))
        .ok_or(Error::NotFound("client"))?;
    if !client
        .value
        .redirect_uris
        .iter()
        .any(|known| known == redirect_uri)
    {
        let mut violations = Violations::default();
        violations.add(
            "redirect_uri",
            "must be one that is registered for the client, byte for byte",
        );
        return Err(violations.into());
    }
    Ok((tenant.value.clone(), client.value.clone()))
}

pub(super) fn require_active(resource: &'static str, active: bool) -> Result<(), Error> {
    if active {
        return Ok(());
    }
    Err(Error::WrongState {
        resource,
        state: "SUSPENDED",
    })
}
