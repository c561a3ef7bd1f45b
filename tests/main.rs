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
mod grpc_callers;
mod kill;
mod leaks;
mod oauth_clients;
mod offline;
mod permissions;
mod platform;
mod processes;
mod readme;
mod setups;
mod tokens;
mod walkthrough;

use harness::suite::Tool::{Axe, Chromium, Curl, Envoy, Go, Grpcurl, Java, Mount, Node, PgBouncer, Python};

fn main() -> std::process::ExitCode {
    harness::suite::run(vec![
        (&[Chromium], browser::access::tests()),
        (&[Chromium], browser::clicks::tests()),
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
        (&[Grpcurl, Python], grpc_callers::libraries::tests()),
        (&[], kill::tests()),
        (&[], leaks::tests()),
        (&[], leaks::planted::tests()),
        (&[Go], oauth_clients::go::tests()),
        (&[Curl], oauth_clients::guide::tests()),
        (&[Java], oauth_clients::java::tests()),
        (&[Node], oauth_clients::mcp::tests()),
        (&[Node], oauth_clients::node::tests()),
        (&[], oauth_clients::oauth2_crate::tests()),
        (&[Python], oauth_clients::openapi::tests()),
        (&[Python], oauth_clients::python::tests()),
        (&[], oauth_clients::sample::tests()),
        (&[], offline::tests()),
        (&[], permissions::tests()),
        (&[], platform::tests()),
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
