//! Files that hold a secret: who may read them, and how they are read.

use std::{fs, io::Read, os::unix::fs::MetadataExt, path::Path};

use zeroize::Zeroizing;

use super::KeyError;

/// Reads a file with a secret, of at most `most` bytes. Follows symbolic links, as Kubernetes mounts secrets.
///
/// The rule is PostgreSQL's: the file belongs to this process's user, and its group and others have no rights; or it
/// belongs to root, and its group may read it at most.
///
/// # Errors
/// One of [`KeyError`]'s errors of files. None holds the content.
pub fn read_secret(path: &Path, most: usize) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    // Opening a FIFO would wait for a writer.
    require_file(&fs::metadata(path)?)?;
    let file = fs::File::open(path)?;
    // Those of the open file: the path may lead elsewhere meanwhile.
    let metadata = file.metadata()?;
    require_file(&metadata)?;
    let user = rustix::process::geteuid().as_raw();
    if !is_private(metadata.uid(), metadata.mode(), user) {
        return Err(KeyError::FilePermissions);
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(most + 1));
    file.take(most as u64 + 1).read_to_end(&mut bytes)?;
    match bytes.len() {
        0 => Err(KeyError::FileEmpty),
        length if length > most => Err(KeyError::FileTooLarge),
        _ => Ok(bytes),
    }
}

/// Reads the text of such a file without its byte order mark. Text of white space alone is none.
///
/// # Errors
/// As [`read_secret`], and [`KeyError::FileText`].
pub fn read_secret_text(path: &Path, most: usize) -> Result<Zeroizing<String>, KeyError> {
    let bytes = read_secret(path, most)?;
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
    fn what_is_no_secret_file_is_named_and_never_shown() {
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
            ("missing", "not found"),
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
