//! Limits how often the log repeats itself: during an outage each call fails for the same reason.

use std::time::{Duration, Instant};

use crate::lock::Lock;

/// The most texts that are told apart. More of them within a period count as one.
const MAX_TEXTS: usize = 32;

/// Lets a text pass once in a period.
#[derive(Debug)]
pub struct LogLimit {
    period: Duration,
    texts: Lock<Vec<Logged>>,
}

#[derive(Debug)]
struct Logged {
    text: String,
    at: Instant,
    /// How often the text did not pass since then.
    unlogged: u64,
}

impl LogLimit {
    /// Creates a limit.
    pub const fn new(period: Duration) -> Self {
        Self {
            period,
            texts: Lock::new(Vec::new()),
        }
    }

    /// Returns `Some` if the text passes now, with the number of times that it did not pass before.
    pub fn check(&self, text: &str) -> Option<u64> {
        self.check_at(text, Instant::now())
    }

    fn check_at(&self, text: &str, now: Instant) -> Option<u64> {
        let mut texts = self.texts.lock();
        let is_recent = |logged: &Logged| now.saturating_duration_since(logged.at) < self.period;
        let known = texts.iter().position(|logged| logged.text == text);
        let text = if known.is_none() {
            texts.retain(|logged| is_recent(logged) || logged.unlogged > 0);
            // A text that did not pass keeps its count only as long as there is room.
            if texts.len() >= MAX_TEXTS {
                texts.retain(is_recent);
            }
            if texts.len() < MAX_TEXTS { text } else { "" }
        } else {
            text
        };
        if let Some(logged) = texts.iter_mut().find(|logged| logged.text == text) {
            if is_recent(logged) {
                logged.unlogged += 1;
                return None;
            }
            logged.at = now;
            return Some(std::mem::take(&mut logged.unlogged));
        }
        texts.push(Logged {
            text: text.to_owned(),
            at: now,
            unlogged: 0,
        });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(5);

    #[test]
    fn a_text_passes_once_in_a_period_and_others_pass_beside_it() {
        let (limit, start) = (LogLimit::new(PERIOD), Instant::now());
        assert_eq!(limit.check_at("disk full", start), Some(0));
        for _ in 0..7 {
            assert_eq!(limit.check_at("disk full", start + PERIOD / 2), None);
        }
        assert_eq!(limit.check_at("read-only", start + PERIOD / 2), Some(0));
        assert_eq!(limit.check_at("disk full", start + PERIOD), Some(7));
        assert_eq!(limit.check_at("disk full", start + PERIOD), None);
    }

    #[test]
    fn texts_that_never_come_again_do_not_silence_others() {
        let (limit, start) = (LogLimit::new(PERIOD), Instant::now());
        for number in 0..2 * MAX_TEXTS {
            let _ = limit.check_at(&(number / 2).to_string(), start);
        }
        let later = start + PERIOD;
        assert_eq!(limit.check_at("disk full", later), Some(0));
        assert_eq!(limit.check_at("read-only", later), Some(0));
    }

    #[test]
    fn memory_and_log_stay_bounded_whatever_the_texts_are() {
        let (limit, start) = (LogLimit::new(PERIOD), Instant::now());
        let passed = (0..10_000).filter(|number| limit.check_at(&number.to_string(), start).is_some());
        assert!(passed.count() <= MAX_TEXTS + 1);
        assert!(limit.texts.lock().len() <= MAX_TEXTS + 1);
    }
}
