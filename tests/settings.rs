//! What the documents and the examples of `deploy/` say about settings, compared with the command lines, and the table of audit
//! actions in OPERATIONS, compared with their list. `just settings` writes what is generated again.

use std::{fmt::Write, path::Path};

use accord::store::audit::action;
use clap::{Command, CommandFactory};

use crate::harness::document::file;

tests!(
    the_table_of_settings_is_the_one_of_the_command_lines,
    the_examples_of_systemd_have_every_setting,
    the_table_of_actions_is_their_list,
);

/// A setting: a flag of `serve`, which is also a variable and a key of the file.
struct Setting {
    flag: String,
    value: String,
    default: Option<String>,
    is_required: bool,
    help: String,
}

/// A service with its command line and its settings.
pub struct Service {
    name: &'static str,
    short: &'static str,
    /// What its variables begin with.
    pub prefix: &'static str,
    command: Command,
    settings: Vec<Setting>,
}

impl Service {
    pub fn all() -> [Self; 2] {
        let registry = registry_service::config::Settings::default()
            .checked(accord::rpc::config::settings::Needs::Everything)
            .unwrap_err();
        let token = token_service::config::Settings::default()
            .checked(accord::rpc::config::settings::Needs::Everything)
            .unwrap_err();
        [
            Self::read(
                "registry-service",
                registry_service::config::ENVIRONMENT_PREFIX,
                registry_service::config::Cli::command(),
                &registry.to_string(),
            ),
            Self::read(
                "token-service",
                token_service::config::ENVIRONMENT_PREFIX,
                token_service::config::Cli::command(),
                &token.to_string(),
            ),
        ]
    }

    /// Reads the settings of `serve`. `problems` says what is wrong where nothing is set.
    fn read(name: &'static str, prefix: &'static str, command: Command, problems: &str) -> Self {
        let serve = command.find_subcommand("serve").expect("a command `serve`");
        let settings = serve.get_arguments().filter_map(|argument| {
            let flag = format!("--{}", argument.get_long()?);
            let help = argument.get_help()?.to_string();
            let (help, default) = match help.rsplit_once(" [default: ") {
                Some((help, default)) => (help, Some(default.strip_suffix(']').unwrap())),
                None => (help.as_str(), None),
            };
            Some(Setting {
                value: argument.get_value_names().map_or_else(
                    || "true, false".to_owned(),
                    |names| {
                        names
                            .iter()
                            .map(|name| name.to_string())
                            .collect::<Vec<_>>()
                            .join(" ")
                    },
                ),
                default: default.map(str::to_owned),
                is_required: problems.contains(&format!("{flag} is missing")),
                help: help.replace('\n', " "),
                flag,
            })
        });
        let settings: Vec<_> = settings.collect();
        assert!(settings.len() > 3, "{name}: {problems}");
        Self {
            short: name.strip_suffix("-service").unwrap(),
            name,
            prefix,
            settings,
            command,
        }
    }

    /// The variables of its settings.
    pub fn variables(&self) -> impl Iterator<Item = String> {
        self.settings.iter().map(|setting| self.variable(setting))
    }

    fn variable(&self, setting: &Setting) -> String {
        let name = setting.flag.trim_start_matches('-').replace('-', "_");
        format!("{}{}", self.prefix, name.to_ascii_uppercase())
    }
}

/// The commands below a command, each with its path and what it does.
fn commands(path: &str, command: &Command, found: &mut String) {
    let mut children = command
        .get_subcommands()
        .filter(|child| child.get_name() != "help")
        .peekable();
    if children.peek().is_none() {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        let positional: String = command
            .get_positionals()
            .map(|argument| format!(" {}", argument.get_id().as_str().to_ascii_uppercase()))
            .collect();
        writeln!(found, "| `{path}{positional}` | {} |", cell(&about)).unwrap();
    }
    for child in children {
        commands(&format!("{path} {}", child.get_name()), child, found);
    }
}

/// A text as a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn table() -> String {
    let mut text = "\
# Settings

Generated from the command lines by `just settings`; a test compares it. [OPERATIONS](OPERATIONS.md#settings) says how flags,
variables and files fit together.

Each flag is also an environment variable, and a key of the TOML file that `--config` names: the flag without its dashes in
front, with `_` for `-`. So `--listen` is `ACCORD_REGISTRY_LISTEN` and `listen`.
"
    .to_owned();
    for service in Service::all() {
        let name = service.name;
        write!(text, "\n## {name}\n\n| command | what it does |\n|---|---|\n").unwrap();
        commands(name, &service.command, &mut text);
        text += "\n| flag | variable | value | default | meaning |\n|---|---|---|---|---|\n";
        for setting in &service.settings {
            let default = match &setting.default {
                _ if setting.is_required => "required".to_owned(),
                Some(default) => format!("`{default}`"),
                None => String::new(),
            };
            let help = cell(&setting.help);
            let (flag, value, variable) = (&setting.flag, &setting.value, service.variable(setting));
            writeln!(text, "| `{flag}` | `{variable}` | {value} | {default} | {help} |").unwrap();
        }
    }
    text
}

/// The example of a file that systemd reads the environment from.
fn example(service: &Service) -> String {
    let (name, short) = (service.name, service.short);
    let mut text = format!(
        "# /etc/accord/{short}.env: the settings of {name}, read by accord-{short}.service. Generated by `just settings`.\n\
         #\n\
         # Nothing secret is in this file. The database's URL, which may hold a password, is the line\n\
         #   database_url = \"postgres://...\"\n\
         # of /etc/accord/{short}.toml. The unit sets the paths of that file and of the master key.\n"
    );
    for setting in &service.settings {
        let variable = service.variable(setting);
        // What the unit sets, and what the other file holds.
        if ["--config", "--database-url", "--master-key-file"].contains(&setting.flag.as_str()) {
            continue;
        }
        let required = if setting.is_required { " Required." } else { "" };
        write!(
            text,
            "\n# {}{}{required}\n",
            setting.help,
            if required.is_empty() { "" } else { "." }
        )
        .unwrap();
        let value = setting.default.clone().unwrap_or_default();
        writeln!(text, "#{variable}={value}").unwrap();
    }
    text
}

/// Compares a file with what it should be. With `UPDATE=1` it writes it instead.
fn assert_is(path: &str, expected: &str) {
    if std::env::var("UPDATE").is_ok_and(|value| value == "1") {
        std::fs::write(file(path), expected).unwrap();
    }
    let text = std::fs::read_to_string(file(path)).unwrap_or_default();
    assert!(text == expected, "{path} is not up to date: run `just settings`");
}

async fn the_table_of_settings_is_the_one_of_the_command_lines() {
    assert_is("docs/SETTINGS.md", &table());
}

async fn the_examples_of_systemd_have_every_setting() {
    for service in Service::all() {
        let path = format!("deploy/systemd/{}.env", service.short);
        assert_is(&path, &example(&service));
    }
}

/// Whether code below a folder has a word. Tests don't count, and models, which record nothing.
fn names(folder: &Path, word: &str) -> bool {
    let mut entries = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries.any(|path| match path.is_dir() {
        true => !path.ends_with("tests") && !path.ends_with("model") && names(&path, word),
        false => {
            let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
            let is_end = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_uppercase() || c == '_');
            text.match_indices(word)
                .any(|(at, _)| is_end(&text[at + word.len()..]))
        }
    })
}

/// The rows of the table of audit actions. Which service records an action is where the sources name it.
fn actions() -> String {
    let mut rows = "| action | recorded by | what happened |\n|---|---|---|\n".to_owned();
    for (action, help) in action::ALL {
        let constant = action.as_str().replace('.', "_").to_ascii_uppercase();
        let word = match *action {
            action::TOKEN_ISSUE => "Event::issued".to_owned(),
            _ => format!("action::{constant}"),
        };
        let is_named =
            ["src", "registry-service/src", "token-service/src"].map(|folder| names(&file(folder), &word));
        let by = match is_named {
            [_, true, true] | [true, false, false] => "both",
            [_, true, false] => "registry-service",
            [_, false, true] => "token-service",
            [false, false, false] => panic!("nothing records {action:?} by {word}"),
        };
        writeln!(rows, "| `{}` | {by} | {} |", action.as_str(), cell(help)).unwrap();
    }
    rows
}

async fn the_table_of_actions_is_their_list() {
    let path = "docs/OPERATIONS.md";
    let text = std::fs::read_to_string(file(path)).unwrap();
    let (before, section) = text.split_once("\n### Actions\n").unwrap();
    let table = section.find("\n| ").unwrap() + 1;
    let (introduction, section) = section.split_at(table);
    let (_, after) = section.split_once("\n\n").unwrap();
    let expected = format!("{before}\n### Actions\n{introduction}{}\n{after}", actions());
    assert_is(path, &expected);
}
