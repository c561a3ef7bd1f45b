//! The pages need neither mouse nor JavaScript, and are not shown in a foreign frame.

use serde_json::json;
use thirtyfour::Key;

use super::stage::{FILEHARBOUR, Stage};

tests!(
    the_keyboard_alone_is_enough,
    a_setup_needs_no_javascript,
    no_page_is_shown_in_a_foreign_frame,
);

async fn the_keyboard_alone_is_enough() {
    let stage = Stage::set().await;
    let (browser, target) = (&stage.browser, &stage.world.target);
    let partner = stage.partner(FILEHARBOUR).await;
    let url = stage.authorization_url(&partner, &["contacts.read", "matters.read"], "state-1");
    browser.open(url.as_str()).await;
    browser.arrive("Sign in").await;

    // The first stop is the link that skips the repeated parts.
    browser.key(Key::Tab).await;
    let skip = browser.driver.active_element().await.unwrap();
    assert_eq!(skip.attr("href").await.unwrap().as_deref(), Some("#main"));
    browser.key(Key::Enter).await;
    let focused = browser.driver.active_element().await.unwrap();
    assert_eq!(focused.attr("id").await.unwrap().as_deref(), Some("main"));

    tab_to(&stage, "[name='account_name']").await;
    browser.type_text(&target.admin_account_name).await;
    tab_to(&stage, "[name='password']").await;
    browser.type_text(&target.admin_password).await;
    browser.key(Key::Enter).await;
    browser.arrive("asks for access").await;

    tab_to(&stage, "[name='scope'][value='matters.read']").await;
    browser.key(Key::Space).await;
    tab_to(&stage, "[name='designated_account_name']").await;
    browser.type_text(&target.api_user_account_name).await;
    tab_to(
        &stage,
        "form[action$='/approve'] button[type='submit']:not([form])",
    )
    .await;
    browser.key(Key::Enter).await;
    let received = stage.back_at_the_partner().await;
    assert_eq!(stage.redeem(&partner, &received).await.scope, "contacts.read");
    stage.strike().await;
}

/// Presses Tab until the focus is on the selected element. The element must be visible, with a mark of the focus.
async fn tab_to(stage: &Stage, css: &str) {
    let browser = &stage.browser;
    let script = format!("return document.activeElement.matches({})", json!(css));
    for _ in 0..40 {
        browser.key(Key::Tab).await;
        if browser.evaluate(&script).await == true {
            let mark = "const style = getComputedStyle(document.activeElement);
                return parseFloat(style.outlineWidth) >= 2 && style.outlineStyle !== 'none'
                    || style.boxShadow !== 'none'";
            assert_eq!(
                browser.evaluate(mark).await,
                true,
                "no mark of the focus on {css}"
            );
            let in_view = "const box = document.activeElement.getBoundingClientRect();
                return box.bottom > 0 && box.top < innerHeight && box.width > 0";
            assert_eq!(browser.evaluate(in_view).await, true, "{css} is out of sight");
            return;
        }
    }
    panic!("the Tab key never reaches {css}");
}

async fn a_setup_needs_no_javascript() {
    let stage = Stage::set().await;
    let browser = &stage.browser;
    let partner = stage.partner(FILEHARBOUR).await;
    browser
        .cdp("Emulation.setScriptExecutionDisabled", json!({"value": true}))
        .await;
    browser
        .open("data:text/html,<p id=p>off</p><script>p.textContent='on'</script>")
        .await;
    assert_eq!(browser.text().await, "off", "scripts are still run");

    let issued = stage.connected(&partner, &[]).await;
    assert!(stage.world.active(&issued.access_token).await);
    browser.open(&stage.page("integrations")).await;
    browser.press(FILEHARBOUR.client_name).await;
    browser.press("Revoke access…").await;
    browser.press("Revoke access now").await;
    browser.confirmed("revoked").await;
    assert!(!stage.world.active(&issued.access_token).await);
    stage.strike().await;
}

async fn no_page_is_shown_in_a_foreign_frame() {
    let stage = Stage::set().await;
    let browser = &stage.browser;
    assert_eq!(
        framed(&stage, &stage.site.harmless_page()).await,
        "A page that may be framed"
    );

    let partner = stage.partner(FILEHARBOUR).await;
    stage.ask(&partner, &[], "state-1").await;
    let consent = browser.driver.current_url().await.unwrap();
    let authorize = stage.authorization_url(&partner, &[], "state-2");
    let enrolment = stage.enrolment_link("grace.admin@demo-firm.example").await;
    for page in [
        consent.as_str(),
        authorize.as_str(),
        &enrolment,
        &stage.page("sign-in"),
        &stage.page("integrations"),
        &stage.page("no-such-page"),
    ] {
        let shown = framed(&stage, page).await;
        assert!(
            !shown.contains("Sign in") && !shown.contains("Demo Firm"),
            "{page}: {shown}"
        );
        let place = browser.evaluate("return location.href").await;
        assert_eq!(place, "chrome-error://chromewebdata/", "{page}: {shown}");
    }
    stage.strike().await;
}

/// Returns what a frame in a foreign page shows. The browser is in the frame afterwards.
async fn framed(stage: &Stage, url: &str) -> String {
    let browser = &stage.browser;
    browser.open(&stage.site.framing_page(url)).await;
    browser.see("iframe").await.enter_frame().await.unwrap();
    browser.text().await
}
