//! The page that a reference opens.

use super::*;

/// Presses Approve at the setup of this path.
async fn approve(browser: &mut Browser<'_>, world: &World, path: &str) -> Answer {
    browser.submit(&format!("{path}/approve"), &approval(world)).await
}

/// Opens so many requests in a browser. Returns where.
async fn opened(world: &World, browser: &mut Browser<'_>, count: usize) -> Vec<String> {
    let mut targets = Vec::new();
    for _ in 0..count {
        let target = target(&world.client_id, &pushed(world).await);
        assert_taken_in(&browser.get(&target).await);
        targets.push(target);
    }
    targets
}

/// Asserts an error that only the person sees.
#[track_caller]
fn assert_shown(answer: &Answer, status: u16) {
    assert_page(answer, status);
    assert_eq!(answer.header("location"), None);
}

#[tokio::test]
async fn a_reference_leads_to_a_code_and_whatever_comes_beside_it_is_ignored() {
    let world = World::start().await;
    let mut browser = Browser::new(&world);
    let beside = encoded(&[
        ("state", "of the link"),
        ("redirect_uri", "https://evil.example/"),
        ("response_type", "token"),
        ("scope", "files.read"),
        ("scope", "files.write"),
        ("code_challenge_method", "plain"),
    ]);
    let target = format!("{}&{beside}", target(&world.client_id, &pushed(&world).await));
    let path = browser.start_setup(&target).await;
    assert_page(&browser.get(&path).await, 200);
    let left = approve(&mut browser, &world, &path).await;
    let url = Url::parse(&assert_leaves(&left)).unwrap();
    let parameters: Vec<_> = url.query_pairs().into_owned().collect();
    assert!(
        url.as_str().starts_with(&format!("{REDIRECT_URI}?code=acc_")),
        "{url}"
    );
    assert!(parameters.contains(&("state".into(), "xyz".into())), "{url}");
    assert!(
        parameters.contains(&("iss".into(), world.issuer.clone())),
        "{url}"
    );
    for action in ["setup.start", "consent.approve"] {
        let event = world.audit_events(action).await.remove(0);
        assert_eq!(event.detail.get("request").map(String::as_str), Some("pushed"));
    }
}

#[tokio::test]
async fn a_state_returns_byte_for_byte() {
    let world = World::start().await;
    let challenge = challenge(VERIFIER);
    let mut fields = parameters(&challenge);
    fields.retain(|(name, _)| *name != "state");
    let longest = "%ff".repeat(4096);
    for state in ["%FF%fe%20a+b", "a.b-c_d%7E", &longest] {
        let body = format!("{}&state={state}", encoded(&fields));
        let answer = Request::post(PAR)
            .basic(&world.client)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body)
            .send(&world)
            .await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let mut browser = Browser::new(&world);
        let target = target(&world.client_id, &answer.text("request_uri"));
        let path = browser.start_setup(&target).await;
        browser.get(&path).await;
        let denied = browser.submit(&format!("{path}/deny"), &[]).await;
        let to = assert_leaves(&denied);
        assert!(
            to.contains(&format!("?error=access_denied&state={state}&iss=")),
            "{to}"
        );
    }
}

#[tokio::test]
async fn opening_stores_nothing_and_works_again_before_the_decision() {
    let world = World::start().await;
    let target = target(&world.client_id, &pushed(&world).await);
    let mut browser = Browser::new(&world);
    let first = browser.get(&target).await;
    let head = Request::new("HEAD", &target).send(&world).await;
    assert_eq!((head.status, &*head.body), (200, ""));
    let second = browser.get(&target).await;
    // Two tabs, two browsers: one setup.
    assert_eq!(assert_taken_in(&first), assert_taken_in(&second));
    assert_eq!(setups_started(&world).await, 0);

    let path = browser.sign_in_with(&second).await;
    assert_page(&browser.get(&path).await, 200);
    let mut other = Browser::new(&world);
    assert_eq!(other.start_setup(&target).await, path);
    assert_eq!(setups_started(&world).await, 1);
}

#[tokio::test]
async fn a_request_is_decided_once_in_whatever_browser() {
    let world = World::start().await;
    let target = target(&world.client_id, &pushed(&world).await);
    let mut browsers = [Browser::new(&world), Browser::new(&world), Browser::new(&world)];
    let mut forms = Vec::new();
    for browser in &mut browsers {
        forms.push(browser.get(&target).await);
    }
    let [one, two, late] = &mut browsers;
    let path = one.sign_in_with(&forms[0]).await;
    one.get(&path).await;
    assert_eq!(two.sign_in_with(&forms[1]).await, path);
    two.get(&path).await;
    let left = assert_leaves(&approve(one, &world, &path).await);
    // A second click gets the same code, another session none.
    assert_eq!(assert_leaves(&approve(one, &world, &path).await), left);
    let refused = approve(two, &world, &path).await;
    assert_shown(&refused, 409);
    let denied = two.submit(&format!("{path}/deny"), &[]).await;
    assert_shown(&denied, 409);
    // Whoever opened it before the decision and signs in later, too.
    let fields = [
        ("request", hidden_request(&forms[2])),
        ("account_name", world.admin_name()),
        ("password", PASSWORD),
    ];
    let signed_in = late.submit(&format!("{path}/sign-in"), &fields).await;
    assert_shown(&signed_in, 409);
    assert_shown(&late.get(&target).await, 409);
    assert_shown(&one.get(&path).await, 409);
    assert_eq!(world.audit_events("consent.approve").await.len(), 1);
    assert_eq!(setups_started(&world).await, 1);
}

#[tokio::test]
async fn an_unknown_foreign_or_expired_reference_is_an_error_without_a_redirect() {
    let world = World::start().await;
    let request_uri = pushed(&world).await;
    let other = world.new_client(&["acme"]);
    let mut altered = request_uri.clone();
    altered.replace_range(altered.len() - 10..altered.len() - 9, "_");
    let own = &world.client_id;
    for target in [
        target(&other.client_id, &request_uri),
        target(own, &altered),
        target(own, "https://partner.example/request"),
        target(own, "urn:ietf:params:oauth:request_uri:"),
        target("", &request_uri),
        target("x", &request_uri),
        format!("{}&request_uri=x", target(own, &request_uri)),
        format!("{}&client_id={}", target(own, &request_uri), other.client_id),
    ] {
        assert_shown(&Request::get(target).send(&world).await, 400);
    }
    let elsewhere = target(own, &request_uri).replace("/acme/", "/globex/");
    assert_shown(&Request::get(elsewhere).send(&world).await, 400);
    let target = target(own, &request_uri);
    world.clock().advance(Duration::from_millis(89_999));
    assert_taken_in(&Request::get(&target).send(&world).await);
    world.clock().advance(Duration::from_millis(1));
    let expired = Request::get(&target).send(&world).await;
    assert_shown(&expired, 400);
    assert!(expired.body.contains("within 90 seconds"), "{}", expired.body);
    assert_eq!(setups_started(&world).await, 0);
}

#[tokio::test]
async fn a_sign_in_that_outlasts_the_reference_reaches_the_decision() {
    let world = World::start().await;
    let target = target(&world.client_id, &pushed(&world).await);
    let mut browser = Browser::new(&world);
    let form = browser.get(&target).await;
    // The longest that a form and the setup after it can take; what has expired is cleared away meanwhile.
    world.clock().advance(Duration::from_secs(3599));
    world.delete_ended_rows().await;
    assert_shown(&Browser::new(&world).get(&target).await, 400);
    let path = browser.sign_in_with(&form).await;
    world.clock().advance(Duration::from_secs(3590));
    world.delete_ended_rows().await;
    browser.get(&path).await;
    browser.sign_in_at(&path).await;
    assert_leaves(&approve(&mut browser, &world, &path).await);
}

#[tokio::test]
async fn the_browser_that_opened_a_request_reloads_the_page_for_an_hour() {
    let world = World::start().await;
    let mut browser = Browser::new(&world);
    // Several tabs, each with its own request.
    let targets = opened(&world, &mut browser, 3).await;
    // A tab that is reloaded meanwhile does not take back what another one adds.
    let reloaded = browser.get(&targets[0]).await;
    let mut cookies = reloaded.headers.get_all("set-cookie").iter();
    assert!(!cookies.any(|cookie| cookie.to_str().unwrap().contains("accord-opened")));
    let unopened = target(&world.client_id, &pushed(&world).await);
    world.clock().advance(Duration::from_secs(3000));
    world.delete_ended_rows().await;
    for target in &targets {
        assert_taken_in(&browser.get(target).await);
    }
    assert_shown(&browser.get(&unopened).await, 400);
    assert_shown(&Browser::new(&world).get(&targets[0]).await, 400);
    // Nor does a cookie help that was changed.
    let mut forged = browser.clone();
    let cookie = forged.cookies.get_mut("__Host-accord-opened").unwrap();
    *cookie = cookie.replace('.', ".1");
    assert_shown(&forged.get(&targets[0]).await, 400);

    let form = browser.get(&targets[1]).await;
    let path = browser.sign_in_with(&form).await;
    browser.get(&path).await;
    assert_leaves(&approve(&mut browser, &world, &path).await);
    assert_shown(&browser.get(&targets[1]).await, 409);
    world.clock().advance(Duration::from_secs(600));
    assert_shown(&browser.get(&targets[0]).await, 400);
}

#[tokio::test]
async fn a_browser_remembers_its_newest_requests() {
    let world = World::start().await;
    let mut browser = Browser::new(&world);
    let targets = opened(&world, &mut browser, 9).await;
    world.clock().advance(Duration::from_secs(90));
    for (number, target) in targets.iter().enumerate() {
        let expected = if number == 0 { 400 } else { 200 };
        assert_eq!(browser.get(target).await.status, expected, "{number}");
    }
}

#[tokio::test]
async fn what_the_client_lost_since_it_pushed_counts() {
    let world = World::start().await;
    let challenge = challenge(VERIFIER);
    let mut fields = parameters(&challenge);
    fields.push(("scope", "contacts.write"));
    let answer = push_by(&world, &world.client, &fields).await;
    let target = target(&world.client_id, &answer.text("request_uri"));
    for resource in ["client", "tenant"] {
        world.suspend(resource, true);
        let answer = Request::get(&target).send(&world).await;
        assert_eq!(answer.status, 303, "{answer:?}");
        let location = answer.header("location").unwrap();
        assert!(location.starts_with(&format!("{REDIRECT_URI}?error=unauthorized_client")));
        assert!(location.contains("&state=xyz&iss="), "{location}");
        world.suspend(resource, false);
    }
    world.change_client(|client| client.scopes.retain(|scope| scope.name != "contacts.write"));
    let answer = Request::get(&target).send(&world).await;
    assert!(answer.header("location").unwrap().contains("error=invalid_scope"));
    world.change_client(|client| client.redirect_uris.clear());
    assert_shown(&Request::get(&target).send(&world).await, 400);
}
