//! A disk that is full, and a SQLite file that is gone for a while.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use accord::testing::durable_postgres;
use tokio::time::sleep;

use super::{FAULT, Stage, TOLD};
use crate::harness::{checkpoints::SavedCheckpoints, disk::Disk};

tests!(
    the_services_outlive_a_full_disk_under_sqlite,
    the_services_outlive_a_full_disk_under_postgres,
    the_services_tell_of_a_file_system_that_becomes_read_only,
    the_services_outlive_a_sqlite_file_that_is_moved_away,
);

/// How long the load may need to use up what is left of a disk.
const FILLED: Duration = Duration::from_secs(20);

fn sqlite_url(directory: &Path, name: &str) -> String {
    format!("sqlite://{}", directory.join(name).display())
}

async fn the_services_outlive_a_full_disk_under_sqlite() {
    let disk = Disk::mount(24);
    let urls = ["registry.db", "token.db"].map(|name| sqlite_url(disk.path(), name));
    let stage = Stage::set(&urls[0], &urls[1]).await;
    let saved = SavedCheckpoints::new(&stage.services, [&urls[0], &urls[1]]).await;
    disk.fill();
    stage.say(&[0, 1], false, FILLED, "full disk").await;
    sleep(FAULT).await;
    disk.free();
    stage.is_whole_soon("full disk").await;
    let _ended = stage.ends("full disk").await;
    saved.verify().await;
}

async fn the_services_outlive_a_full_disk_under_postgres() {
    let disk = Disk::mount(320);
    let Some(server) = durable_postgres(&[disk.path()]) else {
        return;
    };
    let (registry, token) = (server.database(), server.database());
    let stage = Stage::set(&registry.url, &token.url).await;
    let saved = SavedCheckpoints::new(&stage.services, [&registry.url, &token.url]).await;
    disk.fill();
    // The log of the server ends in the middle of a segment. A switch needs a new one.
    let switch = "SELECT count(pg_switch_wal())";
    let _ = accord::testing::try_execute_on(server.url(), switch);
    stage.say(&[0, 1], false, FILLED, "full disk").await;
    sleep(FAULT).await;
    disk.free();
    stage.is_whole_soon("full disk").await;
    let _ended = stage.ends("full disk").await;
    saved.verify().await;
}

async fn the_services_tell_of_a_file_system_that_becomes_read_only() {
    let Some(disk) = Disk::mount_with_errors(64) else {
        assert!(std::env::var_os("ACCORD_REQUIRE_ALL").is_none(), "no loop device");
        return;
    };
    let stage = Stage::set(
        &sqlite_url(disk.path(), "registry.db"),
        &sqlite_url(disk.path(), "token.db"),
    )
    .await;
    disk.fail();
    stage.say(&[0, 1], false, TOLD, "read-only").await;
    sleep(FAULT).await;
    // Only a new mount makes it writable, and that needs the files closed.
    assert_eq!(stage.load.seen.wrong(), [""; 0]);
    assert!(stage.load.seen.failures_since(Instant::now() - FAULT) > 0);
    for service in [&stage.services.registry, &stage.services.token] {
        let log = service.stderr();
        assert!(log.contains("database unavailable"), "{log}");
    }
}

async fn the_services_outlive_a_sqlite_file_that_is_moved_away() {
    let directory = tempfile::tempdir().unwrap();
    let stage = Stage::set(
        &sqlite_url(directory.path(), "registry.db"),
        &sqlite_url(directory.path(), "token.db"),
    )
    .await;
    for service in ["registry", "token"] {
        let (here, away) = (format!("{service}.db"), format!("{service}.away"));
        fs::rename(directory.path().join(&here), directory.path().join(&away)).unwrap();
    }
    stage.say(&[0, 1], false, TOLD, "moved file").await;
    sleep(FAULT).await;
    for service in ["registry", "token"] {
        let (here, away) = (format!("{service}.db"), format!("{service}.away"));
        assert!(
            !directory.path().join(&here).exists(),
            "an empty database replaced the file"
        );
        fs::rename(directory.path().join(&away), directory.path().join(&here)).unwrap();
    }
    stage.is_whole_soon("moved file").await;
    stage.ends("moved file").await;
}
