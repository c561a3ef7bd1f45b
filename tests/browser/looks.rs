//! Every page on every screen: phone and desktop, light and dark. axe-core checks each page, it must fit the screen,
//! and a screenshot goes to `target/screenshots` for people to look at.

use std::time::Duration;

use accord::registry::v1::{self as reg, register_client_response::Credentials};

use super::{
    screen::Gallery,
    stage::{Ask, FILEHARBOUR, Stage},
};

tests!(
    pages_of_a_setup_look_right,
    pages_of_the_tenant_look_right,
    pages_of_one_time_links_look_right,
);

/// Another integration, whose names and texts are long.
const LEDGERLINE: Ask<'_> = Ask {
    partner_name: "Ledgerline Rechnungslegungs- und Zeiterfassungssysteme Aktiengesellschaft",
    client_name: "Ledgerline Time Recording and Invoicing for Professional Services Firms",
    goals: "Record the time spent on each matter from the calendar, and prepare invoices at the end of the \
            month.\n\nThe integration reads deadlines and appointments, proposes a time entry for each of \
            them, and leaves the decision to the person who did the work. Nothing is sent to a client \
            without approval. See https://ledgerline.example/help/integrations/time-recording-and-invoicing \
            for what is stored where, and for how long.",
    scopes: &[
        (
            "calendar.read",
            "To propose a time entry for each appointment, with the matter that the appointment belongs to.",
        ),
        ("matters.read", "To put each time entry on the right matter."),
        ("contacts.read", "To address the invoices."),
    ],
};

async fn pages_of_a_setup_look_right() {
    let (gallery, stage) = (Gallery::open(), Stage::set().await);
    let browser = &stage.browser;
    let look = async |name: &str| gallery.look(browser, name).await;
    let unknown = stage.page("oauth2/authorize?client_id=cli_01k9zzzzzzzzzzzzzzzzzzzzzz");
    browser.open(&unknown).await;
    browser.arrive("This link does not work").await;
    look("error").await;

    stage.site.stay_silent();
    let partner = stage.partner(FILEHARBOUR).await;
    let first = ["contacts.read", "calendar.read"];
    browser
        .open(stage.authorization_url(&partner, &first, "state-1").as_str())
        .await;
    browser.arrive("Sign in").await;
    look("sign-in-to-decide").await;
    stage.sign_in().await;
    browser.arrive("asks for access").await;
    look("consent").await;
    for scope in first {
        browser.click(&format!("[name='scope'][value='{scope}']")).await;
    }
    browser
        .fill("designated_account_name", "nobody@demo-firm.example")
        .await;
    browser.press("Approve access").await;
    browser.see("#scopes-error").await;
    look("consent-no-scope").await;
    for scope in first {
        browser.click(&format!("[name='scope'][value='{scope}']")).await;
    }
    browser.press("Approve access").await;
    browser.see("#designated_account_name-error").await;
    look("consent-unknown-user").await;
    stage.approve().await;
    browser.arrive("Taking you back").await;
    look("leaving-approved").await;
    let received = browser
        .until("at the partner", async |_| stage.site.received().pop())
        .await;
    stage.redeem(&partner, &received).await;

    let second = stage.authorization_url(&partner, &["contacts.read", "matters.read"], "state-2");
    browser.open(second.as_str()).await;
    stage.sign_in().await;
    browser.arrive("asks for access").await;
    let decided = browser.driver.current_url().await.unwrap();
    look("consent-changes").await;
    browser.press("Deny").await;
    browser.arrive("Taking you back").await;
    look("leaving-denied").await;
    browser.open(decided.as_str()).await;
    browser.arrive("This request was denied already").await;
    look("denied-already").await;

    let partner = stage.partner(LEDGERLINE).await;
    let url = stage.authorization_url(&partner, &[], "state-3");
    browser.open(url.as_str()).await;
    stage.sign_in().await;
    browser.arrive("asks for access").await;
    look("consent-long").await;
    stage.strike().await;
}

async fn pages_of_the_tenant_look_right() {
    let (gallery, stage) = (Gallery::open(), Stage::set().await);
    let browser = &stage.browser;
    let look = async |name: &str| gallery.look(browser, name).await;
    browser.open(&stage.page("sign-in")).await;
    look("sign-in").await;
    stage
        .sign_in_as("nobody@demo-firm.example", "not the password of anyone")
        .await;
    browser.see("[role='alert']").await;
    look("sign-in-failed").await;
    stage.sign_in().await;
    browser.arrive("Connected integrations").await;
    look("integrations-none").await;

    // One whose partner has not redeemed its code yet, and one in use.
    let partner = stage.partner(LEDGERLINE).await;
    stage.ask(&partner, &[], "state-1").await;
    stage.approve().await;
    stage.back_at_the_partner().await;
    stage.clock.advance(Duration::from_secs(10 * 60));
    let partner = stage.partner(FILEHARBOUR).await;
    stage.connected(&partner, &[]).await;
    browser.open(&stage.page("integrations")).await;
    browser.arrive("Connected integrations").await;
    look("integrations").await;
    browser.press(FILEHARBOUR.client_name).await;
    browser.see("#account_name").await;
    look("integration").await;
    browser.fill("account_name", "nobody@demo-firm.example").await;
    browser.press("Change the user").await;
    browser.see("#account_name-error").await;
    look("integration-unknown-user").await;
    browser.press("Revoke access…").await;
    look("integration-revoking").await;
    browser.press("Revoke access now").await;
    browser.confirmed("revoked").await;
    look("integration-revoked").await;
    browser.open(&stage.page("integrations")).await;
    browser.press("What operators did").await;
    browser.arrive("What operators did").await;
    look("operator-actions").await;
    browser.press("Sign out").await;
    browser.confirmed("signed out").await;
    look("signed-out").await;
    stage.connected(&partner, &[]).await;
    stage.clock.advance(Duration::from_secs(90 * 24 * 3600));
    browser.open(&stage.page("integrations")).await;
    stage.sign_in().await;
    browser.arrive("Connected integrations").await;
    browser.see(".badge.unused").await;
    look("integrations-unused").await;
    stage.strike().await;
}

async fn pages_of_one_time_links_look_right() {
    let (gallery, stage) = (Gallery::open(), Stage::set().await);
    let browser = &stage.browser;
    let look = async |name: &str| gallery.look(browser, name).await;
    let choose = async |password: &str, again: &str| {
        browser.fill("password", password).await;
        browser.fill("password_again", again).await;
        browser.press("Set the password").await;
    };
    let link = stage.enrolment_link("grace.admin@demo-firm.example").await;
    browser.open(&link).await;
    browser.arrive("Choose your password").await;
    look("enrolment").await;
    choose("correct horse battery staple", "correct horse battery stable").await;
    browser.see("[role='alert']").await;
    look("enrolment-errors").await;
    choose("correct horse battery staple", "correct horse battery staple").await;
    browser.arrive("Your password is set").await;
    look("enrolled").await;

    let registered = stage.register(FILEHARBOUR, reg::DeliveryMethod::Link).await;
    let Some(Credentials::DeliveryLink(link)) = registered.credentials else {
        panic!("no link");
    };
    browser.open(&link.url).await;
    browser.arrive("Your client credentials").await;
    look("claim").await;
    browser.press("Show the credentials").await;
    browser.see("#client_secret").await;
    look("claimed").await;
    // For a minute the same browser would see them again.
    stage.clock.advance(std::time::Duration::from_secs(60));
    browser.open(&link.url).await;
    browser.press("Show the credentials").await;
    browser.arrive("This link was opened already").await;
    look("claimed-already").await;
    stage.strike().await;
}
