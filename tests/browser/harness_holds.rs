//! The means of these tests themselves: that they can fail.

use crate::harness::{axe::Axe, browser::Browser};

#[tokio::test(flavor = "multi_thread")]
async fn axe_finds_what_is_wrong_with_a_page() {
    let (Some(axe), Some(browser)) = (Axe::find(), Browser::start().await) else {
        return;
    };
    let page = "<!doctype html><html><title>x</title><style>p{color:%23999;background:%23aaa}</style>\
                <p>hardly legible<form><input name=q></form>";
    browser.open(&format!("data:text/html,{page}")).await;
    let findings = axe.check(&browser).await;
    let all = findings.violations.join("\n");
    for rule in [
        "color-contrast",
        "html-has-lang",
        "label",
        "page-has-heading-one",
        "region",
    ] {
        assert!(all.contains(&format!("{rule}: ")), "{rule} is not in\n{all}");
    }
    browser.quit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_that_nobody_holds_leaves_nothing() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let directory = browser.directory().to_owned();
    let capabilities = browser.driver.capabilities();
    let process = capabilities.get("goog:processID").unwrap().as_u64().unwrap();
    let running = || {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        !status.is_empty() && !status.contains("State:\tZ") && !status.contains("State:\tX")
    };
    assert!(running() && directory.exists());
    // As in a test that panics.
    let dropped = tokio::task::spawn_blocking(move || drop(browser));
    dropped.await.unwrap();
    assert!(!running() && !directory.exists());
}
