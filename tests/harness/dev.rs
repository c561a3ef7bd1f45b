//! A development environment inside the test process.

use std::{path::Path, sync::Arc};

use accord::{
    clock::{Clock, ManualClock, SystemClock},
    random::SystemRandom,
};
use accord_cli::dev::{Dev, DevArgs};
use tempfile::TempDir;

/// Flags for an environment in `data_dir` on free ports.
pub fn args(data_dir: &Path) -> DevArgs {
    let any = "127.0.0.1:0".parse().unwrap();
    DevArgs {
        data_dir: data_dir.to_owned(),
        registry_listen: any,
        token_listen: any,
        http_listen: any,
        public_base_url: None,
        api_listen: None,
    }
}

/// Starts an environment in a new directory.
pub async fn start() -> (TempDir, Dev) {
    let directory = tempfile::tempdir().unwrap();
    let dev = start_in(&directory.path().join("accord-data")).await;
    (directory, dev)
}

/// Starts an environment that serves the tenant's Cloud API too, in a new directory.
pub async fn start_with_api() -> (TempDir, Dev) {
    let directory = tempfile::tempdir().unwrap();
    let mut args = args(&directory.path().join("accord-data"));
    args.api_listen = Some(args.http_listen);
    let dev = Dev::start(&args, Arc::new(SystemClock), Arc::new(SystemRandom))
        .await
        .unwrap();
    (directory, dev)
}

/// Starts an environment in a new directory behind a gateway with this URL.
pub async fn start_behind(public_base_url: &str) -> (TempDir, Dev) {
    let directory = tempfile::tempdir().unwrap();
    let mut args = args(&directory.path().join("accord-data"));
    args.public_base_url = Some(public_base_url.to_owned());
    let dev = Dev::start(&args, Arc::new(SystemClock), Arc::new(SystemRandom))
        .await
        .unwrap();
    (directory, dev)
}

/// Starts an environment whose time the test moves.
pub async fn start_with_clock() -> (TempDir, Dev, Arc<ManualClock>) {
    let directory = tempfile::tempdir().unwrap();
    let clock = accord::testing::test_clock();
    let dev = start_at(&directory, &clock).await;
    (directory, dev, clock)
}

/// Starts an environment at the machine's time, with a clock that the test moves. A clock that is moved there later makes
/// schedules run, such as that of signing keys.
pub async fn start_now_with_clock() -> (TempDir, Dev, Arc<ManualClock>) {
    let directory = tempfile::tempdir().unwrap();
    let clock = accord::testing::test_clock();
    clock.set(SystemClock.now());
    let dev = start_at(&directory, &clock).await;
    (directory, dev, clock)
}

async fn start_at(directory: &TempDir, clock: &Arc<ManualClock>) -> Dev {
    let args = args(&directory.path().join("accord-data"));
    let dev = Dev::start(&args, clock.clone(), Arc::new(SystemRandom));
    dev.await.unwrap()
}

/// Starts an environment in `data_dir`.
pub async fn start_in(data_dir: &Path) -> Dev {
    Dev::start(&args(data_dir), Arc::new(SystemClock), Arc::new(SystemRandom))
        .await
        .unwrap()
}
