//! The directory for what a run writes and nobody wants afterwards: databases, keys, logs. It is gone
//! when the run ends, also when the run is killed: a shell waits for the end of a pipe.

use std::{
    fs,
    io::Write,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// Removes `$1` when it is told to, or some time after whoever might tell it is gone: what that one had
/// started ends by itself then, and writes until it does.
const CLEANER: &str = r#"
trap '' HUP INT TERM
read -r told || sleep 3
until rm -rf "$1"; do sleep 0.2; done
"#;

pub struct Scratch {
    path: PathBuf,
    cleaner: Child,
}

impl Scratch {
    pub fn create(parent: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(parent)?;
        let directory = tempfile::Builder::new()
            .prefix("run-")
            .tempdir_in(parent.canonicalize()?)?;
        let cleaner = Command::new("/bin/sh")
            .args(["-c", CLEANER, "cleaner"])
            .arg(directory.path())
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Self {
            path: directory.keep(),
            cleaner,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(mut stdin) = self.cleaner.stdin.take() {
            let _ = stdin.write_all(b"now\n");
        }
        let _ = self.cleaner.wait();
    }
}
