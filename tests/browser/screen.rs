//! The screens that show the pages, and what is checked on each.
//!
//! Every picture goes to `target/screenshots`. With `ACCORD_TEST_KEEP_SCREENSHOTS=1`, the few that the README
//! shows are written to `docs/screenshots` too.

use std::path::{Path, PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;

use crate::harness::{axe::Axe, browser::Browser, document::file};

/// A screen, in CSS pixels.
struct Screen {
    name: &'static str,
    width: u32,
    height: u32,
    touch: bool,
}

const SCREENS: [Screen; 2] = [
    Screen {
        name: "phone",
        width: 390,
        height: 844,
        touch: true,
    },
    Screen {
        name: "desk",
        width: 1280,
        height: 900,
        touch: false,
    },
];
/// The narrowest that a page must fit, in CSS pixels (WCAG 2.2 criterion 1.4.10).
const NARROWEST: Screen = Screen {
    name: "narrowest",
    width: 320,
    height: 640,
    touch: true,
};
/// The pages that the README shows, by the name that they have there: on a phone, in light colours.
const KEPT: [(&str, &str); 3] = [
    ("sign-in-to-decide", "sign-in"),
    ("consent", "consent"),
    ("integrations", "integrations"),
];
const SCHEMES: [&str; 2] = ["light", "dark"];

/// Takes the screenshots and checks the pages.
pub struct Gallery {
    axe: Axe,
    directory: PathBuf,
    kept: Option<PathBuf>,
}

impl Gallery {
    /// The gallery for people to look at.
    pub fn open() -> Self {
        let keep = std::env::var("ACCORD_TEST_KEEP_SCREENSHOTS").is_ok_and(|value| value == "1");
        let mut gallery = Self::open_in(&file("target/screenshots"));
        gallery.kept = keep.then(|| file("docs/screenshots"));
        gallery
    }

    /// A gallery whose pictures go to `directory`.
    pub fn open_in(directory: &Path) -> Self {
        std::fs::create_dir_all(directory).unwrap();
        Self {
            axe: Axe::load(),
            directory: directory.to_owned(),
            kept: None,
        }
    }

    /// Asserts that nothing is wrong with the page that is shown.
    pub async fn look(&self, browser: &Browser, name: &str) {
        let wrong = self.faults(browser, name).await;
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    /// Returns what is wrong with the page that is shown, on every screen in every colour scheme.
    pub async fn faults(&self, browser: &Browser, name: &str) -> Vec<String> {
        let mut wrong = unexpected(browser.complaints().await);
        for screen in &SCREENS {
            for scheme in SCHEMES {
                emulate(browser, screen, scheme).await;
                let view = format!("{name}-{}-{scheme}", screen.name);
                picture(browser, None, &self.directory.join(format!("{view}.png"))).await;
                if screen.touch && scheme == "light" {
                    self.keep(browser, screen, name).await;
                }
                wrong.extend(sideways(browser).await.map(|why| format!("{view}: {why}")));
                let findings = self.axe.check(browser).await;
                assert!(
                    findings.passes.iter().any(|rule| rule == "color-contrast"),
                    "{view}"
                );
                let found = findings.violations.into_iter().chain(findings.incomplete);
                wrong.extend(found.map(|finding| format!("{view}: {finding}")));
            }
        }
        emulate(browser, &NARROWEST, "light").await;
        wrong.extend(
            sideways(browser)
                .await
                .map(|why| format!("{name}, 320 wide: {why}")),
        );
        browser
            .cdp("Emulation.clearDeviceMetricsOverride", json!({}))
            .await;
        browser
            .cdp("Emulation.setTouchEmulationEnabled", json!({"enabled": false}))
            .await;
        // Messages that axe-core itself caused are not the page's.
        browser.complaints().await;
        wrong
    }

    /// Writes the picture for the README, if the README shows this page and its pictures are to be written.
    async fn keep(&self, browser: &Browser, screen: &Screen, name: &str) {
        let kept = KEPT.iter().find(|(page, _)| *page == name);
        if let (Some(directory), Some((_, name))) = (&self.kept, kept) {
            std::fs::create_dir_all(directory).unwrap();
            picture(
                browser,
                Some((screen.width, screen.height)),
                &directory.join(format!("{name}.png")),
            )
            .await;
        }
    }
}

/// Writes a picture of as much as fits a width and a height in CSS pixels, or of the whole page.
pub async fn picture(browser: &Browser, size: Option<(u32, u32)>, path: &Path) {
    let metrics = browser.cdp("Page.getLayoutMetrics", json!({})).await;
    let whole = &metrics["cssContentSize"];
    let (width, height) = match size {
        Some((width, height)) => (json!(width), json!(height)),
        None => (whole["width"].clone(), whole["height"].clone()),
    };
    let parameters = json!({
        "format": "png",
        "captureBeyondViewport": true,
        "clip": {"x": 0, "y": 0, "width": width, "height": height, "scale": 1},
    });
    let answer = browser.cdp("Page.captureScreenshot", parameters).await;
    let picture = STANDARD.decode(answer["data"].as_str().unwrap()).unwrap();
    std::fs::write(path, picture).unwrap();
}

async fn emulate(browser: &Browser, screen: &Screen, scheme: &str) {
    let metrics = json!({
        "width": screen.width,
        "height": screen.height,
        "deviceScaleFactor": 1,
        "mobile": screen.touch,
    });
    browser.cdp("Emulation.setDeviceMetricsOverride", metrics).await;
    browser
        .cdp(
            "Emulation.setTouchEmulationEnabled",
            json!({"enabled": screen.touch}),
        )
        .await;
    let scheme = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
    browser.cdp("Emulation.setEmulatedMedia", scheme).await;
    browser.evaluate("scrollTo(0, 0)").await;
}

/// What makes the page wider than the screen, so that it has to be scrolled sideways.
async fn sideways(browser: &Browser) -> Option<String> {
    let script = "
        const width = document.documentElement.clientWidth;
        if (document.documentElement.scrollWidth <= width) return null;
        const wide = [...document.body.querySelectorAll('*')]
            .filter((element) => element.getBoundingClientRect().right > width + 0.5)
            .map((element) => element.outerHTML.slice(0, 120));
        return `${document.documentElement.scrollWidth} of ${width} pixels: ${wide.join(' | ')}`;";
    browser.evaluate(script).await.as_str().map(str::to_owned)
}

/// Returns the browser's complaints, without those about the status of an error page.
fn unexpected(complaints: Vec<String>) -> Vec<String> {
    let expected = |complaint: &String| {
        complaint.contains("the server responded with a status of 4") && !complaint.contains(".css")
    };
    complaints.into_iter().filter(|c| !expected(c)).collect()
}
