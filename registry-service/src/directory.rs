//! What token-service asks: who exists, and at which position of the change feed that was read.

use accord::{
    page::MAX_SIZE,
    store::change::{ChangeRow, Position},
};

use crate::{error::Error, store::Store};

/// An answer, and the position at which it was read: it reflects all changes up to there.
#[derive(Clone, Debug)]
pub struct At<T> {
    /// The answer.
    pub value: T,
    /// Where it was read.
    pub position: Position,
}

/// Reads the position first, then the answer: what commits in between may show in the answer, and
/// what shows in no answer is never claimed.
///
/// # Errors
/// What `answer` says.
pub async fn at_position<T>(
    store: &Store,
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<At<T>, Error> {
    let position = store.position().await?;
    Ok(At {
        value: answer.await?,
        position,
    })
}

/// Changes after a position.
#[derive(Clone, Debug)]
pub struct Changes {
    /// In commit order.
    pub changes: Vec<ChangeRow>,
    /// Up to where this is complete.
    pub position: Position,
    /// The asker's position is of another epoch, or ahead of this database.
    pub reset: bool,
    /// More changes wait behind `position`.
    pub more: bool,
}

/// Lists what changed after `after`, at most `limit` changes; without `after` only says where the feed
/// is. `limit` 0 means 500, more counts as 500.
///
/// # Errors
/// [`Error::Store`].
pub async fn changes(store: &Store, after: Option<Position>, limit: u64) -> Result<Changes, Error> {
    let now_at = store.position().await?;
    let nothing = |reset| Changes {
        changes: Vec::new(),
        position: now_at.clone(),
        reset,
        more: false,
    };
    let Some(after) = after else {
        return Ok(nothing(false));
    };
    if after.epoch != now_at.epoch || after.seq > now_at.seq {
        return Ok(nothing(true));
    }
    let limit = if limit == 0 { MAX_SIZE } else { limit.min(MAX_SIZE) };
    let mut changes = store.changes_after(after.seq, limit + 1).await?;
    let more = changes.len() as u64 > limit;
    changes.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let last_seq = changes.last().map(|change| change.seq);
    // Changes that committed after the position was read are there already: then it is further.
    let seq = match last_seq {
        Some(last) if more => last,
        Some(last) => last.max(now_at.seq),
        None => now_at.seq,
    };
    Ok(Changes {
        changes,
        position: Position {
            epoch: now_at.epoch,
            seq,
        },
        reset: false,
        more,
    })
}
