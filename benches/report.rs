//! Tables for people, in Markdown, and a file with every sample. Nothing here fails a run: figures are for
//! people to judge, or for `--judge`.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    iter,
    path::Path,
    thread,
    time::Instant,
};

use anyhow::{Context, Result};
use serde_json::json;

use crate::{
    options::Options,
    protocol::{CALLERS, Sample},
    results::{Figure, Results, Series},
};

/// How often a page is made durable, to see how long that takes.
const SYNCS: u32 = 200;

/// Prints the tables, and writes the file.
pub fn write(machine: &str, options: &Options, results: &Results, directory: &Path) -> Result<()> {
    let (rounds, seconds) = (options.rounds(), options.span().as_secs_f64());
    let (clients, optimised) = (options.active(), !cfg!(debug_assertions));
    let method = format!(
        "{rounds} rounds, slices of {seconds} s, {CALLERS} callers, {clients} clients, optimised: {optimised}"
    );
    println!("{machine}\n{method}");
    let head = "figure|database|of|value|quartiles|limit|met";
    table(head, results.figures.iter().map(figure));
    println!("\nCPU is in microseconds for each answer: server, registry-service, database processes.");
    let head = "case|database|of|per second|p50 ms|p99 ms|p99.9 ms|MiB|CPU|registry|database";
    table(head, results.series.iter().map(median));
    let json = directory.join("issuance.json");
    let file = File::create(&json).with_context(|| json.display().to_string())?;
    let report = json!({"machine": machine, "method": method, "results": results});
    serde_json::to_writer(BufWriter::new(file), &report)?;
    println!("\nEvery sample: {}", json.display());
    Ok(())
}

/// Describes the machine before it is busy: figures say nothing without it.
pub fn machine(directory: &Path) -> Result<String> {
    let load = fs::read_to_string("/proc/loadavg")?;
    let load = load.split(' ').next().unwrap_or_default();
    let cores = thread::available_parallelism()?;
    let mut file = File::create(directory.join("fdatasync"))?;
    let started = Instant::now();
    for _ in 0..SYNCS {
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
    }
    let fdatasync = started.elapsed() / SYNCS;
    Ok(format!(
        "{cores} cores, load before: {load}, fdatasync: {fdatasync:?}"
    ))
}

fn figure(figure: &Figure) -> String {
    let (what, database, name, value) = (&figure.what, figure.database, &figure.name, figure.value);
    let spread = figure
        .quartiles
        .map(|[low, high]| format!("{low:.3} to {high:.3}"));
    let (spread, limit) = (
        spread.unwrap_or_default(),
        figure.limit.map(|limit| limit.check(value)),
    );
    let (limit, met) = match limit {
        Some((limit, is_met)) => (limit, if is_met { "yes" } else { "NO" }),
        None => Default::default(),
    };
    format!("{what}|{database}|{name}|{value:.3}|{spread}|{limit}|{met}")
}

fn median(series: &Series) -> String {
    let (case, database, name) = (&series.case, series.database, &series.name);
    let throughput = series.median(Sample::throughput);
    let [p50, p99, p999] = [0, 1, 2].map(|part| series.median(|sample| sample.outcome.latency[part]));
    let memory = series.most(|sample| sample.usage.server_memory);
    let [server, registry, of_database] = [0, 1, 2].map(|part| {
        let micros = series.for_each_answer(|sample| sample.usage.cpu[part]);
        micros.map_or_else(String::new, |micros| format!("{micros:.1}"))
    });
    format!(
        "{case}|{database}|{name}|{throughput:.0}|{p50:.2}|{p99:.2}|{p999:.2}|{memory:.1}|{server}|{registry}|{of_database}"
    )
}

/// Prints a table whose columns are as wide as their content.
fn table(head: &str, rows: impl Iterator<Item = String>) {
    let lines = iter::once(head.to_owned()).chain(rows);
    let mut lines: Vec<Vec<String>> = lines
        .map(|line| line.split('|').map(str::to_owned).collect())
        .collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max();
    let widths: Vec<usize> = (0..lines[0].len()).filter_map(width).collect();
    lines.insert(1, widths.iter().map(|&width| "-".repeat(width)).collect());
    println!();
    for line in &lines {
        let cells = line.iter().zip(&widths);
        let cells: Vec<String> = cells.map(|(cell, &width)| format!(" {cell:<width$} ")).collect();
        println!("|{}|", cells.join("|"));
    }
}
