//! Alert rules, and the runbook that they lead to.

use std::{
    collections::BTreeSet,
    io::Write,
    process::{Command, Stdio},
};

use accord::testing;

use super::scrape::scrapes;
use crate::{
    demo::walk,
    harness::{document::file, services::Services},
};

tests!(
    scrapes_follow_the_conventions_of_prometheus,
    each_alert_fires_when_it_should_and_not_before,
    each_alert_has_a_test_and_an_entry_in_the_runbook,
);

/// Returns the texts after a key at the beginning of lines.
fn values(text: &str, key: &str) -> BTreeSet<String> {
    let lines = text
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix(key));
    lines.map(|value| value.trim().to_owned()).collect()
}

async fn each_alert_fires_when_it_should_and_not_before() {
    for arguments in [
        ["check", "rules", "alerts.yml"],
        ["check", "config", "prometheus.yml"],
        ["test", "rules", "alerts_test.yml"],
    ] {
        let mut promtool = Command::new("promtool");
        let output = promtool
            .args(arguments)
            .current_dir(file("deploy/prometheus"))
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
        assert!(output.status.success(), "{arguments:?}: {}", said.concat());
    }
}

async fn scrapes_follow_the_conventions_of_prometheus() {
    let (registry, token) = (testing::sqlite(), testing::sqlite());
    let mut services = Services::start(&registry.url, &token.url).await;
    walk(&services.target).await;
    for scrape in scrapes(&mut services).await {
        let mut promtool = Command::new("promtool");
        let promtool = promtool.args(["check", "metrics"]).stdin(Stdio::piped());
        let mut promtool = promtool
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        promtool
            .stdin
            .take()
            .unwrap()
            .write_all(scrape.as_bytes())
            .unwrap();
        let output = promtool.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
        assert!(output.status.success(), "{}", said.concat());
    }
}

async fn each_alert_has_a_test_and_an_entry_in_the_runbook() {
    let read = |path: &str| std::fs::read_to_string(file(path)).unwrap();
    let rules = read("deploy/prometheus/alerts.yml");
    let alerts = values(&rules, "- alert: ");
    assert!(alerts.len() >= 15, "{alerts:?}");
    let tests = values(&read("deploy/prometheus/alerts_test.yml"), "- name: ");
    for alert in &alerts {
        for test in ["fires", "stays quiet"] {
            assert!(tests.contains(&format!("{alert} {test}")), "{alert} {test}");
        }
        let anchor = format!("runbook: docs/OPERATIONS.md#{}", alert.to_lowercase());
        assert!(rules.contains(&anchor), "{anchor}");
    }
    let runbook = values(&read("docs/OPERATIONS.md"), "#### Accord");
    let expected: BTreeSet<_> = alerts
        .iter()
        .map(|alert| alert.replacen("Accord", "", 1))
        .collect();
    assert_eq!(runbook, expected);
}
