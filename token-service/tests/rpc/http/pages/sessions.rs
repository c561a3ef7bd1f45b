//! Signing in and out, and how long a session is good for what.

use std::time::{Duration, Instant};

use accord::audit::v1::AuditOutcome;

use super::{
    Answer, Browser, Request, approval, assert_asks_to_sign_in, assert_leaves, assert_page, cookies_of,
};
use crate::{
    fake_registry::Question,
    world::{PASSWORD, World},
};

const SESSION: &str = "__Host-accord-admin-acme";

/// The number of sign-ins.
async fn sessions_opened(world: &World) -> usize {
    let events = world.audit_events("admin_session.open").await;
    events
        .iter()
        .filter(|event| event.outcome() != AuditOutcome::Refused)
        .count()
}

/// The page without what differs from form to form.
fn told(answer: &Answer) -> String {
    answer.body.split(r#"name="csrf""#).next().unwrap().to_owned()
}

#[tokio::test]
async fn every_failed_sign_in_gets_one_answer() {
    let world = World::start().await;
    let gone = world.registry().add_user("acme", "gone.admin", PASSWORD, true);
    world.registry().deactivate_user(&gone, true);
    let mut browser = Browser::new(&world);
    let setup = browser.open_setup().await;
    let before = sessions_opened(&world).await;
    let long = "p".repeat(1025);
    // No more failures of one account than are free, so that no attempt has to wait.
    let (admin, user, foreign) = (
        world.admin_name(),
        world.api_user_name(),
        world.globex_admin_name(),
    );
    for path in [format!("{setup}/sign-in"), "/acme/sign-in".into()] {
        world.clock().advance(Duration::from_secs(30 * 60));
        let mut pages = Vec::new();
        for (address, (name, password)) in [
            (admin, "wrong"),
            (admin, ""),
            (admin, &*long),
            (admin, &PASSWORD.to_uppercase()),
            ("", PASSWORD),
            ("", ""),
            ("nobody", PASSWORD),
            ("gone.admin", PASSWORD),
            (user, PASSWORD),
            (foreign, PASSWORD),
            ("\"><img src=x>", "\"><img src=x>"),
        ]
        .into_iter()
        .enumerate()
        {
            let csrf = browser.csrf.clone();
            // From many addresses, so that none has to wait.
            let form = Request::post(&path)
                .header("x-forwarded-for", format!("192.0.2.{address}"))
                .form(&[("csrf", &csrf), ("account_name", name), ("password", password)]);
            let answer = browser.send(form).await;
            assert_page(&answer, 403);
            assert!(cookies_of(&answer).is_empty() && answer.body.contains("sign-in-error"));
            assert!(!answer.body.contains("<img") && !answer.body.contains(PASSWORD));
            pages.push(told(&answer));
        }
        pages.dedup();
        assert_eq!(pages.len(), 1, "{pages:?}");
    }
    assert_eq!(sessions_opened(&world).await, before);
    // That locked nobody out.
    world.clock().advance(Duration::from_secs(30 * 60));
    browser.at_integrations().await;
    assert_eq!(sessions_opened(&world).await, before + 1);
}

#[tokio::test]
async fn too_many_attempts_get_a_page_with_a_retry_time() {
    let world = World::start().await;
    let mut browser = Browser::new(&world);
    browser.get("/acme/sign-in").await;
    let attempt = |name: String| {
        let fields = [
            ("csrf", &*browser.csrf),
            ("account_name", &*name),
            ("password", "wrong"),
        ];
        let form = Request::post("/acme/sign-in")
            .header("x-forwarded-for", "192.0.2.1")
            .form(&fields);
        let mut browser = browser.clone();
        async move { browser.send(form).await }
    };
    // Each waits for the failures of the ones before, so all but a few of them are under way together.
    let attempts = (0..40).map(|n| attempt(format!("name-{}", n % 2)));
    let mut refused = 0;
    for answer in futures_of(attempts).await {
        if answer.status == 429 {
            refused += 1;
            assert_page(&answer, 429);
            let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
            assert!((1..=4).contains(&seconds));
        } else {
            assert_page(&answer, 403);
        }
    }
    assert!(refused >= 20, "{refused}");
    // Somebody else, elsewhere, does not wait for that.
    let mut other = Browser::new(&world);
    assert_page(
        &other
            .at_integrations_of("globex", world.globex_admin_name())
            .await,
        200,
    );
}

/// Right and wrong guesses leave the same trace, so that nobody can tell them apart by the next attempt.
#[tokio::test]
async fn a_sign_in_is_counted_and_recorded_although_its_browser_hangs_up() {
    for (password, outcome) in [
        ("wrong", AuditOutcome::Refused),
        (PASSWORD, AuditOutcome::Success),
    ] {
        let world = World::start().await;
        let mut browser = Browser::new(&world);
        browser.get("/acme/sign-in").await;
        for count in 1..=4 {
            let (asked, was_asked) = tokio::sync::oneshot::channel();
            let (answers, held) = tokio::sync::oneshot::channel::<()>();
            world.registry().delay(Question::SignIn, async move {
                asked.send(()).unwrap();
                held.await.unwrap();
            });
            let fields = [
                ("csrf", &*browser.csrf),
                ("account_name", world.admin_name()),
                ("password", password),
            ];
            let guess = Request::post("/acme/sign-in").form(&fields);
            let guess = guess.header("x-forwarded-for", "192.0.2.1");
            let mut tab = browser.clone();
            tokio::select! {
                answer = tab.send(guess) => panic!("{answer:?}"),
                asked = was_asked => asked.unwrap(),
            }
            answers.send(()).unwrap();
            while world.audit_events("admin_session.open").await.len() < count {
                tokio::task::yield_now().await;
            }
        }
        let events = world.audit_events("admin_session.open").await;
        assert!(
            events.iter().all(|event| event.outcome() == outcome),
            "{password}"
        );
        let started = Instant::now();
        browser.at_integrations().await;
        assert!(started.elapsed() >= Duration::from_millis(500), "{password}");
    }
}

/// Runs all of them at once.
async fn futures_of(all: impl Iterator<Item = impl Future<Output = Answer>>) -> Vec<Answer> {
    let mut waiting: Vec<_> = all.map(Box::pin).collect();
    let mut done = Vec::new();
    std::future::poll_fn(|context| {
        waiting.retain_mut(|future| match future.as_mut().poll(context) {
            std::task::Poll::Ready(answer) => {
                done.push(answer);
                false
            }
            std::task::Poll::Pending => true,
        });
        match waiting.is_empty() {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    done
}

#[tokio::test]
async fn a_decision_needs_a_sign_in_of_the_last_five_minutes() {
    let world = World::start().await;
    let mut browser = Browser::new(&world);
    let path = browser.at_setup().await;
    world
        .clock()
        .advance(Duration::from_secs(5 * 60) + Duration::from_millis(1));
    // The session is there, and not fresh enough to approve.
    assert!(browser.get(&path).await.body.contains("Approve access"));
    let answer = browser
        .submit(&format!("{path}/approve"), &approval(&world))
        .await;
    assert_asks_to_sign_in(&answer);
    assert!(answer.body.contains("Nothing was decided yet"));
    assert_eq!(world.audit_events("consent.approve").await.len(), 0);
    browser.sign_in_at(&path).await;
    world.clock().advance(Duration::from_secs(5 * 60));
    assert_leaves(
        &browser
            .submit(&format!("{path}/approve"), &approval(&world))
            .await,
    );
}

#[tokio::test]
async fn a_session_ends_by_idleness_and_by_age() {
    let world = World::start().await;
    let mut browser = Browser::new(&world);
    browser.at_integrations().await;
    let minutes = |n: u64| Duration::from_secs(n * 60);
    // Used again and again, it lasts an hour.
    for _ in 0..5 {
        world.clock().advance(minutes(11));
        assert_page(&browser.get("/acme/integrations").await, 200);
    }
    world.clock().advance(minutes(5));
    assert_asks_to_sign_in(&browser.get("/acme/integrations").await);

    let mut idle = Browser::new(&world);
    let setup = idle.at_setup().await;
    world.clock().advance(minutes(15));
    assert_asks_to_sign_in(&idle.get(&setup).await);
    let mut idle = Browser::new(&world);
    idle.at_integrations().await;
    world.clock().advance(minutes(15));
    assert_asks_to_sign_in(&idle.get("/acme/integrations").await);
    assert_asks_to_sign_in(&idle.get("/acme/sign-in").await);
}

#[tokio::test]
async fn signing_out_ends_the_session_everywhere() {
    let world = World::start().await;
    let mut browser = Browser::new(&world);
    let setup = browser.at_setup().await;
    let mut thief = browser.clone();
    let mut elsewhere = Browser::new(&world);
    elsewhere.at_integrations().await;
    let answer = browser.submit("/acme/sign-out", &[]).await;
    assert_asks_to_sign_in(&answer);
    assert!(answer.body.contains("You are signed out."));
    assert!(!browser.cookies.contains_key(SESSION));
    assert_eq!(world.audit_events("admin_session.end").await.len(), 1);
    for path in [&*setup, "/acme/integrations"] {
        assert_asks_to_sign_in(&thief.get(path).await);
    }
    assert_asks_to_sign_in(&thief.submit(&format!("{setup}/approve"), &approval(&world)).await);
    assert_eq!(world.audit_events("consent.approve").await.len(), 0);
    // Another browser of the same admin stays signed in; and signing out twice is no error.
    assert_page(&elsewhere.get("/acme/integrations").await, 200);
    assert_asks_to_sign_in(&thief.submit("/acme/sign-out", &[]).await);
}

#[tokio::test]
async fn a_sign_in_ends_the_browser_s_earlier_session() {
    let world = World::start().await;
    let mut browser = Browser::new(&world);
    let first = browser.at_setup().await;
    let mut thief = browser.clone();
    assert_page(&thief.get(&first).await, 200);
    let second = browser.at_setup().await;
    assert_ne!(thief.cookies[SESSION], browser.cookies[SESSION]);
    assert_asks_to_sign_in(&thief.get(&first).await);
    assert_page(&browser.get(&second).await, 200);
}

#[tokio::test]
async fn a_second_click_on_sign_out_says_the_same() {
    let world = World::start().await;
    let mut browser = Browser::new(&world);
    browser.at_integrations().await;
    let csrf = browser.csrf.clone();
    browser.submit("/acme/sign-out", &[]).await;
    let again = browser.post("/acme/sign-out", &[("csrf", &*csrf)]).await;
    assert_page(&again, 403);
    assert!(again.body.contains("You are signed out."), "{}", again.body);
    assert_eq!(world.audit_events("admin_session.end").await.len(), 1);
}

#[tokio::test]
async fn a_session_ends_with_its_user_or_tenant() {
    let world = World::start().await;
    type Change = fn(&World);
    let changes: [(Change, Change); 4] = [
        (
            |world| world.deactivate_admin(true),
            |world| world.deactivate_admin(false),
        ),
        (
            |world| world.registry().set_tenant_admin(&world.admin_id, false),
            |world| {
                world.registry().set_tenant_admin(&world.admin_id, true);
            },
        ),
        (World::end_admin_sessions, |_| ()),
        (
            |world| world.suspend("tenant", true),
            |world| world.suspend("tenant", false),
        ),
    ];
    for (end, back) in changes {
        let mut browser = Browser::new(&world);
        browser.at_integrations().await;
        end(&world);
        assert_asks_to_sign_in(&browser.get("/acme/integrations").await);
        back(&world);
        assert_asks_to_sign_in(&browser.get("/acme/integrations").await);
    }
}

#[tokio::test]
async fn a_session_cookie_that_is_none_is_no_session() {
    let world = World::start().await;
    let mut browser = Browser::new(&world);
    browser.at_integrations().await;
    let session = browser.cookies[SESSION].clone();
    let admin = world.sign_in("").await;
    assert_ne!(session, admin);
    for value in [
        "",
        "x",
        "ads_x",
        &session[..session.len() - 1],
        &format!("{session}x"),
        &format!("\"{session}"),
        &session.to_uppercase(),
        // A session that an internal service has opened is not the pages' own.
        &admin,
        &world.client.client_secret,
        "../../acme",
        "%61ds_",
    ] {
        let mut browser = browser.clone();
        browser.cookies.insert(SESSION.into(), value.into());
        assert_asks_to_sign_in(&browser.get("/acme/integrations").await);
    }
    assert_page(&browser.get("/acme/integrations").await, 200);
}
