//! What pages put into a browser, and what their headers forbid it.

use super::{Browser, Request, SetCookie, approval, assert_page, assert_page_headers, cookies_of, csrf_of};
use crate::world::World;

#[track_caller]
fn assert_cookie(cookie: &SetCookie, name: &str, attributes: &[&str]) {
    assert_eq!(cookie.name, name);
    assert_eq!(cookie.attributes, attributes, "{cookie:?}");
}

#[tokio::test]
async fn cookies_are_of_this_host_and_for_http_alone() {
    let world = World::start().await;
    let mut browser = Browser::new(&world);
    let page = browser.get("/acme/sign-in").await;
    let cookies = cookies_of(&page);
    let attributes = ["httponly", "path=/", "samesite=lax", "secure"];
    assert_eq!(cookies.len(), 1);
    assert_cookie(&cookies[0], "__Host-accord-csrf", &attributes);
    assert!(cookies[0].value.len() >= 43, "256 random bits");
    assert!(
        !page.body.contains(&cookies[0].value),
        "a page does not give the cookie away"
    );
    // It is set once.
    assert_eq!(cookies_of(&browser.get("/acme/sign-in").await).len(), 0);

    let mut other = Browser::new(&world);
    other.get("/acme/sign-in").await;
    assert_ne!(browser.cookies, other.cookies);
    assert_ne!(browser.csrf, other.csrf);

    let fields = [
        ("account_name", world.admin_name()),
        ("password", crate::world::PASSWORD),
    ];
    let signed_in = browser.submit("/acme/sign-in", &fields).await;
    let cookies = cookies_of(&signed_in);
    assert_eq!(cookies.len(), 1);
    assert_cookie(&cookies[0], "__Host-accord-admin-acme", &attributes);
    assert!(cookies[0].value.starts_with("ads_"));
    let list = browser.get("/acme/integrations").await;
    assert!(!list.body.contains("ads_"));

    let signed_out = browser.submit("/acme/sign-out", &[]).await;
    assert_page(&signed_out, 200);
    let cookies = cookies_of(&signed_out);
    assert!(cookies[0].ended && cookies[0].value.is_empty(), "{cookies:?}");
    assert_eq!(cookies[0].name, "__Host-accord-admin-acme");
    for kept in attributes {
        assert!(
            cookies[0].attributes.iter().any(|attribute| attribute == kept),
            "{cookies:?}"
        );
    }
}

#[tokio::test]
async fn on_plain_http_cookies_have_plain_names() {
    let world = World::start().await;
    world.registry().edit_tenant("acme", |tenant| {
        tenant.tenant_authority_url = "http://127.0.0.1:8080/acme".into();
    });
    let mut browser = Browser::new(&world);
    let page = browser.get("/acme/sign-in").await;
    let attributes = ["httponly", "path=/", "samesite=lax"];
    assert_cookie(&cookies_of(&page)[0], "accord-csrf", &attributes);
    assert_page(&browser.at_integrations().await, 200);
    let names: Vec<_> = browser.cookies.keys().map(String::as_str).collect();
    assert_eq!(names, ["accord-admin-acme", "accord-csrf"]);
}

#[tokio::test]
async fn a_plain_cookie_counts_for_nothing_where_there_is_tls() {
    let world = World::start().await;
    let mut browser = Browser::new(&world);
    browser.at_integrations().await;
    let session = browser.cookies.remove("__Host-accord-admin-acme").unwrap();
    // A neighbouring host, or plain HTTP, can set these.
    for name in [
        "accord-admin-acme",
        "__host-accord-admin-acme",
        "__Secure-accord-admin-acme",
    ] {
        let mut browser = browser.clone();
        browser.cookies.insert(name.into(), session.clone());
        let answer = browser.get("/acme/integrations").await;
        assert_eq!(
            (answer.status, answer.header("location")),
            (303, Some("/acme/sign-in"))
        );
    }
}

#[tokio::test]
async fn every_response_of_the_pages_has_the_security_headers() {
    let world = World::start().await;
    let mut browser = Browser::new(&world);
    let path = browser.open_setup().await;
    let unknown = "/acme/setups/set_01arz3ndektsv4rrffq69g5fav";
    let no_grant = "/acme/integrations/grt_01arz3ndektsv4rrffq69g5fav";
    for (path, status) in [
        (&*path, 200),
        (unknown, 404),
        ("/acme/setups/x", 404),
        ("/acme/sign-in", 200),
        ("/nobody-known/sign-in", 404),
        ("/ACME/sign-in", 404),
        ("/nobody-known/integrations", 404),
        ("/acme/enrol/ace_x", 404),
        ("/claim/acl_x", 404),
        ("/acme/oauth2/authorize", 400),
    ] {
        assert_page(&browser.get(path).await, status);
    }
    let answer = browser.get("/acme/integrations").await;
    assert_eq!(answer.status, 303);
    assert_page_headers(&answer);
    assert_page(&browser.get(no_grant).await, 200);
    assert_page(&browser.sign_in_at(&path).await, 200);
    assert_page(&browser.submit(&format!("{path}/approve"), &[]).await, 422);
    assert_page(
        &browser
            .submit(&format!("{path}/approve"), &approval(&world))
            .await,
        200,
    );
    assert_page(&browser.get(&path).await, 409);
    assert_page(&browser.post("/acme/sign-out", &[]).await, 403);
    let mut browser = Browser::new(&world);
    assert_page(&browser.at_integrations().await, 200);
    assert_page(&browser.get(no_grant).await, 404);
    assert_page(&browser.get("/acme/integrations?page=x").await, 404);
    world.registry().set_unavailable(true);
    let away = browser.get("/acme/integrations").await;
    assert_page(&away, 503);
    assert!(away.header("retry-after").is_some());
}

#[tokio::test]
async fn forms_are_posted_and_pages_are_looked_at() {
    let world = World::start().await;
    let mut browser = Browser::new(&world);
    let setup = browser.at_setup().await;
    let grant = "/acme/integrations/grt_01arz3ndektsv4rrffq69g5fav";
    let posted = [
        format!("{setup}/sign-in"),
        format!("{setup}/approve"),
        format!("{setup}/deny"),
        "/acme/sign-out".into(),
        format!("{grant}/designated-user"),
        format!("{grant}/revoke"),
    ];
    for path in &posted {
        for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"] {
            let answer = browser.send(Request::new(method, path)).await;
            assert_eq!(
                (answer.status, answer.header("allow")),
                (405, Some("POST")),
                "{path}"
            );
            assert_page_headers(&answer);
        }
    }
    for path in [&*setup, "/acme/integrations", grant] {
        let answer = browser.post(path, &[("csrf", &browser.csrf.clone())]).await;
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, Some("GET,HEAD")),
            "{path}"
        );
        assert_page_headers(&answer);
    }
    assert_page(&browser.get(&setup).await, 200);
    assert_eq!(world.audit_events("admin_session.end").await.len(), 0);
}

#[tokio::test]
async fn an_oversized_body_or_another_type_is_rejected_on_a_page() {
    let world = World::start().await;
    let mut browser = Browser::new(&world);
    let path = browser.at_setup().await;
    let csrf = browser.csrf.clone();
    let large = "x".repeat(65 * 1024);
    for path in [
        format!("{path}/approve"),
        format!("{path}/deny"),
        "/acme/sign-in".into(),
    ] {
        let answer = browser.post(&path, &[("csrf", &csrf), ("scope", &large)]).await;
        assert_page(&answer, 413);
        let body = format!("csrf={csrf}");
        for request in [
            Request::post(&path).body(body.clone()),
            Request::post(&path)
                .header("content-type", "text/plain")
                .body(body.clone()),
            Request::post(&path)
                .header("content-type", "multipart/form-data; boundary=x")
                .body(body),
        ] {
            assert_page(&browser.send(request).await, 415);
        }
    }
    assert_page(&browser.get(&path).await, 200);
    assert_eq!(world.audit_events("consent.deny").await.len(), 0);
}

#[tokio::test]
async fn the_stylesheet_is_all_that_a_page_loads() {
    let world = World::start().await;
    let page = Browser::new(&world).get("/acme/sign-in").await;
    assert!(csrf_of(&page).is_some());
    let href = page
        .body
        .split(r#"<link rel="stylesheet" href=""#)
        .nth(1)
        .unwrap();
    let href = href.split('"').next().unwrap();
    let sheet = Request::get(href).send(&world).await;
    assert_eq!(
        (sheet.status, sheet.header("content-type")),
        (200, Some("text/css; charset=utf-8"))
    );
    assert_eq!(sheet.header("x-content-type-options"), Some("nosniff"));
    assert!(sheet.header("cache-control").unwrap().contains("immutable"));
    for outside in ["@import", "url(http", "url(//", "expression("] {
        assert!(!sheet.body.contains(outside), "{outside}");
    }
    let loads = page.body.matches(" src=").count() + page.body.matches("<link").count();
    assert_eq!(loads, 2, "the stylesheet and an empty icon");
}
