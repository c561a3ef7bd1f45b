//! After the six steps, nothing secret is in databases, logs or the audit record.

use accord::audit::v1::{ListAuditEventsRequest, audit_service_client::AuditServiceClient};
use accord_cli::call::{answer, with_token};

use crate::{
    demo::walk,
    harness::{files_below, holds, services::Services},
};

/// Parts of a secret that would give it away as well: the random part without prefix and checksum.
fn needles(secret: &str) -> Vec<String> {
    let mut needles = vec![secret.to_owned()];
    let random_part = secret.rsplit('_').next().unwrap();
    if random_part.len() >= 43 && !secret.contains('.') {
        needles.push(random_part[..43].to_owned());
    }
    if let Some((signed, signature)) = secret.rsplit_once('.') {
        needles.extend([signed.to_owned(), signature.to_owned()]);
    }
    needles
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_secret_is_kept_or_logged() {
    let data = tempfile::tempdir().unwrap();
    let url = |name: &str| format!("sqlite://{}", data.path().join(name).display());
    let mut services = Services::start(&url("registry.db"), &url("token.db")).await;
    let (outcome, _) = walk(&services.target).await;
    let target = &services.target;

    let mut audit = String::new();
    for address in [&target.registry_grpc, &target.token_grpc] {
        let mut events = AuditServiceClient::new(with_token(address, &target.operator_token).unwrap());
        let request = ListAuditEventsRequest {
            page_size: 500,
            ..Default::default()
        };
        let answered = answer("ListAuditEvents", events.list_audit_events(request).await).unwrap();
        assert!(answered.next_page_token.is_empty());
        assert!(answered.audit_events.len() >= 4, "{answered:?}");
        audit.push_str(&format!("{answered:?}"));
    }
    // The whole of what is on disk, write-ahead logs included, with the services running and stopped.
    let mut places = files_below(data.path());
    services.token.signal("TERM");
    assert!(services.token.wait().success());
    services.registry.signal("TERM");
    assert!(services.registry.wait().success());
    places.extend(files_below(data.path()));
    places.push(("the audit record".into(), audit.into_bytes()));
    places.push((
        "registry-service's log".into(),
        services.registry.stderr().into_bytes(),
    ));
    places.push(("token-service's log".into(), services.token.stderr().into_bytes()));
    places.push((
        "registry-service's output".into(),
        services.registry.stdout().into_bytes(),
    ));

    let target = &services.target;
    let mut secrets: Vec<String> = outcome
        .secrets
        .iter()
        .flat_map(|secret| needles(secret))
        .collect();
    for token in [&target.operator_token, &target.workload_token] {
        secrets.extend(needles(token));
    }
    let names = [&target.admin_account_name, &target.api_user_account_name];
    for name in names {
        secrets.extend([name.to_string(), name.split('@').next().unwrap().to_owned()]);
    }
    secrets.push(target.admin_password.clone());
    for (place, content) in &places {
        assert!(
            !content.is_empty() || place.contains("output") || place.contains("-wal"),
            "{place} is empty"
        );
        for secret in &secrets {
            assert!(
                !holds(content, secret),
                "a secret beginning with {:.8} is in {place}",
                secret
            );
        }
    }
    // The search itself finds what is there.
    let all: Vec<u8> = places.iter().flat_map(|(_, content)| content.clone()).collect();
    assert!(holds(&all, &outcome.client_id));
    assert!(holds(&all, &outcome.grant_id));
}
