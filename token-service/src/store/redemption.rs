//! The redemption of authorization codes, in groups. Which caller redeems a code is decided by one
//! conditional update.

use std::{
    collections::{HashMap, HashSet},
    sync::LazyLock,
};

use accord::{
    clock::UnixMillis,
    store::{
        StoreError,
        audit::{Event, Origin, Record},
        batch::{self, group_commit::Work, json_rows::JsonRows},
        change,
    },
    text::id::TenantId,
};
use sea_orm::{ConnectionTrait, DatabaseBackend, DatabaseTransaction};
use serde_json::{Value, json};

use super::{
    Shared, Store, column, commit,
    family::{self, end_families_of_grants},
    grant::GrantKey,
    revocation::{self, NewRevocation},
};
use crate::model::revocation::RevocationKind;
use crate::{
    error::Error,
    model::{code::Code, family::Family, lifetimes::Lifetimes},
};

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
    /// Redeems a code: its grant becomes active and supersedes the client's older one at the tenant,
    /// whose tokens end; the family begins. All of it, and the events, in one transaction, which those who
    /// come at the same time share.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn redeem_code(&self, redemption: Redemption) -> Result<Redeemed, Error> {
        loop {
            // None: after another code of this client.
            if let Some(redeemed) = self.redemptions.submit(redemption.clone()).await? {
                return Ok(redeemed);
            }
        }
    }
}

/// Redeems codes together.
pub(super) struct Redemptions(pub(super) Shared);

impl Work for Redemptions {
    type Item = Redemption;
    /// `None` for a code whose client has another one in the group: it is to come again.
    type Outcome = Option<Redeemed>;

    async fn run(&self, asked: &[Redemption]) -> Result<Vec<Option<Redeemed>>, StoreError> {
        let tx = self.0.db.write().await?;
        match self.redeem(tx, asked).await {
            // Somebody holds what one of them needs: alone it shows which.
            Err(StoreError::Unavailable) if asked.len() > 1 => Err(StoreError::Conflict),
            // Another code of the same client was redeemed at this moment: trying again helps.
            Err(StoreError::Conflict) if asked.len() == 1 => Err(StoreError::Unavailable),
            done => done,
        }
    }
}

impl Redemptions {
    async fn redeem(
        &self,
        tx: DatabaseTransaction,
        asked: &[Redemption],
    ) -> Result<Vec<Option<Redeemed>>, StoreError> {
        let Self(Shared { clock, random, .. }) = self;
        let candidates = one_code_of_each_client(asked);
        if tx.get_database_backend() == DatabaseBackend::Postgres {
            tx.execute_unprepared(LOCK_TIMEOUT).await?;
        }
        let now = clock.now();
        let used = use_up(&tx, &candidates, now).await?;
        let (redeemed, late): (Vec<&Redemption>, Vec<_>) = candidates
            .into_iter()
            .partition(|redemption| used.contains(redemption.family.family_id.as_str()));
        let superseded = supersede(&tx, &redeemed, now).await?;
        let mut outcomes = HashMap::new();
        if activate(&tx, &redeemed, now).await? < redeemed.len() {
            // A grant ended since its code was used up.
            return match asked {
                [_] => Ok(vec![Some(Redeemed::GrantEnded)]),
                _ => Err(StoreError::Conflict),
            };
        }
        family::insert(&tx, redeemed.iter().map(|redemption| &redemption.family), now).await?;
        let mut records = Vec::with_capacity(2 * redeemed.len() + superseded.len());
        for redemption in &redeemed {
            let ended = superseded.get(&redemption.code.client_key());
            for event in redemption.events(ended) {
                records.push(Record::new(
                    &**clock,
                    &**random,
                    redemption.origin.clone(),
                    event,
                )?);
            }
            let superseding = ended.is_some();
            outcomes.insert(redemption.key(), Redeemed::Now { superseding });
        }
        for (redemption, was_used) in late.iter().zip(were_used(&tx, &late).await?) {
            let outcome = if was_used {
                Redeemed::Before
            } else {
                Redeemed::GrantEnded
            };
            outcomes.insert(redemption.key(), outcome);
        }
        batch::audit::insert(&tx, &records).await?;
        publish(&tx, superseded.values(), now).await?;
        commit(tx).await?;
        let outcomes = asked
            .iter()
            .map(|redemption| outcomes.get(&redemption.key()).copied());
        Ok(outcomes.collect())
    }
}

/// Nobody waits long for a grant that somebody else holds: that would be everybody in the group.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '250ms'";

/// The redemptions that can be done in one transaction, in the order of clients, which is that of locks: a
/// client has one active grant at a tenant. One code may be among them more than once.
fn one_code_of_each_client(asked: &[Redemption]) -> Vec<&Redemption> {
    let mut digests = HashMap::new();
    let mut candidates: Vec<_> = asked
        .iter()
        .filter(|Redemption { code, .. }| {
            *digests.entry(code.client_key()).or_insert(code.digest) == code.digest
        })
        .collect();
    candidates.sort_by_key(|redemption| redemption.code.client_key());
    candidates
}

impl Redemption {
    fn key(&self) -> &str {
        self.family.family_id.as_str()
    }

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

const CODES: [(&str, &str); 5] = [
    ("code_hash", "text"),
    ("tenant_id", "text"),
    ("grant_id", "text"),
    ("family_id", "text"),
    ("expires_at", "bigint"),
];

fn codes(redemptions: &[&Redemption]) -> Vec<Value> {
    let rows = redemptions.iter().map(|Redemption { code, family, .. }| {
        json!({
            "code_hash": hex::encode(code.digest),
            "tenant_id": code.tenant_id.as_str(),
            "grant_id": code.grant_id.as_str(),
            "family_id": family.family_id.as_str(),
            "expires_at": family.expires_at.as_millis(),
        })
    });
    rows.collect()
}

/// A code of two redemptions goes to one of them.
static USE_UP: LazyLock<JsonRows> = LazyLock::new(|| {
    JsonRows::new(&CODES, |dialect| {
        format!(
            "UPDATE codes SET used_at = $2, family_id = input.family_id, expires_at = input.expires_at
            FROM {} WHERE codes.code_hash = {} AND codes.used_at IS NULL AND EXISTS (
                SELECT 1 FROM grants
                WHERE grants.tenant_id = input.tenant_id AND grants.grant_id = input.grant_id
                    AND grants.state = 'pending' AND grants.redeem_until > $2
            )
            RETURNING codes.family_id AS family_id",
            dialect.input,
            dialect.unhex("input.code_hash"),
        )
    })
});

/// Marks codes as used whose grants are still to be; for which families. They last as long as these, since a
/// second use must end them.
async fn use_up(
    tx: &DatabaseTransaction,
    redemptions: &[&Redemption],
    now: UnixMillis,
) -> Result<HashSet<String>, StoreError> {
    let rows = USE_UP
        .query(tx, &codes(redemptions), [now.as_millis().into()])
        .await?;
    rows.iter().map(|row| column(row, "family_id")).collect()
}

static USED: LazyLock<JsonRows> = LazyLock::new(|| {
    JsonRows::new(&CODES, |dialect| {
        format!(
            "SELECT input.family_id AS family_id FROM {} JOIN codes ON codes.code_hash = {}
            WHERE codes.used_at IS NOT NULL",
            dialect.input,
            dialect.unhex("input.code_hash"),
        )
    })
});

/// Whether the codes of redemptions that came too late had been used.
async fn were_used(tx: &DatabaseTransaction, late: &[&Redemption]) -> Result<Vec<bool>, StoreError> {
    if late.is_empty() {
        return Ok(Vec::new());
    }
    let rows = USED.query(tx, &codes(late), []).await?;
    let used = rows.iter().map(|row| column(row, "family_id"));
    let used: HashSet<String> = used.collect::<Result<_, _>>()?;
    Ok(late
        .iter()
        .map(|redemption| used.contains(redemption.key()))
        .collect())
}

static SUPERSEDE: LazyLock<JsonRows> = LazyLock::new(|| {
    JsonRows::new(&[("tenant_id", "text"), ("client_id", "text")], |dialect| {
        format!(
            "UPDATE grants SET state = 'superseded', ended_at = $2 FROM {}
            WHERE grants.tenant_id = input.tenant_id AND grants.client_id = input.client_id
                AND grants.state = 'active'
            RETURNING grants.tenant_id AS tenant_id, grants.client_id AS client_id,
                grants.grant_id AS grant_id",
            dialect.input
        )
    })
});

/// Ends the active grants of the codes' clients at the tenants, at most one each; whose they were.
async fn supersede(
    tx: &DatabaseTransaction,
    redemptions: &[&Redemption],
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

static ACTIVATE: LazyLock<JsonRows> = LazyLock::new(|| {
    JsonRows::new(&[("tenant_id", "text"), ("grant_id", "text")], |dialect| {
        format!(
            "UPDATE grants SET state = 'active', activated_at = $2 FROM {}
            WHERE grants.tenant_id = input.tenant_id AND grants.grant_id = input.grant_id
                AND grants.state = 'pending' AND grants.redeem_until > $2",
            dialect.input
        )
    })
});

/// Lets the codes' grants be active; how many were still to be.
async fn activate(
    tx: &DatabaseTransaction,
    redemptions: &[&Redemption],
    now: UnixMillis,
) -> Result<usize, StoreError> {
    let rows: Vec<_> = redemptions
        .iter()
        .map(|redemption| redemption.code.grant_key())
        .collect();
    let activated = ACTIVATE.execute(tx, &rows, [now.as_millis().into()]).await?;
    Ok(usize::try_from(activated.rows_affected()).unwrap_or(usize::MAX))
}
