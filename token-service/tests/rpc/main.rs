//! token-service as its callers see it: real clients over a real server on loopback, whose registry is
//! an in-memory fake.
//!
//! Each file is about one service: what a call answers, every way in which it is refused, and what
//! it leaves behind. Rules that show below the RPCs are tested where they are.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod audit;
mod bindings;
mod consent;
mod edited;
mod fake_registry;
mod freshness;
mod harness;
mod http;
mod introspection;
mod limits;
mod mutated;
mod mutual_tls;
mod networks;
mod openapi;
mod registry_calls;
mod rejected_calls;
mod restore;
mod revocation;
mod revocation_feed;
mod security_profile;
mod setup;
mod token;
mod two_people;
mod world;
