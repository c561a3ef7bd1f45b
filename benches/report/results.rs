//! What was measured, case by case, and what the design says to it.

use serde::Serialize;

use crate::{measure::Sample, stage::Stage};

const MIB: f64 = 1024.0 * 1024.0;
/// The most memory of an idle service, in MiB.
const IDLE: f64 = 40.0;

/// Every sample and finding, in the order of rounds.
#[derive(Default)]
pub struct Results {
    series: Vec<Series>,
    findings: Vec<(Finding, Vec<f64>)>,
}

/// The samples of a case on a database.
#[derive(Serialize)]
pub struct Series {
    case: String,
    database: Option<&'static str>,
    samples: Vec<Sample>,
}

/// Medians over rounds.
#[derive(Serialize)]
pub struct Row {
    pub case: String,
    pub database: Option<&'static str>,
    /// What it is compared with.
    pub against: Option<&'static str>,
    pub ratio: Option<f64>,
    /// The least ratio that is allowed.
    pub limit: Option<f64>,
    pub met: Option<bool>,
    pub per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    /// The most in any round, in MiB.
    pub memory: f64,
    pub cpu_server_us: f64,
    pub cpu_registry_us: Option<f64>,
    pub cpu_database_us: Option<f64>,
}

/// A figure with a limit of its own.
#[derive(Clone, Serialize)]
pub struct Finding {
    pub what: String,
    pub database: &'static str,
    /// The median over rounds.
    pub value: f64,
    /// The most that is allowed.
    pub limit: Option<f64>,
    pub met: Option<bool>,
}

/// What a case is compared with, and the least ratio that is allowed.
fn limit_of(case: &str) -> Option<(&'static str, Option<f64>)> {
    match case {
        "issue" => Some(("bare-grpc", Some(0.75))),
        "refresh" | "code" | "cold" => Some(("bare-grpc", None)),
        "form" => Some(("bare-http", Some(0.75))),
        "introspect" => Some(("bare-verify", Some(0.6))),
        "growth-1000000" => Some(("growth-10", Some(0.9))),
        case if case.starts_with("growth-") => Some(("growth-10", None)),
        case if case.starts_with("callers-") => Some(("callers-64", None)),
        _ => None,
    }
}

impl Results {
    pub fn add(&mut self, case: &str, database: Option<&'static str>, sample: Sample) {
        let same = |series: &&mut Series| series.case == case && series.database == database;
        match self.series.iter_mut().find(same) {
            Some(series) => series.samples.push(sample),
            None => self.series.push(Series {
                case: case.to_owned(),
                database,
                samples: vec![sample],
            }),
        }
    }

    /// Adds a figure, with the most that it may be.
    pub fn find(&mut self, what: &str, database: &'static str, value: f64, limit: Option<f64>) {
        let same =
            |(finding, _): &&mut (Finding, Vec<f64>)| finding.what == what && finding.database == database;
        match self.findings.iter_mut().find(same) {
            Some((_, values)) => values.push(value),
            None => {
                let finding = Finding {
                    what: what.to_owned(),
                    database,
                    value,
                    limit,
                    met: None,
                };
                self.findings.push((finding, vec![value]));
            }
        }
    }

    /// Adds the memory of a stage's idle services.
    pub fn idle(&mut self, stage: &Stage) {
        for (service, bytes) in [("registry", stage.idle.registry), ("token", stage.idle.token)] {
            let what = format!("{service}-service: idle, MiB");
            self.find(&what, stage.database, bytes as f64 / MIB, Some(IDLE));
        }
    }

    /// The latest sample of a case.
    pub fn latest(&self, case: &str, database: &'static str) -> Option<&Sample> {
        self.series(case, Some(database))?.samples.last()
    }

    fn series(&self, case: &str, database: Option<&str>) -> Option<&Series> {
        self.series
            .iter()
            .find(|series| series.case == case && series.database == database)
    }

    pub fn rows(&self) -> Vec<Row> {
        self.series.iter().map(|series| self.row(series)).collect()
    }

    pub fn findings(&self) -> Vec<Finding> {
        let finding = |(finding, values): &(Finding, Vec<f64>)| {
            let value = median(values.clone());
            Finding {
                value,
                met: finding.limit.map(|limit| value <= limit),
                ..finding.clone()
            }
        };
        self.findings.iter().map(finding).collect()
    }

    pub fn into_series(self) -> Vec<Series> {
        self.series
    }

    fn row(&self, series: &Series) -> Row {
        let samples = &series.samples;
        let of = |value: &dyn Fn(&Sample) -> f64| median(samples.iter().map(value).collect());
        let of_some = |value: &dyn Fn(&Sample) -> Option<f64>| {
            let values: Vec<f64> = samples.iter().filter_map(value).collect();
            (!values.is_empty()).then(|| median(values))
        };
        let compared = self.compared(series);
        let (ratio, limit) = (compared.map(|(_, ratio, _)| ratio), compared.and_then(|c| c.2));
        let memory = samples.iter().map(|sample| sample.memory.server).max();
        Row {
            case: series.case.clone(),
            database: series.database,
            against: compared.map(|(against, ..)| against),
            ratio,
            limit,
            met: ratio.zip(limit).map(|(ratio, limit)| ratio >= limit),
            per_second: of(&Sample::throughput),
            p50_ms: of(&|sample| sample.outcome.latency.p50),
            p99_ms: of(&|sample| sample.outcome.latency.p99),
            p999_ms: of(&|sample| sample.outcome.latency.p999),
            memory: memory.unwrap_or_default() as f64 / MIB,
            cpu_server_us: of(&|sample| sample.cpu.server),
            cpu_registry_us: of_some(&|sample| sample.cpu.registry),
            cpu_database_us: of_some(&|sample| sample.cpu.database),
        }
    }

    /// What a case is compared with, the median of the rounds' ratios, and the limit.
    fn compared(&self, series: &Series) -> Option<(&'static str, f64, Option<f64>)> {
        let (against, limit) = limit_of(&series.case).filter(|(against, _)| *against != series.case)?;
        let of_database = self.series(against, series.database);
        // A bare server knows no database.
        let other = of_database.or_else(|| self.series(against, None))?;
        let rounds = series.samples.iter().zip(&other.samples);
        let ratios = rounds.map(|(ours, theirs)| ours.throughput() / theirs.throughput());
        Some((against, median(ratios.collect()), limit))
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
