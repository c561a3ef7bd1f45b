//! Starts environments for tests, and stops them when the test ends in any way.

pub mod axe;
pub mod browser;
pub mod checkpoints;
pub mod collector;
pub mod dev;
pub mod disk;
pub mod document;
pub mod envoy;
#[macro_use]
pub mod network;
pub mod partner;
pub mod pgbouncer;
pub mod process;
pub mod proxy;
pub mod refusal;
pub mod secured;
pub mod services;
#[macro_use]
pub mod suite;
