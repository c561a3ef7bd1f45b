//! One-time links: looking at one changes nothing, and the button counts once.

use accord::registry::v1::{CredentialBundle, Endpoint};

use super::{Browser, Request, assert_page, cookies_of};
use crate::world::World;

const NEW: &str = "an entirely new password";

fn bundle() -> CredentialBundle {
    CredentialBundle {
        client_id: "cli_01arz3ndektsv4rrffq69g5fav".into(),
        client_secret: "acs_the-secret<&\">".into(),
        endpoints: ["acme", "globex"]
            .map(|tenant| Endpoint {
                tenant_id: tenant.into(),
                tenant_authority_url: format!("https://auth.example/{tenant}"),
                cloud_api_url: format!("https://api.example/{tenant}"),
            })
            .into(),
    }
}

#[tokio::test]
async fn a_claim_link_is_opened_by_its_button_once() {
    let world = World::start().await;
    let path = format!("/claim/{}", world.registry().add_delivery(bundle()));
    // A mail scanner looks at it, in each way that a scanner does.
    for method in ["GET", "GET", "HEAD"] {
        let answer = Request::new(method, &path).send(&world).await;
        assert_eq!(answer.status, 200);
        assert!(!answer.body.contains("acs_") && cookies_of(&answer).is_empty());
    }
    for method in ["OPTIONS", "PUT", "DELETE", "PATCH"] {
        let answer = Request::new(method, &path).send(&world).await;
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, Some("GET,HEAD,POST")),
            "{method}"
        );
    }
    let page = Request::get(&path).send(&world).await;
    assert_page(&page, 200);
    assert!(page.body.contains(&format!(r#"action="{path}""#)) && page.body.contains("<button"));
    assert_eq!(
        world.registry().calls_about_links(),
        0,
        "nothing was asked so far"
    );

    let opened = Request::post(&path).form(&[]).send(&world).await;
    assert_page(&opened, 200);
    for shown in [
        "cli_01arz3ndektsv4rrffq69g5fav",
        "https://auth.example/acme",
        "https://api.example/acme",
        "https://auth.example/globex",
        "https://api.example/globex",
        "acs_the-secret&#60;&#38;&#34;&#62;",
    ] {
        assert!(opened.body.contains(shown), "{shown} in {}", opened.body);
    }
    let again = Request::post(&path).form(&[]).send(&world).await;
    assert_page(&again, 410);
    assert!(again.body.contains("1 January 2026, 12:34 UTC"), "{}", again.body);
    assert!(!again.body.contains("acs_"));
    assert_eq!(world.registry().calls_about_links(), 2);
}

#[tokio::test]
async fn a_malformed_claim_link_calls_no_registry() {
    let world = World::start().await;
    let token = world.registry().add_delivery(bundle());
    let enrolment = world.registry().add_enrolment(&world.admin_id);
    for wrong in [
        "x",
        "acl_",
        &token[..token.len() - 1],
        &format!("{token}x"),
        &token.to_uppercase(),
        &enrolment,
        "%3Cscript%3E",
        "..%2f..%2facme%2fsign-in",
        "%00",
    ] {
        let path = format!("/claim/{wrong}");
        for request in [Request::get(&path), Request::post(&path).form(&[])] {
            let answer = request.send(&world).await;
            assert_page(&answer, 410);
            assert!(wrong.len() < 4 || !answer.body.contains(wrong), "{}", answer.body);
        }
    }
    assert_eq!(world.registry().calls_about_links(), 0);
    // One that has ended looks as if it never was.
    world.registry().end_links();
    let path = format!("/claim/{token}");
    assert_page(&Request::get(&path).send(&world).await, 200);
    let ended = Request::post(&path).form(&[]).send(&world).await;
    let never = Request::post("/claim/acl_x").form(&[]).send(&world).await;
    assert_page(&ended, 410);
    assert_eq!(ended.body, never.body);
}

#[tokio::test]
async fn while_the_registry_is_away_a_link_is_not_used_up() {
    let world = World::start().await;
    let path = format!("/claim/{}", world.registry().add_delivery(bundle()));
    world.registry().set_unavailable(true);
    assert_page(&Request::post(&path).form(&[]).send(&world).await, 503);
    world.registry().set_unavailable(false);
    assert_page(&Request::post(&path).form(&[]).send(&world).await, 200);
}

#[tokio::test]
async fn an_enrolment_link_sets_a_password_once() {
    let world = World::start().await;
    let path = format!("/acme/enrol/{}", world.registry().add_enrolment(&world.admin_id));
    let mut browser = Browser::new(&world);
    assert_page(&browser.get(&path).await, 200);
    assert_eq!(browser.send(Request::new("HEAD", &path)).await.status, 200);
    assert_eq!(world.registry().calls_about_links(), 0, "looking asks nobody");
    let mut again = browser.clone();
    let done = browser
        .submit(&path, &[("password", NEW), ("password_again", NEW)])
        .await;
    assert_page(&done, 200);
    assert!(done.body.contains(r#"href="/acme/sign-in""#) && !done.body.contains(NEW));
    // It starts no session.
    assert!(cookies_of(&done).is_empty());
    let another = "and yet another password";
    let used = again
        .submit(&path, &[("password", another), ("password_again", another)])
        .await;
    assert_page(&used, 410);

    let mut browser = Browser::new(&world);
    browser.get("/acme/sign-in").await;
    for (password, status) in [(crate::world::PASSWORD, 403), (another, 403), (NEW, 303)] {
        let fields = [("account_name", world.admin_name()), ("password", password)];
        assert_eq!(browser.submit("/acme/sign-in", &fields).await.status, status);
    }
}

#[tokio::test]
async fn passwords_that_differ_or_are_too_weak_leave_the_link_as_it_is() {
    let world = World::start().await;
    let path = format!("/acme/enrol/{}", world.registry().add_enrolment(&world.admin_id));
    let mut browser = Browser::new(&world);
    browser.get(&path).await;
    let long = "p".repeat(1025);
    let trailing = format!("{NEW} ");
    for (password, again, told) in [
        (NEW, "", "not the same"),
        ("", NEW, "not the same"),
        (NEW, "an entirely new passw0rd", "not the same"),
        (NEW, &*trailing, "not the same"),
        ("", "", "at least 15"),
        ("short", "short", "at least 15"),
        (&*long, &*long, "at most 1024"),
    ] {
        let answer = browser
            .submit(&path, &[("password", password), ("password_again", again)])
            .await;
        assert_page(&answer, 422);
        assert!(answer.body.contains(told), "{told} in {}", answer.body);
        for typed in [password, again] {
            assert!(typed.is_empty() || !answer.body.contains(&format!("value=\"{typed}")));
        }
    }
    assert_page(
        &browser
            .submit(&path, &[("password", NEW), ("password_again", NEW)])
            .await,
        200,
    );
}

#[tokio::test]
async fn a_malformed_enrolment_link_sets_no_password() {
    let world = World::start().await;
    let token = world.registry().add_enrolment(&world.admin_id);
    let claim = world.registry().add_delivery(bundle());
    let mut browser = Browser::new(&world);
    browser.get("/acme/sign-in").await;
    let fields = [("password", NEW), ("password_again", NEW)];
    let cut = &token[..token.len() - 1];
    for wrong in [
        "x",
        "ace_",
        cut,
        &claim,
        &token.to_uppercase(),
        "%3Cscript%3E",
        "%00",
    ] {
        let path = format!("/acme/enrol/{wrong}");
        assert_page(&browser.get(&path).await, 410);
        browser.get("/acme/sign-in").await;
        assert_page(&browser.submit(&path, &fields).await, 410);
    }
    assert_eq!(world.registry().calls_about_links(), 0);
    for tenant in ["nobody-known", "ACME"] {
        assert_page(&browser.get(&format!("/{tenant}/enrol/{token}")).await, 404);
    }
    world.registry().end_links();
    browser.get("/acme/sign-in").await;
    assert_page(
        &browser.submit(&format!("/acme/enrol/{token}"), &fields).await,
        410,
    );
    let mut admin = Browser::new(&world);
    assert_page(&admin.at_integrations().await, 200);
}
