//! Grouped writes, and the hand-written SQL that they need. Each file names the measurement that justifies it.

pub mod audit;
pub mod group_commit;
pub mod json_rows;
pub mod schema;
