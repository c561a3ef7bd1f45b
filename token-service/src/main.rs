//! The token-service binary.

use std::process::ExitCode;

use accord::rpc::run;
use clap::Parser;
use token_service::config::Cli;

/// Faster than the system's allocator for many short-lived allocations on several threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    run::exit("token-service", token_service::run(Cli::parse()).await)
}
