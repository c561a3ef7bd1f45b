//! End to end: what crosses the services, through their real listeners, as a user would see it.
//!
//! One binary. `harness` starts things and stops them again; each other module is a subject.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[macro_use]
mod harness;

mod audit_proofs;
mod audit_record;
mod browser;
mod client_keys;
mod consent_receipts;
mod consents;
mod contract;
mod demo;
mod deploy;
mod dev;
mod documents;
mod ext_authz;
mod faults;
mod freshness;
mod gateway;
mod grpc_callers;
mod hosts;
mod incident;
mod keys;
mod kill;
mod leaks;
mod mtls;
mod oauth_clients;
mod observability;
mod offline;
mod permissions;
mod platform;
mod processes;
mod readme;
mod restore;
mod settings;
mod setups;
mod startup;
mod tokens;
mod transport;
mod two_people;
mod upgrade;
mod walkthrough;

use harness::suite::Tool::{
    Address, Axe, Buildah, Chromium, Compose, Curl, Envoy, Go, Grpcurl, Helm, Java, Mount, Namespaces, Node,
    Patroni, PgBouncer, PgDump, Postgres, Prometheus, Promtool, Python, SoftHsm, Systemd,
};

fn main() -> std::process::ExitCode {
    if let Some(directory) = std::env::var_os(hosts::resource_server::DIRECTORY) {
        harness::suite::block_on(hosts::resource_server::serve(directory.into()));
    }
    harness::suite::run(vec![
        (&[], audit_proofs::tests()),
        (&[], audit_record::tests()),
        (&[Python], audit_proofs::python::tests()),
        (&[Chromium], browser::access::tests()),
        (&[Chromium], browser::clicks::tests()),
        (&[Chromium], browser::enrolment::tests()),
        (&[Chromium, Axe], browser::harness_holds::tests()),
        (&[Chromium], browser::integrations::tests()),
        (&[Chromium], browser::links::tests()),
        (&[Chromium, Axe], browser::looks::tests()),
        (&[Chromium], browser::setup::tests()),
        (&[], client_keys::tests()),
        (&[], consent_receipts::tests()),
        (&[Python], consent_receipts::python::tests()),
        (&[], consents::tests()),
        (&[Grpcurl], contract::tests()),
        (&[], contract::not_available::tests()),
        (&[], demo::tests()),
        (&[Compose, Mount], deploy::compose::tests()),
        (&[], deploy::health::tests()),
        (&[Helm], deploy::helm::tests()),
        (&[Helm], deploy::helm::configuration::tests()),
        (&[Helm, Envoy], deploy::helm::gateway::tests()),
        (&[Helm], deploy::helm::network::tests()),
        (&[Buildah, Mount], deploy::image::tests()),
        (&[Systemd, Mount], deploy::systemd::tests()),
        (&[], dev::tests()),
        (&[], documents::tests()),
        (&[PgBouncer], faults::administrator::tests()),
        (
            &[Namespaces, Patroni, Postgres, Grpcurl],
            faults::cluster::tests(),
        ),
        (&[Mount], faults::disk::tests()),
        (&[], faults::network::tests()),
        (&[], faults::password::tests()),
        (&[PgBouncer], faults::pooler::tests()),
        (&[], faults::server::tests()),
        (&[], freshness::tests()),
        (&[], gateway::tests()),
        (&[Envoy], ext_authz::tests()),
        (&[Envoy], gateway::bound::mutual_tls::tests()),
        (&[Envoy], gateway::bound::proofs::tests()),
        (&[Envoy], gateway::closed::tests()),
        (&[Envoy], gateway::end_to_end::tests()),
        (&[Envoy], gateway::headers::tests()),
        (&[Envoy], gateway::limits::tests()),
        (&[Envoy], gateway::mtls::tests()),
        (&[Envoy], gateway::once::tests()),
        (&[Envoy], gateway::transport::tests()),
        (&[Grpcurl, Python], grpc_callers::libraries::tests()),
        (&[Namespaces, Envoy, Postgres], hosts::faults::tests()),
        (&[Namespaces, Python], hosts::network::tests()),
        (
            &[Namespaces, Envoy, Postgres, Chromium],
            hosts::six_steps::tests(),
        ),
        (&[], incident::tests()),
        (&[], keys::tests()),
        (&[SoftHsm], keys::pkcs11::tests()),
        (&[], kill::tests()),
        (&[], leaks::tests()),
        (&[], leaks::planted::tests()),
        (&[], mtls::tests()),
        (&[Node, Python, Java], oauth_clients::algorithms::tests()),
        (&[Go], oauth_clients::go::tests()),
        (&[Curl], oauth_clients::guide::tests()),
        (&[Java], oauth_clients::java::tests()),
        (&[Node], oauth_clients::mcp::tests()),
        (&[Python], oauth_clients::mutual_tls::tests()),
        (&[Node], oauth_clients::node::tests()),
        (&[], oauth_clients::oauth2_crate::tests()),
        (&[Python], oauth_clients::openapi::tests()),
        (&[Python], oauth_clients::python::tests()),
        (&[], oauth_clients::sample::tests()),
        (&[Promtool], observability::alerts::tests()),
        (&[Chromium, Prometheus], observability::dashboard::tests()),
        (&[], observability::scrape::tests()),
        (&[], observability::traces::tests()),
        (&[], offline::tests()),
        (&[], permissions::tests()),
        (&[], platform::tests()),
        (&[], platform::connections::tests()),
        (&[], processes::tests()),
        (&[Grpcurl], readme::tests()),
        (&[PgDump], restore::tests()),
        (&[], settings::tests()),
        (&[], setups::tests()),
        (&[], startup::tests()),
        (&[], tokens::documents::tests()),
        (&[], tokens::endings::tests()),
        (&[], tokens::issuance::tests()),
        (&[], tokens::renewal::tests()),
        (&[Grpcurl, Address], transport::tests()),
        (&[], two_people::tests()),
        (&[Envoy], upgrade::tests()),
        (&[Grpcurl, Envoy, Chromium], walkthrough::tests()),
    ])
}
