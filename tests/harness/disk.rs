//! A small disk of a test's own, which only root can mount: a tmpfs, or a file with an ext4 file system.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// Unmounts and removes `$1` when standard input ends, also when the test was killed.
const WATCHDOG: &str =
    "trap '' HUP INT TERM; cat >/dev/null; umount -l \"$1\"; rmdir \"$1\"; rm -f \"$1.image\"";
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
        let disk = Self::watched();
        assert!(mount(&disk.directory, mebibytes), "can't mount");
        disk
    }

    /// Mounts a disk whose file system can become read-only beside open files, as the kernel does it after an error of the
    /// device. Returns `None` on a machine without loop devices.
    pub fn mount_with_errors(mebibytes: u64) -> Option<Self> {
        let disk = Self::watched();
        let image = disk.directory.with_extension("image");
        File::create(&image).unwrap().set_len(mebibytes << 20).unwrap();
        let run = |program: &str, args: &[&str]| {
            let mut command = Command::new(program);
            let status = command.args(args).arg(&image).stderr(Stdio::null()).status();
            status.is_ok_and(|status| status.success())
        };
        let made = run("mkfs.ext4", &["-q", "-F", "-O", "^has_journal"]);
        let directory = disk.directory.to_str().unwrap();
        let mounted = made
            && run(
                "mount",
                &["-o", "loop,errors=remount-ro", "--target", directory, "--source"],
            );
        mounted.then_some(disk)
    }

    /// Lets the kernel find an error, so that the file system becomes read-only until it is mounted anew.
    pub fn fail(&self) {
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let of_this = |line: &&str| line.split(' ').nth(1) == self.directory.to_str();
        let line = mounts.lines().find(of_this).unwrap();
        let device = line.split(' ').next().unwrap().trim_start_matches("/dev/");
        fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "1").unwrap();
    }

    fn watched() -> Self {
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
