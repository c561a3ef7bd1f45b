//! The request that a sign-in form carries: nothing is stored before somebody signs in, and nobody can change it.

use std::time::Duration;

use accord::audit::v1::AuditActorKind;

use super::{Query, assert_taken_in, hidden_request, setups_started};
use crate::{
    http::{Answer, Request, assert_page, browser::Browser},
    world::{PASSWORD, World},
};

/// Sends the sign-in form of a setup's path with this request.
async fn sign_in(browser: &mut Browser<'_>, world: &World, path: &str, request: &str) -> Answer {
    let fields = [
        ("request", request),
        ("account_name", world.admin_name()),
        ("password", PASSWORD),
    ];
    browser.submit(&format!("{path}/sign-in"), &fields).await
}

/// Opens the form. Returns the path of the setup to be, and the request in the form.
async fn open(browser: &mut Browser<'_>, world: &World) -> (String, String) {
    let form = browser.get(&Query::of(world).target()).await;
    (assert_taken_in(&form), hidden_request(&form).to_owned())
}

#[tokio::test]
async fn only_a_sign_in_starts_a_setup() {
    let world = World::start().await;
    let mut browser = Browser::new(&world);
    let (path, request) = open(&mut browser, &world).await;
    for method in ["GET", "HEAD"] {
        let target = Query::of(&world).target();
        assert_eq!(Request::new(method, target).send(&world).await.status, 200);
    }
    assert_page(&browser.get(&path).await, 404);
    let fields = [
        ("request", &*request),
        ("account_name", world.admin_name()),
        ("password", "not the password of anybody"),
    ];
    let failed = browser.submit(&format!("{path}/sign-in"), &fields).await;
    assert_page(&failed, 403);
    assert_eq!(hidden_request(&failed), request);
    assert_eq!(setups_started(&world).await, 0);

    let signed_in = sign_in(&mut browser, &world, &path, &request).await;
    assert_eq!(
        (signed_in.status, signed_in.header("location")),
        (303, Some(&*path))
    );
    let events = world.audit_events("setup.start").await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].actor_kind(), AuditActorKind::TenantAdmin);
    assert!(browser.get(&path).await.body.contains("Approve"));
}

#[tokio::test]
async fn a_second_press_of_sign_in_starts_no_second_setup() {
    let world = World::start().await;
    let mut browser = Browser::new(&world);
    let (path, request) = open(&mut browser, &world).await;
    // The second press is sent before the first one's cookie came back.
    let mut second = browser.clone();
    for browser in [&mut browser, &mut second] {
        let answer = sign_in(browser, &world, &path, &request).await;
        assert_eq!((answer.status, answer.header("location")), (303, Some(&*path)));
    }
    // After it came back, the form's CSRF token is stale.
    let mut third = browser.clone();
    let late = sign_in(&mut third, &world, &path, &request).await;
    assert_eq!((late.status, late.header("location")), (303, Some(&*path)));
    assert_eq!(setups_started(&world).await, 1);
}

#[tokio::test]
async fn a_changed_or_foreign_request_starts_nothing() {
    let world = World::start().await;
    let mut browser = Browser::new(&world);
    let (path, request) = open(&mut browser, &world).await;
    let (other_path, other) = open(&mut browser, &world).await;
    let (version, rest) = request.split_once('.').unwrap();
    let (payload, mac) = rest.split_once('.').unwrap();
    let (_, other_rest) = other.split_once('.').unwrap();
    let (other_payload, _) = other_rest.split_once('.').unwrap();
    for bad in [
        "x",
        "..",
        &format!("{version}.{payload}"),
        &format!("{version}.{payload}."),
        &format!("{version}.{payload}.{mac}."),
        &format!("{version}.{other_payload}.{mac}"),
        &format!("99.{payload}.{mac}"),
        &format!("-1.{payload}.{mac}"),
        &other,
    ] {
        assert_page(&sign_in(&mut browser, &world, &path, bad).await, 404);
    }
    assert_page(&sign_in(&mut browser, &world, &other_path, &request).await, 404);
    let elsewhere = path.replace("/acme/", "/globex/");
    browser.get("/globex/sign-in").await;
    assert_page(&sign_in(&mut browser, &world, &elsewhere, &request).await, 404);
    assert_eq!(setups_started(&world).await, 0);
}

#[tokio::test]
async fn a_request_ends_after_an_hour_or_with_its_client() {
    let world = World::start().await;
    let mut browser = Browser::new(&world);
    let (path, request) = open(&mut browser, &world).await;
    world.suspend("client", true);
    assert_page(&sign_in(&mut browser, &world, &path, &request).await, 409);
    world.suspend("client", false);
    world.clock().advance(Duration::from_secs(3600));
    assert_page(&sign_in(&mut browser, &world, &path, &request).await, 409);
    assert_eq!(setups_started(&world).await, 0);
}
