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
async fn an_update_narrows_the_fields_of_its_mask() {
    let harness = seeded().await;
    let (created, _) = registered(&harness).await;
    let first = "https://app.partner.example/callback".to_owned();
    let second = "https://app.partner.example/other".to_owned();
    let additions = pb::SubmitIntegrationRequestRequest {
        redirect_uris: vec![second.clone()],
        ..Default::default()
    };
    let wide = harness.amend(&created.client_id, additions).await;
    assert_eq!(wide.redirect_uris, [first, second.clone()]);
    let before = profile(&harness, &created.client_id).await;
    harness.clock.advance(HOUR);
    let desired = pb::Client {
        client_id: created.client_id.clone(),
        tenant_ids: vec!["globex".into()],
        scopes: wide.scopes[..1].to_vec(),
        redirect_uris: vec![second],
        display_name: "ignored".into(),
        partner_name: "ignored".into(),
        ..Default::default()
    };
    let change = async |paths: &[&str]| {
        let answer = client(&harness)
            .update_client(update(desired.clone(), paths))
            .await;
        answer.unwrap().into_inner().client.unwrap()
    };
    let redirected = change(&["redirect_uris"]).await;
    let expected = pb::Client {
        redirect_uris: desired.redirect_uris.clone(),
        update_time: redirected.update_time,
        etag: "3".into(),
        ..wide.clone()
    };
    assert_eq!(redirected, expected);
    assert!(redirected.update_time != created.update_time);
    let changed = change(&["scopes", "tenant_ids"]).await;
    let expected = pb::Client {
        tenant_ids: desired.tenant_ids.clone(),
        scopes: desired.scopes.clone(),
        etag: "4".into(),
        ..redirected
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
async fn a_scope_that_stays_keeps_its_reason() {
    let harness = seeded().await;
    let (created, _) = registered(&harness).await;
    let kept = pb::RequestedScope {
        reason: String::new(),
        ..created.scopes[1].clone()
    };
    let desired = pb::Client {
        client_id: created.client_id.clone(),
        scopes: vec![kept],
        ..Default::default()
    };
    let narrowed = ok(client(&harness).update_client(update(desired, &["scopes"])).await);
    assert_eq!(narrowed.client.unwrap().scopes, [created.scopes[1].clone()]);
}

#[tokio::test]
async fn a_rejected_update_reports_all_violations_and_changes_nothing() {
    let harness = seeded().await;
    let (created, _) = registered(&harness).await;
    let mut desired = pb::Client {
        client_id: created.client_id.clone(),
        display_name: "Renamed".into(),
        tenant_ids: vec!["globex".into(), "Acme".into(), "acme".into(), "globex".into()],
        scopes: vec![pb::RequestedScope {
            name: "un known".into(),
            reason: "a\0b".into(),
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
        "client.redirect_uris[0]",
        "client.scopes[0].name",
        "client.scopes[0].reason",
        "client.tenant_ids[1]",
        "client.tenant_ids[3]",
    ];
    assert_violations(refused, &fields);
    // What the client does not have, and what was approved in other words.
    let reworded = pb::RequestedScope {
        reason: "harmless".into(),
        ..created.scopes[1].clone()
    };
    let other = pb::RequestedScope {
        name: "contacts.delete".into(),
        reason: String::new(),
    };
    desired.tenant_ids = vec!["acme".into(), "nowhere".into()];
    desired.scopes = vec![created.scopes[0].clone(), reworded, other];
    desired.redirect_uris = vec!["https://app.partner.example/Callback".into()];
    let refused = client(&harness)
        .update_client(update(desired, &["tenant_ids", "redirect_uris", "scopes"]))
        .await;
    let fields = [
        "client.tenant_ids[1]",
        "client.scopes[1].reason",
        "client.scopes[2].name",
        "client.redirect_uris[0]",
    ];
    assert_violations(refused, &fields);
    let empty = client(&harness)
        .update_client(pb::UpdateClientRequest::default())
        .await;
    assert_violations(empty, &["client.client_id", "update_mask"]);
    let unknown = pb::Client {
        client_id: UNKNOWN.into(),
        tenant_ids: vec!["acme".into()],
        ..Default::default()
    };
    let refused = client(&harness)
        .update_client(update(unknown, &["tenant_ids"]))
        .await;
    assert_rejected(refused, Code::NotFound, "NOT_FOUND");
    assert_eq!(get(&harness, &created.client_id).await, created);
    assert!(harness.audit_events("client.update").await.is_empty());
}
