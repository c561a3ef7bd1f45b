//! Operators and workloads in the database. Of a bearer token, stores only the SHA-256.

use accord::{
    clock::UnixMillis,
    store::{
        Creation, Database, Keyed, StoreError,
        audit::{ActorKind, Event, Origin, action},
        idempotency::{CreationOutcome, Derivation},
        rows::{self, Authentic, Lookup, ProtectedRows},
    },
    text::{
        caller::{Caller, Credential, Role},
        id::{OperatorId, WorkloadId},
        opaque::{OpaqueToken, TokenKind},
        page::{Page, PageRequest},
    },
};
use sea_orm::{Order::Asc, QueryOrder, QuerySelect, entity::prelude::*};

use super::{
    Store, change, commit, corrupt,
    entity::caller::{Column, Entity, Model},
    exists, with_reason,
};
use crate::{
    error::{Error, Result},
    model::{
        caller::{ActingOperator, Authority, CallerRecord, CallerType, NewCaller},
        change_kind,
    },
};

/// The name of the field in audit events and errors.
const CERTIFICATE_NAME: &str = "certificate_name";

impl Store {
    /// Adds a caller. Returns its bearer token, which nothing can show again; `None` for a caller with a certificate.
    ///
    /// # Errors
    /// [`Error::NameTaken`] for the name of a live caller of the type, [`Error::AlreadyExists`] for the certificate name of any
    /// live caller, [`Error::RequestIdReused`].
    pub async fn create_caller(
        &self,
        creation: &Creation,
        new: NewCaller,
    ) -> Result<(CallerRecord, Option<OpaqueToken>)> {
        let caller_type = new.authority.caller_type();
        let has_token = new.certificate_name.is_none();
        let token = |secrets: &Derivation| {
            has_token.then(|| OpaqueToken::from_secret(caller_type.token_kind(), &secrets.secret("token")))
        };
        let (tx, outcome) = self.begin_creation(creation).await?;
        let reservation = match outcome {
            CreationOutcome::Repeated { resource_id, secrets } => {
                let row = Entity::look_up_by_id(resource_id).read_one(&tx).await?;
                let row = row.ok_or(corrupt("idempotency"))?;
                let id = row.caller_id.clone();
                let answer = (caller(row)?, token(&secrets));
                return self.commit_repeated(tx, creation, &id, answer).await;
            }
            CreationOutcome::New(reservation) => reservation,
        };
        let (id, action, detail) = match caller_type {
            CallerType::Operator => {
                let id = OperatorId::generate(&*self.clock, &*self.random);
                (id.to_string(), action::OPERATOR_CREATE, "roles")
            }
            CallerType::Workload => {
                let id = WorkloadId::generate(&*self.clock, &*self.random);
                (id.to_string(), action::WORKLOAD_CREATE, "kind")
            }
        };
        let certificate_name = new.certificate_name.map(|name| name.as_str().to_owned());
        require_free_names(&tx, caller_type, &new.name, certificate_name.as_deref()).await?;
        let person = match caller_type {
            CallerType::Operator => new.person.unwrap_or_else(|| id.clone()),
            CallerType::Workload => String::new(),
        };
        let token = token(&reservation.secrets);
        let row = Model {
            caller_id: id.clone(),
            caller_type: caller_type.name().to_owned(),
            name: new.name,
            authority: new.authority.name(),
            token_hash: token.as_ref().map(|token| token.digest().to_vec()),
            certificate_name: certificate_name.clone(),
            person: person.clone(),
            created_by: acting(&tx, &creation.origin).await?.person,
            created_at: self.now().as_millis(),
            revoked_at: None,
            mac: Vec::new(),
        };
        let row = rows::insert::<Entity>(&tx, row)
            .await
            .map_err(exists(caller_type.name()))?;
        reservation.complete(&tx, &id).await?;
        let event = Event::new(action).subject(&id);
        let event = event
            .detail("name", row.name.as_str())
            .detail(detail, new.authority.name())
            .detail_if(CERTIFICATE_NAME, certificate_name)
            .detail_if("person", Some(person).filter(|person| !person.is_empty()));
        let change = change(change_kind::CALLER, &id, None);
        self.publish(&tx, &creation.origin, event, change).await?;
        commit(tx, (caller(row)?, token)).await
    }

    /// Lists the callers of a type, oldest first, the revoked ones included.
    pub async fn list_callers(
        &self,
        caller_type: CallerType,
        page: &PageRequest,
    ) -> Result<Page<CallerRecord>> {
        let query = Entity::look_up().equal(Column::CallerType, caller_type.name());
        self.page(query, Column::CallerId, Asc, page, caller).await
    }

    /// Revokes a caller. Changes and records nothing if it is revoked already. Operators may revoke themselves: the
    /// command line can always add another admin.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`StoreError::Altered`], after the revocation was recorded and published.
    pub async fn revoke_caller(
        &self,
        origin: &Origin,
        caller_type: CallerType,
        id: &str,
        reason: &str,
    ) -> Result<CallerRecord> {
        let tx = self.db.write().await?;
        let event = Event::new(match caller_type {
            CallerType::Operator => action::OPERATOR_REVOKE,
            CallerType::Workload => action::WORKLOAD_REVOKE,
        });
        let change = change(change_kind::CALLER, &id, None);
        let event = with_reason(event.subject(id), reason);
        let row = match rows::lock_to_end::<Entity>(&tx, &[id]).await {
            // Its type may be what was edited.
            Err(StoreError::Altered(table)) => {
                return Err(self.end_altered(tx, origin, event, change, table).await);
            }
            row => row?.filter(|row| row.caller_type == caller_type.name()),
        };
        let mut row = row.ok_or(Error::NotFound(caller_type.name()))?;
        if row.revoked_at.is_none() {
            row.revoked_at = Some(self.now().as_millis());
            row.save(&tx).await?;
            self.publish(&tx, origin, event, change).await?;
        } else {
            self.publish_again(&tx, change).await?;
        }
        commit(tx, caller(row.stored())?).await
    }

    /// Revokes the live callers of these names, such as those of an earlier start.
    pub async fn revoke_callers_named(&self, origin: &Origin, names: &[&str]) -> Result<()> {
        let rows = Entity::look_up()
            .one_of(Column::Name, names.iter().copied())
            .null(Column::RevokedAt)
            .read_all(self.db.read())
            .await?;
        for row in rows {
            let caller_type = caller_type(&row)?;
            let reason = "another of this name takes its place";
            self.revoke_caller(origin, caller_type, &row.caller_id, reason)
                .await?;
        }
        Ok(())
    }

    /// Finds the live caller with this credential.
    ///
    /// # Errors
    /// [`Error::AmbiguousCertificate`] for names of two callers.
    pub async fn find_caller_record(&self, credential: Credential<'_>) -> Result<Option<CallerRecord>> {
        let Some(query) = with_credential(credential) else {
            return Ok(None);
        };
        let query = query.null(Column::RevokedAt);
        let mut rows = query.limit(2).read_all(self.db.read()).await?;
        if rows.len() > 1 {
            return Err(Error::AmbiguousCertificate);
        }
        rows.pop().map(caller).transpose()
    }

    /// Finds who had this credential until it was revoked: for a certificate's names, the last one of several.
    pub async fn find_revoked_caller(&self, credential: Credential<'_>) -> Result<Option<Caller>> {
        let Some(query) = with_credential(credential) else {
            return Ok(None);
        };
        let query = query.not_null(Column::RevokedAt);
        let row = query.order_by_desc(Column::RevokedAt).read_one(self.db.read());
        let record = row.await?.map(caller).transpose()?;
        Ok(record.map(|record| record.caller))
    }
}

/// Rejects the names of a live caller.
async fn require_free_names(
    conn: &impl Keyed,
    caller_type: CallerType,
    name: &str,
    certificate_name: Option<&str>,
) -> Result<()> {
    let live = || Entity::look_up().null(Column::RevokedAt);
    if let Some(name) = certificate_name {
        let taken = live().equal(Column::CertificateName, name).read_one(conn);
        if taken.await?.is_some() {
            return Err(Error::AlreadyExists(CERTIFICATE_NAME));
        }
    }
    let same = live().equal(Column::CallerType, caller_type.name());
    match same.equal(Column::Name, name).read_one(conn).await? {
        None => Ok(()),
        Some(same) => Err(Error::NameTaken {
            resource: caller_type.name(),
            id: same.caller_id.clone(),
        }),
    }
}

/// Selects the callers with this credential; `None` for one that no caller has.
fn with_credential(credential: Credential<'_>) -> Option<Lookup<Entity>> {
    let query = Entity::look_up();
    match credential {
        Credential::Token(token) => {
            let caller_type = match token.kind() {
                TokenKind::Operator => CallerType::Operator,
                TokenKind::Workload => CallerType::Workload,
                _ => return None,
            };
            let query = query.equal(Column::CallerType, caller_type.name());
            Some(query.equal(Column::TokenHash, token.digest().to_vec()))
        }
        Credential::Certificate([]) => None,
        Credential::Certificate(names) => {
            let names = names.iter().map(String::as_str);
            Some(query.one_of(Column::CertificateName, names))
        }
    }
}

/// Returns the operator of a call. What is no operator, such as Accord itself, counts as a person of its own that is no
/// admin.
pub(super) async fn acting(conn: &impl Keyed, origin: &Origin) -> Result<ActingOperator> {
    let id = &origin.actor.id;
    let record = match origin.actor.kind {
        ActorKind::Operator => operator(conn, id).await?,
        _ => None,
    };
    Ok(record.unwrap_or_else(|| ActingOperator {
        person: id.clone(),
        is_admin: false,
        created_by: String::new(),
    }))
}

/// Adds to the event why the second operator may not be an independent person: `first` created this operator, or one of them has
/// no person.
pub(super) fn note_second_person(acting: &ActingOperator, first: &str, event: Event) -> Event {
    if acting.was_created_by(first) {
        event.detail("second_person", "was added by the first")
    } else if !acting.is_other_than(first) {
        event.detail("second_person", "not named")
    } else {
        event
    }
}

/// Returns the operator with this id, also a revoked one.
pub(super) async fn operator(conn: &impl Keyed, id: &str) -> Result<Option<ActingOperator>> {
    let row = Entity::look_up_by_id(id).read_one(conn).await?;
    let record = row.map(caller).transpose()?;
    Ok(record.map(|record| ActingOperator {
        is_admin: match &record.caller {
            Caller::Operator { roles, .. } => roles.contains(&Role::Admin),
            Caller::Workload { .. } => false,
        },
        person: record.person,
        created_by: record.created_by,
    }))
}

/// Rejects a certificate name while `--client-ca` is not set: the next start would refuse the database.
///
/// # Errors
/// [`Error::ClientCaMissing`].
pub fn require_ca_for(new: &NewCaller, has_client_ca: bool) -> Result<()> {
    match new.certificate_name.is_some() && !has_client_ca {
        true => Err(Error::ClientCaMissing),
        false => Ok(()),
    }
}

/// Returns the ids of live callers that a certificate identifies, up to a number.
pub async fn with_certificate_names(db: &Database, most: u64) -> Result<Vec<String>> {
    let query = Entity::find().filter(Column::RevokedAt.is_null());
    let query = query.filter(Column::CertificateName.is_not_null());
    let query = query.order_by_asc(Column::CallerId).limit(most);
    let rows = query.all(db.read()).await?;
    Ok(rows.into_iter().map(|row| row.caller_id).collect())
}

fn caller_type(row: &Model) -> Result<CallerType> {
    row.caller_type.parse().map_err(|_| corrupt("callers"))
}

fn caller(row: Authentic<Entity>) -> Result<CallerRecord> {
    let row = row.into_row();
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
        certificate_name: row.certificate_name,
        person: row.person,
        created_by: row.created_by,
        created_at: UnixMillis::from_millis(row.created_at),
        revoked_at: row.revoked_at.map(UnixMillis::from_millis),
    })
}

#[cfg(test)]
#[path = "tests/caller.rs"]
mod tests;
