//! What comes of a run: medians over the rounds, ratios within each round and their median, and whether
//! the limits of the design hold. Nothing here fails a run: figures are for people to judge.

mod table;

use serde::Serialize;

use crate::{measure::Sample, options::Options};

/// Every sample, by case and database, in the order of rounds.
#[derive(Default)]
pub struct Results {
    series: Vec<Series>,
}

#[derive(Serialize)]
struct Series {
    case: String,
    database: Option<&'static str>,
    samples: Vec<Sample>,
}

impl Results {
    pub fn add(&mut self, case: &str, database: Option<&'static str>, sample: Sample) {
        let found = self
            .series
            .iter_mut()
            .find(|series| series.case == case && series.database == database);
        match found {
            Some(series) => series.samples.push(sample),
            None => self.series.push(Series {
                case: case.to_owned(),
                database,
                samples: vec![sample],
            }),
        }
    }

    fn find(&self, case: &str, database: Option<&'static str>) -> Option<&Series> {
        self.series
            .iter()
            .find(|series| series.case == case && series.database == database)
    }
}

/// Medians over rounds.
#[derive(Serialize)]
pub struct Row {
    pub case: String,
    pub database: Option<&'static str>,
    /// What it is compared with.
    pub against: Option<&'static str>,
    pub ratio: Option<f64>,
    pub limit: Option<f64>,
    pub met: Option<bool>,
    pub per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub memory: u64,
    pub cpu_server_us: f64,
    pub cpu_registry_us: Option<f64>,
    pub cpu_database_us: Option<f64>,
}

/// All of it.
#[derive(Serialize)]
pub struct Report {
    rows: Vec<Row>,
    rounds: Vec<Series>,
}

/// What a case is compared with, and the least ratio that the design allows.
fn limit_of(case: &str) -> Option<(&'static str, Option<f64>)> {
    match case {
        "issue" => Some(("bare-grpc", Some(0.75))),
        "refresh" | "code" | "cold" => Some(("bare-grpc", None)),
        "form" => Some(("bare-http", Some(0.75))),
        "introspect" => Some(("bare-verify", Some(0.6))),
        _ => None,
    }
}

impl Report {
    pub fn new(_options: &Options, results: Results) -> Self {
        let rows = results
            .series
            .iter()
            .map(|series| row(&results, series))
            .collect();
        Self {
            rows,
            rounds: results.series,
        }
    }
}

fn row(results: &Results, series: &Series) -> Row {
    let samples = &series.samples;
    let of = |value: &dyn Fn(&Sample) -> f64| median(samples.iter().map(value).collect());
    let of_some = |value: &dyn Fn(&Sample) -> Option<f64>| {
        let values: Vec<f64> = samples.iter().filter_map(value).collect();
        (!values.is_empty()).then(|| median(values))
    };
    let compared = limit_of(&series.case).and_then(|(against, limit)| {
        // A bare server knows no database.
        let other = results
            .find(against, series.database)
            .or_else(|| results.find(against, None))?;
        let ratios = samples.iter().zip(&other.samples);
        let ratios = ratios.map(|(ours, theirs)| ours.throughput() / theirs.throughput());
        Some((against, median(ratios.collect()), limit))
    });
    let limit = compared.and_then(|(_, _, limit)| limit);
    let ratio = compared.map(|(_, ratio, _)| ratio);
    Row {
        case: series.case.clone(),
        database: series.database,
        against: compared.map(|(against, _, _)| against),
        ratio,
        limit,
        met: ratio.zip(limit).map(|(ratio, limit)| ratio >= limit),
        per_second: of(&Sample::throughput),
        p50_ms: of(&|sample| sample.outcome.latency.p50),
        p99_ms: of(&|sample| sample.outcome.latency.p99),
        p999_ms: of(&|sample| sample.outcome.latency.p999),
        memory: samples
            .iter()
            .map(|sample| sample.memory.server)
            .max()
            .unwrap_or_default(),
        cpu_server_us: of(&|sample| sample.cpu.server),
        cpu_registry_us: of_some(&|sample| sample.cpu.registry),
        cpu_database_us: of_some(&|sample| sample.cpu.database),
    }
}

/// The middle one; of an even number, the mean of the two in the middle.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// Prints the tables.
pub fn write(report: &Report) -> anyhow::Result<()> {
    print!("{}", table::rows(&report.rows));
    Ok(())
}
