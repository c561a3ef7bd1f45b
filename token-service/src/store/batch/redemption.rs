//! Redeems authorization codes: nine statements for a group, and five more if it supersedes grants, instead of ten
//! statements and a commit for each code (decision 21; benchmark case `code`). One conditional update decides which caller
//! redeems a code. It compares the MACs of code and grant, so that the rows that were read and checked are those that change.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, LazyLock},
};

use accord::{
    clock::{SharedClock, UnixMillis},
    keys::DataKey,
    random::SharedRandom,
    store::{
        Database, StoreError, Transaction,
        audit::{self, Event, GroupWriter, Origin, Record, action},
        batch::{
            group_commit::Work,
            json_rows::{Column, JsonRows},
        },
        rows::{self, ProtectedRows, all_written},
    },
};
use sea_orm::{ConnectionTrait, DatabaseBackend};
use serde_json::{Value, json};

use super::{
    super::{
        Store, column,
        entity::{code, family, grant},
        family::new_row,
        grant::StoredGrant,
        reopening::{PendingAnswer, Reopenings},
        revocation::{self, Revocation},
    },
    code::StoredCode,
    supersession::{ClientKey, supersede},
};
use crate::{
    error::Result,
    model::{family::Family, grant::StoredState, revocation::RevocationKind, watermark::ATTEMPTS},
};

/// A code to redeem.
#[derive(Clone, Debug)]
pub struct Redemption {
    /// Who redeems it.
    pub origin: Origin,
    /// The code.
    pub code: StoredCode,
    /// The grant that becomes active.
    pub grant: StoredGrant,
    /// The family that begins.
    pub family: Family,
    /// The audit event of its first token.
    pub issued: Event,
}

/// The outcome of a redemption.
#[derive(Debug)]
pub enum RedemptionOutcome {
    /// The grant is active and the family has begun.
    Redeemed {
        /// Whether an older grant ended with it.
        superseding: bool,
        /// The answer of the call, which is to leave.
        answer: PendingAnswer,
    },
    /// Another call used the code first.
    AlreadyUsed,
    /// The grant has ended since it was read.
    GrantEnded,
}

impl Store {
    /// Redeems a code in one transaction: its grant becomes active, the client's older grant at the tenant is
    /// superseded and its tokens end, and the family begins.
    pub async fn redeem_code(&self, redemption: Redemption) -> Result<RedemptionOutcome> {
        let mut attempts = 0..ATTEMPTS;
        loop {
            match self.redemptions.submit(redemption.clone()).await {
                Ok(Some(outcome)) => return Ok(outcome),
                // The group held another code of this client. A later group takes this one.
                Ok(None) => {}
                // Another replica redeems a code of this client, or a row stays locked. Nothing has changed.
                Err(StoreError::Busy) if attempts.next().is_some() => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Redeems the codes of a group. It has a clock and random numbers to create audit records itself, because the events
/// name the grants that the redemptions supersede.
pub(in crate::store) struct Redemptions {
    pub(in crate::store) db: Database,
    pub(in crate::store) clock: SharedClock,
    pub(in crate::store) random: SharedRandom,
    pub(in crate::store) writer: GroupWriter,
    pub(in crate::store) reopenings: Arc<Reopenings>,
}

impl Work for Redemptions {
    type Item = Redemption;
    /// `None` for a code whose client has another one in the group; it belongs in a later group.
    type Outcome = Option<RedemptionOutcome>;

    const NAME: &'static str = "redemptions";

    async fn run(&self, items: &[Redemption]) -> Result<Vec<Option<RedemptionOutcome>>, StoreError> {
        let tx = self.db.write().await?;
        match self.redeem(tx, items).await {
            // A row stayed locked. After a conflict each item is tried alone, so that only those that need it fail.
            Err(StoreError::Busy) if items.len() > 1 => Err(StoreError::Conflict),
            // Another replica redeemed a code of the same client at the same moment.
            Err(StoreError::Conflict) if items.len() == 1 => Err(StoreError::Busy),
            result => result,
        }
    }
}

impl Redemptions {
    async fn redeem(
        &self,
        tx: Transaction,
        items: &[Redemption],
    ) -> Result<Vec<Option<RedemptionOutcome>>, StoreError> {
        let is_postgres = tx.get_database_backend() == DatabaseBackend::Postgres;
        if is_postgres {
            tx.execute_unprepared(ROW_LOCK_TIMEOUT).await?;
        }
        let now = self.clock.now();
        let millis = now.as_millis();
        let key = rows::current(&tx)?;
        let candidates = one_code_of_each_client(items).into_iter();
        let candidates = candidates.map(|redemption| redemption.candidate(&key, now));
        let candidates = candidates.collect::<Result<Vec<_>, StoreError>>()?;
        let used = USE.query(&tx, &rows_of(&candidates), [millis.into()]).await?;
        let used = used.iter().map(|row| column::<String>(row, "family_id"));
        let used = used.collect::<Result<HashSet<_>, _>>()?;
        let (redeemed, rejected): (Vec<Candidate<'_>>, Vec<_>) = candidates
            .into_iter()
            .partition(|candidate| used.contains(candidate.redemption.key()));
        let redeemed_rows = rows_of(&redeemed);
        let superseded = supersede(&tx, &key, &redeemed_rows, now).await?;
        let activated = ACTIVATE.execute(&tx, &redeemed_rows, [millis.into()]).await?;
        if activated.rows_affected() < redeemed.len() as u64 {
            // A grant has ended since this transaction used its code.
            return match items {
                [_] => Ok(vec![Some(RedemptionOutcome::GrantEnded)]),
                _ => Err(StoreError::Conflict),
            };
        }
        let begun = INSERT_FAMILIES.execute(&tx, &redeemed_rows, []).await?;
        all_written("families", begun.rows_affected(), redeemed.len())?;
        let (issued, revocations) = self.record(&tx, &redeemed, &superseded, now).await?;
        let mut outcomes = outcomes_of_rejected(&tx, &rejected).await?;
        let appended = self.writer.append(&tx, &issued).await?;
        if is_postgres && !issued.is_empty() {
            tx.execute_unprepared(COUNTER_LOCK_TIMEOUT).await?;
        }
        // Does not publish activations, because no cache remembers that a grant does not exist.
        revocation::publish(&tx, Vec::new(), revocations, now).await?;
        let answers = self.commit_or_find(tx, &redeemed).await?;
        if let Some(appended) = appended {
            appended.committed();
        }
        for (Candidate { redemption, .. }, answer) in redeemed.iter().zip(answers) {
            let superseding = superseded.contains_key(&redemption.client_key());
            let outcome = RedemptionOutcome::Redeemed { superseding, answer };
            outcomes.insert(redemption.key(), outcome);
        }
        let outcomes = items.iter().map(|item| outcomes.remove(item.key()));
        Ok(outcomes.collect())
    }

    /// Records what the redemptions of a group have changed. Returns the records of their first tokens, and the revocations of
    /// the grants that they superseded.
    async fn record<'a>(
        &self,
        tx: &Transaction,
        redeemed: &[Candidate<'a>],
        superseded: &'a HashMap<ClientKey, String>,
        now: UnixMillis,
    ) -> Result<(Vec<Record>, Vec<Revocation<'a>>), StoreError> {
        let (mut issued, mut revocations) = (Vec::new(), Vec::new());
        for Candidate {
            redemption, grant, ..
        } in redeemed
        {
            let ended = superseded.get(&redemption.client_key());
            rows::note_version::<grant::Entity>(tx, Some(redemption.grant.row()), grant)?;
            for change in redemption.changes(ended) {
                audit::record(tx, &*self.clock, &*self.random, &redemption.origin, change).await;
            }
            let (origin, event) = (redemption.origin.clone(), redemption.issued.clone());
            issued.push(Record::new(&*self.clock, &*self.random, origin, event));
            let tenant_id = Some(&redemption.code.tenant_id);
            let revoke = |grant_id| Revocation::new(RevocationKind::Grant, grant_id, tenant_id, now);
            revocations.extend(ended.map(|grant_id| revoke(grant_id)));
        }
        Ok((issued, revocations))
    }

    /// Commits a group, and returns the answers of its redemptions. Without an answer to COMMIT, looks for the first
    /// redemption of the group.
    async fn commit_or_find(
        &self,
        tx: Transaction,
        redeemed: &[Candidate<'_>],
    ) -> Result<Vec<PendingAnswer>, StoreError> {
        let answer = |candidate: &Candidate<'_>| {
            let of = candidate.redemption;
            self.reopenings.answer(&of.origin, &of.code, &of.family)
        };
        let mut answers: Vec<_> = redeemed.iter().map(answer).collect();
        let committed = PendingAnswer::commit(&mut answers, tx).await;
        if let Err(error @ StoreError::Unavailable(_)) = committed {
            return match redeemed.first() {
                Some(first) if self.was_committed(first.redemption).await => Ok(answers),
                _ => Err(error),
            };
        }
        committed.map(|()| answers)
    }

    /// Returns whether a redemption is in the database, although the answer to its COMMIT was lost. Without this a client
    /// that presents the code again would end its own tokens.
    ///
    /// The lock waits for the end of a transaction that is still under way. It is committed, so that PostgreSQL waits until
    /// a synchronous standby has it, and with it all that was committed before.
    async fn was_committed(&self, redemption: &Redemption) -> bool {
        let find = async {
            let tx = self.db.write().await?;
            let code = code::Entity::look_up_by_id(redemption.code.digest.to_vec());
            let code = code.lock_one(&tx).await?;
            tx.commit().await?;
            Ok::<_, StoreError>(code.and_then(|code| code.family_id.clone()))
        };
        find.await
            .is_ok_and(|family_id| family_id.as_deref() == Some(redemption.key()))
    }
}

/// How long a statement waits for a row of one item: not long, because the whole group waits with it.
const ROW_LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '250ms'";
/// How long it waits for the feed's counter, for which every writer waits in turn. No item is to blame for that.
const COUNTER_LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '3s'";

/// Returns the redemptions of one code for each client, possibly presented more than once. One transaction can't hold
/// more, because a client has one active grant at a tenant. Sorts by client, which is the order of locks.
fn one_code_of_each_client(items: &[Redemption]) -> Vec<&Redemption> {
    let mut digests = HashMap::new();
    let mut candidates: Vec<_> = items
        .iter()
        .filter(|item| *digests.entry(item.client_key()).or_insert(item.code.digest) == item.code.digest)
        .collect();
    candidates.sort_by_key(|redemption| redemption.client_key());
    candidates
}

/// A redemption with what it leaves behind.
struct Candidate<'a> {
    redemption: &'a Redemption,
    /// The active grant.
    grant: grant::Model,
    /// What statements read: the columns [`FAMILY`], [`MACS`] and [`CODE_HASH`]. A statement reads those it needs.
    row: Value,
}

/// The outcomes of the redemptions of a group, by family.
type Outcomes<'a> = HashMap<&'a str, RedemptionOutcome>;

fn rows_of<'a>(candidates: &'a [Candidate<'_>]) -> Vec<&'a Value> {
    candidates.iter().map(|candidate| &candidate.row).collect()
}

impl Redemption {
    fn key(&self) -> &str {
        self.family.family_id.as_str()
    }

    fn client_key(&self) -> ClientKey {
        (self.code.tenant_id.to_string(), self.code.client_id.to_string())
    }

    fn candidate(&self, key: &DataKey, now: UnixMillis) -> Result<Candidate<'_>, StoreError> {
        let mut code = self.code.row().clone();
        code.used_at = Some(now.as_millis());
        code.family_id = Some(self.key().to_owned());
        code.expires_at = self.family.expires_at.as_millis();
        rows::protect::<code::Entity>(key, &mut code)?;
        let mut grant = self.grant.row().clone();
        grant.state = StoredState::Active.as_ref().to_owned();
        grant.activated_at = Some(now.as_millis());
        grant.family_id = Some(self.key().to_owned());
        rows::protect::<grant::Entity>(key, &mut grant)?;
        let mut family = new_row(&self.family, now)?;
        rows::protect::<family::Entity>(key, &mut family)?;
        let row = json!({
            "code_hash": hex::encode(&code.code_hash),
            "old_code_mac": hex::encode(&self.code.row().mac),
            "code_mac": hex::encode(&code.mac),
            "old_grant_mac": hex::encode(&self.grant.row().mac),
            "grant_mac": hex::encode(&grant.mac),
            "family_mac": hex::encode(&family.mac),
            "tenant_id": family.tenant_id,
            "family_id": family.family_id,
            "grant_id": family.grant_id,
            "client_id": family.client_id,
            "used_generation": family.used_generation,
            "current_generation": family.current_generation,
            "handed_out_at": family.handed_out_at,
            "key_version": family.key_version,
            "registry_epoch": family.registry_epoch,
            "registry_seq": family.registry_seq,
            "created_at": family.created_at,
            "expires_at": family.expires_at,
        });
        Ok(Candidate {
            redemption: self,
            grant,
            row,
        })
    }

    /// Returns the events of what changes beside the token.
    fn changes(&self, superseded: Option<&String>) -> impl Iterator<Item = Event> {
        let grant_id = self.code.grant_id.as_str();
        let event = |action, subject: &str| {
            Event::new(action)
                .tenant(&self.code.tenant_id)
                .client(&self.code.client_id)
                .subject(subject)
        };
        let superseded =
            superseded.map(|ended| event(action::CONSENT_SUPERSEDE, ended).detail("by", grant_id));
        let activated = event(action::CONSENT_ACTIVATE, grant_id);
        superseded.into_iter().chain([activated])
    }
}

/// The columns of `families` that a redemption sets.
const FAMILY: [Column; 12] = [
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
const CODE_HASH: Column = ("code_hash", "text");
/// The MACs of code and grant as they were read, and those of the rows to write.
const MACS: [Column; 5] = [
    ("old_code_mac", "text"),
    ("code_mac", "text"),
    ("old_grant_mac", "text"),
    ("grant_mac", "text"),
    ("family_mac", "text"),
];

/// Marks the codes of pending grants as used, and returns their families. Of two redemptions of one code, one succeeds.
/// A used code is kept as long as its family, because a second use must end the family.
static USE: LazyLock<JsonRows> = LazyLock::new(|| {
    let code = [
        CODE_HASH,
        ("tenant_id", "text"),
        ("grant_id", "text"),
        ("family_id", "text"),
        ("expires_at", "bigint"),
    ];
    JsonRows::new(&[&code[..], &MACS].concat(), |dialect| {
        format!(
            "UPDATE codes SET used_at = $2, family_id = input.family_id, expires_at = input.expires_at, mac = {}
            FROM {} WHERE codes.code_hash = {} AND codes.mac = {} AND codes.used_at IS NULL AND EXISTS (
                SELECT 1 FROM grants
                WHERE grants.tenant_id = input.tenant_id AND grants.grant_id = input.grant_id
                    AND grants.mac = {} AND grants.state = 'pending' AND grants.redeem_until > $2
            )
            RETURNING codes.family_id AS family_id",
            dialect.unhex("input.code_mac"),
            dialect.input,
            dialect.unhex("input.code_hash"),
            dialect.unhex("input.old_code_mac"),
            dialect.unhex("input.old_grant_mac"),
        )
    })
});

static FIND_CODES: LazyLock<JsonRows> = LazyLock::new(|| {
    JsonRows::new(&[CODE_HASH, ("family_id", "text")], |dialect| {
        let (columns, versions) = dialect.versioned::<code::Entity>();
        format!(
            "SELECT {columns}, input.family_id AS redemption FROM {} JOIN codes ON codes.code_hash = {} {versions}",
            dialect.input,
            dialect.unhex("input.code_hash"),
        )
    })
});

/// Returns why the codes of these redemptions were not redeemed.
async fn outcomes_of_rejected<'a>(
    tx: &Transaction,
    rejected: &[Candidate<'a>],
) -> Result<Outcomes<'a>, StoreError> {
    if rejected.is_empty() {
        return Ok(Outcomes::new());
    }
    let mut used = HashSet::new();
    for row in FIND_CODES.query(tx, &rows_of(rejected), []).await? {
        let redemption: String = column(&row, "redemption")?;
        let mut of = rejected.iter().map(|candidate| candidate.redemption);
        let presented = of.find(|of| of.key() == redemption);
        let is_presented = |row: &code::Model| presented.is_some_and(|of| row.code_hash == of.code.digest);
        let code = rows::checked::<code::Entity>(tx, &row, is_presented)?;
        if code.used_at.is_some() {
            used.insert(redemption);
        }
    }
    let outcomes = rejected.iter().map(|Candidate { redemption, .. }| {
        let outcome = match used.contains(redemption.key()) {
            true => RedemptionOutcome::AlreadyUsed,
            false => RedemptionOutcome::GrantEnded,
        };
        (redemption.key(), outcome)
    });
    Ok(outcomes.collect())
}

static ACTIVATE: LazyLock<JsonRows> = LazyLock::new(|| {
    let columns = [&super::GRANT_KEY[..], &[("family_id", "text")], &MACS].concat();
    JsonRows::new(&columns, |dialect| {
        format!(
            "UPDATE grants SET state = 'active', activated_at = $2, family_id = input.family_id, mac = {} FROM {}
            WHERE grants.tenant_id = input.tenant_id AND grants.grant_id = input.grant_id
                AND grants.mac = {} AND grants.state = 'pending' AND grants.redeem_until > $2",
            dialect.unhex("input.grant_mac"),
            dialect.input,
            dialect.unhex("input.old_grant_mac"),
        )
    })
});

static INSERT_FAMILIES: LazyLock<JsonRows> = LazyLock::new(|| {
    let columns = [&FAMILY[..], &MACS].concat();
    JsonRows::new(&columns, |dialect| {
        let names = FAMILY.map(|(name, _)| name).join(", ");
        let mac = dialect.unhex("input.family_mac");
        format!(
            "INSERT INTO families ({names}, mac) SELECT {names}, {mac} FROM {}",
            dialect.input
        )
    })
});
