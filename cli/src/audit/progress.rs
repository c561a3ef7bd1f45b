//! The progress of long commands, on standard error, and only if that is a terminal.

use indicatif::{ProgressBar, ProgressStyle};

const BAR: &str = "{percent:>3} % {wide_bar} {human_pos} of {human_len} {prefix}, {eta} left";
const COUNTER: &str = "{human_pos} {prefix} in {elapsed}, {per_sec}";

/// Returns a bar whose length the first step tells.
pub fn bar(unit: &'static str) -> ProgressBar {
    styled(ProgressBar::new(0), BAR).with_prefix(unit)
}

/// Returns a counter of what has no known end.
pub fn counter(unit: &'static str) -> ProgressBar {
    styled(ProgressBar::no_length(), COUNTER).with_prefix(unit)
}

fn styled(bar: ProgressBar, template: &str) -> ProgressBar {
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_well_formed() {
        for template in [BAR, COUNTER] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
