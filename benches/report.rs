//! What comes of a run: medians over the rounds, ratios within each round and their median, and whether
//! the limits of the design hold. Nothing here fails a run: figures are for people to judge.

mod plot;
mod results;
mod table;

use std::{fs::File, io::BufWriter, path::Path};

use anyhow::Context;
use serde::Serialize;

use self::results::{Finding, Row, Series};
pub use self::results::{Results, median};
use crate::{database::Server, machine::Machine, options::Options};

/// All of it.
#[derive(Serialize)]
pub struct Report {
    machine: Machine,
    run: Facts,
    rows: Vec<Row>,
    findings: Vec<Finding>,
    rounds: Vec<Series>,
}

/// How it was measured.
#[derive(Serialize)]
struct Facts {
    quick: bool,
    optimised: bool,
    rounds: usize,
    seconds: f64,
    callers: usize,
    active_clients: usize,
    access: &'static str,
}

const ACCESS: &str = "calls are for clients picked uniformly among the active ones, whose secrets \
    token-service has verified before (not so: cold); clients are spread over 10 tenants";

impl Report {
    /// What is known before anything is measured.
    pub fn begin(options: &Options, root: &Path, servers: &[Server]) -> anyhow::Result<Self> {
        Ok(Self {
            machine: Machine::look(root, servers)?,
            run: Facts {
                quick: options.quick,
                optimised: !cfg!(debug_assertions),
                rounds: options.rounds(),
                seconds: options.span().as_secs_f64(),
                callers: options.callers,
                active_clients: options.active(),
                access: ACCESS,
            },
            rows: Vec::new(),
            findings: Vec::new(),
            rounds: Vec::new(),
        })
    }

    /// Adds what was measured.
    pub fn finish(&mut self, results: Results) {
        self.rows = results.rows();
        self.findings = results.findings();
        self.rounds = results.into_series();
    }

    /// Prints the tables, and writes the files.
    pub fn write(&self, directory: &Path) -> anyhow::Result<()> {
        println!("{}", self.machine);
        let run = &self.run;
        if run.quick || !run.optimised {
            println!("quick, or not optimised: these figures mean little");
        }
        println!(
            "{} round(s) of {} s a case, {} callers, {} active clients; {}\n",
            run.rounds, run.seconds, run.callers, run.active_clients, run.access,
        );
        print!("{}", table::rows(&self.rows));
        if !self.findings.is_empty() {
            print!("\n{}", table::findings(&self.findings));
        }
        let json = directory.join("issuance.json");
        let file = File::create(&json).with_context(|| json.display().to_string())?;
        serde_json::to_writer_pretty(BufWriter::new(file), self)?;
        let svg = directory.join("issuance.svg");
        plot::write(&svg, &self.rows).with_context(|| svg.display().to_string())?;
        println!("\nwritten: {} and {}", json.display(), svg.display());
        Ok(())
    }
}
