//! Setups in the database, and what their approval writes: a grant and its code.

use accord::{
    clock::UnixMillis,
    store::{
        Creation, Keyed, Transaction,
        audit::{Event, action},
        idempotency::{self, CreationOutcome, Derivation},
        rows::{self, Checked, ProtectedRows},
    },
    text::{
        id::{ClientId, GrantId, ScopeName, SetupId, TenantId},
        opaque::{OpaqueToken, TokenKind},
    },
};
use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    Store,
    admin_session::require_open,
    corrupt,
    entity::{
        code, grant as grant_row,
        setup::{Entity, Model},
    },
    grant::{grant, receipt},
};
use crate::{
    error::{Error, Result},
    model::{
        admin_session::AdminSession,
        grant::{Grant, StoredState},
        setup::{Approval, CODE_LIFETIME, Decision, LIFETIME, NewSetup, Setup},
    },
};

/// The stored state before the decision; later it is the decision.
const PENDING: &str = "pending";

impl Store {
    /// Reads the setup that an earlier call with the same request id started. Returns `None` if this call is new.
    ///
    /// # Errors
    /// [`Error::RequestIdReused`].
    pub async fn repeat_setup(&self, creation: &Creation) -> Result<Option<Setup>> {
        if creation.request_id.is_none() {
            return Ok(None);
        }
        let (tx, outcome) = self.begin_creation(creation).await?;
        // The rollback of this transaction gives up the reservation of a new call.
        match outcome {
            CreationOutcome::Repeated { resource_id, .. } => Ok(Some(repeated(&tx, &resource_id).await?)),
            CreationOutcome::New(_) => Ok(None),
        }
    }

    /// Starts a setup.
    ///
    /// # Errors
    /// [`Error::RequestIdReused`]; [`Error::Conflict`] if its id is in use.
    pub async fn create_setup(&self, creation: &Creation, new: NewSetup) -> Result<Setup> {
        let (tx, outcome) = self.begin_creation(creation).await?;
        let reservation = match outcome {
            CreationOutcome::Repeated { resource_id, .. } => return repeated(&tx, &resource_id).await,
            CreationOutcome::New(reservation) => reservation,
        };
        let now = self.now();
        let (setup_id, request) = (new.setup_id, new.request);
        let parameters = request.parameters;
        let event = Event::new(action::SETUP_START)
            .tenant(&request.tenant_id)
            .client(&request.client_id)
            .subject(setup_id.as_str())
            .detail("scopes", join(new.scopes.iter().map(|scope| &scope.name)));
        let event = name_origin(event, request.pushed);
        let row = Model {
            setup_id: setup_id.to_string(),
            tenant_id: request.tenant_id.into(),
            tenant_display_name: new.tenant_display_name,
            client_id: request.client_id.into(),
            profile: json(&new.display)?,
            scopes: json(&new.scopes)?,
            redirect_uri: parameters.redirect_uri,
            state_parameter: parameters.state_parameter,
            code_challenge: parameters.code_challenge,
            resource: parameters.resource,
            dpop_jkt: parameters.dpop_jkt,
            pushed: request.pushed,
            client_version: new.client_version,
            state: PENDING.to_owned(),
            created_at: now.as_millis(),
            expires_at: now.plus(LIFETIME).as_millis(),
            decided_at: None,
            mac: Vec::new(),
        };
        let row = rows::insert::<Entity>(&tx, row).await?;
        reservation.complete(&tx, setup_id.as_str()).await?;
        self.audit(&tx, &creation.origin, event).await;
        tx.commit().await?;
        setup(&row)
    }

    /// Reads a setup.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn get_setup(&self, setup_id: &SetupId) -> Result<Setup> {
        let setup = find(self.db.read(), setup_id.as_str()).await?;
        setup.ok_or(Error::NotFound("setup"))
    }

    /// Reads a setup of this tenant.
    ///
    /// # Errors
    /// [`Error::NotFound`], also for another tenant's.
    pub async fn get_tenant_setup(&self, tenant_id: &TenantId, setup_id: &SetupId) -> Result<Setup> {
        let setup = self.find_tenant_setup(tenant_id, setup_id).await?;
        setup.ok_or(Error::NotFound("setup"))
    }

    /// Reads a setup of this tenant, if there is one.
    pub async fn find_tenant_setup(&self, tenant_id: &TenantId, setup_id: &SetupId) -> Result<Option<Setup>> {
        let setup = find(self.db.read(), setup_id.as_str()).await?;
        Ok(setup.filter(|setup| setup.tenant_id == *tenant_id))
    }

    /// Approves a setup: creates the pending grant and its code. Of racing decisions one succeeds; the same decision of
    /// the same session gets its answer again, see [`Store::repeat_approval`].
    ///
    /// # Errors
    /// [`Error::AdminSessionInvalid`] if the session has ended; [`Error::WrongState`] if the setup was decided or has
    /// expired.
    pub async fn approve_setup(
        &self,
        decision: &Creation,
        by: &AdminSession,
        approval: Approval<'_>,
    ) -> Result<(Grant, OpaqueToken)> {
        let setup = approval.setup;
        let (tx, outcome) = self.begin_decision(decision, setup).await?;
        let reservation = match outcome {
            CreationOutcome::New(reservation) => reservation,
            CreationOutcome::Repeated { secrets, .. } => {
                return self.approve_again(tx, decision, by, setup, &secrets).await;
            }
        };
        let now = self.now();
        require_open(&tx, by, now).await?;
        decide(&tx, setup, Decision::Approved, now).await?;
        let grant_id = GrantId::generate(&*self.clock, &*self.random);
        let row = pending_grant(&approval, &grant_id, by, now)?;
        let row = rows::insert::<grant_row::Entity>(&tx, row).await?;
        receipt::begin(&tx, &grant(&row)?, &setup.scopes).await?;
        let token = code_of(&reservation.secrets);
        reservation.complete(&tx, grant_id.as_str()).await?;
        let code = code::Model {
            code_hash: token.digest().to_vec(),
            tenant_id: setup.tenant_id.to_string(),
            grant_id: grant_id.to_string(),
            client_id: setup.client_id.to_string(),
            redirect_uri: setup.redirect_uri.clone(),
            code_challenge: setup.code_challenge.clone(),
            resource: setup.resource.clone(),
            dpop_jkt: setup.dpop_jkt.clone(),
            expires_at: row.redeem_until,
            used_at: None,
            family_id: None,
            mac: Vec::new(),
        };
        rows::insert::<code::Entity>(&tx, code).await?;
        let event = approved(&approval, &grant_id, by);
        self.audit(&tx, &decision.origin, event).await;
        tx.commit().await?;
        Ok((grant(&row)?, token))
    }

    /// Returns the grant and the code of an approval again, to the session that approved with the same choices, until
    /// the code is used or expires.
    ///
    /// # Errors
    /// As [`Store::approve_setup`].
    pub async fn repeat_approval(
        &self,
        decision: &Creation,
        by: &AdminSession,
        setup: &Setup,
    ) -> Result<(Grant, OpaqueToken)> {
        let (tx, outcome) = self.begin_decision(decision, setup).await?;
        match outcome {
            CreationOutcome::Repeated { secrets, .. } => {
                self.approve_again(tx, decision, by, setup, &secrets).await
            }
            CreationOutcome::New(_) => {
                drop(tx);
                Err(self.decided(setup).await?)
            }
        }
    }

    /// Returns the grant and the code of an approval to the session that approved and then denied, whatever it chose,
    /// until the code is used or expires.
    ///
    /// # Errors
    /// As [`Store::deny_setup`].
    pub async fn repeat_approval_after_denial(
        &self,
        denial: &Creation,
        by: &AdminSession,
        setup: &Setup,
    ) -> Result<(Grant, OpaqueToken)> {
        let keyring = self.keyring.complete().await?;
        let tx = self.db.write().await?;
        let (clock, random) = (&*self.clock, &*self.random);
        match idempotency::begin_with_any_content(&tx, &keyring, clock, random, denial).await? {
            CreationOutcome::Repeated { secrets, .. } => {
                self.approve_again(tx, denial, by, setup, &secrets).await
            }
            CreationOutcome::New(_) => {
                drop(tx);
                Err(self.decided(setup).await?)
            }
        }
    }

    async fn approve_again(
        &self,
        tx: Transaction,
        decision: &Creation,
        by: &AdminSession,
        setup: &Setup,
        secrets: &Derivation,
    ) -> Result<(Grant, OpaqueToken)> {
        let now = self.now();
        require_open(&tx, by, now).await?;
        let (token, millis) = (code_of(secrets), now.as_millis());
        // A code that was redeemed must not reach the partner again: its second use would end the grant's tokens.
        let usable = code::Entity::look_up_by_id(token.digest().to_vec())
            .null(code::Column::UsedAt)
            .filter(code::Column::ExpiresAt.gt(millis), move |row| {
                row.expires_at > millis
            });
        let row = match usable.read_one(&tx).await? {
            Some(code) => {
                let code = code.into_row();
                let grant = grant_row::Entity::look_up_by_id((code.tenant_id, code.grant_id));
                let grant = grant.equal(grant_row::Column::State, StoredState::Pending.as_ref());
                grant.read_one(&tx).await?
            }
            None => None,
        };
        let Some(row) = row else {
            drop(tx);
            return Err(self.decided(setup).await?);
        };
        let event = Event::new(action::CONSENT_REPEAT)
            .tenant(&setup.tenant_id)
            .client(&setup.client_id)
            .subject(&row.grant_id)
            .detail("setup_id", setup.setup_id.as_str());
        self.audit(&tx, &decision.origin, event).await;
        tx.commit().await?;
        Ok((grant(&row)?, token))
    }

    /// Denies a setup. Of racing decisions one succeeds; the same decision of the same session gets its answer again.
    ///
    /// # Errors
    /// As [`Store::approve_setup`].
    pub async fn deny_setup(&self, decision: &Creation, by: &AdminSession, setup: &Setup) -> Result<Setup> {
        let (tx, outcome) = self.begin_decision(decision, setup).await?;
        let now = self.now();
        require_open(&tx, by, now).await?;
        let reservation = match outcome {
            CreationOutcome::New(reservation) => reservation,
            CreationOutcome::Repeated { resource_id, .. } => return repeated(&tx, &resource_id).await,
        };
        decide(&tx, setup, Decision::Denied, now).await?;
        reservation.complete(&tx, setup.setup_id.as_str()).await?;
        let event = Event::new(action::CONSENT_DENY)
            .tenant(&setup.tenant_id)
            .client(&setup.client_id)
            .subject(setup.setup_id.as_str())
            .detail("workload", by.workload.as_str());
        let event = name_origin(event, setup.pushed);
        self.audit(&tx, &decision.origin, event).await;
        tx.commit().await?;
        Ok(Setup {
            decision: Some(Decision::Denied),
            decided_at: Some(now),
            ..setup.clone()
        })
    }

    /// Begins a decision. Its request id is the session's, so that a session decides a setup once.
    async fn begin_decision(
        &self,
        decision: &Creation,
        setup: &Setup,
    ) -> Result<(Transaction, CreationOutcome)> {
        match self.begin_creation(decision).await {
            Err(Error::RequestIdReused) => Err(self.decided(setup).await?),
            begun => begun,
        }
    }

    /// Returns the error for a setup that was decided meanwhile.
    async fn decided(&self, setup: &Setup) -> Result<Error> {
        let setup = self.get_setup(&setup.setup_id).await?;
        let pending = setup.require_pending(self.now());
        Ok(pending.err().unwrap_or_else(|| corrupt("idempotency")))
    }
}

/// Returns the row of the grant of an approval, whose code can be redeemed for [`CODE_LIFETIME`].
fn pending_grant(
    approval: &Approval<'_>,
    grant_id: &GrantId,
    by: &AdminSession,
    now: UnixMillis,
) -> Result<grant_row::Model> {
    let setup = approval.setup;
    Ok(grant_row::Model {
        tenant_id: setup.tenant_id.to_string(),
        grant_id: grant_id.to_string(),
        client_id: setup.client_id.to_string(),
        profile: json(&setup.display)?,
        scopes: json(&approval.scopes)?,
        designated_user_id: approval.designated_user_id.to_string(),
        granted_by_user_id: by.user_id.to_string(),
        state: StoredState::Pending.as_ref().to_owned(),
        family_id: None,
        client_version: setup.client_version,
        created_at: now.as_millis(),
        redeem_until: now.plus(CODE_LIFETIME).as_millis(),
        activated_at: None,
        expires_at: approval.expires_at.map(UnixMillis::as_millis),
        ended_at: None,
        allowed_networks: json(&approval.allowed_networks)?,
        mac: Vec::new(),
    })
}

/// Returns the event of an approval.
fn approved(approval: &Approval<'_>, grant_id: &GrantId, by: &AdminSession) -> Event {
    let (setup, networks) = (approval.setup, &approval.allowed_networks);
    let networks = (!networks.allow_any()).then(|| networks.to_texts().join(" "));
    let end = approval.expires_at.map(|end| end.to_timestamp().to_string());
    let event = Event::new(action::CONSENT_APPROVE)
        .tenant(&setup.tenant_id)
        .client(&setup.client_id)
        .subject(grant_id.as_str())
        .detail("setup_id", setup.setup_id.as_str())
        .detail("scopes", join(&approval.scopes))
        .detail("designated_user_id", approval.designated_user_id.as_str())
        .detail("workload", by.workload.as_str());
    name_origin(event, setup.pushed)
        .detail_if("expire_time", end)
        .detail_if("allowed_networks", networks)
}

/// Says in an event that the client has pushed the request.
fn name_origin(event: Event, pushed: bool) -> Event {
    event.detail_if("request", pushed.then_some("pushed"))
}

/// Returns the authorization code of an approval.
fn code_of(secrets: &Derivation) -> OpaqueToken {
    OpaqueToken::from_secret(
        TokenKind::AuthorizationCode,
        &secrets.secret("authorization-code"),
    )
}

/// Decides a pending setup. Rejects any other with its state.
async fn decide(tx: &Transaction, decided: &Setup, decision: Decision, now: UnixMillis) -> Result<()> {
    let row = Entity::look_up_by_id(decided.setup_id.as_str())
        .lock_one(tx)
        .await?;
    let row = row.filter(|row| row.tenant_id == decided.tenant_id.as_str());
    let mut row = row.ok_or(Error::NotFound("setup"))?;
    setup(&row)?.require_pending(now)?;
    row.state = decision.as_ref().to_owned();
    row.decided_at = Some(now.as_millis());
    Ok(row.save(tx).await?)
}

async fn repeated(conn: &impl Keyed, setup_id: &str) -> Result<Setup> {
    find(conn, setup_id).await?.ok_or(corrupt("idempotency"))
}

async fn find(conn: &impl Keyed, setup_id: &str) -> Result<Option<Setup>> {
    let row = Entity::look_up_by_id(setup_id).read_one(conn).await?;
    row.as_ref().map(setup).transpose()
}

pub(super) fn json(value: &impl Serialize) -> Result<serde_json::Value> {
    serde_json::to_value(value).map_err(|_| corrupt("setups"))
}

fn join<'a>(scopes: impl IntoIterator<Item = &'a ScopeName>) -> String {
    let names: Vec<_> = scopes.into_iter().map(ScopeName::as_str).collect();
    names.join(" ")
}

fn setup(row: &impl Checked<Entity>) -> Result<Setup> {
    let unreadable = || corrupt("setups");
    let decision = (row.state != PENDING).then(|| row.state.parse());
    Ok(Setup {
        setup_id: SetupId::parse(&row.setup_id).map_err(|_| unreadable())?,
        tenant_id: TenantId::parse(&row.tenant_id).map_err(|_| unreadable())?,
        tenant_display_name: row.tenant_display_name.clone(),
        client_id: ClientId::parse(&row.client_id).map_err(|_| unreadable())?,
        display: Deserialize::deserialize(&row.profile).map_err(|_| unreadable())?,
        scopes: Deserialize::deserialize(&row.scopes).map_err(|_| unreadable())?,
        redirect_uri: row.redirect_uri.clone(),
        state_parameter: row.state_parameter.clone(),
        code_challenge: row.code_challenge.clone(),
        resource: row.resource.clone(),
        dpop_jkt: row.dpop_jkt.clone(),
        pushed: row.pushed,
        client_version: row.client_version,
        decision: decision.transpose().map_err(|_| unreadable())?,
        created_at: UnixMillis::from_millis(row.created_at),
        expires_at: UnixMillis::from_millis(row.expires_at),
        decided_at: row.decided_at.map(UnixMillis::from_millis),
    })
}
