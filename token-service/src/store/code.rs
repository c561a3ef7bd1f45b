//! Authorization codes in the database. Which caller redeems a code is decided by one conditional
//! update.

use std::{collections::HashMap, sync::LazyLock};

use accord::{
    clock::UnixMillis,
    id::{ClientId, FamilyId, GrantId, TenantId},
    opaque::OpaqueToken,
    store::{
        StoreError,
        audit::{self, Event, Origin, Record},
        change,
        group::Work,
        rows::AboutRows,
    },
};
use sea_orm::{ColumnTrait, DatabaseTransaction, EntityTrait, FromQueryResult, QueryFilter, sea_query::Expr};
use serde::Serialize;
use serde_json::json;

use super::{
    Shared, Store, column, commit,
    entity::code::{Column, Entity, Model},
    family::{self, end_families_of_grants},
    grant::{GrantKey, find_grants},
    revocation::{self, NewRevocation, RevocationKind},
};
use crate::{code::Code, consent::Grant, error::Error, family::Family, service::Lifetimes};

/// What became of a redemption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redeemed {
    /// The code is redeemed and its grant active; whether it superseded an older one.
    Now {
        /// An older grant ended with it.
        superseding: bool,
    },
    /// Another call was first.
    Before,
    /// The grant ended in between.
    GrantEnded,
}

impl Store {
    /// Reads a tenant's code, and the grant that its redemption activates. Those who come at a time share
    /// the question.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn find_code(
        &self,
        tenant_id: &TenantId,
        code: &OpaqueToken,
    ) -> Result<Option<(Code, Grant)>, Error> {
        let key = CodeKey {
            tenant_id: tenant_id.to_string(),
            code_hash: hex::encode(code.digest()),
        };
        Ok(self.codes.ask(key).await?)
    }

    /// Uses a code up without redeeming it; whether it was unused. The event goes with it.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn burn_code(&self, origin: &Origin, code: &Code, event: Event) -> Result<bool, Error> {
        let tx = self.db.write().await?;
        if !use_up(&tx, code, self.now()).await? {
            return Ok(false);
        }
        self.audit(&tx, origin, event).await?;
        commit(tx).await?;
        Ok(true)
    }

    /// Redeems a code: its grant becomes active and supersedes the client's older one at the tenant,
    /// whose tokens end; the family begins. All of it, and the events, in one transaction, which those who
    /// come at a time share.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn redeem_code(&self, redemption: Redemption) -> Result<Redeemed, Error> {
        Ok(self.redemptions.ask(redemption).await?)
    }
}

/// A tenant's code, to be looked up.
#[derive(Serialize)]
pub(super) struct CodeKey {
    tenant_id: String,
    code_hash: String,
}

/// Looks codes up together.
pub(super) struct Lookups(pub(super) Shared);

static FIND: LazyLock<AboutRows> = LazyLock::new(|| {
    AboutRows::new(&[("tenant_id", "text"), ("code_hash", "text")], |dialect| {
        format!(
            "SELECT codes.* FROM {} JOIN codes
            ON codes.code_hash = {} AND codes.tenant_id = asked.tenant_id",
            dialect.asked,
            dialect.unhex("asked.code_hash"),
        )
    })
});

impl Work for Lookups {
    type Item = CodeKey;
    type Outcome = Option<(Code, Grant)>;

    fn key(_key: &CodeKey) -> Option<String> {
        None
    }

    async fn run(&self, keys: &[CodeKey]) -> Result<Vec<Self::Outcome>, StoreError> {
        let conn = self.0.db.read();
        let mut codes = HashMap::new();
        for row in FIND.query(conn, keys, []).await? {
            let code = read(Model::from_query_result(&row, "")?)?;
            codes.insert((code.tenant_id.to_string(), hex::encode(code.digest)), code);
        }
        let grants: Vec<_> = codes.values().map(Code::grant_key).collect();
        let grants = find_grants(conn, &grants).await?;
        let outcomes = keys.iter().map(|key| {
            let code = codes.get(&(key.tenant_id.clone(), key.code_hash.clone()))?;
            let grant = grants.get(&code.grant_key())?;
            Some((code.clone(), grant.clone()))
        });
        Ok(outcomes.collect())
    }
}

/// A code to be redeemed.
#[derive(Clone, Debug)]
pub struct Redemption {
    /// Who redeems it.
    pub origin: Origin,
    /// The code.
    pub code: Code,
    /// The family that begins.
    pub family: Family,
    /// The event of its first token.
    pub issued: Event,
}

/// Redeems codes together.
pub(super) struct Redemptions(pub(super) Shared);

impl Work for Redemptions {
    type Item = Redemption;
    type Outcome = Redeemed;

    /// A client has one active grant at a tenant.
    fn key(redemption: &Redemption) -> Option<String> {
        let Code {
            tenant_id, client_id, ..
        } = &redemption.code;
        Some(format!("{tenant_id}/{client_id}"))
    }

    async fn run(&self, redemptions: &[Redemption]) -> Result<Vec<Redeemed>, StoreError> {
        // Which of several it was shows when each is tried on its own.
        let unlike = |outcome| match redemptions {
            [_] => Ok(vec![outcome]),
            _ => Err(StoreError::Conflict),
        };
        let Self(Shared { db, clock, random }) = self;
        let tx = db.write().await?;
        let now = clock.now();
        if use_up_all(&tx, redemptions, now).await? < redemptions.len() {
            return unlike(Redeemed::Before);
        }
        let superseded = supersede(&tx, redemptions, now).await?;
        let activated = activate(&tx, redemptions, now).await;
        match activated {
            Ok(activated) if activated < redemptions.len() => return unlike(Redeemed::GrantEnded),
            // Another code of the same client was redeemed at this moment: trying again helps.
            Err(StoreError::Conflict) if redemptions.len() == 1 => return Err(StoreError::Unavailable),
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        family::insert(&tx, redemptions.iter().map(|redemption| &redemption.family), now).await?;
        let mut records = Vec::with_capacity(2 * redemptions.len() + superseded.len());
        for redemption in redemptions {
            let ended = superseded.get(&redemption.code.client_key());
            for event in redemption.events(ended) {
                records.push(Record::new(&**clock, &**random, &redemption.origin, event)?);
            }
        }
        audit::insert(&tx, records).await?;
        publish(&tx, superseded.values(), now).await?;
        commit(tx).await?;
        let outcomes = redemptions.iter().map(|redemption| Redeemed::Now {
            superseding: superseded.contains_key(&redemption.code.client_key()),
        });
        Ok(outcomes.collect())
    }
}

impl Redemption {
    fn events(&self, superseded: Option<&GrantKey>) -> impl Iterator<Item = Event> {
        let about = |action| {
            Event::new(action)
                .tenant(&self.code.tenant_id)
                .client(&self.code.client_id)
        };
        let grant_id = self.code.grant_id.as_str();
        let superseded = superseded.map(|ended| {
            about("consent.supersede")
                .subject(ended.grant_id.as_str())
                .detail("by", grant_id)
        });
        let activated = about("consent.activate").subject(grant_id);
        superseded.into_iter().chain([activated, self.issued.clone()])
    }
}

/// A client at a tenant.
type ClientKey = (String, String);

impl Code {
    fn client_key(&self) -> ClientKey {
        (self.tenant_id.to_string(), self.client_id.to_string())
    }

    fn grant_key(&self) -> GrantKey {
        GrantKey {
            tenant_id: self.tenant_id.to_string(),
            grant_id: self.grant_id.to_string(),
        }
    }
}

/// Ends the access tokens of what was superseded. The activations themselves are published to nobody: nobody
/// remembers that a grant is not there, and so a first consent waits for no other.
async fn publish(
    tx: &DatabaseTransaction,
    superseded: impl Iterator<Item = &GrantKey> + Clone,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let tenants = superseded
        .clone()
        .map(|ended| TenantId::parse(&ended.tenant_id).map_err(|_| StoreError::Corrupt("grants")))
        .collect::<Result<Vec<_>, _>>()?;
    let ended: Vec<_> = superseded.zip(&tenants).collect();
    if ended.is_empty() {
        return Ok(());
    }
    let kind = RevocationKind::Grant;
    let changes = ended
        .iter()
        .map(|(ended, tenant_id)| revocation::change(kind, &ended.grant_id, Some(tenant_id)));
    let last = change::bump(tx, &changes.collect::<Vec<_>>(), now).await?;
    let revocations = (last - ended.len() as i64 + 1..)
        .zip(&ended)
        .map(|(seq, (ended, tenant_id))| NewRevocation {
            seq,
            kind,
            id: &ended.grant_id,
            tenant_id: Some(tenant_id),
            now,
            expires_at: now.plus(Lifetimes::MAX_ACCESS_TOKEN),
        });
    revocation::insert_all(tx, revocations.collect()).await
}

static USE_UP: LazyLock<AboutRows> = LazyLock::new(|| {
    let columns = [
        ("code_hash", "text"),
        ("family_id", "text"),
        ("expires_at", "bigint"),
    ];
    AboutRows::new(&columns, |dialect| {
        format!(
            "UPDATE codes SET used_at = $2, family_id = asked.family_id, expires_at = asked.expires_at
            FROM {} WHERE codes.code_hash = {} AND codes.used_at IS NULL",
            dialect.asked,
            dialect.unhex("asked.code_hash"),
        )
    })
});

/// Marks codes as used; how many were unused. They last as long as their families, since a second use must
/// end those.
async fn use_up_all(
    tx: &DatabaseTransaction,
    redemptions: &[Redemption],
    now: UnixMillis,
) -> Result<usize, StoreError> {
    let rows = redemptions.iter().map(|redemption| {
        json!({
            "code_hash": hex::encode(redemption.code.digest),
            "family_id": redemption.family.family_id.as_str(),
            "expires_at": redemption.family.expires_at.as_millis(),
        })
    });
    let rows: Vec<_> = rows.collect();
    let used = USE_UP.execute(tx, &rows, [now.as_millis().into()]).await?;
    Ok(usize::try_from(used.rows_affected()).unwrap_or(usize::MAX))
}

static SUPERSEDE: LazyLock<AboutRows> = LazyLock::new(|| {
    AboutRows::new(&[("tenant_id", "text"), ("client_id", "text")], |dialect| {
        format!(
            "UPDATE grants SET state = 'superseded', ended_at = $2 FROM {}
            WHERE grants.tenant_id = asked.tenant_id AND grants.client_id = asked.client_id
                AND grants.state = 'active'
            RETURNING grants.tenant_id AS tenant_id, grants.client_id AS client_id,
                grants.grant_id AS grant_id",
            dialect.asked
        )
    })
});

/// Ends the active grants of the codes' clients at the tenants, at most one each; whose they were.
async fn supersede(
    tx: &DatabaseTransaction,
    redemptions: &[Redemption],
    now: UnixMillis,
) -> Result<HashMap<ClientKey, GrantKey>, StoreError> {
    let rows = redemptions.iter().map(|Redemption { code, .. }| {
        json!({ "tenant_id": code.tenant_id.as_str(), "client_id": code.client_id.as_str() })
    });
    let rows: Vec<_> = rows.collect();
    let ended = SUPERSEDE.query(tx, &rows, [now.as_millis().into()]).await?;
    let mut superseded = HashMap::new();
    for row in ended {
        let tenant_id: String = column(&row, "tenant_id")?;
        let grant = GrantKey {
            tenant_id: tenant_id.clone(),
            grant_id: column(&row, "grant_id")?,
        };
        superseded.insert((tenant_id, column(&row, "client_id")?), grant);
    }
    if !superseded.is_empty() {
        let grants: Vec<_> = superseded.values().cloned().collect();
        end_families_of_grants(tx, &grants, "grant_ended", now).await?;
    }
    Ok(superseded)
}

static ACTIVATE: LazyLock<AboutRows> = LazyLock::new(|| {
    AboutRows::new(&[("tenant_id", "text"), ("grant_id", "text")], |dialect| {
        format!(
            "UPDATE grants SET state = 'active', activated_at = $2 FROM {}
            WHERE grants.tenant_id = asked.tenant_id AND grants.grant_id = asked.grant_id
                AND grants.state = 'pending' AND grants.redeem_until > $2",
            dialect.asked
        )
    })
});

/// Lets the codes' grants be active; how many were still to be.
async fn activate(
    tx: &DatabaseTransaction,
    redemptions: &[Redemption],
    now: UnixMillis,
) -> Result<usize, StoreError> {
    let rows: Vec<_> = redemptions
        .iter()
        .map(|redemption| redemption.code.grant_key())
        .collect();
    let activated = ACTIVATE.execute(tx, &rows, [now.as_millis().into()]).await?;
    Ok(usize::try_from(activated.rows_affected()).unwrap_or(usize::MAX))
}

/// Marks a code as used that yields nothing; whether it was unused.
async fn use_up(tx: &DatabaseTransaction, code: &Code, now: UnixMillis) -> Result<bool, StoreError> {
    let used = Entity::update_many()
        .filter(Column::CodeHash.eq(code.digest.to_vec()))
        .filter(Column::UsedAt.is_null())
        .col_expr(Column::UsedAt, Expr::value(now.as_millis()))
        .exec(tx)
        .await?;
    Ok(used.rows_affected == 1)
}

fn read(row: Model) -> Result<Code, StoreError> {
    let unreadable = || StoreError::Corrupt("codes");
    Ok(Code {
        digest: row.code_hash.try_into().map_err(|_| unreadable())?,
        tenant_id: TenantId::parse(&row.tenant_id).map_err(|_| unreadable())?,
        grant_id: GrantId::parse(&row.grant_id).map_err(|_| unreadable())?,
        client_id: ClientId::parse(&row.client_id).map_err(|_| unreadable())?,
        redirect_uri: row.redirect_uri,
        code_challenge: row.code_challenge,
        expires_at: UnixMillis::from_millis(row.expires_at),
        used_at: row.used_at.map(UnixMillis::from_millis),
        family_id: match row.family_id {
            Some(id) => Some(FamilyId::parse(&id).map_err(|_| unreadable())?),
            None => None,
        },
    })
}
