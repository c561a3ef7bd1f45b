//! What an approval grants: the scopes that were ticked, to run as a user that there is, until a day to come.

use std::time::Duration;

use accord::token::v1::SetupState;

use super::{approve, consents, is_ticked, state_of, with};
use crate::{
    http::{assert_page, authorize::Query, browser::Browser, pages::assert_leaves},
    world::World,
};

#[tokio::test]
async fn no_box_ticked_is_no_approval() {
    let world = World::start().await;
    let mut browser = Browser::new(&world);
    let path = browser.at_setup().await;
    for scopes in [
        &[] as &[&str],
        &[""],
        &["", ""],
        &["files.read"],
        &["contacts.read", "files.read"],
        &["contacts.read", "a b"],
        &["contacts.read contacts.write"],
        &["CONTACTS.READ"],
        &["*"],
        &["all"],
        &["<script>alert(1)</script>"],
        &["contacts.read\u{0}"],
    ] {
        let answer = approve(&mut browser, &path, &with(&world, "scope", scopes)).await;
        assert_page(&answer, 422);
        assert!(answer.body.contains("scopes-error"), "{scopes:?}");
        assert!(!answer.body.contains("alert(1)"));
        // What was entered is there again, and no box is ticked that was not.
        assert!(
            answer
                .body
                .contains(&format!("value=\"{}\"", world.api_user_name()))
        );
        assert_eq!(
            is_ticked(&answer, "contacts.read"),
            scopes.contains(&"contacts.read"),
            "{scopes:?}"
        );
        assert!(!is_ticked(&answer, "contacts.write"), "{scopes:?}");
    }
    assert_eq!(state_of(&world, &path).await, SetupState::Pending);
    assert_eq!(consents(&world).await.len(), 0);
    // Some of it, the same one twice.
    let some = with(&world, "scope", &["contacts.write", "contacts.write"]);
    assert_leaves(&approve(&mut browser, &path, &some).await);
    assert_eq!(consents(&world).await[0].scopes, ["contacts.write"]);
}

#[tokio::test]
async fn only_scopes_of_the_request_can_be_granted() {
    let world = World::start().await;
    let mut browser = Browser::new(&world);
    let query = Query::of(&world).and("scope", "contacts.read");
    let path = browser.at_setup_of(&query).await;
    // The client has it, and did not ask for it.
    let more = with(&world, "scope", &["contacts.read", "contacts.write"]);
    assert_page(&approve(&mut browser, &path, &more).await, 422);
    assert_eq!(consents(&world).await.len(), 0);
    assert_leaves(&approve(&mut browser, &path, &with(&world, "scope", &["contacts.read"])).await);
    assert_eq!(consents(&world).await[0].scopes, ["contacts.read"]);
}

#[tokio::test]
async fn the_designated_user_must_be_an_active_one_of_this_tenant() {
    let world = World::start().await;
    let gone = world.registry().add_user("acme", "gone.user", "", false);
    world.registry().deactivate_user(&gone, true);
    let mut browser = Browser::new(&world);
    let path = browser.at_setup().await;
    let long = "a".repeat(1025);
    let longer = "é".repeat(5_000);
    for name in [
        "",
        "   ",
        "nobody",
        "gone.user",
        world.globex_admin_name(),
        "\"><img src=x>",
        &long,
        &longer,
    ] {
        let answer = approve(
            &mut browser,
            &path,
            &with(&world, "designated_account_name", &[name]),
        )
        .await;
        assert_page(&answer, 422);
        assert!(answer.body.contains("designated_account_name-error"), "{name}");
        assert!(!answer.body.contains("<img"));
        assert!(is_ticked(&answer, "contacts.read") && is_ticked(&answer, "contacts.write"));
    }
    assert_eq!(state_of(&world, &path).await, SetupState::Pending);
    let padded = format!("  {}  ", world.api_user_name());
    let trimmed = with(&world, "designated_account_name", &[&padded]);
    assert_leaves(&approve(&mut browser, &path, &trimmed).await);
    assert_eq!(consents(&world).await[0].designated_user_id, world.api_user_id);
}

#[tokio::test]
async fn networks_are_those_of_the_field_or_any() {
    let world = World::start().await;
    let mut browser = Browser::new(&world);
    let path = browser.at_setup().await;
    let page = browser.get(&path).await.body;
    assert!(page.contains("<details class=\"fold\">"), "{page}");
    let many: Vec<_> = (0..17).map(|n| format!("10.{n}.0.0/16")).collect();
    for wrong in [
        "office",
        "10.1.2.3/8",
        "10.0.0.0/8 10.1.0.0/16",
        "203.0.113.0/33",
        "\"><img src=x>",
        &many.join(" "),
    ] {
        let answer = approve(&mut browser, &path, &with(&world, "allowed_networks", &[wrong])).await;
        assert_page(&answer, 422);
        assert!(
            answer.body.contains("allowed_networks-error")
                && answer.body.contains("<details class=\"fold\" open>")
                && !answer.body.contains("<img"),
            "{wrong}: {}",
            answer.body
        );
    }
    assert_eq!(consents(&world).await.len(), 0);
    for (entered, granted) in [
        (
            " 203.0.113.0/24, 2001:DB8::/32\r\n",
            &["203.0.113.0/24", "2001:db8::/32"][..],
        ),
        ("0.0.0.0/0", &["0.0.0.0/0"]),
        (" ", &[]),
    ] {
        let mut browser = Browser::new(&world);
        let path = browser.at_setup().await;
        let answer = approve(&mut browser, &path, &with(&world, "allowed_networks", &[entered])).await;
        assert_leaves(&answer);
        assert_eq!(consents(&world).await[0].allowed_networks, granted, "{entered}");
        world.clock().advance(Duration::from_millis(1));
    }
}

#[tokio::test]
async fn an_end_date_is_a_day_to_come_or_none() {
    let world = World::start().await;
    let mut browser = Browser::new(&world);
    let path = browser.at_setup().await;
    // Now is 2026-01-01, 00:00 UTC.
    for date in [
        "2025-12-30",
        "1970-01-01",
        "0000-01-01",
        "-0001-01-01",
        "2026-02-29",
        "2026-13-01",
        "2026-1-2",
        "02/01/2026",
        "2026-01-02T00:00",
        "20260102",
        "99999-01-01",
        "+12026-01-01",
        "tomorrow",
        " ",
        "１２３４-01-01",
        "\"><img src=x>",
    ] {
        let answer = approve(&mut browser, &path, &with(&world, "end_date", &[date])).await;
        assert_page(&answer, 422);
        assert!(
            answer.body.contains("end_date-error") && !answer.body.contains("<img"),
            "{date}"
        );
    }
    assert_eq!(consents(&world).await.len(), 0);
    for (date, ends) in [
        // Still today in the west, until noon in UTC.
        ("2025-12-31", Some(1_767_225_600 + 12 * 3600)),
        ("2026-01-01", Some(1_767_312_000)),
        ("2026-01-31", Some(1_769_904_000)),
        ("9999-12-31", Some(253_402_300_800)),
        ("", None),
    ] {
        let mut browser = Browser::new(&world);
        let path = browser.at_setup().await;
        let page = browser.get(&path).await.body;
        assert!(page.contains(r#"min="2025-12-31""#) && page.contains("Now it is 1 January 2026, 00:00 UTC"));
        let answer = approve(&mut browser, &path, &with(&world, "end_date", &[date])).await;
        assert_leaves(&answer);
        // What was confirmed names the moment.
        assert_eq!(answer.body.contains("It ends on "), ends.is_some());
        assert_eq!(answer.body.contains("11:59 UTC"), date == "2025-12-31");
        let newest = &consents(&world).await[0];
        let end = newest.expire_time.map(|time| (time.seconds, time.nanos));
        // The last millisecond of that day.
        assert_eq!(end, ends.map(|seconds| (seconds - 1, 999_000_000)), "{date}");
        world.clock().advance(Duration::from_millis(1));
    }
}
