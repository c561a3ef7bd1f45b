//! Tables for people: ratios first.

use super::Row;

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

/// A line for each case.
pub fn rows(rows: &[Row]) -> String {
    let mut lines = vec![HEAD.map(str::to_owned)];
    lines.extend(rows.iter().map(line));
    layout(&lines)
}

fn line(row: &Row) -> [String; 14] {
    let some = |value: Option<f64>, digits: usize| {
        value.map_or_else(String::new, |value| format!("{value:.digits$}"))
    };
    [
        row.case.clone(),
        row.database.unwrap_or_default().to_owned(),
        some(row.ratio, 3),
        some(row.limit, 2),
        row.met
            .map_or("", |met| if met { "yes" } else { "NO" })
            .to_owned(),
        row.against.unwrap_or_default().to_owned(),
        format!("{:.0}", row.per_second),
        format!("{:.2}", row.p50_ms),
        format!("{:.2}", row.p99_ms),
        format!("{:.2}", row.p999_ms),
        format!("{:.1}", row.memory as f64 / (1024.0 * 1024.0)),
        format!("{:.0}", row.cpu_server_us),
        some(row.cpu_registry_us, 0),
        some(row.cpu_database_us, 0),
    ]
}

/// Columns as wide as they need to be; the first two to the left, numbers to the right.
fn layout<const N: usize>(lines: &[[String; N]]) -> String {
    let width = |column: usize| {
        lines
            .iter()
            .map(|line| line[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for line in lines {
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
