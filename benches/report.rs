//! Tables for people, in Markdown, and a file with every sample. Nothing here fails a run: figures are for
//! people to judge.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::Path,
    thread,
    time::Instant,
};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::{
    options::Options,
    protocol::{CALLERS, Sample},
    results::{Figure, Results, Series},
};

/// How often a page is made durable, to see how long that takes.
const SYNCS: u32 = 200;

#[derive(Serialize)]
pub struct Report {
    machine: String,
    method: String,
    results: Results,
}

impl Report {
    pub fn new(machine: String, options: &Options, results: Results) -> Self {
        let (rounds, seconds) = (options.rounds(), options.span().as_secs_f64());
        let (clients, optimised) = (options.active(), !cfg!(debug_assertions));
        let method = format!(
            "{rounds} rounds, slices of {seconds} s, {CALLERS} callers, {clients} clients, optimised: {optimised}"
        );
        Self {
            machine,
            method,
            results,
        }
    }

    /// Prints the tables, and writes the file.
    pub fn write(&self, directory: &Path) -> Result<()> {
        println!("{}\n{}", self.machine, self.method);
        let Results { figures, series } = &self.results;
        table(
            "figure|database|of|value|quartiles|limit|met",
            figures.iter().map(figure),
        );
        println!("\nCPU is in microseconds for each answer: server, registry-service, database processes.");
        let head = "case|database|of|per second|p50 ms|p99 ms|p99.9 ms|MiB|CPU|registry|database";
        table(head, series.iter().map(median));
        let json = directory.join("issuance.json");
        let file = File::create(&json).with_context(|| json.display().to_string())?;
        serde_json::to_writer(BufWriter::new(file), self)?;
        println!("\nEvery sample: {}", json.display());
        Ok(())
    }
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

fn figure(figure: &Figure) -> Vec<String> {
    let Figure {
        value,
        quartiles,
        limit,
        ..
    } = figure;
    let spread = quartiles.map(|[low, high]| format!("{low:.3} to {high:.3}"));
    let (limit, met) = limit.map(|limit| limit.check(*value)).unwrap_or_default();
    vec![
        figure.what.clone(),
        figure.database.to_owned(),
        figure.name.clone(),
        format!("{value:.3}"),
        spread.unwrap_or_default(),
        limit,
        met.to_owned(),
    ]
}

fn median(series: &Series) -> Vec<String> {
    let latency = |part: usize| format!("{:.2}", series.median(|sample| sample.outcome.latency[part]));
    let cpu = |part: usize| match series.for_each_answer(|sample| sample.usage.cpu[part]) {
        Some(micros) => format!("{micros:.1}"),
        None => String::new(),
    };
    vec![
        series.case.clone(),
        series.database.to_owned(),
        series.name.clone(),
        format!("{:.0}", series.median(Sample::throughput)),
        latency(0),
        latency(1),
        latency(2),
        format!("{:.1}", series.most(|sample| sample.usage.server_memory)),
        cpu(0),
        cpu(1),
        cpu(2),
    ]
}

/// Prints a table whose columns are as wide as their content.
fn table(head: &str, rows: impl Iterator<Item = Vec<String>>) {
    let mut lines: Vec<Vec<String>> = vec![head.split('|').map(str::to_owned).collect()];
    lines.extend(rows);
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
