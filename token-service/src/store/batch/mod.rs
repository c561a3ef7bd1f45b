//! Statements for a group of callers at a time, each in one transaction ([`accord::store::batch::group_commit`]).
//!
//! They are written by hand because each takes all rows of its group as one parameter
//! ([`accord::store::batch::json_rows`]), which the query builder can't express. With a transaction for each caller, 64
//! callers got 2,300 renewals and 740 redemptions a second from PostgreSQL, 1,600 and 570 from SQLite
//! (decision 21). In groups the benchmark's case `refresh` runs at 6,010 and 9,098 a second, `code` at 2,364 and
//! 2,348 (docs/PERFORMANCE.md).

use accord::store::batch::json_rows::Column;

pub(super) mod assertion;
pub mod code;
pub(super) mod family_advance;
pub(super) mod grant;
pub(super) mod pushed_request;
pub mod redemption;
pub(super) mod stored;
mod supersession;
pub(super) mod usage;
pub(super) mod verified_secret;

/// The columns that identify a grant.
const GRANT_KEY: [Column; 2] = [("tenant_id", "text"), ("grant_id", "text")];
