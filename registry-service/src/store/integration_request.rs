//! Integration requests in the database. They are not in the change feed, because token-service reads clients only.

use accord::{
    clock::UnixMillis,
    store::{
        Creation, Keyed, Transaction,
        audit::{Action, Event, Origin, action},
        idempotency::CreationOutcome,
        rows::{self, Authentic, Locked, ProtectedRows},
    },
    text::{
        id::{ClientId, IntegrationRequestId},
        page::{Page, PageRequest},
        validation::{Violations, list_field},
    },
};
use sea_orm::{Order::Desc, QueryOrder, QuerySelect, QueryTrait, entity::prelude::*};

use super::{
    Store,
    caller::{acting, note_second_person, operator},
    client::{self, security::with_content, signing_algorithms::require_signing_key},
    commit, corrupt,
    entity::{
        integration_request::{Column, Entity, Model},
        scope, tenant,
    },
    json, second_operator_required, with_reason,
};
use crate::{
    error::{Error, Result},
    model::{
        caller::ActingOperator,
        client::Client,
        integration_request::{
            ClientOrigin, Decision, IntegrationRequest, MAX_AMENDMENTS, NewIntegrationRequest, References,
            RequestOrigin, State, Transition, amendment::amended,
        },
    },
};

impl Store {
    /// Records a request, in state SUBMITTED.
    ///
    /// # Errors
    /// [`Error::Invalid`] for unknown tenants and scopes, [`Error::UnsuitableSigningKey`], [`Error::RequestIdReused`].
    pub async fn submit_integration_request(
        &self,
        creation: &Creation,
        mut new: NewIntegrationRequest,
    ) -> Result<IntegrationRequest> {
        let (tx, outcome) = self.begin_creation(creation).await?;
        let reservation = match outcome {
            CreationOutcome::Repeated { resource_id, .. } => {
                let row = Entity::look_up_by_id(resource_id).read_one(&tx).await?;
                return integration_request(row.ok_or(corrupt("idempotency"))?);
            }
            CreationOutcome::New(reservation) => reservation,
        };
        let mut violations = Violations::default();
        check_references(&tx, &mut violations, &new.references()).await?;
        pin_client(&tx, &mut violations, &mut new, self.now()).await?;
        violations.finish(|| Some(()))?;
        require_signing_key(&tx, new.security_profile).await?;
        let amended = new.amends.as_ref().map(|amends| amends.client_id.clone());
        let id = IntegrationRequestId::generate(&*self.clock, &*self.random);
        let now = self.now().as_millis();
        let row = Model {
            integration_request_id: id.to_string(),
            content: json(&new)?,
            state: State::Submitted.as_ref().to_owned(),
            rejection_reason: String::new(),
            submitter: acting(&tx, &creation.origin).await?.person,
            submitted_by: creation.origin.actor.id.clone(),
            approved_by: None,
            client_id: amended.as_ref().map(ToString::to_string),
            created_at: now,
            updated_at: now,
            mac: Vec::new(),
        };
        let row = rows::insert(&tx, row).await?;
        reservation.complete(&tx, id.as_str()).await?;
        let event = Event::new(action::INTEGRATION_REQUEST_SUBMIT)
            .subject(id.as_str())
            .concerning(new.tenant_ids.clone());
        let event = with_content(event, &new)?;
        let event = match &amended {
            Some(client_id) => event.client(client_id),
            None => event,
        };
        self.audit(&tx, &creation.origin, event).await?;
        commit(tx, integration_request(row)?).await
    }

    /// Reads a request.
    pub async fn find_integration_request(
        &self,
        id: &IntegrationRequestId,
    ) -> Result<Option<IntegrationRequest>> {
        find(self.db.read(), id).await
    }

    /// Lists requests, newest first.
    pub async fn list_integration_requests(
        &self,
        state: Option<State>,
        page: &PageRequest,
    ) -> Result<Page<IntegrationRequest>> {
        let query = Entity::look_up();
        let query = query.apply_if(state, |query, state| query.equal(Column::State, state.as_ref()));
        let key = Column::IntegrationRequestId;
        self.page(query, key, Desc, page, integration_request).await
    }

    /// Returns which requests a client was registered from and amended by, and the operators behind them.
    pub async fn find_client_origin(&self, client: &Client) -> Result<ClientOrigin> {
        let conn = self.db.read();
        let first = client.integration_request_id.to_string();
        let registration = Entity::look_up_by_id(first.as_str()).read_one(conn).await?;
        let is_other = Column::IntegrationRequestId.ne(first.as_str());
        let amendments = Entity::look_up()
            .equal(Column::ClientId, client.client_id.as_str())
            .equal(Column::State, State::Registered.as_ref())
            .filter(is_other, move |row| row.integration_request_id != first)
            .order_by_desc(Column::UpdatedAt)
            .order_by_desc(Column::IntegrationRequestId)
            .limit(MAX_AMENDMENTS);
        let amendments = amendments.read_all(conn).await?;
        Ok(ClientOrigin {
            registration: request_origin(registration.ok_or(corrupt("clients"))?)?,
            amendments: amendments
                .into_iter()
                .map(request_origin)
                .collect::<Result<_>>()?,
        })
    }

    /// Approves or rejects a request. Of racing operators, one decides. With `--second-operator`, only an admin may approve
    /// what the same person submitted; the event then says so. The error of anybody else holds the event of the rejection.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::WrongState`], [`Error::UnsuitableSigningKey`], [`Error::SecondOperatorRequired`].
    pub async fn decide_integration_request(
        &self,
        origin: &Origin,
        id: &IntegrationRequestId,
        decision: Decision,
    ) -> Result<IntegrationRequest> {
        let tx = self.db.write().await?;
        let (action, step, reason) = match &decision {
            Decision::Approve => (action::INTEGRATION_REQUEST_APPROVE, Transition::APPROVE, ""),
            Decision::Reject(reason) => (
                action::INTEGRATION_REQUEST_REJECT,
                Transition::REJECT,
                reason.as_str(),
            ),
        };
        let mut event = Event::new(action).subject(id.as_str());
        let mut row = lock_for(&tx, id, step).await?;
        if let Decision::Approve = &decision {
            let content = integration_request(row.stored())?.content;
            require_signing_key(&tx, content.security_profile).await?;
            event = with_content(event.concerning(content.tenant_ids.clone()), &content)?;
            if let Some(amends) = &content.amends {
                event = event.concerning(client::tenants_of(&tx, &amends.client_id).await?);
            }
            let acting = acting(&tx, origin).await?;
            event = match acting.is(&row.submitter) {
                true => event.detail("same_person", "submitted it"),
                false => note_second_person(&acting, &row.submitter, event),
            };
            if self.second_operator && !may_approve(&acting, &row) {
                tx.rollback().await?;
                return Err(second_operator_required("the approval needs", event));
            }
        }
        match &decision {
            Decision::Approve => row.approved_by = Some(origin.actor.id.clone()),
            Decision::Reject(_) => row.rejection_reason = reason.to_owned(),
        }
        apply(&mut row, step, self.now());
        row.save(&tx).await?;
        self.audit(&tx, origin, with_reason(event, reason)).await?;
        commit(tx, integration_request(row.stored())?).await
    }

    /// Moves an approved request to REGISTERED, with its client. Of racing calls, one succeeds. With `--second-operator`, an
    /// approval of the time before counts only if it would be possible now. `action` is that of the call, for the event of a
    /// rejection.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::WrongState`], [`Error::SecondOperatorRequired`].
    pub(super) async fn mark_registered(
        &self,
        tx: &Transaction,
        id: &IntegrationRequestId,
        client_id: &ClientId,
        action: Action,
    ) -> Result<IntegrationRequest> {
        let mut row = lock_for(tx, id, Transition::REGISTER).await?;
        if self.second_operator {
            let approver = row
                .approved_by
                .as_deref()
                .ok_or(corrupt("integration_requests"))?;
            let approver = operator(tx, approver).await?;
            if !approver.is_some_and(|approver| may_approve(&approver, &row)) {
                let event = Event::new(action).subject(id.as_str());
                let event = event.detail("second_person", "not at the approval");
                let what = "the request can't be applied: its approval lacks";
                return Err(second_operator_required(what, event));
            }
        }
        row.client_id = Some(client_id.to_string());
        apply(&mut row, Transition::REGISTER, self.now());
        row.save(tx).await?;
        integration_request(row.stored())
    }

    /// Returns the violations of a message, and adds one for each tenant and scope in it that is unknown.
    pub async fn reject(&self, (mut violations, references): (Violations, References)) -> Error {
        let checked = check_references(self.db.read(), &mut violations, &references).await;
        checked.err().unwrap_or(Error::Invalid(violations))
    }
}

/// Pins the client that a request amends: the request is about the client as it is now. Does nothing for a request for a new
/// client. Records what this client can't have of an amendment.
async fn pin_client(
    conn: &impl Keyed,
    violations: &mut Violations,
    new: &mut NewIntegrationRequest,
    now: UnixMillis,
) -> Result<()> {
    let Some(amends) = &mut new.amends else {
        return Ok(());
    };
    let Some(client) = client::find(conn, &amends.client_id).await? else {
        violations.add("client_id", "must be a client that exists");
        return Ok(());
    };
    amends.etag = client.etag;
    violations.merge(amended(&client, new, now));
    new.presentation.partner_name = client.presentation.partner_name;
    Ok(())
}

/// Returns whether the rule of two people lets this operator approve a request.
fn may_approve(approver: &ActingOperator, row: &Model) -> bool {
    approver.is_admin || approver.is_other_than(&row.submitter)
}

/// Reads a request that this transition applies to, and locks its row until the transaction ends.
///
/// # Errors
/// [`Error::NotFound`], [`Error::WrongState`].
async fn lock_for(tx: &Transaction, id: &IntegrationRequestId, step: Transition) -> Result<Locked<Entity>> {
    let row = Entity::look_up_by_id(id.as_str()).lock_one(tx).await?;
    let row = row.ok_or(Error::NotFound("integration_request"))?;
    step.check(integration_request(row.stored())?.state)?;
    Ok(row)
}

/// Applies a transition that the request's state allows.
fn apply(row: &mut Model, step: Transition, now: UnixMillis) {
    row.state = step.to.as_ref().to_owned();
    row.updated_at = now.as_millis();
}

/// Adds a violation for each unknown tenant and each unknown or disabled scope. Tenants and scopes are never deleted,
/// so that the result stays true.
pub(super) async fn check_references(
    conn: &impl Keyed,
    violations: &mut Violations,
    references: &References,
) -> Result<()> {
    let (tenants, scopes) = (&references.tenants, &references.scopes);
    let ids = tenants.iter().map(|(_, id)| id.as_str());
    let known = tenant::Entity::look_up().one_of(tenant::Column::TenantId, ids);
    let known = known.read_all(conn).await?;
    for (index, id) in tenants {
        if !known.iter().any(|row| row.tenant_id == id.as_str()) {
            let list = format!("{}tenant_ids", references.prefix);
            violations.add(list_field(&list, *index), "must be a tenant that exists");
        }
    }
    let names = scopes.iter().map(|(_, name)| name.as_str());
    let known = scope::Entity::look_up().one_of(scope::Column::Name, names);
    let known = known.read_all(conn).await?;
    for (index, name) in scopes {
        let problem = match known.iter().find(|row| row.name == name.as_str()) {
            Some(row) if row.enabled => continue,
            Some(_) => "must be a scope that is enabled",
            None => "must be a scope of the catalogue",
        };
        let list = format!("{}scopes", references.prefix);
        violations.add(format!("{}.name", list_field(&list, *index)), problem);
    }
    Ok(())
}

pub(super) async fn find(conn: &impl Keyed, id: &IntegrationRequestId) -> Result<Option<IntegrationRequest>> {
    let row = Entity::look_up_by_id(id.as_str()).read_one(conn).await?;
    row.map(integration_request).transpose()
}

fn request_origin(row: Authentic<Entity>) -> Result<RequestOrigin> {
    let unreadable = || corrupt("integration_requests");
    let row = row.into_row();
    Ok(RequestOrigin {
        integration_request_id: IntegrationRequestId::parse(&row.integration_request_id)
            .map_err(|_| unreadable())?,
        submitted_by: row.submitted_by,
        approved_by: row.approved_by.ok_or_else(unreadable)?,
        // Nothing changes a request after it took effect.
        applied_at: UnixMillis::from_millis(row.updated_at),
    })
}

fn integration_request(row: Authentic<Entity>) -> Result<IntegrationRequest> {
    let row = row.into_row();
    let unreadable = || corrupt("integration_requests");
    let id = IntegrationRequestId::parse(&row.integration_request_id);
    let client_id = row.client_id.as_deref().map(ClientId::parse).transpose();
    Ok(IntegrationRequest {
        integration_request_id: id.map_err(|_| unreadable())?,
        content: serde_json::from_value(row.content).map_err(|_| unreadable())?,
        state: row.state.parse().map_err(|_| unreadable())?,
        rejection_reason: row.rejection_reason,
        submitter: row.submitter,
        client_id: client_id.map_err(|_| unreadable())?,
        created_at: UnixMillis::from_millis(row.created_at),
        updated_at: UnixMillis::from_millis(row.updated_at),
    })
}

#[cfg(test)]
#[path = "tests/integration_request.rs"]
mod tests;
