//! Statements over many rows at a time.
//!
//! They are written by hand because each takes all its keys as one parameter ([`accord::store::batch::json_rows`]),
//! which the query builder can't express.

pub mod profiles;
