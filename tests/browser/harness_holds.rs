//! The checks of the browser tests themselves: that they can fail.

use super::screen::Gallery;
use crate::harness::{axe::Axe, browser::Browser};

tests!(
    axe_finds_what_is_wrong_with_a_page,
    a_page_that_does_not_fit_or_breaks_its_policy_is_reported,
    a_dropped_browser_leaves_nothing_behind,
);

async fn axe_finds_what_is_wrong_with_a_page() {
    let (axe, browser) = (Axe::load(), Browser::start().await);
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

async fn a_page_that_does_not_fit_or_breaks_its_policy_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let (gallery, browser) = (Gallery::open_in(directory.path()), Browser::start().await);
    let page = "<!doctype html><html lang=en><title>x</title>\
                <meta name=viewport content='width=device-width, initial-scale=1'>\
                <meta http-equiv=Content-Security-Policy content=\"style-src 'none'\">\
                <main><h1>x</h1><p style='color: red'>red</p><pre>";
    let long = "not-broken-".repeat(8);
    browser
        .open(&format!("data:text/html,{page}{long}</pre></main>"))
        .await;
    let faults = gallery.faults(&browser, "bad").await.join("\n");
    for fault in ["Content Security Policy", "bad-phone-dark: ", "bad, 320 wide: "] {
        assert!(faults.contains(fault), "{fault} is not in\n{faults}");
    }
    assert!(!faults.contains("bad-desk-light: "), "there it fits: {faults}");
    assert!(directory.path().join("bad-desk-dark.png").exists());
    browser.quit().await;
}

async fn a_dropped_browser_leaves_nothing_behind() {
    let browser = Browser::start().await;
    let directory = browser.directory().to_owned();
    let capabilities = browser.driver.capabilities();
    let chromium = capabilities.get("goog:processID").unwrap().as_u64().unwrap();
    let chromedriver = field(chromium, "PPid").unwrap().parse().unwrap();
    assert_eq!(field(chromedriver, "Name").as_deref(), Some("chromedriver"));
    assert!(is_running(chromium) && is_running(chromedriver) && directory.exists());
    // As in a process that is killed: the session is not ended.
    browser.driver.clone().leak().unwrap();
    let dropped = tokio::task::spawn_blocking(move || drop(browser));
    dropped.await.unwrap();
    assert!(!is_running(chromium) && !is_running(chromedriver) && !directory.exists());
}

fn is_running(process: u64) -> bool {
    field(process, "State").is_some_and(|state| !state.starts_with(['Z', 'X']))
}

/// Returns a field of a process's status; `None` if the process does not exist.
fn field(process: u64, name: &str) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let mut fields = status.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = fields.find(|(given, _)| *given == name)?;
    Some(value.trim().to_owned())
}
