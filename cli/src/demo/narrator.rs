//! Prints the demonstration. Secrets must be [`masked`].

use std::io::{self, Write};

/// Prints steps, requests and responses.
pub struct Narrator<'a> {
    out: &'a mut (dyn Write + Send),
}

impl<'a> Narrator<'a> {
    /// Creates a narrator that prints to `out`.
    pub fn new(out: &'a mut (dyn Write + Send)) -> Self {
        Self { out }
    }

    /// Prints the title of a step.
    pub fn step(&mut self, number: u8, name: &str, what: &str) -> io::Result<()> {
        writeln!(self.out, "\n{number}. {name}: {what}")
    }

    /// Prints a request: its sender, its method and its fields.
    pub fn sent(&mut self, who: &str, method: &str, fields: &[(&str, &str)]) -> io::Result<()> {
        writeln!(self.out, "   {who} -> {method}")?;
        self.fields(fields)
    }

    /// Prints a response.
    pub fn got(&mut self, fields: &[(&str, &str)]) -> io::Result<()> {
        writeln!(self.out, "   <-")?;
        self.fields(fields)
    }

    /// Prints the last message.
    pub fn done(&mut self, message: &str) -> io::Result<()> {
        writeln!(self.out, "\n{message}")
    }

    fn fields(&mut self, fields: &[(&str, &str)]) -> io::Result<()> {
        for (name, value) in fields {
            writeln!(self.out, "        {name:<24} {value}")?;
        }
        Ok(())
    }
}

/// Returns only the prefix and the length of a secret.
pub fn masked(secret: &str) -> String {
    let prefix = match secret.split_once('_') {
        Some((prefix, _)) if prefix.len() == 3 => format!("{prefix}_"),
        _ => String::new(),
    };
    format!("{prefix}******** ({} characters)", secret.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_secret_shows_only_its_prefix_and_length() {
        assert_eq!(masked("acc_abcdef"), "acc_******** (10 characters)");
        assert_eq!(masked("eyJhbGciOi"), "******** (10 characters)");
    }
}
