//! The registry-service binary.

use std::process::ExitCode;

use accord::rpc::run;
use clap::Parser;
use registry_service::config::Cli;

/// Faster than the system's allocator for many short-lived allocations on several threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    run::exit("registry-service", registry_service::run(Cli::parse()).await)
}
