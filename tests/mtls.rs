//! Identities by certificates, and registry-service at several addresses, as separate processes over mutual TLS.

use std::{
    net::TcpStream,
    process::Command,
    time::{Duration, Instant},
};

use accord::{
    audit::v1::{ListAuditEventsRequest, audit_service_client::AuditServiceClient},
    registry::v1::{
        CreateTenantRequest, ListWorkloadsRequest, RevokeWorkloadRequest,
        operator_service_client::OperatorServiceClient, tenant_service_client::TenantServiceClient,
    },
    rpc::channel::HopChannel,
    testing::calls::{assert_rejected, ok},
    token::v1::{
        GetAuthorityMetadataRequest, ListRevocationsRequest, token_service_client::TokenServiceClient,
    },
    verify::Checker,
};
use tokio::time::timeout;
use tonic::{Code, Status};

use crate::harness::{process::wrap, proxy::Traffic, refusal::within, secured::Secured};

tests!(
    certificates_identify_every_caller_until_they_are_revoked,
    one_registry_is_enough_while_another_is_silent_or_gone,
    without_file_descriptors_connections_that_are_open_are_served,
);

async fn list_revocations(channel: &HopChannel) -> Result<(), Status> {
    let mut tokens = TokenServiceClient::new(channel.clone());
    let request = ListRevocationsRequest::default();
    tokens.list_revocations(request).await.map(drop)
}

/// Creates a tenant as an operator.
async fn create_tenant(channel: &HopChannel, tenant_id: &str) {
    let request = CreateTenantRequest {
        tenant_id: tenant_id.into(),
        display_name: "Firm".into(),
        cloud_api_url: "https://api.example".into(),
        ..Default::default()
    };
    ok(TenantServiceClient::new(channel.clone())
        .create_tenant(request)
        .await);
}

async fn certificates_identify_every_caller_until_they_are_revoked() {
    let services = Secured::start().await;
    for arguments in [["check-config"], ["serve"]] {
        let refused = services.registry_without("ACCORD_REGISTRY_CLIENT_CA", &arguments);
        let stderr = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            !refused.status.success() && stderr.contains("--client-ca is missing") && stderr.contains("wkl_"),
            "{stderr}"
        );
    }
    let create = "operator create late --role admin --certificate-name late.example".split(' ');
    let refused = services.registry_without("ACCORD_REGISTRY_CLIENT_CA", &create.collect::<Vec<_>>());
    let stderr = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && stderr.contains("--client-ca is not set"),
        "{stderr}"
    );
    let token = |client: &str| services.channel(&services.token_grpc, client);
    let internal = token("internal-service-client");
    list_revocations(&internal).await.unwrap();
    let gateway = list_revocations(&token("gateway-client")).await;
    assert_rejected(gateway, Code::PermissionDenied, "PERMISSION_DENIED");
    let nobody = list_revocations(&token("")).await;
    assert_rejected(nobody, Code::Unauthenticated, "UNAUTHENTICATED");

    let files = services.files("internal-service-client");
    let checker = Checker::connect_tls(&format!("https://{}", services.token_grpc), files).unwrap();
    timeout(Duration::from_secs(20), checker.ready()).await.unwrap();

    let operator = services.channel(&services.registries[0].address, "operator-client");
    let registry = operator.clone();
    let mut operators = OperatorServiceClient::new(operator);
    let listed = ok(operators.list_workloads(ListWorkloadsRequest::default()).await);
    let mut workloads = listed.workloads.into_iter();
    let own = workloads.find(|workload| workload.certificate_name.ends_with("/internal-service"));
    let workload_id = own.unwrap().workload_id;
    let revoke = RevokeWorkloadRequest {
        workload_id: workload_id.clone(),
        reason: "a test".into(),
    };
    ok(operators.revoke_workload(revoke).await);
    let returned = Instant::now();
    let refused = loop {
        if let Err(status) = list_revocations(&internal).await {
            break status;
        }
        assert!(returned.elapsed() < Duration::from_secs(1), "it still counts");
    };
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(
        refused
            .message()
            .contains("[spiffe://accord.example/internal-service]"),
        "{refused:?}"
    );
    // The registry knows whose it was, and records each such call.
    list_revocations(&internal).await.unwrap_err();
    let rejected = ListAuditEventsRequest {
        action: "call.reject".into(),
        ..Default::default()
    };
    let mut records = AuditServiceClient::new(registry);
    within(Duration::from_secs(20), "two events", async || {
        let listed = ok(records.list_audit_events(rejected.clone()).await);
        let events = listed.audit_events.iter();
        events.filter(|event| event.actor_id == workload_id).count() >= 2
    })
    .await;
}

async fn one_registry_is_enough_while_another_is_silent_or_gone() {
    let services = Secured::start().await;
    let operator = services.channel(&services.registries[1].address, "operator-client");
    create_tenant(&operator, "firm-one").await;
    let mut tokens = TokenServiceClient::new(services.channel(&services.token_grpc, ""));
    let mut ask = async |tenant_id: &str| {
        let request = GetAuthorityMetadataRequest {
            tenant_id: tenant_id.into(),
        };
        tokens.get_authority_metadata(request).await.map(drop)
    };
    ask("firm-one").await.unwrap();
    let faults = [Some(Traffic::Stall), Some(Traffic::Reset), None];
    for (round, fault) in faults.into_iter().enumerate() {
        match fault {
            Some(traffic) => services.registries[0].proxy.set(traffic, traffic),
            None => services.registries[0].process.signal("KILL"),
        }
        // More than the lease of what token-service remembers, and facts that it does not remember yet.
        let started = Instant::now();
        let mut number = 0;
        while started.elapsed() < Duration::from_secs(3) {
            number += 1;
            let tenant_id = format!("firm-{round}-{number}");
            create_tenant(&operator, &tenant_id).await;
            ask(&tenant_id).await.unwrap();
            ask("firm-one").await.unwrap();
        }
    }
}

async fn without_file_descriptors_connections_that_are_open_are_served() {
    let limited = |serve| {
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -n 160; exec \"$0\" \"$@\""]);
        wrap(shell, &serve)
    };
    let mut services = Secured::start_by(limited).await;
    let kept = services.channel(&services.token_grpc, "internal-service-client");
    list_revocations(&kept).await.unwrap();
    // More than there are places; each waits in its handshake.
    let silent: Vec<_> = [&services.token_grpc, &services.token_http]
        .into_iter()
        .flat_map(|address| (0..120).map(move |_| TcpStream::connect(address).unwrap()))
        .collect();
    services.token.wait_for("a line about connections", |process| {
        let log = process.stderr();
        let is_told = log.contains("new connections wait") || log.contains("can't be accepted");
        is_told.then_some(())
    });
    for _ in 0..20 {
        list_revocations(&kept).await.unwrap();
    }
    drop(silent);
    let ended = Instant::now();
    while list_revocations(&services.channel(&services.token_grpc, "internal-service-client"))
        .await
        .is_err()
    {
        assert!(
            ended.elapsed() < Duration::from_secs(5),
            "{}",
            services.token.stderr()
        );
    }
}
