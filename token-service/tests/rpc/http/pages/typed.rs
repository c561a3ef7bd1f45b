//! What was typed comes back: after a sign-in that was needed again, after an error, and when a form waited in another
//! tab. Passwords never do.

use std::time::Duration;

use super::{Answer, Browser, Request, approval, assert_leaves, assert_page};
use crate::{
    http::authorize::Query,
    world::{PASSWORD, World},
};

/// Choices that are not those of a fresh page: one of two scopes, a user, an end.
fn choices(world: &World) -> Vec<(&'static str, &'static str)> {
    vec![
        ("chosen", "1"),
        ("scope", "contacts.read"),
        ("designated_account_name", world.api_user_name()),
        ("end_date", "2026-03-04"),
        ("allowed_networks", "127.0.0.0/8"),
    ]
}

/// The hidden fields of a page's sign-in form, but for the CSRF token.
fn entered(page: &Answer) -> Vec<(String, String)> {
    let hidden = page.body.split(r#"<input type="hidden" name=""#).skip(1);
    let fields = hidden.map(|field| {
        let (name, rest) = field.split_once('"').unwrap();
        let value = rest
            .strip_prefix(r#" value=""#)
            .unwrap()
            .split('"')
            .next()
            .unwrap();
        (name.to_owned(), value.to_owned())
    });
    fields.filter(|(name, _)| name != "csrf").collect()
}

/// Asserts a page with the form of the request, and [`choices`] in it.
#[track_caller]
fn assert_choices(world: &World, page: &Answer) {
    let ticked = |scope: &str| {
        let tag = page
            .body
            .split("<input")
            .find(|tag| tag.contains(&format!("value=\"{scope}\"")));
        tag.unwrap().split('>').next().unwrap().ends_with(" checked")
    };
    assert!(
        ticked("contacts.read") && !ticked("contacts.write"),
        "{}",
        page.body
    );
    for value in [world.api_user_name(), "2026-03-04", "127.0.0.0/8"] {
        assert!(page.body.contains(&format!("value=\"{value}\"")), "{}", page.body);
    }
}

async fn sign_in_with(
    browser: &mut Browser<'_>,
    path: &str,
    page: &Answer,
    account_name: &str,
    password: &str,
) -> Answer {
    let entered = entered(page);
    let mut fields = vec![("account_name", account_name), ("password", password)];
    fields.extend(entered.iter().map(|(name, value)| (&**name, &**value)));
    browser.submit(path, &fields).await
}

#[tokio::test]
async fn choices_return_after_the_sign_in_that_interrupts_them() {
    let world = World::start().await;
    // The sign-in is too old, or the session ended while the page was open.
    for wait in [305, 16 * 60] {
        let mut browser = Browser::new(&world);
        let path = browser.at_setup().await;
        world.clock().advance(Duration::from_secs(wait));
        let approve = format!("{path}/approve");
        let asked = browser.submit(&approve, &choices(&world)).await;
        assert_page(&asked, 200);
        assert!(asked.body.contains(r#"name="password""#), "{}", asked.body);
        let sign_in = format!("{path}/sign-in");
        let failed = sign_in_with(&mut browser, &sign_in, &asked, world.admin_name(), "wrong").await;
        assert_page(&failed, 403);
        assert!(failed.body.contains(&format!("value=\"{}\"", world.admin_name())));
        world.clock().advance(Duration::from_secs(30));
        let before = browser.csrf.clone();
        let page = sign_in_with(&mut browser, &sign_in, &failed, world.admin_name(), PASSWORD).await;
        assert_page(&page, 200);
        assert_choices(&world, &page);
        // A reload of that page keeps them, without another sign-in.
        let mut reloaded = browser.clone();
        reloaded.csrf = before;
        let page = sign_in_with(&mut reloaded, &sign_in, &failed, world.admin_name(), PASSWORD).await;
        assert_choices(&world, &page);
        assert_eq!(reloaded.cookies, browser.cookies);
        let left = assert_leaves(&browser.submit(&approve, &choices(&world)).await);
        let code = left.split("code=").nth(1).unwrap().split('&').next().unwrap();
        let tokens = world.issue(world.by_code(code)).await.unwrap();
        let consent = world.consent(&tokens.grant_id).await;
        assert_eq!(consent.scopes, ["contacts.read"]);
        assert!(consent.expire_time.is_some());
    }
}

#[tokio::test]
async fn a_choice_of_nothing_stays_one() {
    let world = World::start().await;
    let mut browser = Browser::new(&world);
    let path = browser.at_setup().await;
    world.clock().advance(Duration::from_secs(16 * 60));
    let asked = browser
        .submit(&format!("{path}/approve"), &[("chosen", "1")])
        .await;
    let sign_in = format!("{path}/sign-in");
    let page = sign_in_with(&mut browser, &sign_in, &asked, world.admin_name(), PASSWORD).await;
    assert_page(&page, 200);
    assert!(!page.body.contains(" checked"), "{}", page.body);
}

#[tokio::test]
async fn of_two_tabs_without_cookies_each_can_sign_in() {
    let world = World::start().await;
    let (mut browser, mut first) = (Browser::new(&world), Browser::new(&world));
    let path = first.open_setup().await;
    // The browser stores the second answer's cookie, and the form of the first is sent.
    browser.get(&path).await;
    browser.csrf = first.csrf.clone();
    let sign_in = format!("{path}/sign-in");
    let fields = [("account_name", world.admin_name()), ("password", PASSWORD)];
    let again = browser.submit(&sign_in, &fields).await;
    assert_page(&again, 403);
    assert!(again.body.contains(&format!("value=\"{}\"", world.admin_name())));
    assert!(!again.body.contains(PASSWORD));
    let stale = browser.clone();
    assert_eq!(browser.submit(&sign_in, &fields).await.status, 303);

    // A second click, which the browser sends with the first one's session.
    let mut clicked_twice = browser.clone();
    clicked_twice.csrf = stale.csrf;
    let second = clicked_twice.submit(&sign_in, &fields).await;
    assert_eq!((second.status, second.header("location")), (303, Some(&*path)));
    assert_page(&clicked_twice.get(&path).await, 200);

    let (mut browser, mut first) = (Browser::new(&world), Browser::new(&world));
    first.get("/acme/sign-in").await;
    browser.get("/acme/sign-in").await;
    browser.csrf = first.csrf;
    let again = browser.submit("/acme/sign-in", &fields).await;
    assert_page(&again, 403);
    assert!(again.body.contains(&format!("value=\"{}\"", world.admin_name())));
    assert_eq!(browser.submit("/acme/sign-in", &fields).await.status, 303);
}

#[tokio::test]
async fn two_setups_in_two_tabs_are_both_decided_as_chosen() {
    let world = World::start().await;
    let mut browser = Browser::new(&world);
    let first = browser.at_setup().await;
    let first_tab = browser.csrf.clone();
    let second = browser.open_setup_of(&Query::of(&world).with("state", "2")).await;
    browser.sign_in_at(&second).await;
    let second_tab = browser.csrf.clone();

    browser.csrf = first_tab;
    let asked = browser
        .submit(&format!("{first}/approve"), &choices(&world))
        .await;
    assert_page(&asked, 403);
    let page = sign_in_with(
        &mut browser,
        &format!("{first}/sign-in"),
        &asked,
        world.admin_name(),
        PASSWORD,
    )
    .await;
    assert_choices(&world, &page);
    assert_leaves(
        &browser
            .submit(&format!("{first}/approve"), &choices(&world))
            .await,
    );

    browser.csrf = second_tab;
    let asked = browser.submit(&format!("{second}/deny"), &[]).await;
    assert_page(&asked, 403);
    let answer = sign_in_with(
        &mut browser,
        &format!("{second}/sign-in"),
        &asked,
        world.admin_name(),
        PASSWORD,
    )
    .await;
    assert_eq!(answer.header("location"), Some(&*second));
    browser.get(&second).await;
    let left = assert_leaves(&browser.submit(&format!("{second}/deny"), &[]).await);
    assert!(left.contains("error=access_denied&state=2"), "{left}");
}

#[tokio::test]
async fn choices_outlive_a_sign_out_in_another_tab() {
    let world = World::start().await;
    let mut browser = Browser::new(&world);
    let path = browser.at_setup().await;
    let tab = browser.csrf.clone();
    assert_page(&browser.submit("/acme/sign-out", &[]).await, 200);
    browser.csrf = tab;
    let asked = browser.submit(&format!("{path}/approve"), &choices(&world)).await;
    assert_page(&asked, 403);
    assert_eq!(world.audit_events("consent.approve").await.len(), 0);
    let page = sign_in_with(
        &mut browser,
        &format!("{path}/sign-in"),
        &asked,
        world.admin_name(),
        PASSWORD,
    )
    .await;
    assert_choices(&world, &page);
}

#[tokio::test]
async fn what_was_typed_about_an_integration_returns() {
    let world = World::start().await;
    let grant_id = world.active_grant().await;
    let page = format!("/acme/integrations/{grant_id}");
    let [change, revoke, networks] =
        ["designated-user", "revoke", "networks"].map(|form| format!("{page}/{form}"));
    let mut browser = Browser::new(&world);
    browser.at_integrations().await;
    let before = [("allowed_networks", "127.0.0.0/8"), ("chosen", "1")];
    assert_page(&browser.submit(&networks, &before).await, 200);
    browser.get(&page).await;
    let wrong = browser.submit(&change, &[("account_name", "nobody.here")]).await;
    assert_page(&wrong, 422);
    assert!(wrong.body.contains(r#"value="nobody.here""#));

    for (path, field, value, wait) in [
        (&change, "account_name", world.second_user_name(), 305),
        (&change, "account_name", world.second_user_name(), 16 * 60),
        (&revoke, "reason", "not needed any more", 16 * 60),
        (&networks, "allowed_networks", "10.0.0.0/8", 16 * 60),
        // Emptied: browsers send the field, which counts as absent.
        (&networks, "allowed_networks", "", 16 * 60),
    ] {
        world.clock().advance(Duration::from_secs(wait));
        let chosen = [(field, value), ("chosen", "1")];
        let asked = browser
            .submit(path, &chosen[..1 + usize::from(path == &networks)])
            .await;
        assert_page(&asked, 200);
        // The name is another user's: it is no part of the sign-in.
        assert!(
            asked.body.contains(r#"name="account_name" value="""#),
            "{}",
            asked.body
        );
        let shown = sign_in_with(
            &mut browser,
            "/acme/sign-in",
            &asked,
            world.admin_name(),
            PASSWORD,
        )
        .await;
        assert_page(&shown, 200);
        assert!(
            shown
                .body
                .contains(&format!("name=\"{field}\" value=\"{value}\"")),
            "{}",
            shown.body
        );
    }
    assert_eq!(
        world.consent(&grant_id).await.designated_user_id,
        world.api_user_id
    );
    // The page shows tokens as soon as they are counted.
    world.usage_written().await;
    // Twice, as a double click sends it.
    for path in [&change, &revoke] {
        let fields = [("account_name", world.second_user_name()), ("reason", "done")];
        let first = browser.submit(path, &fields).await;
        assert_page(&first, 200);
        assert_eq!(browser.submit(path, &fields).await.body, first.body);
    }
    assert_eq!(world.audit_events("consent.revoke").await.len(), 1);
}

#[tokio::test]
async fn a_form_of_another_site_brings_nothing_typed() {
    let world = World::start().await;
    let mut browser = Browser::new(&world);
    let path = browser.at_setup().await;
    // No cookie comes along with it.
    let form = || Request::post(format!("{path}/approve"));
    let fields = [&[("csrf", "x")], &choices(&world)[..]].concat();
    let answer = form().form(&fields).send(&world).await;
    assert_page(&answer, 403);
    assert!(!answer.body.contains(world.api_user_name()));
    // The same from a browser that blocks cookies.
    let answer = form()
        .header("sec-fetch-site", "same-origin")
        .form(&fields)
        .send(&world)
        .await;
    assert_page(&answer, 403);
    assert!(answer.body.contains("allow cookies") && answer.body.contains(world.api_user_name()));
    assert_eq!(world.audit_events("consent.approve").await.len(), 0);
}

#[tokio::test]
async fn a_form_of_an_older_page_counts_by_its_known_fields() {
    let world = World::start().await;
    let mut browser = Browser::new(&world);
    let path = browser.at_setup().await;
    let fields = [
        &[("from_before", "the deployment"), ("end_date", " ")],
        &approval(&world)[..],
    ]
    .concat();
    // White space at the ends of a date is no part of it.
    let padded = [&fields[..1], &[("end_date", " 2026-03-04 ")], &fields[2..]].concat();
    assert_leaves(&browser.submit(&format!("{path}/approve"), &padded).await);
}
