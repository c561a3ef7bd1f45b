//! The tables of faults and threats in the documents, compared with the tests that they name, and the documents' links.

use std::collections::BTreeMap;

use crate::harness::document::file;

tests!(
    every_test_that_a_document_names_exists,
    a_row_that_proves_nothing_is_found,
    every_link_of_a_document_leads_to_a_file_and_its_heading,
);

/// The documents, and how many tests each names at least: a change of the tables' form must not hide them.
const DOCUMENTS: [(&str, usize); 2] = [("docs/OPERATIONS.md", 100), ("docs/SECURITY.md", 180)];
/// What a row may say in place of tests.
const WITHOUT: [&str; 3] = ["without a test", "not met", "does not apply"];

/// Finds the tests that tables of a document name, as their file and name, and what is wrong with rows. A table counts if
/// its last column is headed "test". A cell holds `path.rs: name`, and further names in the same file.
fn named(text: &str) -> (Vec<(String, String)>, Vec<String>) {
    let (mut tests, mut wrong) = (Vec::new(), Vec::new());
    let mut is_table = false;
    for line in text.lines() {
        let Some(row) = line.strip_prefix('|') else {
            is_table = false;
            continue;
        };
        let cell = row
            .trim_end()
            .trim_end_matches('|')
            .rsplit('|')
            .next()
            .unwrap()
            .trim();
        if cell == "test" {
            is_table = true;
            continue;
        }
        if !is_table || cell.starts_with("---") {
            continue;
        }
        let mut path = None;
        let before = tests.len();
        for span in cell.split('`').skip(1).step_by(2) {
            let name = match span.split_once(": ") {
                Some((file, name)) => {
                    path = Some(file);
                    name
                }
                None => span,
            };
            match path {
                Some(path) => tests.push((path.to_owned(), name.to_owned())),
                None => wrong.push(format!("no file in: {line}")),
            }
        }
        let reason = WITHOUT.iter().any(|reason| cell.starts_with(reason));
        if tests.len() == before && !reason {
            wrong.push(format!("no test in: {line}"));
        }
    }
    (tests, wrong)
}

/// Returns whether a source defines a test of this name: with the attribute of a test, or in the list of `tests!` or
/// `tests_on_hosts!`.
fn defines(source: &str, name: &str) -> bool {
    let definition = format!("fn {name}(");
    let Some((before, _)) = source.split_once(&definition) else {
        return false;
    };
    let before = before.rsplit_once('\n').map_or("", |(above, _)| above);
    let mut attributes = before.lines().rev().take_while(|line| {
        let line = line.trim_start();
        line.starts_with("#[") || line.starts_with("//")
    });
    let is_listed = ["tests!(", "tests_on_hosts!("].iter().any(|list| {
        let list = source
            .split_once(list)
            .and_then(|(_, list)| list.split(')').next());
        list.is_some_and(|list| list.split(',').any(|listed| listed.trim() == name))
    });
    is_listed || attributes.any(|line| line.contains("test]") || line.contains("::test("))
}

async fn every_test_that_a_document_names_exists() {
    let mut sources = BTreeMap::new();
    for (document, at_least) in DOCUMENTS {
        let (tests, mut wrong) = named(&std::fs::read_to_string(file(document)).unwrap());
        assert!(tests.len() >= at_least, "{document} names {} tests", tests.len());
        for (path, name) in tests {
            let source = sources
                .entry(path.clone())
                .or_insert_with(|| std::fs::read_to_string(file(&path)).unwrap_or_default());
            if !defines(source, &name) {
                wrong.push(format!("there is no test {path}: {name}"));
            }
        }
        assert!(wrong.is_empty(), "{document}:\n{}", wrong.join("\n"));
    }
}

/// Returns the anchors of a document's headings, as GitHub makes them.
fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchors = headings.map(|line| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title
            .chars()
            .filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    });
    anchors.collect()
}

async fn every_link_of_a_document_leads_to_a_file_and_its_heading() {
    let mut documents = vec![
        "README.md".into(),
        "CONTRIBUTING.md".into(),
        "deploy/README.md".into(),
    ];
    for directory in ["docs", "docs/decisions"] {
        let entries = std::fs::read_dir(file(directory)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        documents.extend(
            names
                .filter(|name| name.ends_with(".md"))
                .map(|name| format!("{directory}/{name}")),
        );
    }
    let (mut links, mut broken) = (0, Vec::new());
    for document in documents {
        let text = std::fs::read_to_string(file(&document)).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") || link.contains(char::is_whitespace) {
                continue;
            }
            links += 1;
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => file(&document),
                path => file(&document).parent().unwrap().join(path),
            };
            let is_there = target.exists()
                && (anchor.is_empty()
                    || anchors(&std::fs::read_to_string(&target).unwrap()).contains(&anchor.to_owned()));
            if !is_there {
                broken.push(format!("{document}: {link}"));
            }
        }
    }
    assert!(links >= 80, "{links} links");
    assert!(broken.is_empty(), "{broken:#?}");
}

async fn a_row_that_proves_nothing_is_found() {
    let (tests, wrong) = named(
        "| what | test |\n|---|---|\n| a | `a.rs: one`, `two` |\n| b | not met |\n| c | soon |\n| d | `three` |\n\
         \n| what | else |\n|---|---|\n| e | nothing |\n",
    );
    let expected = [("a.rs", "one"), ("a.rs", "two")];
    assert_eq!(
        tests,
        expected.map(|(file, name)| (file.to_owned(), name.to_owned()))
    );
    assert_eq!(wrong.len(), 3, "{wrong:?}");
    let source = "tests!(\n    listed,\n);\nasync fn listed() {}\nasync fn helper() {}\n#[test]\nfn tested() {}\n\
                  /// Says why.\n#[tokio::test(start_paused = true)]\nasync fn paused() {}\n";
    for (name, expected) in [
        ("listed", true),
        ("tested", true),
        ("paused", true),
        ("helper", false),
        ("none", false),
    ] {
        assert_eq!(defines(source, name), expected, "{name}");
    }
}
