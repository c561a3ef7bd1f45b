//! What others wrote is shown as they wrote it, and never read as markup.

use std::time::Duration;

use accord::token::v1::ConsentState;

use super::{Browser, Query, approval, assert_leaves, assert_page, unescaped};
use crate::world::World;

/// What breaks out of text, out of an attribute, and out of a template that is filled in twice.
const HOSTILE: [&str; 6] = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "' autofocus onfocus='alert(1)",
    "</title></head><body onload=alert(1)>",
    "&lt;b&gt; &amp;quot; {{ csrf }} {% include \"x\" %}",
    "javascript:alert(1)//\u{202e}drowssap",
];

#[tokio::test]
async fn names_and_purposes_are_text_on_every_page() {
    let world = World::start().await;
    for hostile in HOSTILE {
        // So that the newest grant is the first of the list.
        world.clock().advance(Duration::from_millis(1));
        world
            .registry()
            .edit_tenant("acme", |tenant| tenant.display_name = format!("T{hostile}"));
        world.change_client(|client| {
            client.version += 1;
            client.display_name = format!("N{hostile}");
            client.partner_name = format!("P{hostile}");
            client.purpose = format!("U{hostile}");
            for scope in &mut client.scopes {
                scope.description = format!("D{hostile}");
                scope.reason = format!("R{hostile}");
            }
        });
        let mut browser = Browser::new(&world);
        let setup = browser.open_setup().await;
        let sign_in = browser.get(&setup).await;
        let consent = browser.sign_in_at(&setup).await;
        let refused = browser.submit(&format!("{setup}/approve"), &[]).await;
        let left = browser
            .submit(&format!("{setup}/approve"), &approval(&world))
            .await;
        let list = browser.get("/acme/integrations").await;
        let link = list
            .body
            .split(r#"<h2><a href=""#)
            .nth(1)
            .unwrap()
            .split('"')
            .next()
            .unwrap();
        let integration = browser.get(link).await;
        let after = browser.open_setup().await;
        let again = browser.sign_in_at(&after).await;
        for (page, status, shows) in [
            (&sign_in, 200, "TNP"),
            (&consent, 200, "TNPUDR"),
            (&refused, 422, "TNPUDR"),
            (&left, 200, "TP"),
            (&list, 200, "TNP"),
            (&integration, 200, "TNPU"),
            (&again, 200, "TNPUDR"),
        ] {
            assert_page(page, status);
            assert!(!page.body.contains("<img"), "{}", page.body);
            for letter in shows.chars() {
                let shown = format!("{letter}{hostile}");
                let written = hostile.contains(['<', '>', '"', '&', '\'']);
                assert!(
                    !written || !page.body.contains(&shown),
                    "{shown} as it is in {}",
                    page.body
                );
                assert!(unescaped(&page.body).contains(&shown), "{shown} in {}", page.body);
            }
        }
    }
}

#[tokio::test]
async fn form_input_is_shown_as_text() {
    let world = World::start().await;
    let mut browser = Browser::new(&world);
    let path = browser.at_setup().await;
    for hostile in HOSTILE {
        let fields = [
            ("scope", hostile),
            ("designated_account_name", hostile),
            ("end_date", hostile),
        ];
        let page = browser.submit(&format!("{path}/approve"), &fields).await;
        assert_page(&page, 422);
        assert!(
            unescaped(&page.body).contains(hostile),
            "{hostile} in {}",
            page.body
        );
        assert!(
            !page.body.contains(&format!("value=\"{hostile}\"")) || !hostile.contains(['<', '"', '&', '\''])
        );
    }
}

#[tokio::test]
async fn a_state_with_markup_stays_within_the_url() {
    let world = World::start().await;
    for hostile in HOSTILE.iter().filter(|state| state.is_ascii()) {
        for decision in ["approve", "deny"] {
            let mut browser = Browser::new(&world);
            let path = browser
                .at_setup_of(&Query::of(&world).with("state", hostile))
                .await;
            let page = browser
                .submit(&format!("{path}/{decision}"), &approval(&world))
                .await;
            let to = assert_leaves(&page);
            assert!(!page.body.contains(hostile), "{}", page.body);
            assert!(!to.contains(['<', '>', '"', '\'', ' ', '\\', '`']), "{to}");
            let url = url::Url::parse(&to).unwrap();
            let state = url.query_pairs().find(|(name, _)| name == "state");
            assert_eq!(state.unwrap().1, *hostile, "byte for byte");
        }
    }
}

#[tokio::test]
async fn a_partners_address_stays_an_address() {
    let world = World::start().await;
    let registered = "https://app.partner.example/cb?x='><script>alert(1)</script>&y=\"";
    world.change_client(|client| client.redirect_uris.push(registered.into()));
    let mut browser = Browser::new(&world);
    let path = browser
        .at_setup_of(&Query::of(&world).with("redirect_uri", registered))
        .await;
    let page = browser
        .submit(&format!("{path}/approve"), &approval(&world))
        .await;
    let to = assert_leaves(&page);
    assert!(to.starts_with("https://app.partner.example/cb?x="), "{to}");
    assert!(!to.contains(['<', '>', '"', '\'', ' ']), "{to}");
    let code = to.split("&code=").nth(1).unwrap().split('&').next().unwrap();
    let mut request = world.by_code(code);
    if let Some(accord::token::v1::issue_token_request::Grant::AuthorizationCode(grant)) = &mut request.grant
    {
        grant.redirect_uri = registered.into();
    }
    let tokens = world.issue(request).await.unwrap();
    assert_eq!(
        world.consent(&tokens.grant_id).await.state(),
        ConsentState::Active
    );
}
