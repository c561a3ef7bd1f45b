//! The registry-service binary.

use std::{io::Write, process::ExitCode};

use clap::Parser;
use registry_service::config::Cli;

/// Many small things live for one call: this allocator keeps their threads out of each other's way.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    match registry_service::run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may be reading: there is nowhere left to say so.
            let _ = writeln!(std::io::stderr(), "registry-service: {error:#}");
            ExitCode::FAILURE
        }
    }
}
