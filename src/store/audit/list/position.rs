//! Positions of sealed events. An event that is committed late has a late position, whatever its time.

use std::{fmt, str::FromStr};

/// The place of an event in the record: its log, its leaf in the log, and its place in a group. Its text is
/// `<log>/<leaf>/<place>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPosition {
    /// The number of the log in its database.
    pub log_id: i64,
    /// The index of the leaf.
    pub leaf_index: i64,
    /// The place in the group; 0 for an event of its own.
    pub index: u32,
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.log_id, self.leaf_index, self.index)
    }
}

impl FromStr for LogPosition {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const RULE: &str = "must be three numbers with slashes between them";
        let mut parts = text.split('/');
        let mut next = || parts.next().ok_or(RULE);
        let (log_id, leaf_index, index) = (next()?, next()?, next()?);
        let position = Self {
            log_id: log_id.parse().map_err(|_| RULE)?,
            leaf_index: leaf_index.parse().map_err(|_| RULE)?,
            index: index.parse().map_err(|_| RULE)?,
        };
        match position.to_string() == text {
            true => Ok(position),
            false => Err(RULE),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_position_has_one_form() {
        let position: LogPosition = "1/25/3".parse().unwrap();
        assert_eq!(position.to_string(), "1/25/3");
        for bad in ["", "1/2", "1/2/3/4", "01/2/3", "1/2/-3", "a/b/c", "1/2/3 "] {
            assert!(bad.parse::<LogPosition>().is_err(), "{bad}");
        }
    }
}
