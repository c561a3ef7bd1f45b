//! Tests registry-service through its RPCs: real clients call a real server on loopback.
//!
//! Each file tests one service: the response of a call, every way in which it fails, and the state that it leaves
//! behind. Rules are tested beside their code.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod audit;
mod client;
mod client_keys;
mod directory;
mod edited;
mod etags;
mod harness;
mod integration_request;
mod mutated;
mod operator;
mod permissions;
mod provisioning;
mod rejected_calls;
mod scope;
mod server;
mod tenant;
mod two_people;
mod user;
