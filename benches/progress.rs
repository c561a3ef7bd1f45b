//! Says how far it is: a bar on a terminal, else a line for each step.

use std::{io::IsTerminal, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Progress of the whole run; clones show on the same bar.
#[derive(Clone)]
pub struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self { bar }
    }

    /// A step begins. Of how many parts it is may be unknown.
    pub fn step(&self, parts: Option<u64>, what: &str) {
        let Some(bar) = &self.bar else {
            eprintln!("{what}");
            return;
        };
        let style = match parts {
            Some(_) => "{elapsed_precise} {bar:30} {pos}/{len} {msg}",
            None => "{elapsed_precise} {spinner} {msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        bar.set_length(parts.unwrap_or(0));
        bar.set_position(0);
        bar.set_message(what.to_owned());
    }

    /// So many parts are done, and the next is this one; a line of its own only if it is named.
    pub fn advance(&self, parts: u64, what: Option<&str>) {
        match (&self.bar, what) {
            (None, Some(what)) => eprintln!("  {what}"),
            (None, None) => {}
            (Some(bar), what) => {
                bar.inc(parts);
                if let Some(what) = what {
                    bar.set_message(what.to_owned());
                }
            }
        }
    }

    /// No more steps.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
