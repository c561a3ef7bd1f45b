//! What token-service decides about: types, states, and rules as plain functions.

pub mod code;
pub mod family;
pub mod grant;
pub mod signing_key;
pub mod watermark;
