//! The screens that pages are looked at on, and what must hold on each.

use std::path::{Path, PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;

use crate::harness::{axe::Axe, browser::Browser};

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
const SCHEMES: [&str; 2] = ["light", "dark"];

/// Takes the screenshots, and checks what is on them.
pub struct Gallery {
    axe: Axe,
    directory: PathBuf,
}

impl Gallery {
    /// `None` without axe-core.
    pub fn open() -> Option<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let directory = root.join("target/screenshots");
        let axe = Axe::find()?;
        std::fs::create_dir_all(&directory).unwrap();
        Some(Self { axe, directory })
    }

    /// Looks at the page that is shown, on every screen in every scheme.
    pub async fn look(&self, browser: &Browser, name: &str) {
        let mut wrong = unexpected(browser.complaints().await);
        for screen in &SCREENS {
            for scheme in SCHEMES {
                emulate(browser, screen, scheme).await;
                let view = format!("{name}-{}-{scheme}", screen.name);
                self.take(browser, &view).await;
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
        // What axe-core's own work made the browser say is not the page's.
        browser.complaints().await;
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    /// Writes a picture of the whole page, also of what has to be scrolled to.
    async fn take(&self, browser: &Browser, view: &str) {
        let metrics = browser.cdp("Page.getLayoutMetrics", json!({})).await;
        let size = &metrics["cssContentSize"];
        let parameters = json!({
            "format": "png",
            "captureBeyondViewport": true,
            "clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1},
        });
        let answer = browser.cdp("Page.captureScreenshot", parameters).await;
        let picture = STANDARD.decode(answer["data"].as_str().unwrap()).unwrap();
        std::fs::write(self.directory.join(format!("{view}.png")), picture).unwrap();
    }
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

/// What the browser complained about, without the status of a page that says what went wrong.
fn unexpected(complaints: Vec<String>) -> Vec<String> {
    let expected = |complaint: &String| {
        complaint.contains("the server responded with a status of 4") && !complaint.contains(".css")
    };
    complaints.into_iter().filter(|c| !expected(c)).collect()
}
