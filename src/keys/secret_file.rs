//! Files that hold a secret: who may read them, and how they are read.

use std::{fs, io::Read, os::unix::fs::MetadataExt, path::Path};

use zeroize::Zeroizing;

use super::KeyError;

/// Reads a secret of at most `max_bytes` bytes from a file. Follows symbolic links, because Kubernetes mounts secrets
/// through them.
///
/// Permissions follow PostgreSQL's rule for key files. Either the file belongs to this process's user, and nobody else
/// has any rights; or it belongs to root, its group may at most read it, and others have no rights.
///
/// # Errors
/// Returns one of the file errors of [`KeyError`]. They never hold the content.
pub fn read_secret(path: &Path, max_bytes: usize) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    // Checks the type before opening, because opening a FIFO would wait for a writer.
    require_file(&fs::metadata(path)?)?;
    let file = fs::File::open(path)?;
    // Checks the open file again, because the path may lead to another file by now.
    let metadata = file.metadata()?;
    require_file(&metadata)?;
    let user = rustix::process::geteuid().as_raw();
    if !is_private(metadata.uid(), metadata.mode(), user) {
        return Err(KeyError::FilePermissions);
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(max_bytes + 1));
    file.take(max_bytes as u64 + 1).read_to_end(&mut bytes)?;
    match bytes.len() {
        0 => Err(KeyError::FileEmpty),
        length if length > max_bytes => Err(KeyError::FileTooLarge),
        _ => Ok(bytes),
    }
}

/// Reads a secret text like [`read_secret`], and removes a byte order mark. A file that holds only white space counts
/// as empty.
///
/// # Errors
/// Returns the errors of [`read_secret`], and [`KeyError::FileText`] for a file that is not UTF-8.
pub fn read_secret_text(path: &Path, max_bytes: usize) -> Result<Zeroizing<String>, KeyError> {
    let bytes = read_secret(path, max_bytes)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| KeyError::FileText)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim().is_empty() {
        return Err(KeyError::FileEmpty);
    }
    Ok(Zeroizing::new(text.to_owned()))
}

fn require_file(metadata: &fs::Metadata) -> Result<(), KeyError> {
    metadata.is_file().then_some(()).ok_or(KeyError::NotAFile)
}

fn is_private(owner: u32, mode: u32, user: u32) -> bool {
    match owner {
        0 => mode & 0o037 == 0,
        _ => owner == user && mode & 0o077 == 0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{
        os::unix::fs::{PermissionsExt, symlink},
        process::Command,
    };

    use super::*;

    #[test]
    fn a_secret_is_private_by_the_rule_of_postgresql() {
        let (root, user, other) = (0, 1000, 1001);
        for (owner, mode, reader, expected) in [
            (user, 0o600, user, true),
            (user, 0o400, user, true),
            (user, 0o640, user, false),
            (user, 0o440, user, false),
            (user, 0o604, user, false),
            (other, 0o600, user, false),
            (other, 0o600, root, false),
            (root, 0o440, user, true),
            (root, 0o640, user, true),
            (root, 0o640, root, true),
            (root, 0o660, user, false),
            (root, 0o650, user, false),
            (root, 0o444, user, false),
        ] {
            assert_eq!(
                is_private(owner, mode, reader),
                expected,
                "{owner} {mode:o} {reader}"
            );
        }
    }

    #[test]
    fn a_mounted_secret_is_read_through_its_links() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("..2026")).unwrap();
        write(&at("..2026/token"), b"\xEF\xBB\xBFsecret\r\n");
        symlink("..2026", at("..data")).unwrap();
        symlink("..data/token", at("token")).unwrap();
        assert_eq!(*read_secret_text(&at("token"), 64).unwrap(), "secret\r\n");
    }

    #[test]
    fn an_unusable_file_gives_an_error_that_hides_its_content() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        write(&at("empty"), b"");
        write(&at("blank"), b" \r\n");
        write(&at("large"), &[b'x'; 65]);
        write(&at("binary"), &[0xFF; 8]);
        write(&at("open"), b"sup3rs3cret");
        fs::set_permissions(at("open"), fs::Permissions::from_mode(0o644)).unwrap();
        fs::create_dir(at("directory")).unwrap();
        assert!(Command::new("mkfifo").arg(at("fifo")).status().unwrap().success());
        for (name, expected) in [
            ("empty", "is empty"),
            ("blank", "is empty"),
            ("large", "is too large"),
            ("binary", "is not UTF-8"),
            ("open", "mode 0600"),
            ("directory", "is not a regular file"),
            ("fifo", "is not a regular file"),
            ("missing", "no such file"),
        ] {
            let error = read_secret_text(&at(name), 64).unwrap_err().to_string();
            assert!(error.contains(expected), "{name}: {error}");
            assert!(!error.contains("sup3rs3cret") && !error.contains('\n'), "{error}");
        }
    }

    fn write(path: &Path, content: &[u8]) {
        fs::write(path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
}
