//! Prints the demonstration. Values that are secret go through [`masked`].

use std::io::{self, Write};

/// Writes steps, calls and answers.
pub struct Narrator<'a> {
    out: &'a mut (dyn Write + Send),
}

impl<'a> Narrator<'a> {
    /// A narrator that writes to `out`.
    pub fn new(out: &'a mut (dyn Write + Send)) -> Self {
        Self { out }
    }

    /// Begins a step.
    ///
    /// # Errors
    /// When nothing can be written.
    pub fn step(&mut self, number: u8, name: &str, what: &str) -> io::Result<()> {
        writeln!(self.out, "\n{number}. {name}: {what}")
    }

    /// Tells what was sent, by whom, and to which method.
    ///
    /// # Errors
    /// When nothing can be written.
    pub fn sent(&mut self, who: &str, method: &str, fields: &[(&str, &str)]) -> io::Result<()> {
        writeln!(self.out, "   {who} -> {method}")?;
        self.fields(fields)
    }

    /// Tells what came back.
    ///
    /// # Errors
    /// When nothing can be written.
    pub fn got(&mut self, fields: &[(&str, &str)]) -> io::Result<()> {
        writeln!(self.out, "   <-")?;
        self.fields(fields)
    }

    /// Ends the demonstration.
    ///
    /// # Errors
    /// When nothing can be written.
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

/// The kind of a secret and nothing of its content: its prefix, and how long it is.
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
    fn a_masked_secret_shows_its_kind_alone() {
        assert_eq!(masked("acc_abcdef"), "acc_******** (10 characters)");
        assert_eq!(masked("eyJhbGciOi"), "******** (10 characters)");
    }
}
