//! Connected integrations: what a tenant has granted, and what its admin can change.

use std::time::Duration;

use super::stage::{FILEHARBOUR, Stage};
use crate::harness::partner::{own_grant, refresh_grant};

tests!(
    an_admin_sees_a_grant_changes_its_user_and_revokes_it,
    an_end_date_is_stored_and_shown,
    networks_are_entered_when_approving_and_changed_later,
);

async fn an_admin_sees_a_grant_changes_its_user_and_revokes_it() {
    let stage = Stage::set().await;
    let (browser, world) = (&stage.browser, &stage.world);
    let partner = stage.partner(FILEHARBOUR).await;
    let first = stage
        .connected(&partner, &["contacts.read", "matters.read"])
        .await;
    stage.clock.advance(Duration::from_secs(3 * 60 * 60 + 60));
    let renewed = world
        .issue(&partner, refresh_grant(&first.refresh_token))
        .await
        .unwrap();

    // The session of the setup has ended in the meantime.
    browser.open(&stage.page("integrations")).await;
    browser.arrive("Sign in").await;
    stage.sign_in().await;
    browser.arrive("Connected integrations").await;
    // A token counts when its event is sealed.
    let used = browser.until("the last use", async |browser| {
        browser.open(&stage.page("integrations")).await;
        let listed = browser.see(".integrations li").await.text().await.unwrap();
        listed.contains("1 January 2026, 03:01 UTC").then_some(listed)
    });
    let listed = used.await;
    for part in [
        FILEHARBOUR.client_name,
        FILEHARBOUR.partner_name,
        "Active",
        "contacts.read",
        "matters.read",
        "API user 1",
        "1 January 2026, 00:00 UTC by Administrator 1",
    ] {
        assert!(listed.contains(part), "{part} is not in {listed}");
    }
    assert!(!listed.contains("calendar.read"), "it was not granted: {listed}");

    browser.press(FILEHARBOUR.client_name).await;
    browser.see("#account_name").await;
    let shown = browser.text().await;
    for part in [FILEHARBOUR.goals, &first.grant_id, &partner.client_id] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }

    browser.fill("account_name", "nobody@demo-firm.example").await;
    browser.press("Change the user").await;
    browser.see("#account_name-error").await;
    assert!(world.active(&renewed.access_token).await, "nothing was changed");

    world.user("second.user@demo-firm.example").await;
    browser
        .fill("account_name", "second.user@demo-firm.example")
        .await;
    browser.press("Change the user").await;
    browser.confirmed("Another user").await;
    assert!(!world.active(&renewed.access_token).await);
    let next = world
        .issue(&partner, refresh_grant(&renewed.refresh_token))
        .await
        .unwrap();
    assert_ne!(
        world.introspect(&next.access_token).await.sub,
        world.introspect(&first.refresh_token).await.sub,
        "the tokens are the new user's"
    );

    browser.press("Revoke access…").await;
    browser.fill("reason", "We no longer use it.").await;
    browser.press("Revoke access now").await;
    browser.confirmed("revoked").await;
    assert!(browser.all("form[action$='revoke']").await.is_empty());
    assert!(!world.active(&next.access_token).await);
    assert!(!world.active(&next.refresh_token).await);
    assert!(world.issue(&partner, own_grant()).await.is_err());

    browser.press("Connected integrations").await;
    browser.arrive("Connected integrations").await;
    let listed = browser.see(".integrations li").await.text().await.unwrap();
    assert!(listed.contains("Revoked"), "{listed}");
    stage.strike().await;
}

async fn an_end_date_is_stored_and_shown() {
    let stage = Stage::set().await;
    let browser = &stage.browser;
    let partner = stage.partner(FILEHARBOUR).await;
    stage.ask(&partner, &[], "state-1").await;
    let field = browser.see("[name='end_date']").await;
    // In the west it is still the day before.
    assert_eq!(field.attr("min").await.unwrap().as_deref(), Some("2025-12-31"));
    // How a date is typed depends on the browser's language; its value does not.
    browser
        .evaluate("document.getElementById('end_date').value = '2026-01-20'")
        .await;
    stage.approve().await;
    let received = stage.back_at_the_partner().await;
    let issued = stage.redeem(&partner, &received).await;
    browser.open(&stage.page("integrations")).await;
    let listed = browser.see(".integrations li").await.text().await.unwrap();
    assert!(listed.contains("20 January 2026, 23:59 UTC"), "{listed}");

    let days = 24 * 60 * 60;
    stage.clock.advance(Duration::from_secs(19 * days));
    assert!(
        stage.world.active(&issued.refresh_token).await,
        "until the end of that day"
    );
    stage.clock.advance(Duration::from_secs(days));
    assert!(!stage.world.active(&issued.refresh_token).await);
    stage.strike().await;
}

async fn networks_are_entered_when_approving_and_changed_later() {
    let stage = Stage::set().await;
    let (browser, world) = (&stage.browser, &stage.world);
    let partner = stage.partner(FILEHARBOUR).await;
    stage.ask(&partner, &[], "state-1").await;
    // Few need them, so the field comes when it is asked for.
    let field = browser.all("[name='allowed_networks']").await.remove(0);
    assert!(!field.is_displayed().await.unwrap());
    browser.press("Limit it to networks").await;
    browser.fill("allowed_networks", "10.1.2.3/8").await;
    stage.approve().await;
    let error = browser.see("#allowed_networks-error").await;
    let error = error.text().await.unwrap();
    assert!(error.contains("10.1.2.3/8"), "{error}");
    browser
        .fill("allowed_networks", "127.0.0.0/8, 2001:db8::/32")
        .await;
    stage.approve().await;
    let received = stage.back_at_the_partner().await;
    stage.redeem(&partner, &received).await;

    browser.open(&stage.page("integrations")).await;
    browser.press(FILEHARBOUR.client_name).await;
    browser.see("#allowed_networks").await;
    let shown = browser.text().await;
    assert!(
        shown.contains("127.0.0.0/8") && shown.contains("2001:db8::/32"),
        "{shown}"
    );
    browser.fill("allowed_networks", "203.0.113.0/24").await;
    browser.press("Change the networks").await;
    browser.confirmed("from these networks alone").await;
    let refused = world.issue(&partner, own_grant()).await.unwrap_err();
    assert!(refused.message().contains("127.0.0.1"), "{refused}");
    browser.fill("allowed_networks", "").await;
    browser.press("Change the networks").await;
    browser.confirmed("from anywhere").await;
    world.issue(&partner, own_grant()).await.unwrap();
    stage.strike().await;
}
