//! Setups: stores authorization requests, and approves or denies them for a Tenant Admin.

use accord::{
    clock::UnixMillis,
    store::Creation,
    text::{
        id::{ClientId, ScopeName, SetupId, TenantId},
        network::AllowedNetworks,
        opaque::{OpaqueToken, sha256_of_parts},
        validation::only_field,
    },
};
use uuid::Builder;
use zeroize::Zeroizing;

use super::{ConsentCall, admin_session::admin_origin, signed_request::OpenedRequests};
use crate::{
    error::{Error, Result},
    model::{
        admin_session::AdminSession,
        client::{Client, DisplayInfo},
        grant::{Consent, Grant, usage::UsageSummary},
        setup::{
            self, Approval, NewSetup, Setup, is_unchanged,
            pushed_request::{PushedRequest, reference},
            request::AuthorizationRequest,
            require_active, select_scopes,
        },
        tenant::Tenant,
        watermark::ATTEMPTS,
    },
};

/// The rule that an unusable `request_uri` of `StartSetup` breaks.
const UNUSABLE_REQUEST_URI: &str =
    "must be one that this client received from this tenant's authority within the last 90 seconds";

/// What a Tenant Admin chooses when approving a setup. No `Debug`: it holds an account name.
pub struct ConsentChoices {
    /// The setup.
    pub setup_id: SetupId,
    /// The scopes to grant, all different; empty means all that the setup requests.
    pub scopes: Vec<ScopeName>,
    /// The account name of the user that API transactions run as.
    pub designated_account_name: Zeroizing<String>,
    /// When the grant expires.
    pub expires_at: Option<UnixMillis>,
    /// The networks that tokens may be requested from.
    pub allowed_networks: AllowedNetworks,
}

impl ConsentChoices {
    /// Returns all choices, as the content that a repeated approval must match. The order of scopes and networks means nothing.
    fn content(&self) -> Zeroizing<String> {
        let end = self.expires_at.map(|end| end.as_millis().to_string());
        let mut networks = self.allowed_networks.to_texts();
        networks.sort_unstable();
        let mut scopes: Vec<_> = self.scopes.iter().map(|scope| scope.as_str()).collect();
        scopes.sort_unstable();
        let parts = scopes
            .into_iter()
            .chain(["", self.designated_account_name.as_str()]);
        let networks = networks.iter().flat_map(|network| ["network", network.as_str()]);
        let parts: Vec<_> = parts.chain(end.as_deref()).chain(networks).collect();
        Zeroizing::new(parts.join("\0"))
    }
}

/// How a setup gets its authorization request.
pub enum SetupRequest {
    /// With its parameters.
    Given(AuthorizationRequest),
    /// As the client has pushed it (RFC 9126).
    Pushed {
        /// The tenant.
        tenant_id: TenantId,
        /// The client.
        client_id: ClientId,
        /// The reference to it, as it was sent.
        request_uri: String,
    },
}

/// The result of an approval.
#[derive(Debug)]
pub struct ApprovedSetup {
    /// The grant, which is pending until its code is redeemed.
    pub consent: Consent,
    /// The authorization code.
    pub code: OpaqueToken,
    /// The URL to send the browser to; contains the code.
    pub redirect_url: Zeroizing<String>,
}

impl ConsentCall {
    /// Checks an authorization request against the registry, and stores it as a setup.
    ///
    /// # Errors
    /// Those of [`Self::tenant_and_client`], [`Self::find_pushed_request`] and [`setup::check`]; [`Error::Invalid`] for a
    /// `request_uri` that can't be opened; [`Error::RequestIdReused`].
    pub async fn start_setup(&mut self, creation: &Creation, request: SetupRequest) -> Result<Setup> {
        // A repeated call returns the first setup, even if the registry's facts have changed since.
        if let Some(setup) = self.consents.store.repeat_setup(creation).await? {
            return Ok(setup);
        }
        let store = &self.consents.store;
        let (setup_id, request) = match request {
            SetupRequest::Given(request) => (SetupId::generate(&*store.clock, &*store.random), request),
            SetupRequest::Pushed {
                tenant_id,
                client_id,
                request_uri,
            } => {
                let browser = OpenedRequests::default();
                let opened = self.find_pushed_request(&tenant_id, &client_id, &request_uri, &browser);
                let (pushed, _) = only_field("request_uri", opened.await?.ok_or(UNUSABLE_REQUEST_URI))?;
                (pushed.setup_id, pushed.request)
            }
        };
        let (tenant_id, client_id) = (&request.tenant_id, &request.client_id);
        let parties = self.tenant_and_client(tenant_id, client_id, &request.parameters.redirect_uri);
        let parties = parties.await?;
        let new = check_request(setup_id, request, parties, self.consents.store.now())?;
        self.store_once(creation, new).await
    }

    /// Opens a request that a client has pushed to this tenant's authority (RFC 9126 §4). Changes nothing, so that it can be
    /// opened again before its decision. `browser` says which requests the browser has opened before. Returns until when it may
    /// open this one again, if it has opened it; `None` for a `request_uri` that is unknown, expired, or another client's.
    ///
    /// # Errors
    /// [`Error::WrongState`] after the decision.
    pub async fn find_pushed_request(
        &self,
        tenant_id: &TenantId,
        client_id: &ClientId,
        request_uri: &str,
        browser: &OpenedRequests,
    ) -> Result<Option<(PushedRequest, Option<UnixMillis>)>> {
        let store = &self.consents.store;
        let Some(reference) = reference(request_uri) else {
            return Ok(None);
        };
        let Some(pushed) = store.find_pushed_request(tenant_id, &reference).await? else {
            return Ok(None);
        };
        let again_until = browser.end(store, &pushed.setup_id).await?;
        if !pushed.is_open_to(client_id, again_until, store.now()) {
            return Ok(None);
        }
        if let Some(setup) = store.find_tenant_setup(tenant_id, &pushed.setup_id).await? {
            setup.require_pending(store.now())?;
        }
        Ok(Some((pushed, again_until)))
    }

    /// Stores a setup, or returns the one that is stored under its id: the setup of a pushed request, or of a form that was
    /// sent twice.
    async fn store_once(&self, creation: &Creation, new: NewSetup) -> Result<Setup> {
        let (tenant_id, setup_id) = (new.request.tenant_id.clone(), new.setup_id.clone());
        let store = &self.consents.store;
        match store.create_setup(creation, new).await {
            Err(Error::Conflict) => store.get_tenant_setup(&tenant_id, &setup_id).await,
            created => created,
        }
    }

    /// Stores the setup that the call's Tenant Admin has signed in to decide. A repeated call returns the first one.
    ///
    /// # Errors
    /// [`Error::AdminSessionInvalid`].
    pub async fn store_setup(&mut self, new: NewSetup) -> Result<Setup> {
        let session = self.require_session().await?;
        let creation = Creation {
            origin: admin_origin(&session),
            method: "authorize",
            request_id: None,
            content: Zeroizing::default(),
        };
        self.store_once(&creation, new).await
    }

    /// Reads tenant and client of an authorization request, and compares the redirect URI byte for byte with the
    /// client's. Until this succeeds, no error may be sent to the redirect URI (RFC 6749 §4.1.2.1).
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown tenant or client, and for a client that is not registered for the
    /// tenant; [`Error::Invalid`] for a redirect URI that is not registered.
    pub async fn tenant_and_client(
        &mut self,
        tenant_id: &TenantId,
        client_id: &ClientId,
        redirect_uri: &str,
    ) -> Result<(Tenant, Client)> {
        let tenant = self.tenant(tenant_id).await?.value.clone();
        let client = self
            .find_client(client_id)
            .await?
            .map(|client| client.value.clone());
        let client = client.filter(|client| client.tenants.contains_key(tenant_id));
        let client = client.ok_or(Error::NotFound("client"))?;
        client.check_redirect_uri(redirect_uri)?;
        Ok((tenant, client))
    }

    /// Grants all or some of the scopes requested, and designates the user that API transactions run as. Starts over if
    /// the registry's facts are too old just before the commit. A session that approves once more with the same choices
    /// gets the same answer while its code can be redeemed.
    ///
    /// # Errors
    /// [`Error::AdminSessionInvalid`], [`Error::AdminSessionMismatch`], [`Error::SignInTooOld`],
    /// [`Error::NotFound`] (setup, or designated user), [`Error::WrongState`] for a setup that is not pending or
    /// a suspended client, [`Error::ClientChanged`], [`Error::InvalidScope`], [`Error::Unavailable`] when the
    /// registry keeps answering too late.
    pub async fn approve_setup(&mut self, choices: ConsentChoices) -> Result<ApprovedSetup> {
        for _ in 0..ATTEMPTS {
            let (session, setup) = self.session_and_setup(&choices.setup_id).await?;
            let decision = self.decision(&session, &setup, "ApproveSetup", choices.content());
            let store = &self.consents.store;
            if setup.decision.is_some() {
                let repeated = store.repeat_approval(&decision, &session, &setup).await?;
                return self.approved(&setup, repeated).await;
            }
            session.require_fresh(store.now())?;
            setup.require_pending(store.now())?;
            let scopes = select_scopes(&setup.scopes, &choices.scopes)?;
            let client = self.find_client(&setup.client_id).await?;
            let client = client.ok_or(Error::ClientChanged)?;
            require_active("client", client.value.active)?;
            // The client may follow the FAPI 2.0 Security Profile from a time on that has come since.
            let is_admitted = setup.pushed || !client.value.follows_fapi(self.consents.store.now());
            if !is_admitted || !is_unchanged(&setup, &scopes, &client.value) {
                return Err(Error::ClientChanged);
            }
            let account_name = &choices.designated_account_name;
            let designated_user_id = self.designated_user(&session.tenant_id, account_name).await?;
            // Forgets facts that are too old, so that the next attempt reads them again.
            if !self.has_fresh_facts() {
                continue;
            }
            let approval = Approval {
                setup: &setup,
                scopes: scopes.into_iter().map(|scope| scope.name).collect(),
                designated_user_id,
                expires_at: choices.expires_at,
                allowed_networks: choices.allowed_networks.clone(),
            };
            let store = &self.consents.store;
            let approved = store.approve_setup(&decision, &session, approval).await?;
            return self.approved(&setup, approved).await;
        }
        Err(Error::Unavailable)
    }

    async fn approved(
        &mut self,
        setup: &Setup,
        (grant, code): (Grant, OpaqueToken),
    ) -> Result<ApprovedSetup> {
        let tenant = self.tenant(&setup.tenant_id).await?;
        Ok(ApprovedSetup {
            redirect_url: setup.response_url(&tenant.value.issuer, ("code", code.expose()))?,
            consent: self.consent(grant, UsageSummary::default()).await?,
            code,
        })
    }

    /// Returns the decision of a session about a setup as a creating call. Its request id derives from the session's
    /// token, so that a session decides a setup once, and nobody can derive the code from the database alone.
    fn decision(
        &self,
        session: &AdminSession,
        setup: &Setup,
        method: &'static str,
        content: Zeroizing<String>,
    ) -> Creation {
        let parts = ["accord decision v1", &self.admin_session, setup.setup_id.as_str()];
        let request_id = sha256_of_parts(&parts)
            .first_chunk()
            .map(|bytes| Builder::from_random_bytes(*bytes).into_uuid());
        Creation {
            origin: admin_origin(session),
            method,
            request_id,
            content: Zeroizing::new(content.as_bytes().to_vec()),
        }
    }

    /// Denies a setup. Returns the setup, and the URL to send the browser to. A session that denies once more gets the
    /// same answer.
    ///
    /// # Errors
    /// [`Error::AdminSessionInvalid`], [`Error::AdminSessionMismatch`], [`Error::NotFound`],
    /// [`Error::WrongState`].
    pub async fn deny_setup(&mut self, setup_id: &SetupId) -> Result<(Setup, Zeroizing<String>)> {
        let (session, setup) = self.session_and_setup(setup_id).await?;
        let decision = self.decision(&session, &setup, "DenySetup", Zeroizing::default());
        let store = &self.consents.store;
        let setup = store.deny_setup(&decision, &session, &setup).await?;
        let tenant = self.tenant(&setup.tenant_id).await?;
        let redirect_url = setup.response_url(&tenant.value.issuer, ("error", "access_denied"))?;
        Ok((setup, redirect_url))
    }

    /// Returns the approval of a setup to the session that approved it and then tried to deny it.
    ///
    /// # Errors
    /// As [`Self::deny_setup`].
    pub async fn approved_before(&mut self, setup_id: &SetupId) -> Result<ApprovedSetup> {
        let (session, setup) = self.session_and_setup(setup_id).await?;
        let denial = self.decision(&session, &setup, "DenySetup", Zeroizing::default());
        let store = &self.consents.store;
        let approved = store
            .repeat_approval_after_denial(&denial, &session, &setup)
            .await?;
        self.approved(&setup, approved).await
    }

    /// Reads a setup, and the session that was opened to decide it.
    async fn session_and_setup(&mut self, setup_id: &SetupId) -> Result<(AdminSession, Setup)> {
        let session = self.require_session().await?;
        let store = &self.consents.store;
        let setup = store.get_tenant_setup(&session.tenant_id, setup_id).await?;
        if session.setup_id.as_ref() != Some(setup_id) {
            return Err(Error::AdminSessionMismatch);
        }
        Ok((session, setup))
    }
}

/// Checks an authorization request against its tenant and client. Returns the setup to store.
///
/// # Errors
/// [`Error::Invalid`] for a client that has to push its requests, and those of [`setup::check`].
pub fn check_request(
    setup_id: SetupId,
    request: AuthorizationRequest,
    (tenant, client): (Tenant, Client),
    now: UnixMillis,
) -> Result<NewSetup> {
    client.require_pushed(request.pushed, now)?;
    let scopes = setup::check(&request.parameters, &tenant, &client)?;
    let bound_tokens = client.has_bound_tokens(now);
    Ok(NewSetup {
        setup_id,
        request,
        tenant_display_name: tenant.display_name,
        display: DisplayInfo {
            bound_tokens,
            ..client.display
        },
        client_version: client.version,
        scopes,
    })
}
