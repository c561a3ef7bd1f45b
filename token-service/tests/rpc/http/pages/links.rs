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
        assert!(!answer.body.contains("acs_"));
        // Nothing but what makes the browser known again when it presses the button.
        let names: Vec<_> = cookies_of(&answer)
            .into_iter()
            .map(|cookie| cookie.name)
            .collect();
        assert_eq!(names, ["__Host-accord-csrf"]);
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
        // What mail programs take for a part of a link.
        &format!("{token}."),
        &format!("{token},"),
        &format!("{token})"),
        &format!("{token}%3E"),
        &format!("{token}%22"),
        &format!("{token}'"),
        &format!("{token}%20"),
        &token.to_uppercase(),
        &enrolment,
        "%3Cscript%3E",
        "..%2f..%2facme%2fsign-in",
        "%00",
    ] {
        let path = format!("/claim/{wrong}");
        for request in [Request::get(&path), Request::post(&path).form(&[])] {
            let answer = request.send(&world).await;
            assert_page(&answer, 404);
            assert!(answer.body.contains("The address is not complete"));
            assert!(wrong.len() < 4 || !answer.body.contains(wrong), "{}", answer.body);
        }
    }
    assert_eq!(world.registry().calls_about_links(), 0);
    // One that has ended looks as if it never was.
    world.registry().end_links();
    let path = format!("/claim/{token}");
    assert_page(&Request::get(&path).send(&world).await, 200);
    let ended = Request::post(&path).form(&[]).send(&world).await;
    let stranger = world.registry().add_delivery(bundle());
    world.registry().end_links();
    let never = Request::post(format!("/claim/{stranger}"))
        .form(&[])
        .send(&world)
        .await;
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
    assert!(used.body.contains("1 January 2026, 12:34 UTC"), "{}", used.body);

    let mut browser = Browser::new(&world);
    browser.get("/acme/sign-in").await;
    for (password, status) in [(crate::world::PASSWORD, 403), (another, 403), (NEW, 303)] {
        let fields = [("account_name", world.admin_name()), ("password", password)];
        assert_eq!(browser.submit("/acme/sign-in", &fields).await.status, status);
    }
}

#[tokio::test]
async fn a_second_press_of_a_link_s_button_gets_the_first_answer() {
    let world = World::start().await;
    let path = format!("/claim/{}", world.registry().add_delivery(bundle()));
    let (mut browser, mut stranger) = (Browser::new(&world), Browser::new(&world));
    browser.get(&path).await;
    stranger.get(&path).await;
    let shown = browser.post(&path, &[]).await;
    assert!(shown.body.contains("acs_the-secret"));
    // A double click, a reload of the answer, and the link opened once more.
    assert_eq!(browser.post(&path, &[]).await.body, shown.body);
    browser.get(&path).await;
    assert_eq!(browser.post(&path, &[]).await.body, shown.body);
    assert_page(&stranger.post(&path, &[]).await, 410);
    assert_page(&Request::post(&path).form(&[]).send(&world).await, 410);

    // Without cookies the form's own id does it; a form that was loaded again has another one.
    let path = format!("/claim/{}", world.registry().add_delivery(bundle()));
    let request_id = async || {
        let page = Request::get(&path).send(&world).await.body;
        let id = page.split(r#"name="request_id" value=""#).nth(1).unwrap();
        id.split('"').next().unwrap().to_owned()
    };
    let (first, second) = (request_id().await, request_id().await);
    for (id, status) in [(&first, 200), (&first, 200), (&second, 410)] {
        let form = Request::post(&path).form(&[("request_id", id)]);
        assert_page(&form.send(&world).await, status);
    }

    let path = format!("/acme/enrol/{}", world.registry().add_enrolment(&world.admin_id));
    let mut browser = Browser::new(&world);
    browser.get(&path).await;
    let fields = [("password", NEW), ("password_again", NEW)];
    let done = browser.submit(&path, &fields).await;
    assert_page(&done, 200);
    assert_eq!(browser.submit(&path, &fields).await.body, done.body);
    let mut stranger = Browser::new(&world);
    stranger.get(&path).await;
    assert_page(&stranger.submit(&path, &fields).await, 410);
}

#[tokio::test]
async fn a_stale_enrolment_form_comes_again_without_the_passwords() {
    let world = World::start().await;
    let path = format!("/acme/enrol/{}", world.registry().add_enrolment(&world.admin_id));
    let (mut browser, mut other_tab) = (Browser::new(&world), Browser::new(&world));
    other_tab.get(&path).await;
    browser.get(&path).await;
    browser.csrf = other_tab.csrf;
    let fields = [("password", NEW), ("password_again", NEW)];
    let again = browser.submit(&path, &fields).await;
    assert_page(&again, 403);
    assert!(again.body.contains(r#"name="password_again""#) && !again.body.contains(NEW));
    assert_eq!(world.registry().calls_about_links(), 0);
    assert_page(&browser.submit(&path, &fields).await, 200);
}

#[tokio::test]
async fn an_address_of_nothing_gets_a_page() {
    let world = World::start().await;
    for path in ["/", "/claim", "/claim/", "/acme/enrol/", "/acme", "/Claim/acl_x"] {
        assert_page(&Request::get(path).send(&world).await, 404);
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
        assert_page(&browser.get(&path).await, 404);
        browser.get("/acme/sign-in").await;
        let answer = browser.submit(&path, &fields).await;
        assert_page(&answer, 404);
        assert!(answer.body.contains("The address is not complete"));
    }
    assert_eq!(world.registry().calls_about_links(), 0);
    for tenant in ["nobody-known", "ACME", "globex"] {
        assert_page(&browser.get(&format!("/{tenant}/enrol/{token}")).await, 404);
    }
    browser.get("/globex/sign-in").await;
    let elsewhere = format!("/globex/enrol/{token}");
    assert_page(&browser.submit(&elsewhere, &fields).await, 404);
    assert_eq!(world.registry().calls_about_links(), 0);
    world.registry().end_links();
    browser.get("/acme/sign-in").await;
    assert_page(
        &browser.submit(&format!("/acme/enrol/{token}"), &fields).await,
        404,
    );
    let mut admin = Browser::new(&world);
    assert_page(&admin.at_integrations().await, 200);
}

#[tokio::test]
async fn a_link_that_was_released_opens_with_its_code_alone() {
    let world = World::start().await;
    let token = world.registry().add_delivery(bundle());
    world.registry().release(&token, "4RT6W2YD");
    let path = format!("/claim/{token}");
    let page = Request::get(&path).send(&world).await;
    assert!(page.body.contains(r#"name="release_code""#), "{}", page.body);
    let typed = async |code: &str| {
        let form = Request::post(&path).form(&[("release_code", code)]);
        form.send(&world).await
    };
    // What is no code is not sent on.
    for malformed in ["4RT6-W2Y", "no code at all", "4RT6-W2YU"] {
        let answer = typed(malformed).await;
        assert_page(&answer, 422);
        assert!(answer.body.contains("eight letters and digits") && !answer.body.contains(malformed));
    }
    assert_eq!(world.registry().calls_about_links(), 0);
    let missing = typed("").await;
    assert_page(&missing, 410);
    let wrong = typed("4RT6-W2YE").await;
    assert_page(&wrong, 410);
    assert!(wrong.body.contains("go back and check it"), "{}", wrong.body);
    let title = "The code is not right, or the link has ended";
    assert!(wrong.body.contains(title), "{}", wrong.body);
    // Nobody learns from the page whether there is such a link.
    let stranger = world.registry().add_delivery(bundle());
    world.registry().end_links();
    let form = [("release_code", "4RT6-W2YE")];
    let never = Request::post(format!("/claim/{stranger}")).form(&form);
    assert_eq!(never.send(&world).await.body, wrong.body);
    assert_eq!(missing.body, wrong.body);

    let token = world.registry().add_delivery(bundle());
    world.registry().release(&token, "4RT6W2YD");
    let form = [("release_code", " 4rt6-w2yd ")];
    let opened = Request::post(format!("/claim/{token}"))
        .form(&form)
        .send(&world)
        .await;
    assert_page(&opened, 200);
    assert!(opened.body.contains("acs_the-secret"), "{}", opened.body);

    let token = world.registry().add_enrolment(&world.admin_id);
    world.registry().release(&token, "4RT6W2YD");
    let path = format!("/acme/enrol/{token}");
    let mut browser = Browser::new(&world);
    browser.get(&path).await;
    for (code, status) in [("4RT6-W2Y", 422), ("4RT6-W2YE", 410), ("4RT6-W2YD", 200)] {
        let fields = [("password", NEW), ("password_again", NEW), ("release_code", code)];
        assert_page(&browser.submit(&path, &fields).await, status);
    }
}
