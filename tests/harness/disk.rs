//! A small disk of a test's own: a tmpfs, which only root can mount.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// Unmounts and removes `$1` when standard input ends, also when the test was killed.
const WATCHDOG: &str = "trap '' HUP INT TERM; cat >/dev/null; umount -l \"$1\"; rmdir \"$1\"";
const FILLER: &str = "filler";

/// A mounted disk.
pub struct Disk {
    directory: PathBuf,
    watchdog: Child,
}

/// Whether this process may mount.
pub fn can_mount() -> bool {
    let directory = tempfile::tempdir().unwrap();
    let mounted = mount(directory.path(), 1);
    if mounted {
        let _ = Command::new("umount").arg(directory.path()).status();
    }
    mounted
}

fn mount(directory: &Path, mebibytes: usize) -> bool {
    let mut mount = Command::new("mount");
    mount.args([
        "-t",
        "tmpfs",
        "-o",
        &format!("size={mebibytes}m,mode=755"),
        "tmpfs",
    ]);
    let status = mount.arg(directory).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

impl Disk {
    /// Mounts a disk of this size.
    pub fn mount(mebibytes: usize) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("accord-disk-")
            .tempdir()
            .unwrap()
            .keep();
        let watchdog = Command::new("/bin/sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(&directory)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        assert!(mount(&directory, mebibytes), "can't mount");
        Self { directory, watchdog }
    }

    pub fn path(&self) -> &Path {
        &self.directory
    }

    /// Uses up all space.
    pub fn fill(&self) {
        let mut filler = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.directory.join(FILLER))
            .unwrap();
        for size in [1 << 20, 1 << 12] {
            while filler.write_all(&vec![0; size]).is_ok() {}
        }
    }

    /// Frees the space again.
    pub fn free(&self) {
        fs::remove_file(self.directory.join(FILLER)).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(self.watchdog.stdin.take());
        let _ = self.watchdog.wait();
    }
}
