//! Integration requests in the database. They are not in the change feed: token-service has no use
//! for them before they are clients.

use std::collections::HashMap;

use accord::{
    clock::UnixMillis,
    store::{
        Creation, StoreError,
        audit::{Event, Origin},
        idempotency::Outcome,
    },
    text::{
        id::{ClientId, IntegrationRequestId},
        page::{Page, PageRequest},
        validation::{Violations, list_field},
    },
};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, ConnectionTrait, DatabaseTransaction, EntityTrait,
    QueryFilter, QueryOrder, QuerySelect, sea_query::Expr,
};

use super::{
    Store, commit, corrupt,
    entity::{
        integration_request::{ActiveModel, Column, Entity, Model},
        scope, tenant,
    },
};
use crate::{
    error::Error,
    model::integration_request::{
        Decision, IntegrationRequest, Malformed, NewIntegrationRequest, References, State,
    },
};

impl Store {
    /// Records a request, submitted.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what it refers to in vain, [`Error::RequestIdReused`].
    pub async fn submit_integration_request(
        &self,
        creation: &Creation,
        new: NewIntegrationRequest,
    ) -> Result<IntegrationRequest, Error> {
        let (tx, outcome) = self.begin_creation(creation).await?;
        let reservation = match outcome {
            Outcome::Replay { resource_id, .. } => {
                let id = IntegrationRequestId::parse(&resource_id).map_err(|_| corrupt("idempotency"))?;
                return find(&tx, &id).await?.ok_or(corrupt("idempotency"));
            }
            Outcome::New(reservation) => reservation,
        };
        let mut violations = Violations::default();
        check_references(&tx, &mut violations, &new.references()).await?;
        if !violations.is_empty() {
            return Err(Error::Invalid(violations));
        }
        let id = IntegrationRequestId::generate(&*self.clock, &*self.random);
        let now = self.now().as_millis();
        let row = ActiveModel {
            integration_request_id: Set(id.to_string()),
            content: Set(serde_json::to_value(&new).map_err(|_| corrupt("integration_requests"))?),
            state: Set(State::Submitted.as_ref().to_owned()),
            rejection_reason: Set(String::new()),
            client_id: Set(None),
            created_at: Set(now),
            updated_at: Set(now),
        };
        let row = row.insert(&tx).await?;
        reservation.complete(&tx, id.as_str()).await?;
        let event = Event::new("integration_request.submit").subject(id.as_str());
        self.audit(&tx, &creation.origin, event).await?;
        commit(tx).await?;
        integration_request(row)
    }

    /// Reads a request.
    pub async fn find_integration_request(
        &self,
        id: &IntegrationRequestId,
    ) -> Result<Option<IntegrationRequest>, Error> {
        find(self.db.read(), id).await
    }

    /// Lists requests, newest first.
    pub async fn list_integration_requests(
        &self,
        state: Option<State>,
        page: &PageRequest,
    ) -> Result<Page<IntegrationRequest>, Error> {
        let mut query = Entity::find()
            .order_by_desc(Column::IntegrationRequestId)
            .limit(page.fetch());
        if let Some(state) = state {
            query = query.filter(Column::State.eq(state.as_ref()));
        }
        if let Some(after) = page.after() {
            query = query.filter(Column::IntegrationRequestId.lt(after));
        }
        let rows = query.all(self.db.read()).await?;
        let requests = rows
            .into_iter()
            .map(integration_request)
            .collect::<Result<Vec<_>, _>>()?;
        Ok(page.finish(requests, |request| request.integration_request_id.to_string()))
    }

    /// Approves or rejects. Of operators who race, one decides.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::WrongState`].
    pub async fn decide_integration_request(
        &self,
        origin: &Origin,
        id: &IntegrationRequestId,
        decision: Decision,
    ) -> Result<IntegrationRequest, Error> {
        let tx = self.db.write().await?;
        let (action, reason) = match &decision {
            Decision::Approve => ("integration_request.approve", ""),
            Decision::Reject(reason) => ("integration_request.reject", reason.as_str()),
        };
        let values = [(Column::RejectionReason, Expr::value(reason))];
        let request = step(&tx, id, |state| decision.apply(state), values, self.now()).await?;
        let event = Event::new(action).subject(id.as_str());
        self.audit(&tx, origin, event).await?;
        commit(tx).await?;
        Ok(request)
    }

    /// All that is wrong with a malformed message: unknown tenants and scopes as well.
    pub async fn reject_malformed(&self, mut malformed: Malformed) -> Error {
        let Malformed {
            violations,
            references,
        } = &mut malformed;
        match check_references(self.db.read(), violations, references).await {
            Ok(()) => Error::Invalid(malformed.violations),
            Err(error) => error,
        }
    }
}

/// Moves an approved request to registered, as part of registering the client. Of racing calls, one
/// moves it.
///
/// # Errors
/// [`Error::NotFound`], [`Error::WrongState`].
pub(super) async fn mark_registered(
    tx: &DatabaseTransaction,
    id: &IntegrationRequestId,
    client_id: &ClientId,
    now: UnixMillis,
) -> Result<IntegrationRequest, Error> {
    let values = [(Column::ClientId, Expr::value(client_id.as_str()))];
    step(tx, id, State::register, values, now).await
}

/// Makes the step that `rule` allows by one conditional update, which also sets `values`.
async fn step<R>(
    tx: &DatabaseTransaction,
    id: &IntegrationRequestId,
    rule: impl Fn(State) -> Result<State, R>,
    values: impl IntoIterator<Item = (Column, Expr)>,
    now: UnixMillis,
) -> Result<IntegrationRequest, Error>
where
    Error: From<R>,
{
    for from in State::ALL {
        let Ok(to) = rule(from) else { continue };
        let mut update = Entity::update_many()
            .filter(Column::IntegrationRequestId.eq(id.as_str()))
            .filter(Column::State.eq(from.as_ref()))
            .col_expr(Column::State, Expr::value(to.as_ref()))
            .col_expr(Column::UpdatedAt, Expr::value(now.as_millis()));
        for (column, value) in values {
            update = update.col_expr(column, value);
        }
        let moved = update.exec(tx).await?;
        let request = find(tx, id)
            .await?
            .ok_or(Error::NotFound("integration_request"))?;
        if moved.rows_affected == 0 {
            rule(request.state)?;
            // Between the two statements it came into the very state that the step begins at.
            return Err(StoreError::Unavailable.into());
        }
        return Ok(request);
    }
    Err(corrupt("integration_requests"))
}

/// Adds a violation for each tenant that is unknown and each scope that is unknown or disabled.
/// Neither is ever deleted, so what is found to exist goes on existing.
pub(super) async fn check_references(
    conn: &impl ConnectionTrait,
    violations: &mut Violations,
    references: &References,
) -> Result<(), Error> {
    if !references.tenants.is_empty() {
        let known = tenant::Entity::find()
            .filter(tenant::Column::TenantId.is_in(references.tenants.iter().map(|(_, id)| id.as_str())))
            .all(conn)
            .await?;
        for (index, id) in &references.tenants {
            if !known.iter().any(|row| row.tenant_id == id.as_str()) {
                let list = format!("{}tenant_ids", references.prefix);
                violations.add(list_field(&list, *index), "must be a tenant that exists");
            }
        }
    }
    if !references.scopes.is_empty() {
        let known: HashMap<_, _> = scope::Entity::find()
            .filter(scope::Column::Name.is_in(references.scopes.iter().map(|(_, name)| name.as_str())))
            .all(conn)
            .await?
            .into_iter()
            .map(|row| (row.name, row.enabled))
            .collect();
        for (index, name) in &references.scopes {
            let problem = match known.get(name.as_str()) {
                Some(true) => continue,
                Some(false) => "must be a scope that is enabled",
                None => "must be a scope of the catalogue",
            };
            let list = format!("{}scopes", references.prefix);
            violations.add(format!("{}.name", list_field(&list, *index)), problem);
        }
    }
    Ok(())
}

async fn find(
    conn: &impl ConnectionTrait,
    id: &IntegrationRequestId,
) -> Result<Option<IntegrationRequest>, Error> {
    let row = Entity::find_by_id(id.as_str()).one(conn).await?;
    row.map(integration_request).transpose()
}

fn integration_request(row: Model) -> Result<IntegrationRequest, Error> {
    const UNREADABLE: Error = Error::Store(StoreError::Corrupt("integration_requests"));
    let id = IntegrationRequestId::parse(&row.integration_request_id).map_err(|_| UNREADABLE)?;
    let client_id = row.client_id.as_deref().map(ClientId::parse).transpose();
    Ok(IntegrationRequest {
        integration_request_id: id,
        content: serde_json::from_value(row.content).map_err(|_| UNREADABLE)?,
        state: row.state.parse().map_err(|_| UNREADABLE)?,
        rejection_reason: row.rejection_reason,
        client_id: client_id.map_err(|_| UNREADABLE)?,
        created_at: UnixMillis::from_millis(row.created_at),
        updated_at: UnixMillis::from_millis(row.updated_at),
    })
}

#[cfg(test)]
#[path = "tests/integration_request.rs"]
mod tests;
