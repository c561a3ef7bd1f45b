//! End to end: what crosses the services, through their real listeners, as a user would see it.
//!
//! One binary. `harness` starts things and stops them again; each other module is a subject.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[macro_use]
mod harness;

mod browser;
mod consents;
mod contract;
mod demo;
mod dev;
mod faults;
mod freshness;
mod gateway;
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

use harness::suite::Tool::{Axe, Chromium, Curl, Envoy, Grpcurl, Mount, PgBouncer, RequestsOauthlib};

fn main() -> std::process::ExitCode {
    harness::suite::run(vec![
        (&[Chromium], browser::access::tests()),
        (&[Chromium], browser::enrolment::tests()),
        (&[Chromium, Axe], browser::harness_holds::tests()),
        (&[Chromium], browser::integrations::tests()),
        (&[Chromium], browser::links::tests()),
        (&[Chromium, Axe], browser::looks::tests()),
        (&[Chromium], browser::setup::tests()),
        (&[], consents::tests()),
        (&[Grpcurl], contract::tests()),
        (&[], contract::not_available::tests()),
        (&[], demo::tests()),
        (&[], dev::tests()),
        (&[Mount], faults::disk::tests()),
        (&[], faults::network::tests()),
        (&[PgBouncer], faults::pooler::tests()),
        (&[], faults::server::tests()),
        (&[], freshness::tests()),
        (&[], gateway::tests()),
        (&[Envoy], gateway::closed::tests()),
        (&[Envoy], gateway::end_to_end::tests()),
        (&[Envoy], gateway::headers::tests()),
        (&[Envoy], gateway::limits::tests()),
        (&[Envoy], gateway::transport::tests()),
        (&[], kill::tests()),
        (&[], leaks::tests()),
        (&[Curl], oauth_clients::guide::tests()),
        (&[], oauth_clients::oauth2_crate::tests()),
        (&[RequestsOauthlib], oauth_clients::requests_oauthlib::tests()),
        (&[], oauth_clients::sample::tests()),
        (&[], offline::tests()),
        (&[], permissions::tests()),
        (&[], processes::tests()),
        (&[Grpcurl], readme::tests()),
        (&[], setups::tests()),
        (&[], tokens::documents::tests()),
        (&[], tokens::endings::tests()),
        (&[], tokens::issuance::tests()),
        (&[], tokens::renewal::tests()),
        (&[Grpcurl, Envoy, Chromium], walkthrough::tests()),
    ])
}
