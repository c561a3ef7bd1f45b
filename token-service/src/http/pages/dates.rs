//! Dates in pages and forms. All are in UTC, and name it next to an hour.

use accord::clock::UnixMillis;
use time::{Date, OffsetDateTime, Time, format_description::BorrowedFormatItem, macros::format_description};

const DAY: &[BorrowedFormatItem<'_>] = format_description!("[day padding:none] [month repr:long] [year]");
const MINUTE: &[BorrowedFormatItem<'_>] =
    format_description!("[day padding:none] [month repr:long] [year], [hour]:[minute] UTC");
const INPUT: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]");

/// "3 May 2026".
pub(super) fn day(at: UnixMillis) -> String {
    formatted(at, DAY)
}

/// "3 May 2026, 14:05 UTC".
pub(super) fn minute(at: UnixMillis) -> String {
    formatted(at, MINUTE)
}

/// A time of RFC 3339 in the form of [`minute`]; `None` for any other text.
pub(super) fn minute_of(rfc3339: &str) -> Option<String> {
    let format = &time::format_description::well_known::Rfc3339;
    let at = OffsetDateTime::parse(rfc3339, format).ok()?;
    at.to_offset(time::UtcOffset::UTC).format(MINUTE).ok()
}

/// The next day in the form of a date field: `2026-05-04`.
pub(super) fn next_day_input(at: UnixMillis) -> String {
    formatted(
        UnixMillis::from_millis(at.as_millis().saturating_add(86_400_000)),
        INPUT,
    )
}

/// The last millisecond of a date field's day; `None` for any other text.
pub(super) fn end_of_day(input: &str) -> Option<UnixMillis> {
    let day = Date::parse(input, INPUT).ok()?;
    let begins = OffsetDateTime::new_utc(day, Time::MIDNIGHT).unix_timestamp();
    Some(UnixMillis::from_millis((begins + 86_400) * 1000 - 1))
}

fn formatted(at: UnixMillis, format: &[BorrowedFormatItem<'_>]) -> String {
    let at = OffsetDateTime::from_unix_timestamp(at.as_secs()).ok();
    at.and_then(|at| at.format(format).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use accord::testing::TEST_START;

    use super::*;

    #[test]
    fn dates_are_shown_and_read_in_utc() {
        let at = UnixMillis::from_millis(TEST_START.as_millis() + (14 * 60 + 5) * 60_000);
        assert_eq!(day(at), "1 January 2026");
        assert_eq!(minute(at), "1 January 2026, 14:05 UTC");
        assert_eq!(
            minute_of("2026-01-01T15:05:59+01:00").as_deref(),
            Some("1 January 2026, 14:05 UTC")
        );
        assert_eq!(minute_of("soon"), None);
        assert_eq!(next_day_input(at), "2026-01-02");
        assert_eq!(
            end_of_day("2026-01-01"),
            Some(UnixMillis::from_millis(TEST_START.as_millis() + 86_400_000 - 1))
        );
        // The last day of a year with four digits.
        let last = UnixMillis::from_millis(253_402_300_799_999);
        assert_eq!(end_of_day("9999-12-31"), Some(last));
        for no_date in ["", "2026-02-30", "tomorrow", "2026-1-1", "99999-01-01"] {
            assert_eq!(end_of_day(no_date), None, "{no_date}");
        }
    }
}
