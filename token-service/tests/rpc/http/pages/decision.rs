//! Deciding a request: once, after a sign-in for it, at its tenant.

use std::time::Duration;

use accord::token::v1::{Consent, ConsentState, GetSetupRequest, ListConsentsRequest, SetupState};

use super::{
    Answer, Browser, Query, approval, assert_asks_to_sign_in, assert_leaves, assert_page, unescaped,
};
use crate::{http::client::Fields, world::World};

mod choice;

/// Every consent of the client's, newest first.
async fn consents(world: &World) -> Vec<Consent> {
    let request = ListConsentsRequest {
        tenant_id: "acme".into(),
        admin_session: world.sign_in("").await,
        ..Default::default()
    };
    world.list(request).await.unwrap().consents
}

async fn state_of(world: &World, path: &str) -> SetupState {
    let setup_id = path.rsplit('/').next().unwrap().into();
    let answer = world
        .setups()
        .get_setup(GetSetupRequest { setup_id })
        .await
        .unwrap();
    answer.into_inner().setup.unwrap().state()
}

/// The world's one decision, taken with these fields instead.
fn with<'a>(world: &World, name: &'static str, values: &[&'a str]) -> Vec<(&'a str, &'a str)> {
    let mut fields: Vec<(&str, &str)> = approval(world);
    fields.retain(|(known, _)| *known != name);
    fields.extend(values.iter().map(|value| (name, *value)));
    fields
}

async fn approve(browser: &mut Browser<'_>, path: &str, fields: &Fields<'_>) -> Answer {
    browser.submit(&format!("{path}/approve"), fields).await
}

/// Whether the box of a scope is ticked.
fn is_ticked(page: &Answer, scope: &str) -> bool {
    let tag = page
        .body
        .split("<input")
        .find(|tag| tag.contains(&format!("value=\"{scope}\"")));
    tag.unwrap().split('>').next().unwrap().ends_with(" checked")
}

#[tokio::test]
async fn a_decision_is_taken_once() {
    let world = World::start().await;
    let mut browser = Browser::new(&world);
    let path = browser.at_setup().await;
    let mut again = browser.clone();
    let location = assert_leaves(&approve(&mut browser, &path, &approval(&world)).await);
    let code = location.split("code=").nth(1).unwrap().split('&').next().unwrap();
    // A double click and a reload lead to the same code, any other choice to none.
    let repeated = approve(&mut again, &path, &approval(&world)).await;
    assert_eq!(assert_leaves(&repeated), location);
    let other = with(&world, "scope", &["contacts.read"]);
    let other = approve(&mut again, &path, &other).await;
    assert_page(&other, 409);
    assert!(!other.body.contains("acc_"));
    assert!(other.body.contains(r#"href="/acme/integrations""#), "a way out");
    assert_page(&again.submit(&format!("{path}/deny"), &[]).await, 409);
    assert_page(&again.get(&path).await, 409);
    let signing_in = [
        ("account_name", world.admin_name()),
        ("password", crate::world::PASSWORD),
    ];
    assert_page(&again.submit(&format!("{path}/sign-in"), &signing_in).await, 409);
    assert_eq!(consents(&world).await.len(), 1);
    assert_eq!(world.audit_events("consent.approve").await.len(), 1);
    assert_eq!(world.audit_events("consent.deny").await.len(), 0);
    // And the repetition has ended nothing: the code is good. Once it is used, nobody is sent to the partner with it.
    world.issue(world.by_code(code)).await.unwrap();
    let late = approve(&mut again, &path, &approval(&world)).await;
    assert_page(&late, 409);
    assert!(!late.body.contains("acc_"));

    let mut browser = Browser::new(&world);
    let path = browser.at_setup().await;
    let mut again = browser.clone();
    let denied = assert_leaves(&browser.submit(&format!("{path}/deny"), &[]).await);
    assert_page(&approve(&mut again, &path, &approval(&world)).await, 409);
    let repeated = again.submit(&format!("{path}/deny"), &[]).await;
    assert_eq!(assert_leaves(&repeated), denied);
    assert_eq!(consents(&world).await.len(), 1);
    assert_eq!(world.audit_events("consent.deny").await.len(), 1);
}

#[tokio::test]
async fn of_racing_approvals_one_grants_and_all_get_its_code() {
    for world in World::start_on_all().await {
        let mut browser = Browser::new(&world);
        let path = browser.at_setup().await;
        let fields = approval(&world);
        let racer = || async {
            let mut browser = browser.clone();
            assert_leaves(&approve(&mut browser, &path, &fields).await)
        };
        let (a, b, c, d) = tokio::join!(racer(), racer(), racer(), racer());
        assert!(a == b && b == c && c == d);
        assert_eq!(consents(&world).await.len(), 1);
    }
}

/// Where the page leads on to that answers the other button after a decision.
#[track_caller]
fn assert_too_late(answer: &Answer, decided: &str) -> String {
    assert_page(answer, 409);
    assert!(
        answer
            .body
            .contains(&format!("You {decided} this request already")),
        "{}",
        answer.body
    );
    assert!(
        !answer.body.contains("http-equiv"),
        "nobody is led on without a click"
    );
    let to = answer
        .body
        .split(r#"<a class="button primary" href=""#)
        .nth(1)
        .unwrap();
    unescaped(to.split('"').next().unwrap())
}

#[tokio::test]
async fn of_both_buttons_the_first_one_counts_and_the_second_leads_on() {
    let world = World::start().await;
    let mut browser = Browser::new(&world);
    let path = browser.at_setup().await;
    let (mut again, fields) = (browser.clone(), approval(&world));
    let location = assert_leaves(&approve(&mut browser, &path, &fields).await);
    let denied = again.submit(&format!("{path}/deny"), &[]).await;
    assert_eq!(assert_too_late(&denied, "approved"), location);
    assert!(
        denied.body.contains(r#"href="/acme/integrations""#),
        "a way to revoke"
    );
    // Another session of the same person gets no code.
    let mut other = Browser::new(&world);
    other.at_integrations().await;
    let other = other.submit(&format!("{path}/deny"), &[]).await;
    assert!(!other.body.contains("acc_"), "{}", other.body);
    assert_eq!(state_of(&world, &path).await, SetupState::Approved);
    // Nor does anybody once the code is used.
    let code = location.split("code=").nth(1).unwrap().split('&').next().unwrap();
    let tokens = world.issue(world.by_code(code)).await.unwrap();
    let late = again.submit(&format!("{path}/deny"), &[]).await;
    assert_page(&late, 409);
    assert!(!late.body.contains("acc_") && late.body.contains("approved already"));
    assert!(world.is_active(&tokens.access_token).await);

    let path = browser.open_setup().await;
    browser.sign_in_at(&path).await;
    let mut again = browser.clone();
    let location = assert_leaves(&browser.submit(&format!("{path}/deny"), &[]).await);
    let approved = approve(&mut again, &path, &fields).await;
    assert_eq!(assert_too_late(&approved, "denied"), location);
    assert_eq!(state_of(&world, &path).await, SetupState::Denied);
    assert_eq!(consents(&world).await.len(), 1);
}

#[tokio::test]
async fn of_both_buttons_at_once_one_counts_and_both_answers_lead_to_its_end() {
    for world in World::start_on_all().await {
        for _ in 0..5 {
            let mut browser = Browser::new(&world);
            let path = browser.at_setup().await;
            let (mut other, fields) = (browser.clone(), approval(&world));
            let deny = format!("{path}/deny");
            let (approved, denied) =
                tokio::join!(approve(&mut browser, &path, &fields), other.submit(&deny, &[]));
            let (first, second) = match state_of(&world, &path).await {
                SetupState::Approved => (assert_leaves(&approved), assert_too_late(&denied, "approved")),
                _ => (assert_leaves(&denied), assert_too_late(&approved, "denied")),
            };
            assert_eq!(first, second);
        }
    }
}

#[tokio::test]
async fn a_session_decides_the_setup_that_it_was_opened_for() {
    let world = World::start().await;
    let mut browser = Browser::new(&world);
    let first = browser.at_setup().await;
    // A session for another setup, and one for none.
    let mut at_integrations = Browser::new(&world);
    at_integrations.at_integrations().await;
    let other = browser.open_setup().await;
    for browser in [&mut browser, &mut at_integrations] {
        assert_asks_to_sign_in(&browser.get(&other).await);
        assert_asks_to_sign_in(&approve(browser, &other, &approval(&world)).await);
        assert_asks_to_sign_in(&browser.submit(&format!("{other}/deny"), &[]).await);
    }
    assert_eq!(state_of(&world, &other).await, SetupState::Pending);
    assert_eq!(consents(&world).await.len(), 0);
    assert_leaves(&approve(&mut browser, &first, &approval(&world)).await);
}

#[tokio::test]
async fn a_setup_is_its_tenant_s_alone() {
    let world = World::start().await;
    let mut browser = Browser::new(&world);
    let path = browser.at_setup().await;
    let mut greta = Browser::new(&world);
    greta
        .at_integrations_of("globex", world.globex_admin_name())
        .await;
    let there = path.replace("/acme/", "/globex/");
    assert_page(&greta.get(&there).await, 404);
    for form in ["sign-in", "approve", "deny"] {
        let fields = [
            ("account_name", world.globex_admin_name()),
            ("password", crate::world::PASSWORD),
        ];
        let fields = [&approval(&world)[..], &fields].concat();
        assert_page(&greta.submit(&format!("{there}/{form}"), &fields).await, 404);
    }
    // Her session, under the name that acme's would have; and her name and password at acme's.
    let session = greta.cookies["__Host-accord-admin-globex"].clone();
    greta.cookies.insert("__Host-accord-admin-acme".into(), session);
    assert_asks_to_sign_in(&greta.get(&path).await);
    assert_asks_to_sign_in(&approve(&mut greta, &path, &approval(&world)).await);
    let fields = [
        ("account_name", world.globex_admin_name()),
        ("password", crate::world::PASSWORD),
    ];
    assert_page(&greta.submit(&format!("{path}/sign-in"), &fields).await, 403);
    assert_eq!(state_of(&world, &path).await, SetupState::Pending);
    assert_leaves(&approve(&mut browser, &path, &approval(&world)).await);
}

#[tokio::test]
async fn a_request_that_changed_since_it_was_shown_is_not_approved() {
    let world = World::start().await;
    let mut browser = Browser::new(&world);
    let path = browser.at_setup().await;
    world.change_client(|client| {
        client.version += 1;
        client.purpose = "Something else".into();
    });
    assert_page(&approve(&mut browser, &path, &approval(&world)).await, 409);
    let path = browser.open_setup().await;
    browser.sign_in_at(&path).await;
    world.suspend("client", true);
    assert_page(&approve(&mut browser, &path, &approval(&world)).await, 409);
    world.suspend("client", false);
    world.suspend("tenant", true);
    assert_page(&approve(&mut browser, &path, &approval(&world)).await, 409);
    assert_page(&browser.get(&path).await, 409);
    world.suspend("tenant", false);
    // The tenant's suspension has ended the session.
    assert_asks_to_sign_in(&approve(&mut browser, &path, &approval(&world)).await);
    world.clock().advance(Duration::from_secs(3600));
    assert_page(&browser.get(&path).await, 409);
    assert_eq!(consents(&world).await.len(), 0);
}

#[tokio::test]
async fn a_request_for_more_is_shown_and_never_granted_by_the_button_alone() {
    let world = World::start().await;
    let mut browser = Browser::new(&world);
    let path = browser
        .at_setup_of(&Query::of(&world).and("scope", "contacts.read"))
        .await;
    let location =
        assert_leaves(&approve(&mut browser, &path, &with(&world, "scope", &["contacts.read"])).await);
    let code = location
        .split("code=")
        .nth(1)
        .unwrap()
        .split('&')
        .next()
        .unwrap()
        .to_owned();
    let tokens = world.issue(world.by_code(&code)).await.unwrap();

    let path = browser.open_setup().await;
    let page = browser.sign_in_at(&path).await;
    assert!(page.body.contains("It asks for more") && page.body.contains("badge new"));
    assert!(is_ticked(&page, "contacts.read") && !is_ticked(&page, "contacts.write"));
    // The old grant goes on until the new one's code is redeemed.
    assert_leaves(&approve(&mut browser, &path, &approval(&world)).await);
    assert_eq!(
        world.consent(&tokens.grant_id).await.state(),
        ConsentState::Active
    );
    assert_eq!(world.consent(&tokens.grant_id).await.scopes, ["contacts.read"]);
    assert!(world.is_active(&tokens.access_token).await);
}
