//! A Tenant Admin decides a partner's request, from the partner's link back to the partner.

use super::stage::{Ask, FILEHARBOUR, Stage};

tests!(
    a_popup_is_cut_from_its_opener_and_reports_by_a_channel,
    an_admin_sees_client_scopes_and_reasons_and_grants_a_part,
    a_denial_goes_back_to_the_partner,
    wrong_input_is_reported_and_can_be_corrected,
    a_second_setup_shows_the_differences_and_preselects_nothing_new,
    texts_of_a_partner_are_shown_as_text,
);

async fn an_admin_sees_client_scopes_and_reasons_and_grants_a_part() {
    let stage = Stage::set().await;
    let browser = &stage.browser;
    let partner = stage.partner(FILEHARBOUR).await;
    stage.connect(&partner, &[], "state-1").await;
    let before = browser.text().await;
    assert!(
        before.contains(FILEHARBOUR.client_name) && before.contains("Demo Firm LLP"),
        "{before}"
    );
    assert!(
        !before.contains(FILEHARBOUR.goals),
        "only an admin sees it: {before}"
    );
    stage.sign_in().await;
    browser.arrive("asks for access").await;

    let heading = browser.see("h1").await.text().await.unwrap();
    for who in [FILEHARBOUR.client_name, "Demo Firm LLP"] {
        assert!(heading.contains(who), "{who} is not in {heading}");
    }
    let shown = browser.text().await;
    for who_and_why in [FILEHARBOUR.partner_name, FILEHARBOUR.goals] {
        assert!(shown.contains(who_and_why), "{who_and_why} is not in {shown}");
    }
    for (name, reason) in FILEHARBOUR.scopes {
        let (_, description) = accord_cli::dev::seed::SCOPES
            .into_iter()
            .find(|(known, _)| known == name)
            .unwrap();
        for part in [*name, description, *reason] {
            assert!(shown.contains(part), "{part} is not in {shown}");
        }
        assert!(stage.is_ticked(name).await);
    }
    assert!(shown.contains("returns to 127.0.0.1"), "{shown}");

    browser.click(&scope("matters.read")).await;
    browser.click(&scope("calendar.read")).await;
    stage.approve().await;
    let received = stage.back_at_the_partner().await;
    assert_eq!(received.names(), ["code", "iss", "state"]);
    assert_eq!(received.get("state"), "state-1");
    assert_eq!(received.get("iss"), stage.world.target.tenant_authority_url);
    assert_eq!(received.referrer, None);

    let issued = stage.redeem(&partner, &received).await;
    assert_eq!(issued.scope, "contacts.read");
    assert!(stage.world.active(&issued.access_token).await);
    stage.strike().await;
}

async fn a_denial_goes_back_to_the_partner() {
    let stage = Stage::set().await;
    let browser = &stage.browser;
    let partner = stage.partner(FILEHARBOUR).await;
    stage.ask(&partner, &[], "state-1").await;
    let decided = browser.driver.current_url().await.unwrap();
    // No user has to be designated for this.
    browser.press("Deny").await;
    let received = stage.back_at_the_partner().await;
    assert_eq!(received.get("error"), "access_denied");
    assert_eq!(received.get("state"), "state-1");
    assert_eq!(received.get("iss"), stage.world.target.tenant_authority_url);
    assert!(!received.names().contains(&"code"));

    browser.open(decided.as_str()).await;
    browser.arrive("This request was denied already").await;
    browser.open(&stage.page("integrations")).await;
    browser.arrive("Connected integrations").await;
    let listed = browser.text().await;
    assert!(listed.contains("No integrations yet"), "{listed}");
    stage.strike().await;
}

async fn wrong_input_is_reported_and_can_be_corrected() {
    let stage = Stage::set().await;
    let browser = &stage.browser;
    let partner = stage.partner(FILEHARBOUR).await;
    stage
        .connect(&partner, &["contacts.read", "matters.read"], "state-1")
        .await;
    stage
        .sign_in_as("nobody@demo-firm.example", "not the password of anyone")
        .await;
    browser.see("[role='alert']").await;
    assert!(browser.all("[name='scope']").await.is_empty());
    stage.sign_in().await;
    browser.arrive("asks for access").await;

    browser.click(&scope("matters.read")).await;
    browser
        .fill("designated_account_name", "nobody@demo-firm.example")
        .await;
    browser.press("Approve access").await;
    let link = browser.see("[role='alert'] a").await;
    link.click().await.unwrap();
    let focused = browser.driver.active_element().await.unwrap();
    assert_eq!(
        focused.attr("name").await.unwrap().as_deref(),
        Some("designated_account_name"),
        "the summary leads to the field"
    );
    assert!(!stage.is_ticked("matters.read").await);
    assert!(stage.site.received().is_empty());

    browser.click(&scope("contacts.read")).await;
    stage.approve().await;
    let error = browser.see("#scopes-error").await.text().await.unwrap();
    assert!(error.contains("at least one"), "{error}");

    browser.click(&scope("contacts.read")).await;
    stage.approve().await;
    let received = stage.back_at_the_partner().await;
    assert_eq!(stage.redeem(&partner, &received).await.scope, "contacts.read");
    stage.strike().await;
}

async fn a_second_setup_shows_the_differences_and_preselects_nothing_new() {
    let stage = Stage::set().await;
    let browser = &stage.browser;
    let partner = stage.partner(FILEHARBOUR).await;
    let first = stage
        .connected(&partner, &["contacts.read", "calendar.read"])
        .await;
    assert_eq!(first.scope, "contacts.read calendar.read");

    stage
        .ask(&partner, &["contacts.read", "matters.read"], "state-2")
        .await;
    assert_eq!(
        browser.texts(".change").await,
        [
            "It asks for more\nMarked as new below, and granted only if you tick it.\nmatters.read",
            "It no longer asks for\nIf you approve, this access ends.\ncalendar.read",
        ]
    );
    let marked = browser.see(".scope:has(.badge.new) code").await;
    assert_eq!(marked.text().await.unwrap(), "matters.read");
    let changes = browser.see(".changes").await.text().await.unwrap();
    assert!(
        changes.contains("1 January 2026") && changes.contains("API user 1"),
        "{changes}"
    );
    assert!(stage.is_ticked("contacts.read").await);
    assert!(!stage.is_ticked("matters.read").await);
    stage.approve().await;
    let received = stage.back_at_the_partner().await;
    let second = stage.redeem(&partner, &received).await;
    assert_eq!(second.scope, "contacts.read", "nobody ticked more");
    assert!(!stage.world.active(&first.access_token).await);
    stage.strike().await;
}

async fn texts_of_a_partner_are_shown_as_text() {
    let stage = Stage::set().await;
    let browser = &stage.browser;
    let hostile = Ask {
        partner_name: "<img src=x onerror=alert(1)> & Co",
        client_name: "</h1><script>document.title='owned'</script>",
        goals: "</blockquote><iframe src=javascript:alert(2)></iframe>\"'>{{ 7 * 7 }}&lt;b&gt;",
        scopes: &[(
            "contacts.read",
            "</bdi></p><form action=//evil.example><svg/onload=alert(3)>",
        )],
    };
    let state = "\"'><script>alert(4)</script>&code=stolen&#60;+%3D ~";
    let partner = stage.partner(hostile).await;
    stage.connect(&partner, &[], state).await;
    stage.sign_in().await;
    browser.arrive("asks for access").await;
    let shown = browser.text().await;
    for text in [
        hostile.partner_name,
        hostile.client_name,
        hostile.goals,
        hostile.scopes[0].1,
    ] {
        assert!(shown.contains(text), "{text} is not in {shown}");
    }
    assert!(nothing_came_alive(&stage).await);

    stage.site.stay_silent();
    stage.approve().await;
    browser.arrive("Taking you back").await;
    assert!(nothing_came_alive(&stage).await);
    let received = browser
        .until("at the partner", async |_| stage.site.received().pop())
        .await;
    assert_eq!(received.get("state"), state);
    assert!(received.get("code").starts_with("acc_"));
    stage.redeem(&partner, &received).await;

    browser.open(&stage.page("integrations")).await;
    browser.arrive("Connected integrations").await;
    assert!(browser.text().await.contains(hostile.client_name));
    assert!(nothing_came_alive(&stage).await);
    browser.press("</h1>").await;
    browser.arrive("</h1><script>").await;
    assert!(browser.text().await.contains(hostile.goals));
    assert!(nothing_came_alive(&stage).await);
    stage.strike().await;
}

/// Returns whether the page has only elements of its template, and its own title.
async fn nothing_came_alive(stage: &Stage) -> bool {
    let browser = &stage.browser;
    let alive = "return document.querySelectorAll('script, iframe, img, object, base, main svg, \
                 form:not([action^=\"/\"]), [onerror], [onload]').length";
    let title = browser.driver.title().await.unwrap();
    browser.evaluate(alive).await == 0 && title != "owned"
}

impl Stage {
    /// Returns whether the page has a scope ticked.
    async fn is_ticked(&self, name: &str) -> bool {
        let tick = self.browser.see(&scope(name)).await;
        tick.is_selected().await.unwrap()
    }
}

/// The box of a scope.
fn scope(name: &str) -> String {
    format!("[name='scope'][value='{name}']")
}

async fn a_popup_is_cut_from_its_opener_and_reports_by_a_channel() {
    let stage = Stage::set().await;
    let browser = &stage.browser;
    let partner = stage.partner(FILEHARBOUR).await;
    let url = stage.authorization_url(&partner, &[], "state-1");
    browser.open(&stage.site.popup_page(&url)).await;
    let page = browser.driver.window().await.unwrap();
    browser.press("Connect").await;
    let popup = browser
        .until("a popup is open", async |browser| {
            let windows = browser.driver.windows().await.unwrap();
            windows.into_iter().find(|window| *window != page)
        })
        .await;
    browser.driver.switch_to_window(popup).await.unwrap();
    browser.arrive("Sign in").await;
    stage.sign_in().await;
    browser.arrive("asks for access").await;
    stage.approve().await;
    let received = stage.back_at_the_partner().await;
    browser.driver.switch_to_window(page).await.unwrap();
    let told = browser
        .until("the page is told", async |browser| {
            let told = browser.evaluate("return window.told ?? null").await;
            (!told.is_null()).then_some(told)
        })
        .await;
    assert_eq!(told["opener"], false);
    let query = told["query"].as_str().unwrap();
    assert!(query.contains(received.get("code")), "{query}");
    stage.strike().await;
}
