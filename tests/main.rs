//! End to end: what crosses the services, through their real listeners, as a user would see it.
//!
//! One binary. `harness` starts things and stops them again; each other module is a subject.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    missing_docs
)]

mod browser;
mod consents;
mod contract;
mod demo;
mod dev;
mod freshness;
mod gateway;
mod harness;
mod kill;
mod leaks;
mod oauth_clients;
mod offline;
mod permissions;
mod processes;
mod readme;
mod setups;
mod tokens;
mod walkthrough;
