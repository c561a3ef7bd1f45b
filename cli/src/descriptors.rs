//! `accord descriptors`: the compiled contract, for gateways and other tools.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::Args;
use prost::Message;
use prost_types::{FileDescriptorProto, FileDescriptorSet};

/// Flags of `accord descriptors`.
#[derive(Clone, Debug, Args)]
pub struct DescriptorsArgs {
    /// The file to write; standard output by default.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Returns the contract as a serialised `google.protobuf.FileDescriptorSet`: Accord's services, their imports, and the
/// error details of `google.rpc`, which a gateway needs to show the reason of an error.
pub fn bytes() -> Vec<u8> {
    let sets = [accord::FILE_DESCRIPTOR_SET, tonic_types::pb::FILE_DESCRIPTOR_SET];
    let mut files: Vec<FileDescriptorProto> = Vec::new();
    for set in sets {
        // Both sets are compiled in.
        let set = FileDescriptorSet::decode(set).unwrap_or_default();
        for file in set.file {
            if files.iter().all(|known| known.name != file.name) {
                files.push(file);
            }
        }
    }
    FileDescriptorSet { file: files }.encode_to_vec()
}

/// Writes [`bytes`] to a file or to standard output.
pub fn run(args: &DescriptorsArgs) -> anyhow::Result<()> {
    let bytes = bytes();
    match &args.out {
        Some(path) => replace(path, &bytes).with_context(|| format!("can't write {}", path.display())),
        None => {
            let mut out = io::stdout().lock();
            out.write_all(&bytes)?;
            out.flush()?;
            Ok(())
        }
    }
}

/// Writes another file and renames it, so that a gateway that starts meanwhile reads a complete file.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    std::fs::write(&partial, bytes)?;
    std::fs::rename(&partial, path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn an_old_file_is_replaced_and_no_other_file_remains() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("accord.bin");
        std::fs::write(&out, "old").unwrap();
        let args = DescriptorsArgs {
            out: Some(out.clone()),
        };
        run(&args).unwrap();
        assert_eq!(std::fs::read(&out).unwrap(), bytes());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn every_file_appears_once_and_after_its_imports() {
        let set = prost_types::FileDescriptorSet::decode(&*bytes()).unwrap();
        let mut seen = BTreeSet::new();
        for file in &set.file {
            let missing = file.dependency.iter().find(|name| !seen.contains(name.as_str()));
            assert_eq!(missing, None, "imported by {}", file.name());
            assert!(seen.insert(file.name()), "{} twice", file.name());
        }
        for name in ["accord/token/v1/token.proto", "error_details.proto"] {
            assert!(seen.contains(name), "{name} not among {seen:?}");
        }
    }
}
