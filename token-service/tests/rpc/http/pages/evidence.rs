//! The pages with what the audit record shows a tenant: usage, receipts, and what operators did.

use std::time::{Duration, Instant};

use accord::registry::v1 as reg;
use serde_json::Value;
use tokio::time::sleep;

use super::{Browser, assert_asks_to_sign_in, assert_page};
use crate::world::World;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// How soon an event is sealed.
const SEALED: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

fn fact<'a>(body: &'a str, name: &str) -> &'a str {
    let rest = body.split_once(&format!("<dt>{name}</dt>")).unwrap().1;
    let value = rest.split_once("<dd>").unwrap().1;
    value.split_once("</dd>").unwrap().0
}

#[tokio::test]
async fn the_list_shows_usage_and_what_is_not_used() {
    let world = World::start().await;
    world.first_tokens().await;
    let mut beyond = world.by_client_credentials();
    beyond.scopes = vec!["contacts.delete".into()];
    world.issue(beyond).await.unwrap_err();
    world.usage_written().await;
    for (days, issued, rejected, is_unused) in [
        (0, "1", "1", false),
        (30, "0", "0", false),
        (89, "0", "0", false),
        (90, "0", "0", true),
    ] {
        let moved = DAY * days;
        world.clock().set(accord::testing::TEST_START.plus(moved));
        let mut browser = Browser::new(&world);
        let list = browser.at_integrations().await;
        assert_page(&list, 200);
        assert_eq!(fact(&list.body, "Tokens in 30 days"), issued, "{days}");
        assert_eq!(
            fact(&list.body, "Rejected requests in 30 days"),
            rejected,
            "{days}"
        );
        assert_eq!(fact(&list.body, "Last token"), "1 January 2026, 00:00 UTC");
        assert_eq!(list.body.contains("Not used for 90 days"), is_unused, "{days}");
    }
}

#[tokio::test]
async fn the_page_of_an_integration_shows_how_it_was_used_by_day_and_that_a_token_came_twice() {
    const REUSE: &str = "Somebody used a refresh token a second time";
    let world = World::start().await;
    let first = world.first_tokens().await;
    let second = world.refresh(&first.refresh_token).await.unwrap();
    let mut beyond = world.by_client_credentials();
    beyond.scopes = vec!["contacts.delete".into()];
    world.issue(beyond).await.unwrap_err();
    world.usage_written().await;
    let path = format!("/acme/integrations/{}", first.grant_id);
    let mut browser = Browser::new(&world);
    browser.at_integrations().await;
    let page = browser.get(&path).await;
    assert_page(&page, 200);
    let (_, row) = page
        .body
        .split_once(r#"<th scope="row">1 January 2026</th>"#)
        .unwrap();
    let (row, _) = row.split_once("</tr>").unwrap();
    for cell in [
        "<td>2</td>",
        "<td>1</td>",
        ">contacts.read<",
        ">contacts.write<",
        ">127.0.0.1<",
    ] {
        assert!(row.contains(cell), "{cell} in {row}");
    }
    assert!(!page.body.contains(REUSE));

    world.refresh(&second.refresh_token).await.unwrap();
    world.refresh(&first.refresh_token).await.unwrap_err();
    let page = browser.get(&path).await;
    assert_page(&page, 200);
    for shown in [REUSE, "That was on 1 January 2026, 00:00 UTC."] {
        assert!(page.body.contains(shown), "{shown} in {}", page.body);
    }
}

#[tokio::test]
async fn a_receipt_is_a_file_to_keep() {
    let world = World::start().await;
    let grant_id = world.active_grant().await;
    let path = format!("/acme/integrations/{grant_id}/receipt");
    let mut browser = Browser::new(&world);
    let answer = browser.get(&path).await;
    let page = format!("/acme/integrations/{grant_id}");
    assert_eq!((answer.status, answer.header("location")), (303, Some(&*page)));
    assert_asks_to_sign_in(&browser.get(&page).await);
    browser.at_integrations().await;
    let started = Instant::now();
    let file = loop {
        let answer = browser.get(&path).await;
        if answer.status == 200 {
            break answer;
        }
        assert_page(&answer, 503);
        assert!(answer.body.contains("Try again"), "{}", answer.body);
        assert!(answer.header("retry-after").is_some());
        assert!(started.elapsed() < SEALED);
        sleep(POLL).await;
    };
    assert_eq!(file.header("content-type"), Some("application/json"));
    let name = format!("attachment; filename=\"consent-receipt-{grant_id}.json\"");
    assert_eq!(file.header("content-disposition"), Some(&*name));
    assert_eq!(file.header("cache-control"), Some("no-store"));
    let file: Value = serde_json::from_str(&file.body).unwrap();
    assert!(
        file["receipt"].is_string() && file["proof"]["checkpoint"].is_string(),
        "{file}"
    );
    let unknown = browser
        .get("/acme/integrations/grt_01arz3ndektsv4rrffq69g5fav/receipt")
        .await;
    assert_page(&unknown, 404);
}

#[tokio::test]
async fn a_tenant_admin_sees_what_operators_did() {
    let world = World::start().await;
    let mut browser = Browser::new(&world);
    assert_asks_to_sign_in(&browser.get("/acme/operator-actions").await);
    let list = browser.at_integrations().await;
    assert!(list.body.contains(r#"href="/acme/operator-actions""#));
    let page = browser.get("/acme/operator-actions").await;
    assert_page(&page, 503);
    assert!(
        page.body.contains("The registry does not answer"),
        "{}",
        page.body
    );

    let action = |number: usize, reason: &str| reg::OperatorAction {
        event_id: format!("01jgfjjz0000000000000000{number:02}"),
        action: "tenant.update".into(),
        operator_id: "opr_01jd0000000000000000000000".into(),
        reason: reason.into(),
        subject: "acme".into(),
        changed_fields: vec!["cloud_api_url".into()],
        ..Default::default()
    };
    let mut actions: Vec<_> = (0..25)
        .map(|number| ("acme".to_owned(), action(number, "")))
        .collect();
    actions.push(("acme".into(), action(25, "moved <b>")));
    actions.push(("globex".into(), action(26, "not theirs")));
    world.registry().tell_operator_actions(actions);
    let page = browser.get("/acme/operator-actions").await;
    assert_page(&page, 200);
    for shown in [
        "Changed this organisation (the URL of the Cloud API)",
        "1 January 2025, 00:00 UTC",
        "opr_01jd0000000000000000000000",
        "moved &#60;b&#62;",
    ] {
        assert!(page.body.contains(shown), "{shown} in {}", page.body);
    }
    assert!(!page.body.contains("not theirs"));
    assert_eq!(page.body.matches("<dt>Operator</dt>").count(), 25);
    let next = page
        .body
        .split_once(r#"" rel="next""#)
        .unwrap()
        .0
        .rsplit('"')
        .next()
        .unwrap()
        .to_owned();
    let next = browser.get(&next).await;
    assert_page(&next, 200);
    assert_eq!(next.body.matches("<dt>Operator</dt>").count(), 1);
    assert_page(&browser.get("/acme/operator-actions?page=x").await, 404);
}

#[tokio::test]
async fn a_rejected_press_of_a_button_is_an_event_of_the_tenant_admin() {
    let world = World::start().await;
    let grant_id = world.active_grant().await;
    let path = format!("/acme/integrations/{grant_id}");
    let mut browser = Browser::new(&world);
    browser.at_integrations().await;
    assert_page(&browser.get(&path).await, 200);
    let last = async || world.audit_events("call.reject").await.into_iter().next();
    assert_eq!(last().await, None);
    let form = "POST /{tenant}/integrations/{grant}/designated-user";
    let nobody = [("account_name", "nobody-at-all")];
    let answer = browser.submit(&format!("{path}/designated-user"), &nobody).await;
    assert_page(&answer, 422);
    let event = last().await.unwrap();
    assert_eq!(
        (&*event.detail["method"], &*event.detail["error_reason"]),
        (form, "NOT_FOUND")
    );
    assert_eq!(event.actor_id, world.admin_id);
    assert!(!format!("{event:?}").contains("nobody-at-all"));

    world.clock().advance(Duration::from_secs(6 * 60));
    let fields = [("account_name", world.second_user_name())];
    let answer = browser.submit(&format!("{path}/designated-user"), &fields).await;
    assert_asks_to_sign_in(&answer);
    let event = last().await.unwrap();
    assert_eq!(
        (&*event.detail["method"], &*event.detail["error_reason"]),
        (form, "SIGN_IN_TOO_OLD")
    );
    assert_eq!(event.actor_id, world.admin_id);

    let unknown = browser
        .get("/acme/integrations/grt_01k9zzzzzzzzzzzzzzzzzzzzzz")
        .await;
    assert_page(&unknown, 404);
    let event = last().await.unwrap();
    let page = "GET /{tenant}/integrations/{grant}";
    assert_eq!(
        (&*event.detail["method"], &*event.detail["error_reason"]),
        (page, "NOT_FOUND")
    );
    // Strangers reach pages without a session, and leave nothing.
    let mut stranger = Browser::new(&world);
    stranger.get(&path).await;
    stranger.get("/acme/setups/set_01k9zzzzzzzzzzzzzzzzzzzzzz").await;
    assert_eq!(last().await.unwrap().event_id, event.event_id);
}
