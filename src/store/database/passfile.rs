//! The password file of PostgreSQL, which `PGPASSFILE` names: lines of `host:port:database:user:password`, as libpq reads them
//! ("The Password File" in PostgreSQL's manual).
//!
//! Who may read it follows the rule of all files with secrets, so that a Kubernetes secret and one of Compose work. sqlx reads the file
//! as well, but not if a group may, and would log a malformed line with its password.

use std::{env::var_os, path::Path};

use sea_orm::sqlx::postgres::PgConnectOptions;
use url::Url;
use zeroize::Zeroizing;

use crate::keys::{KeyError, read_secret_text};

/// The most bytes of a password file.
const MAX_BYTES: usize = 64 * 1024;

/// Returns the password of a connection that its URL and `PGPASSWORD` leave out. `None` if there is no file, or none of its lines
/// is for this connection.
///
/// # Errors
/// Those of [`read_secret_text`].
pub(super) fn password(url: &str, options: &PgConnectOptions) -> Result<Option<Zeroizing<String>>, KeyError> {
    let Some(path) = var_os("PGPASSFILE").filter(|path| !path.is_empty()) else {
        return Ok(None);
    };
    let path = Path::new(&path);
    if names_password(url) || var_os("PGPASSWORD").is_some() || !path.exists() {
        return Ok(None);
    }
    let text = read_secret_text(path, MAX_BYTES)?;
    let host = match options.get_socket() {
        // libpq names the local socket so.
        Some(_) => "localhost",
        None => options.get_host(),
    };
    let (port, user) = (options.get_port().to_string(), options.get_username());
    let database = options.get_database().unwrap_or(user);
    Ok(find(&text, [host, &port, database, user]))
}

fn names_password(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    url.password().is_some() || url.query_pairs().any(|(name, _)| name == "password")
}

/// Finds the password of the first line whose four fields match.
fn find(text: &str, wanted: [&str; 4]) -> Option<Zeroizing<String>> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(fields).find_map(|line| {
        let (password, fields) = line.split_last()?;
        let matches =
            |(field, wanted): (&Zeroizing<String>, &str)| *field.as_str() == *"*" || field.as_str() == wanted;
        (fields.len() == wanted.len() && fields.iter().zip(wanted).all(matches)).then(|| password.clone())
    })
}

/// Splits a line at its colons. A backslash takes the next character as it is. The last of five fields may hold colons.
fn fields(line: &str) -> Vec<Zeroizing<String>> {
    let mut fields = vec![Zeroizing::new(String::new())];
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        let character = match character {
            ':' if fields.len() < 5 => {
                fields.push(Zeroizing::new(String::new()));
                continue;
            }
            '\\' => characters.next(),
            other => Some(other),
        };
        if let Some(last) = fields.last_mut() {
            last.extend(character);
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: [&str; 4] = ["db.example", "5432", "registry", "accord"];

    #[test]
    fn the_first_line_that_matches_has_the_password() {
        for (text, password) in [
            ("db.example:5432:registry:accord:one", Some("one")),
            (
                "# db.example:5432:registry:accord:no\n*:*:*:accord:two\n*:*:*:*:three",
                Some("two"),
            ),
            ("other:*:*:*:no\r\n*:*:registry:*:four\r\n", Some("four")),
            (r"*:*:*:accord:a\:b\\c", Some(r"a:b\c")),
            ("*:*:*:accord:a:b", Some("a:b")),
            ("*:*:*:other:no", None),
            ("*:*:*:accord", None),
            ("malformed", None),
        ] {
            let found = find(text, WANTED);
            assert_eq!(found.as_deref().map(String::as_str), password, "{text}");
        }
    }

    #[test]
    fn a_url_with_a_password_needs_no_file() {
        for (url, names) in [
            ("postgres://accord:secret@db.example/registry", true),
            ("postgres://accord@db.example/registry?password=secret", true),
            ("postgres://accord@db.example/registry?sslmode=verify-full", false),
            ("postgres:///registry?host=/var/run/postgresql", false),
        ] {
            assert_eq!(names_password(url), names, "{url}");
        }
    }
}
