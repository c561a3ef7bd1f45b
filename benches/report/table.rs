//! Tables for people: ratios first.

use super::results::{Finding, Row};

/// A line for each case.
pub fn rows(rows: &[Row]) -> String {
    const HEAD: [&str; 14] = [
        "case",
        "database",
        "ratio",
        "limit",
        "met",
        "against",
        "per second",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "MiB",
        "CPU µs",
        "registry",
        "database",
    ];
    let line = |row: &Row| {
        [
            row.case.clone(),
            row.database.unwrap_or_default().to_owned(),
            number(row.ratio, 3),
            number(row.limit, 2),
            yes_or_no(row.met),
            row.against.unwrap_or_default().to_owned(),
            number(Some(row.per_second), 0),
            number(Some(row.p50_ms), 2),
            number(Some(row.p99_ms), 2),
            number(Some(row.p999_ms), 2),
            number(Some(row.memory), 1),
            number(Some(row.cpu_server_us), 0),
            number(row.cpu_registry_us, 0),
            number(row.cpu_database_us, 0),
        ]
    };
    layout(HEAD, rows.iter().map(line))
}

/// A line for each figure with a limit of its own.
pub fn findings(findings: &[Finding]) -> String {
    let line = |finding: &Finding| {
        [
            finding.what.clone(),
            finding.database.to_owned(),
            number(Some(finding.value), 1),
            number(finding.limit, 1),
            yes_or_no(finding.met),
        ]
    };
    layout(
        ["figure", "database", "value", "limit", "met"],
        findings.iter().map(line),
    )
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(String::new, |value| format!("{value:.digits$}"))
}

fn yes_or_no(met: Option<bool>) -> String {
    met.map_or("", |met| if met { "yes" } else { "NO" }).to_owned()
}

/// Columns as wide as they need to be; the first two to the left, numbers to the right.
fn layout<const N: usize>(head: [&str; N], rest: impl Iterator<Item = [String; N]>) -> String {
    let mut lines = vec![head.map(str::to_owned)];
    lines.extend(rest);
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max();
    let widths: Vec<usize> = (0..N).filter_map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let cells = line
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(column, (cell, &width))| {
                if column < 2 {
                    format!("{cell:<width$}")
                } else {
                    format!("{cell:>width$}")
                }
            });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}
