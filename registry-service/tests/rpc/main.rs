//! registry-service as its callers see it: real clients over a real server on loopback.
//!
//! Each file is about one service: what a call answers, every way in which it is refused, and what
//! it leaves behind. Rules that show below the RPCs are tested where they are.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod audit;
mod client;
mod client_keys;
mod directory;
mod etags;
mod harness;
mod integration_request;
mod operator;
mod permissions;
mod provisioning;
mod scope;
mod server;
mod tenant;
mod user;
