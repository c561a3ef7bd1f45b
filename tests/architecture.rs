//! The architecture of docs/ARCHITECTURE.md, read from the sources of the three crates.
//!
//! A rule looks at the file that *defines* a name, whatever re-exports, globs, renames and paths lie
//! between: a `mod.rs` that re-exports its children would hide every circle. Code for tests alone is
//! exempt from all rules but the number of entries in a folder. Rules:
//!
//! - `layers`: no arrow points back (`LAYERS`);
//! - `circle`: no two files import each other, directly or through others, except a module and its children;
//! - `model`: no tonic, prost, axum, sea-orm or store in a model; `error`: no tonic in `error.rs`;
//! - `sql`: hand-written SQL in `store/batch/` alone;
//! - `crowd`: at most 16 entries in a folder;
//! - `tests`: only tests import what is for tests; `place`: every file has a layer and a module.
//!
//! `cargo test --workspace --test architecture -- --nocapture sizes` prints the lines of code.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "architecture/circles.rs"]
mod circles;
#[path = "architecture/layers.rs"]
mod layers;
#[path = "architecture/modules.rs"]
mod modules;
#[path = "architecture/planted.rs"]
mod planted;
#[path = "architecture/rules.rs"]
mod rules;
#[path = "architecture/source.rs"]
mod source;

use std::{fs, io::Write, path::Path, sync::LazyLock};

use layers::layer;
use modules::{CRATES, Modules, Tree};
use rules::{empty_layers, violations};

/// The most lines of code of the three crates together: whoever adds many removes others, so that one person can still read all of
/// it. Lower it when they shrink.
const MOST_LINES: usize = 48_750;

static SOURCES: LazyLock<(Tree, Modules)> = LazyLock::new(|| {
    let tree = sources();
    let modules = Modules::load(&tree);
    (tree, modules)
});

/// Every file below the crates' `src`.
fn sources() -> Tree {
    fn add(tree: &mut Tree, top: &Path, folder: &Path) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                add(tree, top, &path);
            } else {
                let name = path.strip_prefix(top).unwrap().to_str().unwrap();
                let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
                tree.insert(name.to_owned(), text);
            }
        }
    }
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut tree = Tree::new();
    for (_, folder) in CRATES {
        add(&mut tree, top, &top.join(folder));
    }
    tree
}

#[test]
fn the_sources_keep_the_rules() {
    let (tree, modules) = &*SOURCES;
    let found = [violations(tree, modules), empty_layers(tree)].concat();
    let report: String = found.iter().map(|violation| format!("  {violation}\n")).collect();
    assert!(found.is_empty(), "{} violations:\n{report}", found.len());
}

/// Lines of code: without blank lines, comments, and code for tests alone, that is items, files and
/// folders below a `cfg` of `test` or of the feature `testing`.
#[test]
fn sizes_stay_small() {
    let mut report = "lines of code:".to_owned();
    let mut sum = 0;
    for (_, folder) in CRATES {
        let files = SOURCES
            .1
            .sources
            .iter()
            .filter(|(file, _)| layer(file).0 == folder);
        let lines: usize = files.map(|(_, (_, source))| source.lines.len()).sum();
        report += &format!(" {folder} {lines},");
        sum += lines;
    }
    report += &format!(" together {sum} of at most {MOST_LINES}");
    writeln!(std::io::stderr(), "{report}").unwrap();
    assert!(sum <= MOST_LINES, "{report}");
}
