//! Updates of clients.

use prost_types::FieldMask;

use super::*;

fn update(client: pb::Client, paths: &[&str]) -> pb::UpdateClientRequest {
    pb::UpdateClientRequest {
        client: Some(client),
        update_mask: Some(FieldMask {
            paths: paths.iter().map(ToString::to_string).collect(),
        }),
    }
}

#[tokio::test]
async fn an_update_changes_the_fields_of_its_mask() {
    let harness = seeded().await;
    let (created, _) = registered(&harness).await;
    let before = profile(&harness, &created.client_id).await;
    harness.clock.advance(HOUR);
    let desired = pb::Client {
        client_id: created.client_id.clone(),
        display_name: "Renamed".into(),
        tenant_ids: vec!["globex".into()],
        scopes: vec![pb::RequestedScope {
            name: "contacts.read".into(),
            reason: "less".into(),
        }],
        redirect_uris: vec!["https://new.partner.example/callback".into()],
        partner_name: "ignored".into(),
        ..Default::default()
    };
    let change = async |paths: &[&str]| {
        let answer = client(&harness)
            .update_client(update(desired.clone(), paths))
            .await;
        answer.unwrap().into_inner().client.unwrap()
    };
    let renamed = change(&["display_name"]).await;
    let expected = pb::Client {
        display_name: "Renamed".into(),
        update_time: renamed.update_time,
        etag: "2".into(),
        ..created.clone()
    };
    assert_eq!(renamed, expected);
    assert!(renamed.update_time != created.update_time);
    let changed = change(&["redirect_uris", "scopes", "tenant_ids"]).await;
    let expected = pb::Client {
        tenant_ids: desired.tenant_ids.clone(),
        scopes: desired.scopes.clone(),
        redirect_uris: desired.redirect_uris.clone(),
        etag: "3".into(),
        ..renamed
    };
    assert_eq!(changed, expected);
    assert_eq!(get(&harness, &created.client_id).await, changed);
    let after = profile(&harness, &created.client_id).await;
    assert!(after.version > before.version);
    // Access tokens end, because tenants and scopes were removed. Refresh tokens don't.
    assert_eq!(
        (after.tokens_ended_seq, after.families_ended_seq),
        (after.version, 0)
    );
    assert_eq!(harness.audit_events("client.update").await.len(), 2);
}

#[tokio::test]
async fn a_rejected_update_reports_all_violations_and_changes_nothing() {
    let harness = seeded().await;
    let (created, _) = registered(&harness).await;
    let mut desired = pb::Client {
        client_id: created.client_id.clone(),
        display_name: " ".into(),
        tenant_ids: vec!["nowhere".into(), "Acme".into(), "acme".into()],
        scopes: vec![pb::RequestedScope {
            name: "unknown".into(),
            reason: String::new(),
        }],
        redirect_uris: vec!["http://app.partner.example/callback".into()],
        ..Default::default()
    };
    let all = ["display_name", "redirect_uris", "scopes", "tenant_ids", "state"];
    let refused = client(&harness)
        .update_client(update(desired.clone(), &all))
        .await;
    let fields = [
        "update_mask",
        "client.display_name",
        "client.redirect_uris[0]",
        "client.scopes[0].name",
        "client.scopes[0].reason",
        "client.tenant_ids[0]",
        "client.tenant_ids[1]",
    ];
    assert_violations(refused, &fields);
    desired.tenant_ids = vec!["nowhere".into()];
    let refused = client(&harness)
        .update_client(update(desired, &["tenant_ids"]))
        .await;
    assert_violations(refused, &["client.tenant_ids[0]"]);
    let empty = client(&harness)
        .update_client(pb::UpdateClientRequest::default())
        .await;
    assert_violations(empty, &["client.client_id", "update_mask"]);
    let unknown = pb::Client {
        client_id: UNKNOWN.into(),
        display_name: "Nobody".into(),
        ..Default::default()
    };
    let refused = client(&harness)
        .update_client(update(unknown, &["display_name"]))
        .await;
    assert_refused(refused, Code::NotFound, "NOT_FOUND");
    assert_eq!(get(&harness, &created.client_id).await, created);
    assert!(harness.audit_events("client.update").await.is_empty());
}
