//! The one-time link to a partner's credentials.

use accord::{
    audit::v1::{AuditEvent, AuditOutcome, ListAuditEventsRequest, audit_service_client::AuditServiceClient},
    registry::v1 as reg,
    testing::calls::ok,
};

use serde_json::json;
use thirtyfour::Key;

use super::stage::{FILEHARBOUR, Stage};
use crate::harness::partner::Partner;

tests!(a_claim_link_opens_once_by_its_button_and_then_shows_when,);

async fn a_claim_link_opens_once_by_its_button_and_then_shows_when() {
    let stage = Stage::set().await;
    let browser = &stage.browser;
    let registered = stage.register(FILEHARBOUR, reg::DeliveryMethod::Link).await;
    let Some(reg::register_client_response::Credentials::DeliveryLink(link)) = registered.credentials else {
        panic!("no link");
    };
    // Mail scanners open links.
    for _ in 0..2 {
        browser.open(&link.url).await;
        browser.arrive("Your client credentials").await;
        assert!(!browser.text().await.contains("acs_"));
    }
    assert!(claims(&stage, &link.delivery_id).await.is_empty());

    browser.press("Show the credentials").await;
    let target = &stage.world.target;
    let secret = browser.value("#client_secret").await;
    let values = [
        registered.client.unwrap().client_id,
        secret.clone(),
        target.tenant_authority_url.clone(),
        target.cloud_api_url.clone(),
    ];
    assert_eq!(browser.texts(".copy .value").await, values);
    for (value, field) in values.iter().zip(browser.all(".copy input").await) {
        assert_eq!(field.value().await.unwrap().as_ref(), Some(value));
    }

    // A click selects a whole value, and so does the Tab key.
    browser.click(".copy:has(#client_secret) .value").await;
    let selected = "return getSelection().toString()";
    assert_eq!(browser.evaluate(selected).await, secret.as_str());
    browser
        .evaluate("document.getElementById('client_id').focus()")
        .await;
    browser.key(Key::Tab).await;
    assert_eq!(browser.evaluate(selected).await, secret.as_str());
    let focused = browser.driver.active_element().await.unwrap();
    assert_eq!(
        focused.attr("id").await.unwrap().as_deref(),
        Some("client_secret")
    );

    // A print shows all of it too.
    browser
        .cdp("Emulation.setEmulatedMedia", json!({"media": "print"}))
        .await;
    assert_eq!(browser.texts(".copy .value").await, values);
    browser.cdp("Emulation.setEmulatedMedia", json!({})).await;

    let partner = Partner {
        client_id: values[0].clone(),
        client_secret: secret.clone(),
    };
    let issued = stage.connected(&partner, &[]).await;
    assert!(stage.world.active(&issued.access_token).await);

    stage.clock.advance(std::time::Duration::from_secs(90 * 60));
    browser.open(&link.url).await;
    browser.press("Show the credentials").await;
    browser.arrive("This link was opened already").await;
    let page = browser.text().await;
    assert!(page.contains("1 January 2026, 00:00 UTC"), "{page}");
    assert!(!page.contains(&secret));
    let outcomes: Vec<_> = claims(&stage, &link.delivery_id)
        .await
        .iter()
        .map(AuditEvent::outcome)
        .collect();
    assert_eq!(outcomes, [AuditOutcome::Success, AuditOutcome::Refused]);
    stage.strike().await;
}

/// Returns the audit events of a link's openings, oldest first.
async fn claims(stage: &Stage, delivery_id: &str) -> Vec<AuditEvent> {
    let request = ListAuditEventsRequest {
        action: "delivery.claim".into(),
        subject: delivery_id.into(),
        ..Default::default()
    };
    let mut audit = AuditServiceClient::new(stage.world.operator.clone());
    let listed = ok(audit.list_audit_events(request).await);
    let mut events = listed.audit_events;
    events.sort_by(|one, other| one.event_id.cmp(&other.event_id));
    events
}
