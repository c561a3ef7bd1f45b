//! A person at a slow network: clicks twice, goes back, lets a page wait, and has two tabs open.

use std::time::Duration;

use accord::{
    registry::v1::{self as reg, register_client_response::Credentials},
    token::v1 as tok,
};
use serde_json::json;

use super::stage::{FILEHARBOUR, Stage};
use crate::harness::partner::Partner;

tests!(
    a_second_click_gets_the_first_click_s_answer,
    a_second_click_on_a_link_s_button_gets_the_first_click_s_answer,
    choices_return_after_a_session_that_ended,
    of_two_tabs_the_older_one_signs_in_too,
);

impl Stage {
    /// Lets every request of the browser take 300 ms longer.
    async fn slow_network(&self) {
        self.browser.cdp("Network.enable", json!({})).await;
        let slow =
            json!({"offline": false, "latency": 300, "downloadThroughput": -1, "uploadThroughput": -1});
        self.browser.cdp("Network.emulateNetworkConditions", slow).await;
    }

    /// Clicks a button twice, 120 ms apart: while the first click's request is under way.
    async fn double_click(&self, css: &str) {
        self.browser.see(css).await;
        let twice = format!(
            "const button = document.querySelector({css:?}); button.click(); setTimeout(() => button.click(), 120)"
        );
        self.browser.evaluate(&twice).await;
    }

    async fn sign_in_with_two_clicks(&self) {
        let target = &self.world.target;
        self.browser
            .fill("account_name", &target.admin_account_name)
            .await;
        self.browser.fill("password", &target.admin_password).await;
        self.double_click("main button.primary").await;
        self.browser.arrive("asks for access").await;
    }
}

async fn a_second_click_gets_the_first_click_s_answer() {
    let stage = Stage::set().await;
    let browser = &stage.browser;
    let partner = stage.partner(FILEHARBOUR).await;
    stage.slow_network().await;

    stage.connect(&partner, &[], "state-1").await;
    stage.sign_in_with_two_clicks().await;
    let user = &stage.world.target.api_user_account_name;
    browser.fill("designated_account_name", user).await;
    stage.double_click("main button.primary").await;
    let received = stage.back_at_the_partner().await;
    let issued = stage.redeem(&partner, &received).await;
    assert!(stage.world.active(&issued.access_token).await);

    // Back at the page that was decided there is a way on.
    browser.open(&stage.page("integrations")).await;
    browser.arrive("Connected integrations").await;
    browser.press(FILEHARBOUR.client_name).await;
    browser.fill("account_name", user).await;
    stage
        .double_click("form[action$='/designated-user'] button")
        .await;
    browser.confirmed("API transactions now run").await;

    stage.connect(&partner, &[], "state-2").await;
    stage.sign_in_with_two_clicks().await;
    stage.double_click("button[form='deny']").await;
    let received = stage.back_at_the_partner().await;
    assert_eq!(
        (received.get("error"), received.get("state")),
        ("access_denied", "state-2")
    );

    browser.open(&stage.page("integrations")).await;
    browser.arrive("Connected integrations").await;
    stage.double_click(".session button").await;
    browser.confirmed("You are signed out").await;
    stage.strike().await;
}

async fn a_second_click_on_a_link_s_button_gets_the_first_click_s_answer() {
    let stage = Stage::set().await;
    let browser = &stage.browser;
    let registered = stage.register(FILEHARBOUR, reg::DeliveryMethod::Link).await;
    let Some(Credentials::DeliveryLink(link)) = registered.credentials else {
        panic!("no link");
    };
    stage.slow_network().await;
    browser.open(&link.url).await;
    stage.double_click("main button.primary").await;
    let secret = browser.value("#client_secret").await;
    // A reload posts the form again.
    browser.driver.refresh().await.unwrap();
    assert_eq!(browser.value("#client_secret").await, secret);
    let partner = Partner {
        client_id: registered.client.unwrap().client_id,
        client_secret: secret,
    };

    let name = "grace.admin@demo-firm.example";
    let password = "correct horse battery staple";
    browser.open(&stage.enrolment_link(name).await).await;
    browser.fill("password", password).await;
    browser.fill("password_again", password).await;
    stage.double_click("main button.primary").await;
    browser.arrive("Your password is set").await;
    stage.connect(&partner, &[], "state-1").await;
    stage.sign_in_as(name, password).await;
    browser.arrive("asks for access").await;
    stage.strike().await;
}

async fn choices_return_after_a_session_that_ended() {
    let stage = Stage::set().await;
    let browser = &stage.browser;
    let partner = stage.partner(FILEHARBOUR).await;
    stage.ask(&partner, &[], "state-1").await;
    for scope in ["matters.read", "calendar.read"] {
        browser.click(&format!("[name='scope'][value='{scope}']")).await;
    }
    stage.clock.advance(Duration::from_secs(16 * 60));
    stage.approve().await;
    browser.arrive("Sign in").await;
    stage.sign_in().await;
    browser.arrive("asks for access").await;
    let ticked = browser.all("[name='scope']:checked").await;
    assert_eq!(ticked.len(), 1, "an unticked scope does not come back");
    let user = browser.value("[name='designated_account_name']").await;
    assert_eq!(user, stage.world.target.api_user_account_name);
    browser.press("Approve access").await;
    let received = stage.back_at_the_partner().await;
    let issued: tok::IssueTokenResponse = stage.redeem(&partner, &received).await;
    assert_eq!(issued.scope, "contacts.read");

    // The pages before it show nothing that could be decided again.
    let until_decided = "the page says that it was decided";
    browser
        .until(until_decided, async |browser| {
            browser.driver.back().await.unwrap();
            let text = browser.text().await;
            text.contains("approved already").then_some(())
        })
        .await;
    browser.press("Go on from here").await;
    browser.arrive("Connected integrations").await;
    stage.strike().await;
}

async fn of_two_tabs_the_older_one_signs_in_too() {
    let stage = Stage::set().await;
    let browser = &stage.browser;
    let partner = stage.partner(FILEHARBOUR).await;
    stage.connect(&partner, &[], "state-1").await;
    let (first, page) = (
        browser.driver.window().await.unwrap(),
        browser.driver.current_url().await.unwrap(),
    );
    // As if both had been opened at once: the second one's cookie replaces the first one's.
    browser.driver.delete_all_cookies().await.unwrap();
    let second = browser.driver.new_tab().await.unwrap();
    browser.driver.switch_to_window(second).await.unwrap();
    browser.open(page.as_str()).await;
    browser.arrive("Sign in").await;
    browser.driver.switch_to_window(first).await.unwrap();
    stage.sign_in().await;
    browser.confirmed("Nothing was changed").await;
    let name = &stage.world.target.admin_account_name;
    assert_eq!(browser.value("[name='account_name']").await, *name);
    assert_eq!(browser.value("[name='password']").await, "");
    stage.sign_in().await;
    browser.arrive("asks for access").await;
    stage.strike().await;
}
