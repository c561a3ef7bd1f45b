//! Revocations for resource servers that check tokens offline: a snapshot, then what is new. Both feeds have
//! revocations, each at positions of its own. A cursor names one position of each, so that any replica can continue
//! where another one stopped.

use std::{fmt, time::Duration};

use accord::text::validation::{Violations, only_field};
use tokio::time::Instant;

use crate::{error::Result, model::revocation::Revocation, oauth::OAuth};

/// The most revocations in one answer, of each feed.
const MAX: usize = 500;

/// The positions of both feeds up to which a reader has read, in the form of the `rev` claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The epoch of the positions, as in the `rev` claim.
    pub epoch: String,
    registry_seq: i64,
    token_seq: i64,
}

impl Cursor {
    /// Reads a cursor; `None` for the empty one, which requests a snapshot.
    pub fn parse(text: &str) -> Result<Option<Self>, Violations> {
        if text.is_empty() {
            return Ok(None);
        }
        let cursor = Self::read(text).ok_or("must be the next_cursor of an answer, or empty");
        only_field("cursor", cursor).map(Some)
    }

    fn read(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let epoch = parts.next().filter(|epoch| !epoch.is_empty())?.to_owned();
        let mut seq = || parts.next()?.parse().ok().filter(|seq| *seq >= 0);
        let cursor = Self {
            epoch,
            registry_seq: seq()?,
            token_seq: seq()?,
        };
        parts.next().is_none().then_some(cursor)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.epoch, self.registry_seq, self.token_seq)
    }
}

/// A page of revocations.
#[derive(Clone, Debug)]
pub struct Page {
    /// The revocations.
    pub revocations: Vec<Revocation>,
    /// Where to continue.
    pub next: Cursor,
    /// Whether the reader has to forget what it knew.
    pub snapshot: bool,
    /// Whether more follow after `next`.
    pub more: bool,
    /// How long ago the page was known to be complete.
    pub age: Duration,
}

/// Reads the revocations after a cursor, of tokens that may still live. Starts from the beginning without a cursor, with one
/// of another epoch, and with one that is ahead of a feed: after a failover that lost commits, the same positions are
/// given to other changes.
///
/// # Errors
/// [`RegistryUnavailable`](crate::error::Error::RegistryUnavailable),
/// [`TooManyRevocations`](crate::error::Error::TooManyRevocations).
pub async fn after(oauth: &OAuth, cursor: Option<&Cursor>) -> Result<Page> {
    if let Some(cursor) = cursor {
        let page = read(oauth, cursor.registry_seq, cursor.token_seq, false).await?;
        let went_back =
            page.next.registry_seq < cursor.registry_seq || page.next.token_seq < cursor.token_seq;
        if page.next.epoch == cursor.epoch && !went_back {
            return Ok(page);
        }
    }
    read(oauth, 0, 0, true).await
}

async fn read(oauth: &OAuth, registry_seq: i64, token_seq: i64, snapshot: bool) -> Result<Page> {
    // One more than fits shows whether there are more.
    let cache = &oauth.cache;
    let mut registry = cache.registry_revocations_after(registry_seq, MAX + 1).await?;
    let mut own = cache.own_revocations_after(token_seq, MAX + 1).await?;
    let (registry_more, registry_seq) = cut(&mut registry.value, registry.position.seq);
    let (own_more, token_seq) = cut(&mut own.value, own.position.seq);
    let mut revocations = registry.value;
    revocations.append(&mut own.value);
    Ok(Page {
        revocations,
        next: Cursor {
            epoch: format!("{}-{}", registry.position.epoch, own.position.epoch),
            registry_seq,
            token_seq,
        },
        snapshot,
        more: registry_more || own_more,
        age: Instant::now().saturating_duration_since(registry.sent_at.min(own.sent_at)),
    })
}

/// Removes the revocations that do not fit. Returns whether there were any, and the position up to which the others
/// are complete.
fn cut(revocations: &mut Vec<Revocation>, complete_to: i64) -> (bool, i64) {
    let more = revocations.len() > MAX;
    revocations.truncate(MAX);
    match revocations.last() {
        Some(last) if more => (true, last.seq),
        _ => (false, complete_to),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::model::revocation::RevocationKind;

    #[test]
    fn a_cursor_reads_back_and_nothing_else_does() {
        let cursor = Cursor {
            epoch: "aa-bb".into(),
            registry_seq: 7,
            token_seq: 9,
        };
        assert_eq!(cursor.to_string(), "aa-bb.7.9");
        assert_eq!(Cursor::parse("aa-bb.7.9").unwrap(), Some(cursor));
        assert_eq!(Cursor::parse("").unwrap(), None);
        for bad in ["aa", "aa.1", "aa.1.2.3", "aa.-1.2", ".1.2", "aa.x.2", "aa.1."] {
            assert!(Cursor::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_page_ends_where_it_was_cut() {
        let ended = |count: i64| -> Vec<Revocation> {
            let one = |seq: i64| Revocation {
                kind: RevocationKind::Jti,
                id: seq.to_string(),
                seq,
            };
            (1..=count).map(one).collect()
        };
        let most = MAX as i64;
        assert_eq!(cut(&mut ended(most), 2000), (false, 2000));
        let mut longer = ended(most + 1);
        assert_eq!(cut(&mut longer, 2000), (true, most));
        assert_eq!(longer.len(), MAX);
    }
}
