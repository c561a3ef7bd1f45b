//! A new Tenant Admin chooses a password by the one-time link, and signs in with it.

use super::stage::Stage;

tests!(an_admin_chooses_a_password_and_signs_in_with_it,);

const PASSWORD: &str = "correct horse battery staple";

async fn an_admin_chooses_a_password_and_signs_in_with_it() {
    let stage = Stage::set().await;
    let browser = &stage.browser;
    let name = "grace.admin@demo-firm.example";
    let link = stage.enrolment_link(name).await;
    // Mail scanners open links.
    for _ in 0..2 {
        browser.open(&link).await;
        browser.arrive("Choose your password").await;
    }

    choose(&stage, PASSWORD, "correct horse battery stable").await;
    let error = browser.see("[role='alert']").await.text().await.unwrap();
    assert!(error.contains("not the same"), "{error}");
    assert_eq!(
        browser.see("#password").await.value().await.unwrap().as_deref(),
        Some("")
    );

    // Too short by one: the browser itself does not send it.
    choose(&stage, "fourteen chars", "fourteen chars").await;
    let valid = "return document.getElementById('password').checkValidity()";
    assert_eq!(browser.evaluate(valid).await, false);

    choose(&stage, PASSWORD, PASSWORD).await;
    browser.arrive("Your password is set").await;
    browser.press("Sign in").await;
    browser.arrive("Sign in").await;
    stage.sign_in_as(name, PASSWORD).await;
    browser.arrive("Connected integrations").await;
    browser.press("Sign out").await;
    browser.arrive("Sign in").await;
    assert!(browser.text().await.contains("You are signed out."));
    browser.open(&stage.page("integrations")).await;
    browser.arrive("Sign in").await;

    // The link has ended.
    browser.open(&link).await;
    browser.arrive("Choose your password").await;
    choose(
        &stage,
        "an entirely different password",
        "an entirely different password",
    )
    .await;
    browser.arrive("This link was used already").await;
    assert!(browser.text().await.contains("1 January 2026, 00:00 UTC"));
    stage.strike().await;
}

async fn choose(stage: &Stage, password: &str, again: &str) {
    stage.browser.fill("password", password).await;
    stage.browser.fill("password_again", again).await;
    stage.browser.press("Set the password").await;
}
