//! axe-core, run in the page that a browser shows: it finds what excludes people who can't see the page or can't use a
//! mouse.

use serde_json::Value;

use super::{browser::Browser, suite};

/// The rules, by the standards they come from.
const TAGS: [&str; 6] = [
    "wcag2a",
    "wcag2aa",
    "wcag21a",
    "wcag21aa",
    "wcag22aa",
    "best-practice",
];

/// Checks the page and returns the violations. The rule on the size of targets is off by default.
const CHECK: &str = r"
const done = arguments[arguments.length - 1];
const options = {
    runOnly: { type: 'tag', values: arguments[0] },
    rules: { 'target-size': { enabled: true } },
};
axe.run(document, options).then(
    (results) => done({
        passes: results.passes.map((rule) => rule.id),
        violations: results.violations,
        incomplete: results.incomplete,
    }),
    (error) => done({ error: String(error) }),
);
";

/// The script of axe-core.
pub struct Axe {
    source: String,
}

/// The result of a run.
pub struct Findings {
    /// The rules that applied and passed.
    pub passes: Vec<String>,
    /// The violations, one line each: rule, remedy, element.
    pub violations: Vec<String>,
    /// What axe-core could not decide, in the same form.
    pub incomplete: Vec<String>,
}

impl Axe {
    /// Reads the script that `.ci/run` fetched.
    pub fn load() -> Self {
        let source = std::fs::read_to_string(suite::axe()).unwrap();
        Self { source }
    }

    /// Runs every rule on the page as it is shown now.
    pub async fn check(&self, browser: &Browser) -> Findings {
        let driver = &browser.driver;
        if browser.evaluate("return typeof axe").await != "object" {
            driver.execute(self.source.as_str(), Vec::new()).await.unwrap();
        }
        let tags = serde_json::json!(TAGS);
        let answer = driver.execute_async(CHECK, vec![tags]).await.unwrap();
        let answer = answer.json();
        assert!(answer["error"].is_null(), "{answer}");
        let passes = answer["passes"].as_array().unwrap();
        assert!(!passes.is_empty(), "no rule was checked: {answer}");
        Findings {
            passes: passes.iter().map(text).collect(),
            violations: lines(&answer["violations"]),
            incomplete: lines(&answer["incomplete"]),
        }
    }
}

fn lines(rules: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for rule in rules.as_array().unwrap() {
        for node in rule["nodes"].as_array().unwrap() {
            lines.push(format!(
                "{}: {} at {}\n    {}",
                text(&rule["id"]),
                text(&rule["help"]),
                node["target"],
                text(&node["failureSummary"]).replace('\n', "\n    "),
            ));
        }
    }
    lines
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
