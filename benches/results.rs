//! Samples, and what comes of them: medians over rounds, ratios of the same round, single figures.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::{
    cases::{Case, Limit},
    options::Options,
    protocol::Sample,
};

/// Who was measured: on which database, and what tells it from the others of its case.
pub type Member<'a> = (&'static str, &'a str);

#[derive(Default, Serialize)]
pub struct Results {
    pub figures: Vec<Figure>,
    pub series: Vec<Series>,
}

/// The samples of one member of a case, one for each round.
#[derive(Serialize)]
pub struct Series {
    pub case: String,
    pub database: &'static str,
    pub name: String,
    pub samples: Vec<Sample>,
}

#[derive(Serialize)]
pub struct Figure {
    pub what: String,
    pub database: &'static str,
    pub name: String,
    pub value: f64,
    /// Half of the ratios lie between them.
    pub quartiles: Option<[f64; 2]>,
    pub limit: Option<Limit>,
}

impl Series {
    /// The median over the rounds.
    pub fn median(&self, value: impl Fn(&Sample) -> f64) -> f64 {
        quantile(self.samples.iter().map(value).collect(), 0.5)
    }

    /// The sum over the rounds.
    pub fn sum(&self, value: impl Fn(&Sample) -> f64) -> f64 {
        self.samples.iter().map(value).sum()
    }

    /// The most in any round.
    pub fn most(&self, value: impl Fn(&Sample) -> f64) -> f64 {
        self.samples.iter().map(value).fold(0.0, f64::max)
    }

    /// What all rounds spent, for each right answer. The kernel counts CPU in hundredths of a second, so
    /// single slices say little.
    pub fn for_each_answer(&self, spent: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        let spent: Option<f64> = self.samples.iter().map(spent).sum();
        Some(spent? / self.sum(|sample| sample.outcome.answers as f64))
    }
}

impl Results {
    /// Fails if a figure is beyond its limit: those of a soak and of a drain, and all with `--judge`. Then each database must
    /// have some, so that a run which measured nothing does not pass.
    pub fn judge(&self, options: &Options) -> Result<()> {
        let judged = |figure: &&Figure| {
            options.judge
                || ["soak:", "drain:"]
                    .iter()
                    .any(|case| figure.what.starts_with(case))
        };
        let limited = self.figures.iter().filter(judged).filter_map(|figure| {
            let (limit, is_met) = figure.limit?.check(figure.value);
            Some((figure, limit, is_met))
        });
        let limited: Vec<_> = limited.collect();
        if options.judge {
            for database in &options.database {
                let has_some = limited.iter().any(|(figure, ..)| figure.database == database);
                ensure!(has_some, "{database}: nothing with a limit was measured");
            }
        }
        let broken = limited.iter().filter(|(_, _, is_met)| !is_met);
        let broken: Vec<String> = broken
            .map(|(figure, limit, _)| {
                let (database, what, name) = (figure.database, &figure.what, &figure.name);
                format!("{database}: {what}: {name}: {:.3}, not {limit}", figure.value)
            })
            .collect();
        ensure!(broken.is_empty(), broken.join("; "));
        Ok(())
    }

    pub fn add(&mut self, case: Case, (database, name): Member, sample: Sample) {
        let (case, name) = (case.name(), name.to_owned());
        let same = |one: &&mut Series| one.case == case && one.database == database && one.name == name;
        match self.series.iter_mut().find(same) {
            Some(series) => series.samples.push(sample),
            None => self.series.push(Series {
                case,
                database,
                name,
                samples: vec![sample],
            }),
        }
    }

    pub fn series(&self, case: Case, (database, name): Member) -> Option<&Series> {
        let case = case.name();
        let same = |one: &&Series| one.case == case && one.database == database && one.name == name;
        self.series.iter().find(same)
    }

    /// Compares two members of a case by the ratios of the same rounds, if both were measured.
    pub fn compare(&mut self, case: Case, (database, name): Member, baseline: &str, limit: Option<Limit>) {
        let series = |name| self.series(case, (database, name));
        let Some((ours, theirs)) = series(name).zip(series(baseline)) else {
            return;
        };
        let (measure, value): (_, fn(&Sample) -> f64) = if case.is_latency() {
            ("p99", |sample| sample.outcome.latency[1])
        } else {
            ("throughput", Sample::throughput)
        };
        let pairs = ours.samples.iter().zip(&theirs.samples);
        let ratios: Vec<f64> = pairs.map(|(ours, theirs)| value(ours) / value(theirs)).collect();
        let quartiles = [0.25, 0.75].map(|part| quantile(ratios.clone(), part));
        let what = format!("{}: {measure} to {baseline}", case.name());
        self.figure(what, (database, name), quantile(ratios, 0.5), limit);
        if let Some(figure) = self.figures.last_mut() {
            figure.quartiles = Some(quartiles);
        }
    }

    pub fn figure(&mut self, what: impl Into<String>, of: Member, value: f64, limit: Option<Limit>) {
        let (database, name) = of;
        self.figures.push(Figure {
            what: what.into(),
            database,
            name: name.to_owned(),
            value,
            quartiles: None,
            limit,
        });
    }
}

/// The sum of all counts.
pub fn total(counts: &BTreeMap<String, u64>) -> f64 {
    counts.values().sum::<u64>() as f64
}

/// A quantile, between the two nearest values where it falls between them.
pub fn quantile(mut values: Vec<f64>, part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else {
        return f64::NAN;
    };
    let place = part * last as f64;
    let (below, above) = (values[place.floor() as usize], values[place.ceil() as usize]);
    below + (above - below) * place.fract()
}
