//! Operators and workloads in the database. Of a bearer token only its SHA-256 is kept.

use accord::{
    clock::UnixMillis,
    rpc::auth::Role,
    store::{
        Creation, StoreError,
        audit::{Event, Origin},
        change::Change,
        idempotency::Outcome,
    },
    text::{
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
    Store, commit, corrupt,
    entity::{operator, workload},
};
use crate::model::change_kind;
use crate::{
    error::Error,
    model::caller::{NewOperator, NewWorkload, Operator, Workload},
};

/// The label under which a bearer token derives from its creation.
const TOKEN: &str = "token";

impl Store {
    /// Adds an operator.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::RequestIdReused`].
    pub async fn create_operator(
        &self,
        creation: &Creation,
        new: NewOperator,
    ) -> Result<(Operator, OpaqueToken), Error> {
        let (tx, outcome) = self.begin_creation(creation).await?;
        let reservation = match outcome {
            Outcome::Replay { resource_id, secrets } => {
                let operator = find_operator(&tx, &resource_id)
                    .await?
                    .ok_or(corrupt("idempotency"))?;
                let token = OpaqueToken::from_secret(TokenKind::Operator, &secrets.secret(TOKEN));
                return Ok((operator, token));
            }
            Outcome::New(reservation) => reservation,
        };
        let id = OperatorId::generate(&*self.clock, &*self.random);
        let token = OpaqueToken::from_secret(TokenKind::Operator, &reservation.secrets.secret(TOKEN));
        let roles: Vec<_> = new.roles.iter().map(AsRef::as_ref).collect();
        let row = operator::ActiveModel {
            operator_id: Set(id.to_string()),
            name: Set(new.name),
            roles: Set(serde_json::Value::from(roles.clone())),
            token_hash: Set(token.digest().to_vec()),
            created_at: Set(self.now().as_millis()),
            revoked_at: Set(None),
        };
        let row = row.insert(&tx).await.map_err(|error| taken(error, "operator"))?;
        reservation.complete(&tx, id.as_str()).await?;
        let event = Event::new("operator.create")
            .subject(id.as_str())
            .detail("roles", roles.join(","));
        self.audit(&tx, &creation.origin, event).await?;
        self.bump(&tx, &[changed(id.as_str())]).await?;
        commit(tx).await?;
        Ok((read_operator(row)?, token))
    }

    /// Lists operators, oldest first.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn list_operators(&self, page: &PageRequest) -> Result<Page<Operator>, Error> {
        use operator::{Column, Entity};
        let mut query = Entity::find()
            .order_by_asc(Column::OperatorId)
            .limit(page.fetch());
        if let Some(after) = page.after() {
            query = query.filter(Column::OperatorId.gt(after));
        }
        let rows = query.all(self.db.read()).await.map_err(StoreError::from)?;
        let operators = rows
            .into_iter()
            .map(read_operator)
            .collect::<Result<Vec<_>, _>>()?;
        Ok(page.finish(operators, |operator| operator.operator_id.to_string()))
    }

    /// Revokes an operator; no change, and no event, when it is revoked already.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn revoke_operator(&self, origin: &Origin, id: &OperatorId) -> Result<Operator, Error> {
        use operator::{Column, Entity};
        let tx = self.db.write().await?;
        let revoked = Entity::update_many()
            .filter(Column::OperatorId.eq(id.as_str()))
            .filter(Column::RevokedAt.is_null())
            .col_expr(Column::RevokedAt, Expr::value(self.now().as_millis()))
            .exec(&tx)
            .await
            .map_err(StoreError::from)?;
        let operator = find_operator(&tx, id.as_str())
            .await?
            .ok_or(Error::NotFound("operator"))?;
        if revoked.rows_affected == 1 {
            let event = Event::new("operator.revoke").subject(id.as_str());
            self.audit(&tx, origin, event).await?;
            self.bump(&tx, &[changed(id.as_str())]).await?;
        }
        commit(tx).await?;
        Ok(operator)
    }

    /// The live operators of these names.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn find_live_operators(&self, names: &[&str]) -> Result<Vec<Operator>, Error> {
        use operator::{Column, Entity};
        let rows = Entity::find()
            .filter(Column::Name.is_in(names.iter().copied()))
            .filter(Column::RevokedAt.is_null())
            .all(self.db.read())
            .await
            .map_err(StoreError::from)?;
        rows.into_iter().map(read_operator).collect()
    }

    /// The live operator whose token has this SHA-256.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn find_operator_by_token(&self, digest: &[u8; 32]) -> Result<Option<Operator>, Error> {
        use operator::{Column, Entity};
        let row = Entity::find()
            .filter(Column::TokenHash.eq(digest.to_vec()))
            .filter(Column::RevokedAt.is_null())
            .one(self.db.read())
            .await
            .map_err(StoreError::from)?;
        row.map(read_operator).transpose()
    }

    /// Adds a workload.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::RequestIdReused`].
    pub async fn create_workload(
        &self,
        creation: &Creation,
        new: NewWorkload,
    ) -> Result<(Workload, OpaqueToken), Error> {
        let (tx, outcome) = self.begin_creation(creation).await?;
        let reservation = match outcome {
            Outcome::Replay { resource_id, secrets } => {
                let workload = find_workload(&tx, &resource_id)
                    .await?
                    .ok_or(corrupt("idempotency"))?;
                let token = OpaqueToken::from_secret(TokenKind::Workload, &secrets.secret(TOKEN));
                return Ok((workload, token));
            }
            Outcome::New(reservation) => reservation,
        };
        let id = WorkloadId::generate(&*self.clock, &*self.random);
        let token = OpaqueToken::from_secret(TokenKind::Workload, &reservation.secrets.secret(TOKEN));
        let row = workload::ActiveModel {
            workload_id: Set(id.to_string()),
            name: Set(new.name),
            kind: Set(new.kind.as_ref().to_owned()),
            token_hash: Set(token.digest().to_vec()),
            created_at: Set(self.now().as_millis()),
            revoked_at: Set(None),
        };
        let row = row.insert(&tx).await.map_err(|error| taken(error, "workload"))?;
        reservation.complete(&tx, id.as_str()).await?;
        let event = Event::new("workload.create")
            .subject(id.as_str())
            .detail("kind", new.kind.as_ref());
        self.audit(&tx, &creation.origin, event).await?;
        self.bump(&tx, &[changed(id.as_str())]).await?;
        commit(tx).await?;
        Ok((read_workload(row)?, token))
    }

    /// Lists workloads, oldest first.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn list_workloads(&self, page: &PageRequest) -> Result<Page<Workload>, Error> {
        use workload::{Column, Entity};
        let mut query = Entity::find()
            .order_by_asc(Column::WorkloadId)
            .limit(page.fetch());
        if let Some(after) = page.after() {
            query = query.filter(Column::WorkloadId.gt(after));
        }
        let rows = query.all(self.db.read()).await.map_err(StoreError::from)?;
        let workloads = rows
            .into_iter()
            .map(read_workload)
            .collect::<Result<Vec<_>, _>>()?;
        Ok(page.finish(workloads, |workload| workload.workload_id.to_string()))
    }

    /// Revokes a workload; no change, and no event, when it is revoked already.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn revoke_workload(&self, origin: &Origin, id: &WorkloadId) -> Result<Workload, Error> {
        use workload::{Column, Entity};
        let tx = self.db.write().await?;
        let revoked = Entity::update_many()
            .filter(Column::WorkloadId.eq(id.as_str()))
            .filter(Column::RevokedAt.is_null())
            .col_expr(Column::RevokedAt, Expr::value(self.now().as_millis()))
            .exec(&tx)
            .await
            .map_err(StoreError::from)?;
        let workload = find_workload(&tx, id.as_str())
            .await?
            .ok_or(Error::NotFound("workload"))?;
        if revoked.rows_affected == 1 {
            let event = Event::new("workload.revoke").subject(id.as_str());
            self.audit(&tx, origin, event).await?;
            self.bump(&tx, &[changed(id.as_str())]).await?;
        }
        commit(tx).await?;
        Ok(workload)
    }

    /// The live workloads of these names.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn find_live_workloads(&self, names: &[&str]) -> Result<Vec<Workload>, Error> {
        use workload::{Column, Entity};
        let rows = Entity::find()
            .filter(Column::Name.is_in(names.iter().copied()))
            .filter(Column::RevokedAt.is_null())
            .all(self.db.read())
            .await
            .map_err(StoreError::from)?;
        rows.into_iter().map(read_workload).collect()
    }

    /// The live workload whose token has this SHA-256.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn find_workload_by_token(&self, digest: &[u8; 32]) -> Result<Option<Workload>, Error> {
        use workload::{Column, Entity};
        let row = Entity::find()
            .filter(Column::TokenHash.eq(digest.to_vec()))
            .filter(Column::RevokedAt.is_null())
            .one(self.db.read())
            .await
            .map_err(StoreError::from)?;
        row.map(read_workload).transpose()
    }
}

/// The only unique values that a caller chooses are names of live operators and workloads.
fn taken(error: sea_orm::DbErr, resource: &'static str) -> Error {
    match StoreError::from(error) {
        StoreError::Conflict => Error::AlreadyExists(resource),
        other => other.into(),
    }
}

fn changed(id: &str) -> Change {
    Change {
        kind: change_kind::CALLER,
        id: id.to_owned(),
        tenant_id: None,
    }
}

async fn find_operator(conn: &impl ConnectionTrait, id: &str) -> Result<Option<Operator>, Error> {
    let row = operator::Entity::find_by_id(id)
        .one(conn)
        .await
        .map_err(StoreError::from)?;
    row.map(read_operator).transpose()
}

async fn find_workload(conn: &impl ConnectionTrait, id: &str) -> Result<Option<Workload>, Error> {
    let row = workload::Entity::find_by_id(id)
        .one(conn)
        .await
        .map_err(StoreError::from)?;
    row.map(read_workload).transpose()
}

fn read_operator(row: operator::Model) -> Result<Operator, Error> {
    const UNREADABLE: Error = Error::Store(StoreError::Corrupt("operators"));
    let roles: Vec<String> = serde_json::from_value(row.roles).map_err(|_| UNREADABLE)?;
    let roles: Result<Vec<Role>, _> = roles.iter().map(|name| name.parse()).collect();
    Ok(Operator {
        operator_id: OperatorId::parse(&row.operator_id).map_err(|_| UNREADABLE)?,
        name: row.name,
        roles: roles.map_err(|_| UNREADABLE)?,
        created_at: UnixMillis::from_millis(row.created_at),
        revoked_at: row.revoked_at.map(UnixMillis::from_millis),
    })
}

fn read_workload(row: workload::Model) -> Result<Workload, Error> {
    const UNREADABLE: Error = Error::Store(StoreError::Corrupt("workloads"));
    Ok(Workload {
        workload_id: WorkloadId::parse(&row.workload_id).map_err(|_| UNREADABLE)?,
        name: row.name,
        kind: row.kind.parse().map_err(|_| UNREADABLE)?,
        created_at: UnixMillis::from_millis(row.created_at),
        revoked_at: row.revoked_at.map(UnixMillis::from_millis),
    })
}

#[cfg(test)]
#[path = "tests/caller.rs"]
mod tests;
