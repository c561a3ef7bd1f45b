//! Keys: the master key and the data keys that it wraps.

pub mod data_key;
pub mod master_key;
