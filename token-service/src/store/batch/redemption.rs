//! Redeems authorization codes: eight statements a group, in place of ten statements and a commit for each code
//! (decision 21; benchmark case `code`). One conditional update decides which caller redeems a code.

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
    },
    text::id::TenantId,
};
use sea_orm::{ConnectionTrait, DatabaseBackend, DatabaseTransaction};
use serde_json::{Value, json};

use super::super::{
    Shared, Store, column,
    grant::GrantKey,
    revocation::{self, Revocation},
};
use crate::{
    error::Error,
    model::{code::Code, family::Family, revocation::RevocationKind},
};

/// A code to redeem.
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
pub enum RedemptionOutcome {
    /// The grant is active and the family has begun.
    Redeemed {
        /// Whether an older grant ended with it.
        superseding: bool,
    },
    /// Another call used the code first.
    AlreadyUsed,
    /// The grant ended since it was read.
    GrantEnded,
}

impl Store {
    /// Redeems a code in one transaction: its grant becomes active and supersedes the client's older one at
    /// the tenant, whose tokens end; the family begins.
    pub async fn redeem_code(&self, redemption: Redemption) -> Result<RedemptionOutcome, Error> {
        loop {
            // Without an outcome the code waited for another code of this client.
            if let Some(outcome) = self.redemptions.submit(redemption.clone()).await? {
                return Ok(outcome);
            }
        }
    }
}

pub(in crate::store) struct Redemptions(pub(in crate::store) Shared);

impl Work for Redemptions {
    type Item = Redemption;
    /// `None` for a code whose client has another one in the group; it belongs in a later group.
    type Outcome = Option<RedemptionOutcome>;

    async fn run(&self, items: &[Redemption]) -> Result<Vec<Option<RedemptionOutcome>>, StoreError> {
        let tx = self.0.db.write().await?;
        match self.redeem(tx, items).await {
            // A row stayed locked. Each item is tried alone, so that only those that need the row fail.
            Err(StoreError::Unavailable) if items.len() > 1 => Err(StoreError::Conflict),
            // Another replica redeemed a code of the same client; trying again helps.
            Err(StoreError::Conflict) if items.len() == 1 => Err(StoreError::Unavailable),
            result => result,
        }
    }
}

impl Redemptions {
    async fn redeem(
        &self,
        tx: DatabaseTransaction,
        items: &[Redemption],
    ) -> Result<Vec<Option<RedemptionOutcome>>, StoreError> {
        let Self(Shared { clock, random, .. }) = self;
        let candidates = one_code_of_each_client(items);
        if tx.get_database_backend() == DatabaseBackend::Postgres {
            tx.execute_unprepared(LOCK_TIMEOUT).await?;
        }
        let now = clock.now();
        let used = use_codes(&tx, &candidates, now).await?;
        let (redeemed, late): (Vec<&Redemption>, Vec<_>) = candidates
            .into_iter()
            .partition(|redemption| used.contains(redemption.key()));
        let superseded = supersede(&tx, &redeemed, now).await?;
        let keys = redeemed
            .iter()
            .map(|redemption| GrantKey::of_code(&redemption.code));
        let keys: Vec<_> = keys.collect();
        let activated = ACTIVATE.execute(&tx, &keys, [now.as_millis().into()]).await?;
        if activated.rows_affected() < keys.len() as u64 {
            // A grant ended since its code was used.
            return match items {
                [_] => Ok(vec![Some(RedemptionOutcome::GrantEnded)]),
                _ => Err(StoreError::Conflict),
            };
        }
        begin_families(&tx, &redeemed, now).await?;
        let mut outcomes = HashMap::new();
        let mut records = Vec::with_capacity(2 * redeemed.len() + superseded.len());
        for redemption in &redeemed {
            let ended = superseded.get(&redemption.client_key());
            for event in redemption.events(ended) {
                let origin = redemption.origin.clone();
                records.push(Record::new(&**clock, &**random, origin, event)?);
            }
            let superseding = ended.is_some();
            outcomes.insert(redemption.key(), RedemptionOutcome::Redeemed { superseding });
        }
        if !late.is_empty() {
            let rows = USED.query(&tx, &code_rows(&late), []).await?;
            let used = rows.iter().map(|row| column(row, "family_id"));
            let used: HashSet<String> = used.collect::<Result<_, _>>()?;
            outcomes.extend(
                late.iter()
                    .map(|redemption| match used.contains(redemption.key()) {
                        true => (redemption.key(), RedemptionOutcome::AlreadyUsed),
                        false => (redemption.key(), RedemptionOutcome::GrantEnded),
                    }),
            );
        }
        batch::audit::insert(&tx, &records).await?;
        publish(&tx, superseded.values(), now).await?;
        tx.commit().await?;
        let outcomes = items
            .iter()
            .map(|redemption| outcomes.get(redemption.key()).copied());
        Ok(outcomes.collect())
    }
}

/// Everybody in the group waits for a lock, so nobody waits long.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '250ms'";

/// Picks the redemptions that one transaction can hold, because a client has one active grant at a tenant: one
/// code of each client, possibly presented more than once. The order of clients is the order of locks.
fn one_code_of_each_client(items: &[Redemption]) -> Vec<&Redemption> {
    let mut digests = HashMap::new();
    let mut candidates: Vec<_> = items
        .iter()
        .filter(|item| *digests.entry(item.client_key()).or_insert(item.code.digest) == item.code.digest)
        .collect();
    candidates.sort_by_key(|redemption| redemption.client_key());
    candidates
}

/// A client at a tenant.
type ClientKey = (String, String);

impl Redemption {
    fn key(&self) -> &str {
        self.family.family_id.as_str()
    }

    fn client_key(&self) -> ClientKey {
        (self.code.tenant_id.to_string(), self.code.client_id.to_string())
    }

    fn events(&self, superseded: Option<&GrantKey>) -> impl Iterator<Item = Event> {
        let grant_id = self.code.grant_id.as_str();
        let event = |action, subject: &str| {
            Event::new(action)
                .tenant(&self.code.tenant_id)
                .client(&self.code.client_id)
                .subject(subject)
        };
        let superseded =
            superseded.map(|ended| event("consent.supersede", &ended.grant_id).detail("by", grant_id));
        let activated = event("consent.activate", grant_id);
        superseded.into_iter().chain([activated, self.issued.clone()])
    }
}

/// Ends the access tokens of superseded grants. Activations are not published: no cache remembers that a
/// grant does not exist, and so a first consent does not wait for the feed's counter.
async fn publish(
    tx: &DatabaseTransaction,
    superseded: impl Iterator<Item = &GrantKey>,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let mut ended = Vec::new();
    for grant in superseded {
        let tenant_id = TenantId::parse(&grant.tenant_id).map_err(|_| StoreError::Corrupt("grants"))?;
        ended.push((&grant.grant_id, tenant_id));
    }
    let revocations = ended
        .iter()
        .map(|(grant_id, tenant_id)| Revocation::new(RevocationKind::Grant, grant_id, Some(tenant_id), now));
    revocation::publish(tx, Vec::new(), revocations.collect(), now).await
}

const CODES: [(&str, &str); 5] = [
    ("code_hash", "text"),
    ("tenant_id", "text"),
    ("grant_id", "text"),
    ("family_id", "text"),
    ("expires_at", "bigint"),
];

fn code_rows(redemptions: &[&Redemption]) -> Vec<Value> {
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

/// A code that two redemptions present goes to one of them.
static USE: LazyLock<JsonRows> = LazyLock::new(|| {
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

/// Marks codes as used whose grants are pending, and returns their families. A used code is kept as long as its
/// family, because a second use must end it.
async fn use_codes(
    tx: &DatabaseTransaction,
    redemptions: &[&Redemption],
    now: UnixMillis,
) -> Result<HashSet<String>, StoreError> {
    let rows = USE
        .query(tx, &code_rows(redemptions), [now.as_millis().into()])
        .await?;
    rows.iter().map(|row| column(row, "family_id")).collect()
}

/// Of codes that could not be used, those that had been used before.
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

static END_FAMILIES: LazyLock<JsonRows> = LazyLock::new(|| {
    JsonRows::new(&[("tenant_id", "text"), ("grant_id", "text")], |dialect| {
        format!(
            "UPDATE families SET ended_at = $2, end_reason = 'grant_ended' FROM {}
            WHERE families.tenant_id = input.tenant_id AND families.grant_id = input.grant_id
                AND families.ended_at IS NULL",
            dialect.input
        )
    })
});

/// Ends the active grants of the codes' clients at the tenants, at most one each, and their families.
async fn supersede(
    tx: &DatabaseTransaction,
    redemptions: &[&Redemption],
    now: UnixMillis,
) -> Result<HashMap<ClientKey, GrantKey>, StoreError> {
    let clients = redemptions.iter().map(|Redemption { code, .. }| {
        json!({ "tenant_id": code.tenant_id.as_str(), "client_id": code.client_id.as_str() })
    });
    let clients: Vec<_> = clients.collect();
    let now = now.as_millis();
    let mut superseded = HashMap::new();
    for row in SUPERSEDE.query(tx, &clients, [now.into()]).await? {
        let tenant_id: String = column(&row, "tenant_id")?;
        let grant = GrantKey {
            tenant_id: tenant_id.clone(),
            grant_id: column(&row, "grant_id")?,
        };
        superseded.insert((tenant_id, column(&row, "client_id")?), grant);
    }
    if !superseded.is_empty() {
        let grants: Vec<_> = superseded.values().collect();
        END_FAMILIES.execute(tx, &grants, [now.into()]).await?;
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

static FAMILIES: LazyLock<JsonRows> = LazyLock::new(|| {
    let columns = [
        ("tenant_id", "text"),
        ("family_id", "text"),
        ("grant_id", "text"),
        ("client_id", "text"),
        ("used_generation", "integer"),
        ("current_generation", "integer"),
        ("handed_out_at", "bigint"),
        ("key_version", "integer"),
        ("registry_epoch", "text"),
        ("registry_seq", "bigint"),
        ("created_at", "bigint"),
        ("expires_at", "bigint"),
    ];
    JsonRows::insert("families", &columns)
});

async fn begin_families(
    tx: &DatabaseTransaction,
    redemptions: &[&Redemption],
    now: UnixMillis,
) -> Result<(), StoreError> {
    let rows = redemptions.iter().map(|Redemption { family, .. }| {
        json!({
            "tenant_id": family.tenant_id.as_str(),
            "family_id": family.family_id.as_str(),
            "grant_id": family.grant_id.as_str(),
            "client_id": family.client_id.as_str(),
            "used_generation": family.generations.used,
            "current_generation": family.generations.current,
            "handed_out_at": family.generations.handed_out_at.as_millis(),
            "key_version": family.key_version,
            "registry_epoch": family.registry.epoch,
            "registry_seq": family.registry.seq,
            "created_at": now.as_millis(),
            "expires_at": family.expires_at.as_millis(),
        })
    });
    FAMILIES.execute(tx, &rows.collect::<Vec<_>>(), []).await?;
    Ok(())
}
