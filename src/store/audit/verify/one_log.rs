//! The verification of one log: its leaves in order, its head, and the checkpoints that somebody has kept.

use std::{cmp::min, collections::HashMap, time::Duration};

use sea_orm::{QueryOrder, entity::prelude::*};
use tokio::{task::spawn_blocking, time::sleep};

use super::{
    super::{
        extent::Extent,
        leaf_rows::{OWN, leaf},
        seal::{SealError, unsealed},
    },
    Fault, Findings, LogOutcome, RecordedFacts, Report,
    page::{LEAVES, Leaf, Page},
    renewals::Renewals,
    whole,
};
use crate::{
    keys::Keyring,
    store::{
        Keyed, StoreError,
        error::lasting,
        log::{self, Log, Recomputed, SignedHead},
    },
    tlog::{Checkpoint, TreeHead, VerifierKey},
};

/// How often the newest head is read until it is signed.
const ATTEMPTS: usize = 10;
const PAUSE: Duration = Duration::from_millis(200);

pub(super) struct Verification<'a, C> {
    pub(super) conn: &'a C,
    pub(super) log: Log,
    /// Whether the sealer extends it.
    pub(super) is_open: bool,
    pub(super) report: Report,
    pub(super) findings: Findings,
    /// What only the keys show. It has a digest of its own, so that without keys what was accepted is still the same.
    mac_findings: Findings,
    /// Whether no holder of the keys has written the log's row.
    unauthentic: Option<Fault>,
    outside: Option<Fault>,
    /// The number of the first leaf of each source.
    pub(super) first: HashMap<String, i64>,
    /// The number of the last leaf of each source.
    pub(super) last: HashMap<String, i64>,
    recomputed: Option<Recomputed>,
    /// By the events of this log and later ones.
    pub(super) facts: &'a mut RecordedFacts,
    /// By the events of this log, until its head is known to be right.
    events: Vec<(i64, Vec<u8>)>,
    /// By the events of this log.
    renewals: Renewals,
}

impl<'a, C: Keyed> Verification<'a, C> {
    pub(super) fn new(conn: &'a C, log: Log, is_open: bool, facts: &'a mut RecordedFacts) -> Self {
        Self {
            conn,
            log,
            is_open,
            report: Report::default(),
            findings: Findings::none(),
            mac_findings: Findings::none(),
            unauthentic: None,
            outside: None,
            first: HashMap::new(),
            last: HashMap::new(),
            recomputed: None,
            facts,
            events: Vec::new(),
            renewals: Renewals::default(),
        }
    }

    /// Returns whether retention has removed leaves while they were checked, so that their absence is no fault.
    pub(super) async fn was_overtaken(&self) -> Result<bool, StoreError> {
        if self.findings.first().is_none() {
            return Ok(false);
        }
        let first = self.first_index().await?.unwrap_or(self.log.head.size);
        Ok(first > self.report.removed_leaves)
    }

    /// Returns the index of the first leaf that is there.
    async fn first_index(&self) -> Result<Option<u64>, StoreError> {
        let leaves = leaf::Entity::find()
            .filter(leaf::Column::LogId.eq(self.log.log_id))
            .filter(leaf::Column::LeafIndex.gte(0_i64))
            .order_by_asc(leaf::Column::LeafIndex);
        let first = leaves.one(self.conn).await?;
        Ok(first.map(|leaf| leaf.leaf_index.unsigned_abs()))
    }

    pub(super) fn finish(self, renewals: &mut Renewals) -> LogOutcome {
        // The logs come the newest first.
        let later = std::mem::replace(renewals, self.renewals);
        renewals.append(later);
        let mut pin = self.findings.pin();
        let mut extent = Extent::new();
        extent.add(pin.as_bytes());
        extent.add(&self.log.content());
        if let Some(recomputed) = &self.recomputed {
            extent.add(&recomputed.head().root.0);
        }
        let mut extents = vec![extent.clone().finish()];
        if self.mac_findings.first().is_some() {
            pin += &self.mac_findings.pin();
            extent.add(pin.as_bytes());
            extents.push(extent.finish());
        }
        let first = self.findings.first().or(self.mac_findings.first());
        LogOutcome {
            origin: self.log.origin,
            report: self.report,
            sealed: first.cloned().or(self.unauthentic),
            outside: self.outside,
            pin,
            extents,
        }
    }

    /// Notes an error of a read as a fault, unless the database is unavailable: hashes that do not fit together, and values of
    /// another type, are a fault of the record, not of this check.
    fn or_fault<T>(&mut self, result: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
        let result = lasting(result)?;
        if let Err(error) = &result {
            self.findings.add_whole(format!("it can't be read: {error}"));
        }
        Ok(result.ok())
    }

    fn outside(&mut self, what: impl Into<String>) {
        self.outside.get_or_insert(whole(what));
    }

    pub(super) async fn run(
        &mut self,
        key: &VerifierKey,
        kept: &[Checkpoint],
        keyring: Option<&Keyring>,
        progress: &mut impl FnMut(u64, u64),
    ) -> Result<(), StoreError> {
        let signed = self.signed_head().await;
        let signed = self.or_fault(signed)?.flatten();
        if let Some(keyring) = keyring {
            let checked = match self.log.key(keyring) {
                Ok(key) => self.log.check(key),
                Err(error) => Err(error.into()),
            };
            self.unauthentic = checked
                .err()
                .map(|error| whole(format!("it can't be read: {error}")));
        }
        if self.log.log_id < self.facts.begun_with {
            return self.removed(kept).await;
        }
        if self.log.head == TreeHead::EMPTY {
            if !kept.is_empty() {
                self.outside("the log is shorter than a checkpoint: it is empty");
            }
            return self.unsealed(keyring).await;
        }
        let head = match &signed {
            Some(signed) => {
                self.check_signed(signed, key);
                signed.head
            }
            None => self.log.head,
        };
        self.read_retention(keyring).await?;
        let first = self.first_leaf().await?.min(head.size);
        self.report.removed_leaves = first;
        if first > 0 {
            self.facts.begun_with = self.facts.begun_with.max(self.log.log_id);
        }
        let begun = Recomputed::after(self.conn, self.log.log_id, first).await;
        self.recomputed = self.or_fault(begun)?;
        let mut older: Vec<_> = kept.to_vec();
        older.sort_by_key(|checkpoint| checkpoint.head.size);
        older.reverse();
        self.check_kept(&mut older, first, first).await?;
        self.leaves(first..head.size, &mut older, progress).await?;
        for checkpoint in older {
            let size = checkpoint.head.size;
            self.outside(format!("the log is shorter than the checkpoint of {size} leaves"));
        }
        self.check_head(head);
        let retained_from = self.facts.retained_from.get(&self.log.log_id);
        if first > 0 && retained_from != Some(&first) {
            let what = format!("the first {first} leaves are missing, and no event says why");
            self.findings.add_whole(what);
        }
        let mut done = head;
        let mut wrong = self.rest(first).await?;
        for _ in 0..ATTEMPTS {
            // A sealer that has gone on meanwhile makes the ends differ: they are compared again, with what it has sealed.
            if wrong.is_empty() || !self.is_open {
                break;
            }
            let signed = self.signed_head().await.ok().flatten();
            let Some(signed) = signed.filter(|signed| signed.head.size > done.size) else {
                break;
            };
            self.leaves(done.size..signed.head.size, &mut Vec::new(), progress)
                .await?;
            self.check_signed(&signed, key);
            self.check_head(signed.head);
            done = signed.head;
            wrong = self.rest(first).await?;
        }
        for (fault, found) in wrong {
            self.findings.add(fault, &found);
        }
        self.unsealed(keyring).await
    }

    /// Checks that a signature is that of the head.
    fn check_signed(&mut self, signed: &SignedHead, key: &VerifierKey) {
        match Checkpoint::open(&signed.checkpoint, key) {
            Ok(opened) if opened.head == signed.head => {}
            Ok(_) => self
                .findings
                .add_whole("the newest checkpoint is that of another head"),
            Err(error) => self.findings.add_whole(format!("the signed head: {error}")),
        }
    }

    /// Checks that the leaves make the head. Only then their events are believed.
    fn check_head(&mut self, head: TreeHead) {
        let found = self.recomputed.as_ref().map(Recomputed::head);
        let events = std::mem::take(&mut self.events);
        if found != Some(head) {
            self.findings
                .add_whole("the signed head is not that of the events");
            self.renewals = Renewals::default();
            if let (Some(first), Some(last)) = (self.first.get(OWN), self.last.get(OWN)) {
                self.facts.untrusted.add(*first, *last);
            }
        } else {
            for (number, encoded) in &events {
                self.facts.add_event(*number, encoded);
            }
            let last = self.last.get(OWN).copied().unwrap_or(0);
            self.facts.sealed_through = self.facts.sealed_through.max(last);
        }
    }

    /// Checks that nothing is left of a log that retention has removed.
    async fn removed(&mut self, kept: &[Checkpoint]) -> Result<(), StoreError> {
        self.report.removed_leaves = self.log.head.size;
        let left = leaf::Entity::find().filter(leaf::Column::LogId.eq(self.log.log_id));
        if let Some(left) = left.order_by_asc(leaf::Column::LeafIndex).one(self.conn).await? {
            self.findings.add_whole(format!(
                "leaf {} is left of a log that retention has removed",
                left.leaf_index
            ));
        }
        self.check_kept(&mut kept.to_vec(), self.log.head.size, self.log.head.size)
            .await
    }

    /// Checks what the leaves do not show: that they are the whole log, and that nothing else counts as sealed.
    async fn rest(&mut self, first: u64) -> Result<Vec<(Fault, String)>, StoreError> {
        let mut wrong = Vec::new();
        for checked in [
            self.check_begins(first).await,
            self.check_ends(first).await,
            self.strays().await,
        ] {
            if let Some(found) = self.or_fault(checked)? {
                wrong.extend(found);
            }
        }
        Ok(wrong)
    }

    /// Returns the signed head of the whole log; `None` if the log is empty, or its head is not signed. A head that was
    /// committed a moment ago is signed soon.
    async fn signed_head(&mut self) -> Result<Option<SignedHead>, StoreError> {
        for _ in 0..ATTEMPTS {
            let signed = log::latest(self.conn, self.log.log_id).await?;
            let Some(log) = log::find(self.conn, &self.log.origin).await? else {
                self.findings.add_whole("the log is gone");
                return Ok(None);
            };
            self.log = log;
            match signed {
                None if self.log.head == TreeHead::EMPTY => return Ok(None),
                Some(signed) if signed.head == self.log.head => return Ok(Some(signed)),
                _ => sleep(PAUSE).await,
            }
        }
        self.findings
            .add_whole("the newest head of the log is not signed");
        Ok(None)
    }

    /// Returns the first leaf that counts: retention removes leaves from the first one on. Those that its event names and that
    /// are still there are about to go.
    async fn first_leaf(&mut self) -> Result<u64, StoreError> {
        let first = self.first_index().await?;
        let retained_from = self.facts.retained_from.get(&self.log.log_id).copied();
        Ok(first.unwrap_or(0).max(retained_from.unwrap_or(0)))
    }

    /// Checks the leaves from one to another, and the checkpoints that were kept of them, the next of which is the last. Reads
    /// the next page while it checks one.
    async fn leaves(
        &mut self,
        indexes: std::ops::Range<u64>,
        older: &mut Vec<Checkpoint>,
        progress: &mut impl FnMut(u64, u64),
    ) -> Result<(), StoreError> {
        let (conn, log_id, end) = (self.conn, self.log.log_id, indexes.end);
        let read = async |from: u64| match from < end {
            true => Page::read(conn, log_id, from..min(end, from + LEAVES))
                .await
                .map(Some),
            false => Ok(None),
        };
        let mut next = read(indexes.start).await?;
        let mut lacks_hashes = false;
        while let Some(page) = next {
            let to = page.indexes.end;
            lacks_hashes |= page.stored.is_none();
            let keyring = conn.keys();
            let checked = spawn_blocking(move || page.check(keyring.as_deref()));
            let (leaves, read) = tokio::join!(checked, read(to));
            next = read?;
            for leaf in leaves.map_err(|_| StoreError::Corrupt("a page of leaves"))? {
                let index = leaf.index;
                self.take(leaf);
                if older.last().is_some_and(|kept| kept.head.size == index + 1) {
                    self.check_kept(older, index + 1, 0).await?;
                }
            }
            progress(to, end);
        }
        if lacks_hashes {
            self.findings.add_whole("hashes of the log are missing");
        }
        Ok(())
    }

    fn take(&mut self, leaf: Leaf) {
        if let Some(recomputed) = &mut self.recomputed {
            recomputed.append(&[leaf.hash]);
        }
        self.report.events += leaf.events;
        let is_right = leaf.fault.is_none() && leaf.mac_fault.is_none();
        if let Some((fault, found)) = leaf.fault {
            self.findings.add(fault, &found);
        }
        if let Some((fault, found)) = leaf.mac_fault {
            self.mac_findings.add(fault, &found);
        }
        let Some((source, number)) = leaf.place else {
            self.facts.has_wrong_places = true;
            return;
        };
        if source == OWN && !is_right {
            self.facts.untrusted.add(number, number);
        }
        if let Some(event) = leaf.record_event {
            self.events.push((number, event));
        }
        for (event_id, renewal) in leaf.renewals {
            let generations = (renewal.generation, renewal.generation);
            self.renewals.add(renewal.family_id, generations, event_id);
        }
        match self.last.get_mut(&source) {
            None => {
                self.first.insert(source.clone(), number);
                self.last.insert(source, number);
            }
            Some(last) => {
                if number != last.wrapping_add(1) {
                    self.facts.has_wrong_places = true;
                    let what = format!("leaf {} does not continue `{source}`", leaf.index);
                    self.findings.add(whole(what), &format!("{last} {number}"));
                }
                *last = number;
            }
        }
    }

    /// Checks the checkpoints that were kept of the log as far as it was read: the log must begin with them. Those of leaves that
    /// were removed since are compared with the hashes, which are there.
    async fn check_kept(
        &mut self,
        older: &mut Vec<Checkpoint>,
        done: u64,
        first: u64,
    ) -> Result<(), StoreError> {
        while let Some(kept) = older.pop_if(|kept| kept.head.size <= done) {
            let size = kept.head.size;
            let begins = match &self.recomputed {
                Some(recomputed) if recomputed.head().size == size => recomputed.head() == kept.head,
                _ if size <= first => lasting(log::root(self.conn, self.log.log_id, size).await)?
                    .is_ok_and(|root| root == kept.head.root),
                _ => false,
            };
            if !begins {
                self.outside(format!(
                    "the log does not begin with the checkpoint of {size} leaves"
                ));
            }
        }
        Ok(())
    }

    /// Checks what is not sealed yet, as the sealer will.
    async fn unsealed(&mut self, keyring: Option<&Keyring>) -> Result<(), StoreError> {
        let Some(keyring) = keyring.filter(|_| self.is_open) else {
            return Ok(());
        };
        match unsealed(self.conn, keyring, &self.log).await {
            Ok(events) => self.report.events += events,
            Err(SealError::Store(error)) if error.is_temporary() => return Err(error),
            Err(error) => {
                let what = error.to_string();
                let event_id = match error {
                    SealError::Altered { event_id, .. } => event_id,
                    _ => String::new(),
                };
                self.outside.get_or_insert(Fault { event_id, what });
            }
        }
        Ok(())
    }
}
