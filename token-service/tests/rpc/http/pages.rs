//! The Tenant Admin's pages and those of one-time links, in a browser without scripts.

use super::{
    Answer, Request, assert_page, assert_page_headers,
    authorize::Query,
    browser::{Browser, SetCookie, cookies_of, csrf_of},
};
use crate::world::{REDIRECT_URI, World};

mod cookies;
mod csrf;
mod decision;
mod escaping;
mod evidence;
mod integrations;
mod links;
mod sessions;
mod typed;

/// The fields of an approval of everything, without an end.
pub fn approval(world: &World) -> Vec<(&'static str, &'static str)> {
    vec![
        ("scope", "contacts.read"),
        ("scope", "contacts.write"),
        ("designated_account_name", world.api_user_name()),
    ]
}

/// Where a page that leads back to the partner leads to. It says so twice.
#[track_caller]
pub fn assert_leaves(answer: &Answer) -> String {
    assert_page(answer, 200);
    let between = |before: &str, after: &str| {
        let from = answer
            .body
            .split(before)
            .nth(1)
            .unwrap_or_else(|| panic!("{}", answer.body));
        unescaped(from.split(after).next().unwrap())
    };
    let to = between(r#"<meta http-equiv="refresh" content="0;url="#, "\"");
    assert_eq!(to, between(r#"<a class="button primary" href=""#, "\""));
    to
}

/// A text as HTML means it.
fn unescaped(html: &str) -> String {
    let named = [
        ("&#60;", "<"),
        ("&#62;", ">"),
        ("&#34;", "\""),
        ("&#39;", "'"),
        ("&#38;", "&"),
    ];
    named
        .iter()
        .fold(html.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// Asserts a sign-in form, or a redirect to one.
#[track_caller]
fn assert_asks_to_sign_in(answer: &Answer) {
    if answer.status == 303 {
        assert_page_headers(answer);
        assert_eq!(answer.header("location"), Some("/acme/sign-in"), "{answer:?}");
    } else {
        assert_page(answer, 200);
        assert!(answer.body.contains(r#"name="password""#), "{}", answer.body);
    }
}

#[tokio::test]
async fn an_admin_approves_and_the_partner_gets_its_token() {
    let world = World::start().await;
    let mut browser = Browser::new(&world);
    let path = browser.open_setup().await;
    let page = browser.sign_in_at(&path).await;
    assert_page(&page, 200);
    for shown in [
        "Contact Sync",
        "Partner Ltd",
        "Keep contacts in step",
        "Tenant acme",
        "app.partner.example",
        "Allows contacts.read",
        "Needs contacts.read",
        "Allows contacts.write",
        "Needs contacts.write",
    ] {
        assert!(page.body.contains(shown), "{shown} in {}", page.body);
    }
    let approved = browser
        .submit(&format!("{path}/approve"), &approval(&world))
        .await;
    let to = url::Url::parse(&assert_leaves(&approved)).unwrap();
    assert!(
        to.as_str().starts_with(&format!("{REDIRECT_URI}?code=acc_")),
        "{to}"
    );
    let pairs: Vec<_> = to.query_pairs().into_owned().collect();
    let names: Vec<_> = pairs.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["code", "state", "iss"]);
    assert_eq!((&*pairs[1].1, &pairs[2].1), ("xyz", &world.issuer));
    let tokens = world.issue(world.by_code(&pairs[0].1)).await.unwrap();
    assert!(world.is_active(&tokens.access_token).await);
    let consent = world.consent(&tokens.grant_id).await;
    assert_eq!(consent.designated_user_id, world.api_user_id);
    assert_eq!(
        (consent.granted_by_user_id, consent.expire_time),
        (world.admin_id.clone(), None)
    );
    let event = world.audit_events("consent.approve").await.remove(0);
    assert_eq!(event.actor_id, world.admin_id, "the admin decided, not the pages");
}

#[tokio::test]
async fn an_admin_denies_and_the_client_gets_access_denied() {
    let world = World::start().await;
    let mut browser = Browser::new(&world);
    let path = browser.at_setup().await;
    let denied = browser.submit(&format!("{path}/deny"), &[]).await;
    let to = assert_leaves(&denied);
    let iss = "https%3A%2F%2Fauth.example%2Facme";
    assert_eq!(
        to,
        format!("{REDIRECT_URI}?error=access_denied&state=xyz&iss={iss}")
    );
    assert_eq!(world.audit_events("consent.approve").await.len(), 0);
    let event = world.audit_events("consent.deny").await.remove(0);
    assert_eq!(event.actor_id, world.admin_id);
}

#[tokio::test]
async fn only_the_stylesheet_that_a_page_names_may_be_kept() {
    let world = World::start().await;
    let page = Browser::new(&world).get("/acme/sign-in").await;
    let named = page
        .body
        .split(r#"<link rel="stylesheet" href=""#)
        .nth(1)
        .unwrap();
    let named = named.split('"').next().unwrap();
    let kept = Request::get(named).send(&world).await;
    assert_eq!(
        kept.header("cache-control"),
        Some("public, max-age=31536000, immutable")
    );
    // Another replica's page names the stylesheet of another version.
    for other in ["/accord.css?0000000000AA", "/accord.css", &format!("{named}&x")] {
        let answer = Request::get(other).send(&world).await;
        assert_eq!(
            (answer.status, answer.header("cache-control")),
            (200, Some("no-store")),
            "{other}"
        );
        assert_eq!(answer.body, kept.body);
    }
}
