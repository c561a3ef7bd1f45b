//! Dates in pages and forms. All are in UTC, and name it next to an hour.

use std::time::Duration;

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

/// How much later than in UTC a day ends in the last time zone, UTC-12.
const FAR_WEST: Duration = Duration::from_secs(12 * 3600);

/// The earliest day that is not over everywhere, in the form of a date field: `2026-05-04`.
pub(super) fn earliest_input(now: UnixMillis) -> String {
    formatted(now.minus(FAR_WEST), INPUT)
}

/// The last millisecond of a date field's day in UTC; of a day that is over in UTC, but not yet everywhere, its last
/// millisecond in UTC-12. `None` for any other text.
pub(super) fn end_of_day(input: &str, now: UnixMillis) -> Option<UnixMillis> {
    let day = Date::parse(input, INPUT).ok()?;
    let begins = OffsetDateTime::new_utc(day, Time::MIDNIGHT).unix_timestamp();
    let ends = UnixMillis::from_millis((begins + 86_400) * 1000 - 1);
    let ends_in_the_west = ends.plus(FAR_WEST);
    Some(if ends <= now && now < ends_in_the_west {
        ends_in_the_west
    } else {
        ends
    })
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
        let end_of_day = |input: &str| end_of_day(input, at);
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
    #[test]
    fn a_day_can_be_chosen_until_it_is_over_everywhere() {
        // 30 December 2025, 17:30 in Los Angeles is 31 December, 01:30 UTC.
        let los_angeles = TEST_START.minus(Duration::from_secs((22 * 60 + 30) * 60));
        assert_eq!(minute(los_angeles), "31 December 2025, 01:30 UTC");
        assert_eq!(earliest_input(los_angeles), "2025-12-30");
        let ends = |day: &str| end_of_day(day, los_angeles).map(minute).unwrap_or_default();
        assert_eq!(ends("2025-12-30"), "31 December 2025, 11:59 UTC");
        assert_eq!(ends("2025-12-31"), "31 December 2025, 23:59 UTC");
        assert!(end_of_day("2025-12-29", los_angeles).is_some_and(|end| end <= los_angeles));
        // Its last millisecond is the last moment at which it is not over.
        let last = los_angeles.plus(Duration::from_millis(10 * 3_600_000 + 1_800_000 - 1));
        assert_eq!(
            (minute(last), earliest_input(last)),
            ("31 December 2025, 11:59 UTC".into(), "2025-12-30".into())
        );
        assert!(end_of_day("2025-12-30", last).is_some_and(|end| end <= last));
        assert_eq!(earliest_input(last.plus(Duration::from_millis(1))), "2025-12-31");
    }
}
