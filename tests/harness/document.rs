//! The programs in a document, as a reader would paste them.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::process::Process;

/// A file of the repository.
pub fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(path)
}

/// The lines of every `sh` block of a document between `<!-- marker -->` and `<!-- /marker -->`, in order.
pub fn shell_lines(document: &str, marker: &str) -> String {
    program(document, marker, "sh")
}

/// The same of blocks in another language.
pub fn program(document: &str, marker: &str, language: &str) -> String {
    let text = std::fs::read_to_string(file(document)).unwrap();
    let begin = format!("<!-- {marker} -->");
    let end = format!("<!-- /{marker} -->");
    let (_, rest) = text.split_once(&begin).expect("the first marker");
    let (marked, _) = rest.split_once(&end).expect("the second marker");
    let begin = format!("```{language}");
    let mut lines = String::new();
    let mut inside = false;
    for line in marked.lines() {
        match line {
            line if line == begin => inside = true,
            "```" => inside = false,
            line if inside => {
                lines.push_str(line);
                lines.push('\n');
            }
            _ => {}
        }
    }
    assert!(
        !lines.is_empty(),
        "no lines between the markers {marker} in {document}"
    );
    lines
}

/// Runs the [`shell_lines`] of these documents and markers with one bash in a directory, until one of them fails: then this does, too.
/// Returns what they print.
pub async fn run_lines(programs: &[(&str, &str)], directory: &Path, environment: &[(&str, &str)]) -> String {
    let lines = programs
        .iter()
        .map(|(document, marker)| shell_lines(document, marker));
    let marker = programs[0].1.to_owned();
    let script = directory.join(format!("{marker}.sh"));
    std::fs::write(&script, lines.collect::<String>()).unwrap();
    let mut command = Command::new("bash");
    command
        .args(["-euo", "pipefail"])
        .arg(&script)
        .envs(environment.iter().copied())
        .current_dir(directory);
    let directory = directory.to_owned();
    let ran = tokio::task::spawn_blocking(move || {
        let mut process = Process::start(command, &directory, &marker);
        let status = process.wait();
        let (printed, errors) = (process.stdout(), process.stderr());
        assert!(
            status.success(),
            "{status}\n--- printed\n{printed}\n--- errors\n{errors}"
        );
        printed
    });
    ran.await.unwrap()
}
