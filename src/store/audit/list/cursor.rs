//! Where a page of the record ends, as a page token holds it.

use std::{fmt, str::FromStr};

use sea_orm::ConnectionTrait;

use super::super::{LogPosition, seal::last_own};
use crate::{
    store::{StoreError, log},
    text::id::EventId,
};

const RULE: &str = "must be the next_page_token of a page";

/// Where a page ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// Among the events that were not sealed when the first page was read.
    Head(Head),
    /// Among those that were.
    Sealed(SealedPosition),
}

/// The boundary between both, and how far the newer events are listed. An event that is committed or sealed meanwhile stays
/// on the newer side, so that none moves from one side to the other between two pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The log that was open.
    pub(super) log_id: i64,
    /// The leaves that it had.
    pub(super) size: i64,
    /// The last event with a row of its own that is one of them.
    pub(super) own: i64,
    /// The id of the last event that is listed; `None` before the first.
    pub(super) before: Option<EventId>,
}

/// A position among the sealed events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedPosition {
    /// The position of the last event that is listed.
    pub(super) before: LogPosition,
    /// The last event with a row of its own that is not listed.
    pub(super) own: i64,
}

impl Head {
    /// Draws the boundary where the sealed events end now.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if the log's row holds no number of an event.
    pub(super) async fn now(conn: &impl ConnectionTrait) -> Result<Self, StoreError> {
        let log = log::current(conn).await?;
        let head = match log {
            Some(log) => Self {
                log_id: log.log_id,
                size: i64::try_from(log.head.size).map_err(|_| StoreError::Corrupt("audit_logs"))?,
                own: last_own(&log)?,
                before: None,
            },
            None => Self {
                log_id: 0,
                size: 0,
                own: 0,
                before: None,
            },
        };
        Ok(head)
    }

    /// Returns the cursor after an event.
    pub(super) fn after(&self, event_id: &EventId) -> Cursor {
        Cursor::Head(Self {
            before: Some(event_id.clone()),
            ..self.clone()
        })
    }

    /// Returns where the sealed events begin.
    pub(super) fn boundary(&self) -> SealedPosition {
        SealedPosition {
            before: LogPosition {
                log_id: self.log_id,
                leaf_index: self.size,
                index: 0,
            },
            own: self.own,
        }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head(head) => {
                let before = head.before.as_ref().map_or("", EventId::as_str);
                write!(f, "head/{}/{}/{}/{before}", head.log_id, head.size, head.own)
            }
            Self::Sealed(position) => write!(f, "sealed/{}/{}", position.own, position.before),
        }
    }
}

impl FromStr for Cursor {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, rest) = text.split_once('/').ok_or(RULE)?;
        let number = |text: &str| text.parse::<i64>().map_err(|_| RULE);
        let cursor = match kind {
            "head" => {
                let parts: Vec<_> = rest.split('/').collect();
                let [log_id, size, own, before] = parts[..] else {
                    return Err(RULE);
                };
                Self::Head(Head {
                    log_id: number(log_id)?,
                    size: number(size)?,
                    own: number(own)?,
                    before: Some(EventId::parse(before).map_err(|_| RULE)?),
                })
            }
            "sealed" => {
                let (own, before) = rest.split_once('/').ok_or(RULE)?;
                Self::Sealed(SealedPosition {
                    own: number(own)?,
                    before: before.parse().map_err(|_| RULE)?,
                })
            }
            _ => return Err(RULE),
        };
        match cursor.to_string() == text {
            true => Ok(cursor),
            false => Err(RULE),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_cursor_has_one_form() {
        for text in ["head/1/25/7/01kdvdna00000000000000000b", "sealed/7/1/25/3"] {
            assert_eq!(text.parse::<Cursor>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            "head/1/25/7/",
            "head/1/25/01kdvdna00000000000000000b",
            "sealed/7/1/25",
            "sealed/+7/1/25/3",
            "tail/7/1/25/3",
            "01kdvdna00000000000000000b",
        ] {
            assert!(bad.parse::<Cursor>().is_err(), "{bad}");
        }
    }
}
