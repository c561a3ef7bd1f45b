//! Operators and workloads in the database. Of a bearer token only its SHA-256 is stored.

use accord::{
    clock::UnixMillis,
    store::{
        Creation,
        audit::{Event, Origin},
        idempotency::{Derivation, Outcome},
    },
    text::{
        caller::Caller,
        id::{OperatorId, WorkloadId},
        opaque::{OpaqueToken, TokenKind},
        page::{Page, PageRequest},
    },
};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder,
    QuerySelect, sea_query::Expr,
};

use super::{
    Store, change, commit, corrupt,
    entity::caller::{ActiveModel, Column, Entity, Model},
    exists,
};
use crate::{
    error::Error,
    model::{
        caller::{Authority, CallerRecord, CallerType, NewCaller},
        change_kind,
    },
};

impl Store {
    /// Adds a caller. The token is shown here and nowhere else.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] for the name of a live caller of the type, [`Error::RequestIdReused`].
    pub async fn create_caller(
        &self,
        creation: &Creation,
        new: NewCaller,
    ) -> Result<(CallerRecord, OpaqueToken), Error> {
        let caller_type = new.authority.caller_type();
        let token = |secrets: &Derivation| {
            OpaqueToken::from_secret(caller_type.token_kind(), &secrets.secret("token"))
        };
        let (tx, outcome) = self.begin_creation(creation).await?;
        let reservation = match outcome {
            Outcome::Replay { resource_id, secrets } => {
                let record = find(&tx, &resource_id).await?.ok_or(corrupt("idempotency"))?;
                return Ok((record, token(&secrets)));
            }
            Outcome::New(reservation) => reservation,
        };
        let id = match caller_type {
            CallerType::Operator => OperatorId::generate(&*self.clock, &*self.random).to_string(),
            CallerType::Workload => WorkloadId::generate(&*self.clock, &*self.random).to_string(),
        };
        let token = token(&reservation.secrets);
        let row = ActiveModel {
            caller_id: Set(id.clone()),
            caller_type: Set(name(caller_type).to_owned()),
            name: Set(new.name),
            authority: Set(new.authority.name()),
            token_hash: Set(token.digest().to_vec()),
            created_at: Set(self.now().as_millis()),
            revoked_at: Set(None),
        };
        let row = row.insert(&tx).await.map_err(exists(name(caller_type)))?;
        reservation.complete(&tx, &id).await?;
        let (action, detail) = match caller_type {
            CallerType::Operator => ("operator.create", "roles"),
            CallerType::Workload => ("workload.create", "kind"),
        };
        let event = Event::new(action)
            .subject(&id)
            .detail(detail, new.authority.name());
        let change = change(change_kind::CALLER, &id, None);
        self.publish(&tx, &creation.origin, event, change).await?;
        commit(tx).await?;
        Ok((caller(row)?, token))
    }

    /// Lists the callers of a type, oldest first, the revoked ones included.
    pub async fn list_callers(
        &self,
        caller_type: CallerType,
        page: &PageRequest,
    ) -> Result<Page<CallerRecord>, Error> {
        let mut query = Entity::find()
            .filter(Column::CallerType.eq(name(caller_type)))
            .order_by_asc(Column::CallerId)
            .limit(page.fetch());
        if let Some(after) = page.after() {
            query = query.filter(Column::CallerId.gt(after));
        }
        let rows = query.all(self.db.read()).await?;
        let callers = rows.into_iter().map(caller).collect::<Result<Vec<_>, _>>()?;
        Ok(page.finish(callers, |record| record.caller.id().to_owned()))
    }

    /// Revokes a caller for good; no change, and no event, when it is revoked already. The caller may be the one
    /// that calls: the command line can always add another admin.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn revoke_caller(
        &self,
        origin: &Origin,
        caller_type: CallerType,
        id: &str,
    ) -> Result<CallerRecord, Error> {
        let tx = self.db.write().await?;
        let revoked = Entity::update_many()
            .filter(Column::CallerId.eq(id))
            .filter(Column::CallerType.eq(name(caller_type)))
            .filter(Column::RevokedAt.is_null())
            .col_expr(Column::RevokedAt, Expr::value(self.now().as_millis()))
            .exec(&tx)
            .await?;
        let row = Entity::find_by_id(id)
            .filter(Column::CallerType.eq(name(caller_type)))
            .one(&tx)
            .await?;
        let record = caller(row.ok_or(Error::NotFound(name(caller_type)))?)?;
        if revoked.rows_affected == 1 {
            let action = match caller_type {
                CallerType::Operator => "operator.revoke",
                CallerType::Workload => "workload.revoke",
            };
            let change = change(change_kind::CALLER, &id, None);
            self.publish(&tx, origin, Event::new(action).subject(id), change)
                .await?;
        }
        commit(tx).await?;
        Ok(record)
    }

    /// Revokes the live callers of these names, such as those of an earlier start.
    pub async fn revoke_callers_named(&self, origin: &Origin, names: &[&str]) -> Result<(), Error> {
        let rows = Entity::find()
            .filter(Column::Name.is_in(names.iter().copied()))
            .filter(Column::RevokedAt.is_null())
            .all(self.db.read())
            .await?;
        for row in rows {
            self.revoke_caller(origin, caller_type(&row)?, &row.caller_id)
                .await?;
        }
        Ok(())
    }

    /// Finds the live caller with this bearer token.
    pub async fn find_caller(&self, token: &OpaqueToken) -> Result<Option<CallerRecord>, Error> {
        let caller_type = match token.kind() {
            TokenKind::Operator => CallerType::Operator,
            TokenKind::Workload => CallerType::Workload,
            _ => return Ok(None),
        };
        let row = Entity::find()
            .filter(Column::CallerType.eq(name(caller_type)))
            .filter(Column::TokenHash.eq(token.digest().to_vec()))
            .filter(Column::RevokedAt.is_null())
            .one(self.db.read())
            .await?;
        row.map(caller).transpose()
    }
}

async fn find(conn: &impl ConnectionTrait, id: &str) -> Result<Option<CallerRecord>, Error> {
    let row = Entity::find_by_id(id).one(conn).await?;
    row.map(caller).transpose()
}

fn name(caller_type: CallerType) -> &'static str {
    caller_type.into()
}

fn caller_type(row: &Model) -> Result<CallerType, Error> {
    row.caller_type.parse().map_err(|_| corrupt("callers"))
}

fn caller(row: Model) -> Result<CallerRecord, Error> {
    let unreadable = || corrupt("callers");
    let authority = Authority::from_name(caller_type(&row)?, &row.authority).ok_or_else(unreadable)?;
    let caller = match authority {
        Authority::Roles(roles) => Caller::Operator {
            id: OperatorId::parse(&row.caller_id).map_err(|_| unreadable())?,
            roles,
        },
        Authority::Kind(kind) => Caller::Workload {
            id: WorkloadId::parse(&row.caller_id).map_err(|_| unreadable())?,
            kind,
        },
    };
    Ok(CallerRecord {
        caller,
        name: row.name,
        created_at: UnixMillis::from_millis(row.created_at),
        revoked_at: row.revoked_at.map(UnixMillis::from_millis),
    })
}

#[cfg(test)]
#[path = "tests/caller.rs"]
mod tests;
