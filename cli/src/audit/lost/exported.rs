//! An event of an export, and whether an event of the database does it again.

use std::collections::{BTreeMap, HashSet};

use accord::{
    clock::UnixMillis,
    store::audit::{EventRow, Outcome, action},
};
use anyhow::{Context, bail};
use prost_types::Timestamp;
use serde::Deserialize;

use super::effects::{DONE_BY_ANOTHER, Effect};

/// An event of an export.
#[derive(Debug, Deserialize)]
pub(super) struct ExportedEvent {
    pub(super) event_id: String,
    pub(super) time: String,
    pub(super) action: String,
    pub(super) outcome: String,
    pub(super) actor_kind: String,
    pub(super) actor_id: String,
    pub(super) tenant_id: Option<String>,
    pub(super) client_id: Option<String>,
    pub(super) subject: Option<String>,
    #[serde(default)]
    pub(super) detail: BTreeMap<String, String>,
}

impl ExportedEvent {
    pub(super) fn time(&self) -> anyhow::Result<UnixMillis> {
        let time: Timestamp = self.time.parse().context("the time of an event")?;
        UnixMillis::from_timestamp(&time).context("the time of an event")
    }

    /// Returns the actions that do this one again.
    pub(super) fn again(&self) -> impl Iterator<Item = &str> {
        let others = DONE_BY_ANOTHER
            .iter()
            .filter(|(of, _)| of.as_str() == self.action);
        others.map(|(_, other)| other.as_str()).chain([&*self.action])
    }

    /// Returns whether an event does this one again: on the same subject, with the same new values if the action is the same.
    pub(super) fn is_done_by(&self, event: &EventRow) -> bool {
        let tenant_id = event.tenant_id.as_ref().map(|id| id.as_str());
        self.again().any(|action| action == event.action)
            && event.subject == self.subject
            && tenant_id == self.tenant_id.as_deref()
            && (event.action != self.action || sets_same_values(&self.action, &self.detail, &event.detail))
    }

    pub(super) fn concerns_any(&self, created: &HashSet<String>) -> bool {
        let ids = [&self.tenant_id, &self.client_id, &self.subject];
        ids.into_iter().flatten().any(|id| created.contains(id))
    }
}

/// Details that say why, by whom and through what something was done, and how much ended with it.
const NOT_SET: [&str; 8] = [
    "altered",
    "data_keys",
    "force",
    "integration_request_id",
    "reason",
    "secrets_ended",
    "session",
    "workload",
];

/// Returns whether two events of an action set the same. An end whose row was altered has no values, and is as good as one that has
/// some; of a secret it takes away as much as its reason says.
fn sets_same_values(action: &str, one: &BTreeMap<String, String>, other: &BTreeMap<String, String>) -> bool {
    let is_bare = |detail: &BTreeMap<_, _>| detail.contains_key("altered") && new_values(detail).is_empty();
    let is_as_bad =
        action != action::CLIENT_SECRET_REVOKE.as_str() || one.get("reason") == other.get("reason");
    is_as_bad && (new_values(one) == new_values(other) || is_bare(one) || is_bare(other))
}

/// Returns what an event set: its details without old values, and without why and through whom it was done.
fn new_values(detail: &BTreeMap<String, String>) -> BTreeMap<&str, String> {
    let is_context = |name: &str| name.starts_with("old_") || NOT_SET.contains(&name);
    let set = detail.iter().filter(|(name, _)| !is_context(name));
    set.map(|(name, value)| {
        let replaced = serde_json::from_str::<serde_json::Value>(value).ok();
        let new = replaced.and_then(|value| value.get("new").map(ToString::to_string));
        (name.as_str(), new.unwrap_or_else(|| value.clone()))
    })
    .collect()
}

/// Reads a line of an export. `None` for what needs no look-up.
pub(super) fn read_line(text: &str) -> anyhow::Result<Option<ExportedEvent>> {
    let value: serde_json::Value =
        serde_json::from_str(text).context("not a line of `accord audit export`")?;
    if value.get("removed_leaves").is_some() {
        return Ok(None);
    }
    if value.get("fault").is_some() {
        bail!("an event could not be read when the record was exported: find out what it was");
    }
    let event: ExportedEvent =
        serde_json::from_value(value).context("not a line of `accord audit export`")?;
    event.time()?;
    let counts = event.outcome == Outcome::Success.as_ref() && Effect::of(&event.action) != Effect::Neither;
    Ok(counts.then_some(event))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn detail(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        owned.collect()
    }

    #[test]
    fn only_new_values_are_compared() {
        let first = detail(&[
            ("scopes", r#"{"new":["a"],"old":["a","b"]}"#),
            ("reason", "leaked"),
        ]);
        let same = detail(&[("scopes", r#"{"new":["a"],"old":["a","b","c"]}"#)]);
        let other = detail(&[("scopes", r#"{"new":["b"],"old":["a","b"]}"#)]);
        assert_eq!(new_values(&first), new_values(&same));
        assert_ne!(new_values(&first), new_values(&other));
        let user = |new| {
            detail(&[
                ("old_user_id", "usr_1"),
                ("new_user_id", new),
                ("workload", "wkl_1"),
            ])
        };
        assert_ne!(new_values(&user("usr_2")), new_values(&user("usr_3")));
    }

    #[test]
    fn an_end_whose_row_was_altered_is_as_good_as_another() {
        let state = ("state", r#"{"new":"suspended","old":"active"}"#);
        let whole = detail(&[("reason", "leaked"), state]);
        let altered = detail(&[("reason", "again"), ("altered", "clients")]);
        assert!(sets_same_values("client.suspend", &whole, &altered));
        assert!(sets_same_values("client.suspend", &altered, &whole));
        // A change that removed a forged row beside its own has values.
        let scopes = |new| detail(&[("scopes", new), ("altered", "changes")]);
        let [one, other] = [r#"{"new":["a"]}"#, r#"{"new":["b"]}"#].map(scopes);
        assert!(!sets_same_values("client.update", &one, &other));
        let revoked = |reason| detail(&[("reason", reason), ("altered", "client_secrets")]);
        let [rotated, compromised] = ["rotated", "compromised"].map(revoked);
        assert!(!sets_same_values("client_secret.revoke", &compromised, &rotated));
        assert!(sets_same_values("client_secret.revoke", &rotated, &rotated));
    }

    #[test]
    fn a_line_that_can_not_be_read_is_an_error_and_removed_leaves_are_none() {
        let removed = r#"{"position":"1/9/4294967295","removed_leaves":{"log":1,"from":0,"through":9}}"#;
        assert!(read_line(removed).unwrap().is_none());
        for bad in [
            "",
            "{}",
            r#"{"position":"1/2/0","fault":"the leaf's row is missing or can't be read"}"#,
        ] {
            assert!(read_line(bad).is_err(), "{bad}");
        }
    }
}
