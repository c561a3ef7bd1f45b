//! Between messages and nouns, one file a noun. Every violation of a message is found before any is
//! reported; nothing here looks into the database.

pub mod consent;
pub mod setup;
pub mod signing_key;
pub mod token;
