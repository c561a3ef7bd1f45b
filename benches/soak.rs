//! Minutes of traffic of all kinds at one rate, beside a clean-up of old rows: memory and tables must stay flat.

pub mod storage;

use std::{
    fs::File,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use accord::clock::{Clock, SystemClock};
use anyhow::{Context, Result};

use self::storage::Storage;
use crate::{
    cases::{
        Case,
        Limit::{AtLeast, AtMost},
    },
    deployment::process::DeploymentProcess,
    protocol::{Pace, Slice, Target, Work},
    results::{Results, quantile, total},
};

/// What may grow: tables of what was registered and consented, and logs. That of the audit record keeps 32 bytes of each leaf,
/// and its heads by time: there is one a second, for a day, whatever the load.
const GROWS: [&str; 13] = [
    "integration_requests",
    "clients",
    "client_tenants",
    "client_secrets",
    "grants",
    "row_versions",
    "grant_receipts",
    "grant_usage",
    "grant_rejections",
    "audit_checkpoints",
    "audit_tenant_actions",
    "audit_log_tiles",
    "(log)",
];
/// How much more the last third may hold than the middle one.
const GROWTH: f64 = 1.10;
/// What counts as nothing: less growth than so many MiB or rows is none.
const SLACK_MIB: f64 = 2.0;
const SLACK_ROWS: f64 = 5.0;
/// How many samples there are at least. None is longer than ten seconds.
const SAMPLES: u32 = 21;
const LONGEST: Duration = Duration::from_secs(10);
/// For how many samples a row is kept: the first of them have left when the middle third begins. Time would not do, because
/// a sample takes longer while the machine is busy.
const KEEP: usize = 6;

/// Soaks a deployment. Writes all samples to `soak-<database>.csv`, of which `.ci/plot-soak` makes a plot.
pub async fn run(
    deployment: &mut DeploymentProcess,
    results: &mut Results,
    (span, rate): (Duration, f64),
    directory: &Path,
) -> Result<()> {
    let step = (span / SAMPLES).min(LONGEST);
    let samples = span.div_duration_f64(step).round() as usize;
    let (began, database) = (Instant::now(), deployment.database);
    let storage = Storage::open(&deployment.plan).await?;
    let mut csv = File::create(directory.join(format!("soak-{database}.csv")))?;
    let mut curves = Vec::<(String, Vec<f64>)>::new();
    let mut starts = Vec::new();
    for number in 0..samples {
        starts.push(SystemClock.now());
        let slice = Slice::new(Target::Service, Work::Mixed, Pace::Rate(rate), step);
        let kept = storage.keep_since(starts[number.saturating_sub(KEEP)]);
        let (sample, ()) = tokio::try_join!(deployment.measure(slice), kept)?;
        let sizes = storage.sizes().await?;
        let traffic = [
            ("seconds", began.elapsed().as_secs_f64()),
            ("answers", sample.outcome.all_answers as f64),
            ("refused", total(&sample.outcome.refused)),
            ("p99_ms", sample.outcome.latency[1]),
            ("token_service_mib", sample.usage.server_memory),
            ("registry_service_mib", sample.usage.registry_memory),
        ];
        let traffic = traffic.map(|(name, value)| (name.to_owned(), value));
        let (names, values): (Vec<_>, Vec<_>) = traffic.into_iter().chain(sizes).unzip();
        if curves.is_empty() {
            writeln!(csv, "{}", names.join(","))?;
            curves = names.into_iter().map(|name| (name, Vec::new())).collect();
        }
        let texts: Vec<String> = values.iter().map(f64::to_string).collect();
        writeln!(csv, "{}", texts.join(","))?;
        for ((_, curve), value) in curves.iter_mut().zip(values) {
            curve.push(value);
        }
        results.add(Case::Soak, (database, &deployment.name), sample);
    }
    let member = (database, deployment.name.as_str());
    for (name, values) in &curves {
        if let Some(growth) = growth(name, values) {
            let what = format!("soak: {name}: last third to middle");
            results.figure(what, member, growth, Some(AtMost(GROWTH)));
        }
    }
    let series = results.series(Case::Soak, member).context("no samples")?;
    let answers = series.sum(|sample| sample.outcome.all_answers as f64);
    let refused = series.sum(|sample| total(&sample.outcome.refused));
    let due = rate * step.as_secs_f64() * samples as f64;
    // An unoptimised build on a busy machine may stand still for longer than a lease lasts.
    let (least, none) = (Some(AtLeast(0.98)), Some(AtMost(0.0)));
    let none = none.filter(|_| !cfg!(debug_assertions));
    results.figure("soak: answers to calls due", member, answers / due, least);
    results.figure("soak: calls refused", member, refused, none);
    Ok(())
}

/// Returns how far a column's last third is above its middle one; `None` for what never changes and for what may grow.
fn growth(name: &str, values: &[f64]) -> Option<f64> {
    let slack = slack(name)?;
    if values.iter().all(|value| *value == values[0]) {
        return None;
    }
    let third = values.len() / 3;
    let median = |values: &[f64]| quantile(values.to_vec(), 0.5);
    let (middle, last) = (median(&values[third..2 * third]), median(&values[2 * third..]));
    Some(if last - middle < slack { 1.0 } else { last / middle })
}

/// Less growth of a column than this is none. `None` for what may grow.
fn slack(name: &str) -> Option<f64> {
    let (of, unit) = name.split_once(' ').unwrap_or_default();
    let (_, table) = of.split_once('.').unwrap_or_default();
    match unit {
        _ if name.ends_with("_mib") => Some(SLACK_MIB),
        _ if GROWS.contains(&table) => None,
        "rows" => Some(SLACK_ROWS),
        "bytes" => Some(SLACK_MIB * 1_048_576.0),
        _ => None,
    }
}
