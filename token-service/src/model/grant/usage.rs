//! How a grant is used, by day in UTC.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    time::Duration,
};

use accord::clock::UnixMillis;
use strum::{EnumString, IntoStaticStr};
use time::OffsetDateTime;

const DAY_MILLIS: i64 = 24 * 3600 * 1000;
/// The most addresses of a day that are kept: the first ones.
pub const MAX_ADDRESSES: usize = 16;
/// How long the usage of a day is kept.
pub const KEPT: Duration = Duration::from_secs(400 * 24 * 3600);
/// How many days a summary counts, today included.
pub const SUMMARY_DAYS: i32 = 30;
/// How long a grant must be without use to count as unused.
pub const UNUSED_AFTER: Duration = Duration::from_secs(90 * 24 * 3600);

/// A day in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(
    /// The number of days since 1970-01-01.
    pub i32,
);

impl Day {
    /// Returns the day of a time.
    pub fn of(at: UnixMillis) -> Self {
        let days = at.as_millis().div_euclid(DAY_MILLIS);
        Self(i32::try_from(days).unwrap_or(i32::MAX))
    }

    /// Returns when it begins.
    pub fn begins(self) -> UnixMillis {
        UnixMillis::from_millis(i64::from(self.0) * DAY_MILLIS)
    }

    /// Returns the first day of a summary whose last day this is.
    pub fn first_of_summary(self) -> Self {
        Self(self.0.saturating_sub(SUMMARY_DAYS - 1))
    }
}

/// `YYYY-MM-DD`.
impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let begins = OffsetDateTime::from_unix_timestamp(self.begins().as_secs());
        begins.map_err(|_| fmt::Error)?.date().fmt(f)
    }
}

/// How a grant was used on a day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageOfDay {
    /// How many tokens were issued.
    pub issued: i64,
    /// When the last of them was issued; `None` if there was none.
    pub last_used_at: Option<UnixMillis>,
    /// The scopes of the tokens.
    pub scopes: BTreeSet<String>,
    /// The first [`MAX_ADDRESSES`] addresses that tokens were requested from, in that order.
    pub addresses: Vec<IpAddr>,
    /// Whether there were more.
    pub has_more_addresses: bool,
    /// How many requests were rejected, by reason.
    pub rejected: BTreeMap<String, i64>,
}

impl UsageOfDay {
    /// Adds an issued token. `scope` holds its scopes, separated by spaces.
    pub fn add(&mut self, at: UnixMillis, scope: &str, address: Option<IpAddr>) {
        self.issued = self.issued.saturating_add(1);
        self.last_used_at = self.last_used_at.max(Some(at));
        for name in scope.split(' ').filter(|name| !name.is_empty()) {
            if !self.scopes.contains(name) {
                self.scopes.insert(name.to_owned());
            }
        }
        match address {
            Some(address) if self.addresses.contains(&address) => {}
            Some(address) if self.addresses.len() < MAX_ADDRESSES => self.addresses.push(address),
            Some(_) => self.has_more_addresses = true,
            None => {}
        }
    }

    /// Returns how many requests were rejected.
    pub fn rejected(&self) -> i64 {
        self.rejected
            .values()
            .fold(0, |sum, count| sum.saturating_add(*count))
    }
}

/// What was used a second time, which ended the refresh family. Stored as the family's end reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr)]
pub enum Reuse {
    /// A refresh token that was used up (RFC 9700 §4.14.2).
    #[strum(serialize = "replayed")]
    RefreshToken,
    /// The authorization code (RFC 6749 §4.1.2).
    #[strum(serialize = "code_replayed")]
    AuthorizationCode,
}

/// How a grant was used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageReport {
    /// By day, the newest first. Days without use are absent.
    pub days: Vec<(Day, UsageOfDay)>,
    /// When something was used a second time, and what.
    pub reuse: Option<(UnixMillis, Reuse)>,
}

/// How a grant was used lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageSummary {
    /// When a token was last issued; `None` if none was in the last 400 days.
    pub last_used_at: Option<UnixMillis>,
    /// How many tokens were issued in the last [`SUMMARY_DAYS`] days.
    pub issued: i64,
    /// How many requests were rejected in these days.
    pub rejected: i64,
}

impl UsageSummary {
    /// Returns whether a grant that became active at `activated_at` was not used for [`UNUSED_AFTER`].
    pub fn is_unused(&self, activated_at: UnixMillis, now: UnixMillis) -> bool {
        let since = self.last_used_at.unwrap_or(activated_at);
        now >= since.plus(UNUSED_AFTER)
    }

    /// Returns whether a grant that became active at `activated_at` may have been used before the usage that is kept.
    pub fn may_have_been_used(&self, activated_at: UnixMillis, now: UnixMillis) -> bool {
        self.last_used_at.is_some() || activated_at < now.minus(KEPT)
    }
}

#[cfg(test)]
mod tests {
    use accord::testing::TEST_START;

    use super::*;

    fn at(millis: i64) -> UnixMillis {
        UnixMillis::from_millis(TEST_START.as_millis() + millis)
    }

    #[test]
    fn a_day_begins_at_midnight_in_utc() {
        let today = Day::of(TEST_START);
        assert_eq!(
            (today.begins(), today.to_string()),
            (TEST_START, "2026-01-01".into())
        );
        assert_eq!(Day::of(at(DAY_MILLIS - 1)), today);
        assert_eq!(Day::of(at(DAY_MILLIS)), Day(today.0 + 1));
        assert_eq!(Day::of(at(-1)), Day(today.0 - 1));
        assert_eq!(Day::of(UnixMillis::from_millis(-1)), Day(-1));
        assert_eq!(today.first_of_summary(), Day(today.0 - 29));
    }

    #[test]
    fn the_first_addresses_of_a_day_are_kept() {
        let mut day = UsageOfDay::default();
        let address = |number: u8| Some(IpAddr::from([192, 0, 2, number]));
        for number in [3, 1, 3, 2] {
            day.add(at(i64::from(number)), "b a", address(number));
        }
        day.add(at(0), "a c", None);
        assert_eq!((day.issued, day.last_used_at), (5, Some(at(3))));
        assert_eq!(day.scopes.iter().collect::<Vec<_>>(), ["a", "b", "c"]);
        let texts: Vec<_> = day.addresses.iter().map(IpAddr::to_string).collect();
        assert_eq!(texts, ["192.0.2.3", "192.0.2.1", "192.0.2.2"]);
        for number in 1..=16 {
            day.add(at(9), "a", address(number));
        }
        assert_eq!((day.addresses.len(), day.has_more_addresses), (16, false));
        day.add(at(9), "a", address(17));
        assert_eq!((day.addresses.len(), day.has_more_addresses), (16, true));
    }

    #[test]
    fn a_grant_counts_as_unused_after_90_days() {
        let unused = at(0).plus(UNUSED_AFTER);
        let never = UsageSummary::default();
        assert!(!never.is_unused(at(0), unused.minus(Duration::from_millis(1))));
        assert!(never.is_unused(at(0), unused));
        let used = UsageSummary {
            last_used_at: Some(at(1)),
            ..never
        };
        assert!(!used.is_unused(at(0), unused));
        assert!(used.is_unused(at(0), unused.plus(Duration::from_millis(1))));
        assert!(!never.may_have_been_used(at(0), at(0).plus(KEPT)));
        assert!(never.may_have_been_used(at(-1), at(0).plus(KEPT)));
        assert!(used.may_have_been_used(at(0), at(2)));
    }
}
