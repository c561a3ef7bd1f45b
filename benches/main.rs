//! `cargo bench --bench issuance`: what issuing and checking tokens costs, beside a bare server that only
//! signs or verifies.
//!
//! This process plans and reports. Each deployment of the two services is set up, called and watched by a
//! process of its own (`deployment`), and so is the bare server (`bare`); both are this program again,
//! started with a role. `cases` says what is compared, `run` in which order, `report` prints.

#![allow(clippy::print_stdout, clippy::print_stderr, missing_docs)]

mod bare;
mod cases;
mod database;
mod deployment;
mod load;
mod options;
mod pipe;
mod protocol;
mod replay;
mod report;
mod results;
mod run;
mod soak;

use std::{
    fs::{self, File},
    path::Path,
    process::ExitCode,
};

use accord::rpc::run::shutdown_signal;
use anyhow::{Context, Result};
use clap::Parser;

use crate::options::Options;

/// The bare server gets the services' allocator too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (first, role) = (arguments.next(), arguments.next());
    let result = match (first.as_deref(), role.as_deref()) {
        (Some(pipe::ROLE), Some(bare::ROLE)) => bare::serve(),
        (Some(pipe::ROLE), Some(deployment::ROLE)) => deployment::serve(),
        _ => measure(&Options::parse()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("issuance: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures and reports. A signal ends everything that was started.
#[tokio::main(flavor = "current_thread")]
async fn measure(options: &Options) -> Result<()> {
    // Beside the build, because a temporary directory may be in memory.
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench");
    fs::create_dir_all(&directory)?;
    let lock = File::create(directory.join("lock"))?;
    lock.try_lock().context("another run is under way")?;
    // A run that was killed leaves its databases to the next one.
    let scratch = directory.join("run");
    let _ = fs::remove_dir_all(&scratch);
    fs::create_dir(&scratch)?;
    let scratch = scratch.canonicalize()?;
    let machine = report::machine(&scratch)?;
    let shutdown = shutdown_signal().context("signal handlers")?;
    let measured = shutdown.run_until_cancelled(run::run(options, &scratch)).await;
    let _ = fs::remove_dir_all(&scratch);
    let results = measured.context("interrupted")??;
    let judged = results.judge(options);
    report::write(&machine, options, &results, &directory)?;
    judged
}
