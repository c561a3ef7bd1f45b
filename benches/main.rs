//! `cargo bench --bench issuance`: what issuing and checking tokens costs, beside what the machine could
//! do at best, in one run.
//!
//! Every figure of a service stands beside that of a bare server that only signs or verifies, measured
//! moments before by the same load generator. `options` says what can be asked for, `cases` what is
//! measured, `report` what comes of it. Bare servers (`bare`) and load generators (`load`) are this very
//! program again, started with a role (`child`); the services are the real binary (`services`).

#![allow(clippy::print_stdout, clippy::print_stderr, missing_docs)]

mod bare;
mod cases;
mod child;
mod database;
mod load;
mod machine;
mod measure;
mod options;
mod proc;
mod progress;
mod report;
mod scratch;
mod seed;
mod services;
mod stage;

use std::process::ExitCode;

use accord::rpc::server::shutdown_signal;
use anyhow::Context;
use clap::Parser;

use crate::{child::Role, options::Options, scratch::Scratch};

/// The bare servers get what the services have, too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let outcome = match arguments.next().as_deref() {
        Some(child::ARGUMENT) => Role::run(arguments),
        _ => run(&Options::parse()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("issuance: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures and reports. Stopped by a signal, it drops all that it has started.
#[tokio::main(flavor = "current_thread")]
async fn run(options: &Options) -> anyhow::Result<()> {
    let directory = options.directory();
    let scratch = Scratch::create(&directory)?;
    let shutdown = shutdown_signal().context("signal handlers")?;
    let measured = shutdown
        .run_until_cancelled(cases::run(options, scratch.path()))
        .await;
    measured.context("interrupted")??.write(&directory)
}
