//! Connected integrations: what an admin sees of the own tenant's grants, and does about them.

use std::time::Duration;

use accord::token::v1::ConsentState;

use super::{Answer, Browser, assert_asks_to_sign_in, assert_page};
use crate::world::{PASSWORD, World};

/// The addresses of the integrations that a list shows.
fn listed(page: &Answer) -> Vec<String> {
    let links = page.body.split(r#"<h2><a href=""#).skip(1);
    links
        .map(|rest| rest.split('"').next().unwrap().to_owned())
        .collect()
}

/// The address of the list's next page.
fn next(page: &Answer) -> Option<String> {
    let before = page
        .body
        .split(r#"" rel="next""#)
        .next()
        .filter(|before| before.len() < page.body.len())?;
    before.rsplit('"').next().map(str::to_owned)
}

#[tokio::test]
async fn the_list_is_of_this_tenant_and_comes_in_pages() {
    let world = World::start().await;
    let mut grants = Vec::new();
    for _ in 0..26 {
        grants.push(format!("/acme/integrations/{}", world.pending_grant().await));
        world.clock().advance(Duration::from_millis(1));
    }
    grants.reverse();
    let mut browser = Browser::new(&world);
    let first = browser.at_integrations().await;
    assert_page(&first, 200);
    assert_eq!(listed(&first), grants[..25]);
    let next_url = next(&first).unwrap();
    assert!(next_url.starts_with("/acme/integrations?page="), "{next_url}");
    let second = browser.get(&next_url).await;
    assert_page(&second, 200);
    assert_eq!((listed(&second), next(&second)), (grants[25..].to_vec(), None));

    let token = next_url.split_once('=').unwrap().1;
    for wrong in [
        "x",
        "%00",
        "-1",
        "..%2f..%2f",
        &format!("A{}", &token[1..]),
        &token.to_uppercase(),
        &"a".repeat(5000),
    ] {
        let answer = browser.get(&format!("/acme/integrations?page={wrong}")).await;
        assert_eq!(answer.status, 404, "{wrong}");
        assert_page(&answer, 404);
    }
    // Another tenant has none of this, and this page token is none of its own.
    let mut greta = Browser::new(&world);
    let list = greta
        .at_integrations_of("globex", world.globex_admin_name())
        .await;
    assert_page(&list, 200);
    assert_eq!((listed(&list), next(&list)), (Vec::new(), None));
    assert!(list.body.contains("No integrations yet") && !list.body.contains("acme"));
    assert_page(&greta.get(&next_url.replace("acme", "globex")).await, 404);
    assert_asks_to_sign_in(&greta.get(&next_url).await);
}

#[tokio::test]
async fn a_scope_that_the_client_lost_is_shown_apart() {
    let world = World::start().await;
    let grant_id = world.active_grant().await;
    world.change_client(|client| client.scopes.retain(|scope| scope.name == "contacts.read"));
    let mut browser = Browser::new(&world);
    let list = browser.at_integrations().await;
    assert!(!list.body.contains("contacts.write"), "{}", list.body);
    let page = browser.get(&format!("/acme/integrations/{grant_id}")).await;
    let removed = r#"No longer granted: <code translate="no">contacts.write</code>"#;
    assert!(page.body.contains(removed), "{}", page.body);
    world.revoke_consent(&grant_id).await;
    let page = browser.get(&format!("/acme/integrations/{grant_id}")).await;
    assert!(!page.body.contains("No longer granted"), "{}", page.body);
    assert!(page.body.contains("contacts.write"), "what it was allowed to do");
}

#[tokio::test]
async fn an_integration_shows_client_scopes_user_and_dates() {
    let world = World::start().await;
    let code = world.code().await;
    let mut browser = Browser::new(&world);
    let list = browser.at_integrations().await;
    assert!(list.body.contains("<dd>Never</dd>"), "{}", list.body);
    world.clock().advance(Duration::from_secs(59));
    let first = world.issue(world.by_code(&code)).await.unwrap();
    world.clock().advance(Duration::from_secs(120));
    let tokens = world.refresh(&first.refresh_token).await.unwrap();
    world.usage_written().await;
    let list = browser.get("/acme/integrations").await;
    assert!(
        list.body.contains("<dd>1 January 2026, 00:02 UTC</dd>"),
        "{}",
        list.body
    );
    let page = browser.get(&listed(&list)[0]).await;
    assert_page(&page, 200);
    for shown in [
        "Contact Sync",
        "Partner Ltd",
        "Keep contacts in step",
        "Allows contacts.read",
        "1 January 2026, 00:00 UTC by",
        "badge active",
        &*world.client_id,
        &*tokens.grant_id,
    ] {
        assert!(page.body.contains(shown), "{shown} in {}", page.body);
    }
    // Labels, no account names, and no credentials.
    for hidden in [
        world.admin_name(),
        world.api_user_name(),
        "acs_",
        "acr_",
        "acc_",
        "ads_",
    ] {
        assert!(
            !page.body.contains(hidden) && !list.body.contains(hidden),
            "{hidden}"
        );
    }
}

#[tokio::test]
async fn another_tenant_s_grant_is_no_grant() {
    let world = World::start().await;
    let grant_id = world.active_grant().await;
    let mut greta = Browser::new(&world);
    greta
        .at_integrations_of("globex", world.globex_admin_name())
        .await;
    let unknown = "grt_01arz3ndektsv4rrffq69g5fav";
    let none = greta.get(&format!("/globex/integrations/{unknown}")).await;
    assert_page(&none, 404);
    let theirs = greta.get(&format!("/globex/integrations/{grant_id}")).await;
    assert_page(&theirs, 404);
    assert_eq!(theirs.body, none.body, "not even that there is one is told");
    for (form, fields) in [
        ("revoke", [("reason", "mine now")]),
        ("designated-user", [("account_name", world.globex_admin_name())]),
        ("designated-user", [("account_name", world.second_user_name())]),
        ("networks", [("allowed_networks", "10.0.0.0/8")]),
    ] {
        let path = format!("/globex/integrations/{grant_id}/{form}");
        assert_page(&greta.submit(&path, &fields).await, 404);
        // At its own tenant her session is none, and she has no token for its forms.
        let path = format!("/acme/integrations/{grant_id}/{form}");
        assert_page(&greta.clone().submit(&path, &fields).await, 403);
        let mut stranger = Browser::new(&world);
        stranger.get("/acme/sign-in").await;
        assert_asks_to_sign_in(&stranger.submit(&path, &fields).await);
    }
    for id in [
        "x",
        "grt_",
        "grt_%00",
        "cli_01arz3ndektsv4rrffq69g5fav",
        &grant_id.to_uppercase(),
        "..%2fsign-in",
    ] {
        assert_page(&greta.get(&format!("/globex/integrations/{id}")).await, 404);
    }
    let consent = world.consent(&grant_id).await;
    assert_eq!(
        (consent.state(), consent.designated_user_id),
        (ConsentState::Active, world.api_user_id.clone())
    );
}

#[tokio::test]
async fn the_designated_user_changes_after_a_fresh_sign_in_to_a_known_user() {
    let world = World::start().await;
    let tokens = world.first_tokens().await;
    let path = format!("/acme/integrations/{}", tokens.grant_id);
    let change = format!("{path}/designated-user");
    let mut browser = Browser::new(&world);
    browser.at_integrations().await;
    let long = "a".repeat(10_000);
    for name in [
        "",
        "  ",
        "nobody",
        world.globex_admin_name(),
        "<img src=x>",
        &long,
    ] {
        let answer = browser.submit(&change, &[("account_name", name)]).await;
        assert_page(&answer, 422);
        assert!(
            answer.body.contains("account_name-error") && !answer.body.contains("<img"),
            "{name}"
        );
    }
    world
        .clock()
        .advance(Duration::from_secs(5 * 60) + Duration::from_millis(1));
    let second = [("account_name", world.second_user_name())];
    let answer = browser.submit(&change, &second).await;
    assert_asks_to_sign_in(&answer);
    assert!(answer.body.contains("Nothing was changed yet"));
    assert_eq!(
        world.consent(&tokens.grant_id).await.designated_user_id,
        world.api_user_id
    );

    let mut browser = Browser::new(&world);
    browser.at_integrations().await;
    let answer = browser.submit(&change, &second).await;
    assert_page(&answer, 200);
    let consent = world.consent(&tokens.grant_id).await;
    assert_eq!(consent.designated_user_id, world.second_user_id);
    assert!(answer.body.contains(&consent.designated_user_label));
    assert!(!answer.body.contains(world.second_user_name()));
    assert!(!world.is_active(&tokens.access_token).await);
    let event = world
        .audit_events("consent.change_designated_user")
        .await
        .remove(0);
    assert_eq!(event.actor_id, world.admin_id);
}

#[tokio::test]
async fn the_networks_change_after_a_fresh_sign_in() {
    let world = World::start().await;
    let tokens = world.first_tokens().await;
    let path = format!("/acme/integrations/{}", tokens.grant_id);
    let change = format!("{path}/networks");
    let mut browser = Browser::new(&world);
    browser.at_integrations().await;
    for wrong in ["office", "10.1.2.3/8", "<img src=x>"] {
        let answer = browser.submit(&change, &[("allowed_networks", wrong)]).await;
        assert_page(&answer, 422);
        assert!(
            answer.body.contains("allowed_networks-error") && !answer.body.contains("<img"),
            "{wrong}"
        );
    }
    let networks = [("allowed_networks", "203.0.113.0/24, 2001:db8::/32")];
    let answer = browser.submit(&change, &networks).await;
    assert_page(&answer, 200);
    assert!(answer.body.contains("from these networks alone") && answer.body.contains("203.0.113.0/24"));
    let consent = world.consent(&tokens.grant_id).await;
    assert_eq!(consent.allowed_networks, ["203.0.113.0/24", "2001:db8::/32"]);
    assert!(world.is_active(&tokens.access_token).await);
    let event = world
        .audit_events("consent.change_allowed_networks")
        .await
        .remove(0);
    assert_eq!(event.actor_id, world.admin_id);

    world
        .clock()
        .advance(Duration::from_secs(5 * 60) + Duration::from_millis(1));
    let answer = browser
        .submit(&change, &[("allowed_networks", "198.51.100.0/24")])
        .await;
    assert_asks_to_sign_in(&answer);
    let hidden = r#"<input type="hidden" name="allowed_networks" value="198.51.100.0/24">"#;
    assert!(answer.body.contains(hidden), "{}", answer.body);
    let mut browser = Browser::new(&world);
    browser.at_integrations().await;
    assert_page(&browser.submit(&change, &[]).await, 200);
    assert!(world.consent(&tokens.grant_id).await.allowed_networks.is_empty());
}

#[tokio::test]
async fn a_revocation_is_final_and_recorded_with_its_actor_and_reason() {
    let world = World::start().await;
    let tokens = world.first_tokens().await;
    let path = format!("/acme/integrations/{}", tokens.grant_id);
    let mut browser = Browser::new(&world);
    browser.at_integrations().await;
    // It protects, so it needs no fresh sign-in.
    world.clock().advance(Duration::from_secs(10 * 60));
    let reason = "  <b>Left</b>\r\nthe\u{7} firm  ";
    let answer = browser
        .submit(&format!("{path}/revoke"), &[("reason", reason)])
        .await;
    assert_page(&answer, 200);
    assert!(answer.body.contains("Access was revoked") && !answer.body.contains("/revoke\""));
    assert_eq!(
        world.consent(&tokens.grant_id).await.state(),
        ConsentState::Revoked
    );
    assert!(!world.is_active(&tokens.access_token).await);
    assert!(!world.is_active(&tokens.refresh_token).await);
    let event = world.audit_events("consent.revoke").await.remove(0);
    assert_eq!(event.actor_id, world.admin_id);
    assert_eq!(event.detail["reason"], "<b>Left</b>the firm");

    // Again: no error, and no second event. The user can't be changed any more.
    assert_page(&browser.submit(&format!("{path}/revoke"), &[]).await, 200);
    assert_eq!(world.audit_events("consent.revoke").await.len(), 1);
    let fields = [("account_name", world.second_user_name())];
    let mut fresh = Browser::new(&world);
    fresh.at_integrations().await;
    assert_page(
        &fresh.submit(&format!("{path}/designated-user"), &fields).await,
        409,
    );
    assert_eq!(
        world.consent(&tokens.grant_id).await.designated_user_id,
        world.api_user_id
    );
    assert!(fresh.get("/acme/integrations").await.body.contains("badge ended"));
}

#[tokio::test]
async fn a_reason_may_be_as_long_as_its_field_and_no_longer() {
    let world = World::start().await;
    let mut browser = Browser::new(&world);
    let grant_id = world.active_grant().await;
    let path = format!("/acme/integrations/{grant_id}");
    browser.at_integrations().await;
    let page = browser.get(&path).await;
    let field = page.body.split(r#"name="reason""#).nth(1).unwrap();
    let most: usize = field
        .split(r#"maxlength=""#)
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let reason = "é".repeat(most + 1);
    assert_page(
        &browser
            .submit(&format!("{path}/revoke"), &[("reason", &reason)])
            .await,
        200,
    );
    let event = world.audit_events("consent.revoke").await.remove(0);
    assert_eq!(event.detail["reason"], "é".repeat(most));
}

#[tokio::test]
async fn no_page_of_integrations_reads_the_audit_record() {
    let world = World::start().await;
    let tokens = world.first_tokens().await;
    world.usage_written().await;
    let mut browser = Browser::new(&world);
    browser.at_integrations().await;
    world.hide_audit_record().await;
    for path in [
        "/acme/integrations".to_owned(),
        format!("/acme/integrations/{}", tokens.grant_id),
    ] {
        let page = browser.get(&path).await;
        assert_page(&page, 200);
        assert!(page.body.contains("1 January 2026"), "{}", page.body);
    }
}

#[tokio::test]
async fn an_address_leads_to_its_integration_through_the_sign_in() {
    let world = World::start().await;
    let page = format!("/acme/integrations/{}", world.active_grant().await);
    let mut browser = Browser::new(&world);
    assert_asks_to_sign_in(&browser.get(&page).await);
    let grant_id = page.rsplit('/').next().unwrap();
    let fields = |password| {
        [
            ("account_name", world.admin_name()),
            ("password", password),
            ("grant", grant_id),
        ]
    };
    // A typing error does not lose it.
    let failed = browser.submit("/acme/sign-in", &fields("wrong")).await;
    assert_page(&failed, 403);
    let hidden = format!(r#"<input type="hidden" name="grant" value="{grant_id}">"#);
    assert!(failed.body.contains(&hidden), "{}", failed.body);
    let answer = browser.submit("/acme/sign-in", &fields(PASSWORD)).await;
    assert_eq!((answer.status, answer.header("location")), (303, Some(&*page)));
    assert_page(&browser.get(&page).await, 200);
}

#[tokio::test]
async fn an_integration_that_is_not_there_leads_on_to_the_list() {
    let world = World::start().await;
    let mut browser = Browser::new(&world);
    browser.at_integrations().await;
    let id = "01arz3ndektsv4rrffq69g5fav";
    for path in [
        format!("/acme/integrations/grt_{id}"),
        "/acme/integrations/x".to_owned(),
        format!("/acme/setups/set_{id}"),
        "/acme/integrations?page=x".to_owned(),
    ] {
        let page = browser.get(&path).await;
        assert_page(&page, 404);
        assert!(
            page.body.contains(r#"<a href="/acme/integrations">"#),
            "{path}: {}",
            page.body
        );
    }
    for path in ["/nobody/integrations", "/acme", "/"] {
        let page = browser.get(path).await;
        assert_page(&page, 404);
        assert!(!page.body.contains("/integrations"), "{path}: {}", page.body);
    }
}
