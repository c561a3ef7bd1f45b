//! Starts environments for tests, and stops them again whatever happens.

pub mod axe;
pub mod browser;
pub mod dev;
pub mod document;
pub mod envoy;
pub mod partner;
pub mod process;
pub mod services;
#[macro_use]
pub mod suite;
