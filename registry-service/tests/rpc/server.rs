//! The server itself: start, health and stop.

use std::{sync::Arc, time::Duration};

use accord::{
    random::SystemRandom,
    registry::v1::{
        ClaimDeliveryRequest, ListScopesRequest, provisioning_service_client::ProvisioningServiceClient,
        scope_service_client::ScopeServiceClient,
    },
    rpc::{
        auth::Role,
        run::{self, Listeners},
    },
    testing::{sqlite, test_clock},
};
use registry_service::{
    config::Settings, permissions::SERVICES, server::RegistryServer, store::migration::Migrator,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_types::StatusExt;

use crate::{
    client,
    harness::{Harness, assert_rejected, ok, settings},
    user,
};

#[tokio::test]
async fn a_database_without_tables_is_not_opened() {
    let (database, directory) = (sqlite(), tempfile::tempdir().unwrap());
    let settings = settings(&database, directory.path().join("key"));
    let error = RegistryServer::open(&settings, test_clock(), Arc::new(SystemRandom))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("migrate"), "{error:#}");
    RegistryServer::migrate(&settings).await.unwrap();
    RegistryServer::migrate(&settings).await.unwrap();
    RegistryServer::open(&settings, test_clock(), Arc::new(SystemRandom))
        .await
        .unwrap();
}

#[tokio::test]
async fn another_master_key_does_not_open_the_registry() {
    let harness = Harness::start().await;
    let directory = tempfile::tempdir().unwrap();
    let mut others = settings(&sqlite(), directory.path().join("key"));
    others
        .service
        .database_url
        .clone_from(&harness.settings.service.database_url);
    let error = RegistryServer::open(&others, test_clock(), Arc::new(SystemRandom))
        .await
        .unwrap_err();
    assert!(format!("{error:#}").contains("master key"), "{error:#}");
}

#[tokio::test]
async fn migrate_starts_a_new_epoch_on_request() {
    let harness = Harness::start().await;
    let before = harness.registry.store().position().await.unwrap();
    RegistryServer::migrate(&harness.settings).await.unwrap();
    assert_eq!(harness.registry.store().position().await.unwrap(), before);
    RegistryServer::start_epoch(&harness.settings, &*harness.clock, &SystemRandom)
        .await
        .unwrap();
    let after = harness.registry.store().position().await.unwrap();
    assert!(after.epoch != before.epoch && after.seq == before.seq);
}

#[tokio::test]
async fn nothing_serves_from_a_new_epoch_that_was_interrupted() {
    let harness = Harness::start().await;
    let (settings, service) = (&harness.settings, &harness.settings.service);
    let interrupted =
        run::start_epoch::<Migrator>(service, &SystemRandom, async |_| Err(anyhow::anyhow!("killed")));
    let error = format!("{:#}", interrupted.await.unwrap_err());
    assert!(error.contains("run `migrate --new-epoch` again"), "{error}");
    let begun = harness.registry.store().position().await.unwrap();

    let opened = RegistryServer::open(settings, test_clock(), Arc::new(SystemRandom)).await;
    let error = format!("{:#}", opened.unwrap_err());
    assert!(error.contains("run `migrate --new-epoch` again"), "{error}");
    let checked = run::check::<Migrator>(service).await;
    let error = format!("{:#}", checked.unwrap_err());
    assert!(error.contains("run `migrate --new-epoch` again"), "{error}");

    RegistryServer::start_epoch(settings, &*harness.clock, &SystemRandom)
        .await
        .unwrap();
    let registry = RegistryServer::open(settings, test_clock(), Arc::new(SystemRandom)).await;
    // A copy that was made in between has served in that epoch since.
    let finished = registry.unwrap().store().position().await.unwrap();
    assert_ne!(finished.epoch, begun.epoch);
}

#[tokio::test]
async fn a_new_epoch_ends_the_links_of_the_copy() {
    let harness = user::seeded().await;
    let invited = user::registered(&harness, user::admin("late@firm.example")).await;
    RegistryServer::start_epoch(&harness.settings, &*harness.clock, &SystemRandom)
        .await
        .unwrap();
    let enrolled = user::enrol(&harness, &invited.enrolment_token, "correct horse battery").await;
    assert_rejected(enrolled, Code::FailedPrecondition, "LINK_INVALID");

    let harness = Harness::start().await;
    client::seed(&harness).await;
    let (_, link) = client::registered_with_link(&harness).await;
    RegistryServer::start_epoch(&harness.settings, &*harness.clock, &SystemRandom)
        .await
        .unwrap();
    let claim = ClaimDeliveryRequest {
        claim_token: link.claim_token,
        ..Default::default()
    };
    let mut provisioning = ProvisioningServiceClient::new(harness.anonymous());
    let claimed = provisioning.claim_delivery(claim).await;
    assert_rejected(claimed, Code::FailedPrecondition, "LINK_INVALID");
}

#[tokio::test]
async fn plaintext_is_served_only_on_loopback() {
    let harness = Harness::start().await;
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let listeners = Listeners::plaintext(listener, None);
    let served = run::run(harness.registry.clone(), listeners, CancellationToken::new()).await;
    assert!(served.unwrap_err().to_string().contains("loopback"));
}

#[tokio::test]
async fn an_address_that_calls_too_often_learns_when_to_come_again() {
    let limited = |settings: &mut Settings| settings.service.address_calls_per_second = 1;
    let harness = Harness::start_with(sqlite(), limited).await;
    let list = async |address: &str| {
        let mut request = Request::new(ListScopesRequest::default());
        let forwarded = address.parse().unwrap();
        request.metadata_mut().insert("x-forwarded-for", forwarded);
        let mut scopes = ScopeServiceClient::new(harness.operator(Role::Auditor));
        scopes.list_scopes(request).await
    };
    let mut refused = None;
    for _ in 0..100 {
        refused = list("192.0.2.1").await.err();
        if refused.is_some() {
            break;
        }
    }
    let status = refused.expect("one of a hundred calls a second is too many");
    let wait = status.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert!(
        Duration::ZERO < wait && wait <= Duration::from_secs(1),
        "{wait:?}"
    );
    assert_rejected::<()>(Err(status), Code::ResourceExhausted, "RESOURCE_EXHAUSTED");
    ok(list("192.0.2.2").await);
}

#[tokio::test]
async fn every_service_reports_its_health() {
    let harness = Harness::start().await;
    let mut health = HealthClient::new(harness.anonymous());
    for service in SERVICES.iter().copied().chain([""]) {
        let request = HealthCheckRequest {
            service: service.into(),
        };
        let mut states = ok(health.watch(request).await);
        loop {
            let state = states.message().await.unwrap().expect("another state").status();
            if state == ServingStatus::Serving {
                break;
            }
        }
    }
    let request = HealthCheckRequest {
        service: "accord.token.v1.TokenService".into(),
    };
    assert_eq!(health.check(request).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_stopped_server_is_replaced_by_another_one() {
    let harness = Harness::start().await;
    harness.scope("contacts.read").await;
    let token = harness.operator_token(Role::Auditor).expose();
    harness.shutdown.cancel();

    let registry = RegistryServer::open(&harness.settings, test_clock(), Arc::new(SystemRandom))
        .await
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(run::run(
        registry,
        Listeners::plaintext(listener, None),
        shutdown.clone(),
    ));
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    let mut scopes = ScopeServiceClient::new(channel.connect().await.unwrap());
    let mut request = Request::new(ListScopesRequest::default());
    request
        .metadata_mut()
        .insert("authorization", format!("Bearer {token}").parse().unwrap());
    let listed = ok(scopes.list_scopes(request).await);
    assert_eq!(listed.scopes[0].name, "contacts.read");
    drop(scopes);
    shutdown.cancel();
    serving.await.unwrap().unwrap();
}
