//! The files of an open SQLite database: the write-ahead log and its index beside it. If somebody removes or replaces
//! one of them, open connections go on with the old one, and new connections would write into another. Then what either
//! commits is lost, and the database is damaged.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{Arc, Weak},
};

use crate::lock::Lock;

/// The device and the inode of a file.
pub(in crate::store) type FileId = (u64, u64);

/// The database, its write-ahead log and the index of the log.
type Ids = [Option<FileId>; 3];

/// The files of the connections that are open. All pools of a database share it.
#[derive(Default)]
pub(in crate::store) struct SqliteFiles(Lock<State>);

#[derive(Default)]
struct State {
    /// The connections hold it.
    open: Weak<Ids>,
    /// The files that connections have lost. They may still be saved when the service stops.
    lost: Option<Ids>,
}

impl SqliteFiles {
    /// Notes the files of a connection that has read. The connection keeps what this returns.
    pub(in crate::store) fn opened(&self, database: &Path) -> Arc<Ids> {
        let mut state = self.0.lock();
        state.open.upgrade().unwrap_or_else(|| {
            let ids = Arc::new(ids(database));
            state.open = Arc::downgrade(&ids);
            ids
        })
    }

    /// Returns whether log or index were removed or replaced under open connections. No connection may be used or opened
    /// then. Closing the last one saves the old log.
    pub(in crate::store) fn are_lost(&self, database: &Path) -> bool {
        let mut state = self.0.lock();
        let expected = state.lost.or_else(|| state.open.upgrade().map(|ids| *ids));
        let now = ids(database);
        // Another database has other files, and its connections are opened anew.
        state.lost = expected.filter(|expected| now[0] == expected[0] && now != *expected);
        if now[0] != expected.unwrap_or(now)[0] {
            state.open = Weak::new();
        }
        state.lost.is_some()
    }
}

fn ids(database: &Path) -> Ids {
    ["", "-wal", "-shm"].map(|suffix| {
        let mut path = database.as_os_str().to_owned();
        path.push(suffix);
        file_id(Path::new(&path))
    })
}

/// Returns the id of the file at a path; `None` without one.
pub(in crate::store) fn file_id(path: &Path) -> Option<FileId> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}
