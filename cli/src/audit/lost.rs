//! `accord audit lost`: what a restored database no longer knows, from an export of the record that was kept elsewhere.
//!
//! A restore brings back what was taken away after the copy: a consent that was revoked, a client that was suspended. The tables
//! of [`effects`] say which actions take something away, and what does each again.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::File,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
};

use accord::{
    clock::UnixMillis,
    store::{
        Database,
        audit::{self, EventRow, Filter, Outcome, action},
    },
    text::{page::PageRequest, validation::Violations},
};
use anyhow::{Context, bail};
use prost_types::Timestamp;
use serde::Deserialize;

use self::effects::{DONE_BY_ANOTHER, Effect, LIFTED_BY};
use super::Found;

mod effects;

/// How many events are looked up at a time.
const AT_ONCE: usize = 500;
/// How many events of a kind are compared with one that is missing, the newest ones.
const COMPARED: i32 = 50;

/// An event of an export.
#[derive(Debug, Deserialize)]
struct Line {
    event_id: String,
    time: String,
    action: String,
    outcome: String,
    actor_kind: String,
    actor_id: String,
    tenant_id: Option<String>,
    client_id: Option<String>,
    subject: Option<String>,
    #[serde(default)]
    detail: BTreeMap<String, String>,
}

impl Line {
    fn time(&self) -> anyhow::Result<UnixMillis> {
        let time: Timestamp = self.time.parse().context("the time of an event")?;
        UnixMillis::from_timestamp(&time).context("the time of an event")
    }

    /// Returns the actions that do this one again.
    fn again(&self) -> impl Iterator<Item = &str> {
        let others = DONE_BY_ANOTHER
            .iter()
            .filter(|(of, _)| of.as_str() == self.action);
        others.map(|(_, other)| other.as_str()).chain([&*self.action])
    }

    /// Returns whether an event does this one again: on the same subject, with the same new values if the action is the same.
    fn is_done_by(&self, event: &EventRow) -> bool {
        let tenant_id = event.tenant_id.as_ref().map(|id| id.as_str());
        self.again().any(|action| action == event.action)
            && event.subject == self.subject
            && tenant_id == self.tenant_id.as_deref()
            && (event.action != self.action || set_the_same(&self.action, &self.detail, &event.detail))
    }

    fn is_of(&self, created: &HashSet<String>) -> bool {
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
fn set_the_same(action: &str, one: &BTreeMap<String, String>, other: &BTreeMap<String, String>) -> bool {
    let is_bare = |detail: &BTreeMap<_, _>| detail.contains_key("altered") && new_values(detail).is_empty();
    let is_as_bad =
        action != action::CLIENT_SECRET_REVOKE.as_str() || one.get("reason") == other.get("reason");
    is_as_bad && (new_values(one) == new_values(other) || is_bare(one) || is_bare(other))
}

/// Returns what an event set: its details without old values, and without why and through whom it was done.
fn new_values(detail: &BTreeMap<String, String>) -> BTreeMap<&str, String> {
    let told = |name: &str| name.starts_with("old_") || NOT_SET.contains(&name);
    let set = detail.iter().filter(|(name, _)| !told(name));
    set.map(|(name, value)| {
        let replaced = serde_json::from_str::<serde_json::Value>(value).ok();
        let new = replaced.and_then(|value| value.get("new").map(ToString::to_string));
        (name.as_str(), new.unwrap_or_else(|| value.clone()))
    })
    .collect()
}

/// Writes what the database lacks of the record in the files, first what takes something away. Skips the events of `handled`.
///
/// # Errors
/// If something that takes away is missing and was not done again since, or the files have a line that can't be read. All
/// others are listed before.
pub async fn run(
    db: &Database,
    records: &[PathBuf],
    handled: &[String],
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let deleted = Deleted {
        until: deleted_until(db).await?,
        copied_at: audit::copied_at(db.read()).await?,
    };
    if deleted.until.is_some() && deleted.copied_at.is_none() {
        writeln!(
            out,
            "the record does not say when the copy was made: what --audit-days has deleted is listed, too"
        )?;
    }
    let (mut batch, mut lost, mut known, mut unreadable) = (Vec::new(), Vec::new(), 0, 0);
    let mut seen = HashSet::new();
    for path in records {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        for (number, text) in BufReader::new(file).lines().enumerate() {
            let at = || format!("{}, line {}", path.display(), number + 1);
            let line = match line(&text.with_context(at)?) {
                Ok(Some(line)) => line,
                Ok(None) => continue,
                Err(error) => {
                    writeln!(out, "{}: {error:#}", at())?;
                    unreadable += 1;
                    continue;
                }
            };
            let is_deleted = line.time().is_ok_and(|time| deleted.holds(time));
            // Two exports may overlap.
            if !is_deleted && seen.insert(line.event_id.clone()) {
                batch.push(line);
            }
            if batch.len() == AT_ONCE {
                known += missing(db, std::mem::take(&mut batch), &mut lost).await?;
            }
        }
    }
    known += missing(db, batch, &mut lost).await?;
    if known == 0 && !lost.is_empty() {
        writeln!(
            out,
            "the database has none of these events: is the record that of the other service?"
        )?;
    }
    // Whatever the order of the files: of two changes of one thing the later one is done last.
    lost.sort_by_cached_key(|line| (line.time().ok(), line.event_id.clone()));
    for event_id in handled {
        if lost.iter().all(|line| line.event_id != *event_id) {
            bail!("--done {event_id}: the database lacks no event of this id that the export has");
        }
    }
    lost.retain(|line| !handled.contains(&line.event_id));
    let reported = report(db, &lost, out).await;
    if unreadable > 0 {
        let what = format!("{unreadable} lines of the export can't be read: find out what they were");
        return match reported {
            Ok(()) => bail!(what),
            Err(error) => Err(error.context(what)),
        };
    }
    reported
}

/// Returns the ids of ends that were lifted again later, and of what has lifted them: together they change nothing. `lost` begins
/// with the oldest.
fn settled(lost: &[Line]) -> HashSet<&str> {
    let (mut open, mut settled) = (HashMap::<_, Vec<&Line>>::new(), HashSet::new());
    for line in lost {
        for (ends, lifts) in LIFTED_BY {
            let of = (ends.as_str(), &line.tenant_id, &line.subject);
            if line.action == ends.as_str() {
                open.entry(of).or_default().push(line);
            } else if line.action == lifts.as_str()
                && let Some(ended) = open.remove(&of)
            {
                let both = ended.into_iter().chain([line]);
                settled.extend(both.map(|line| line.event_id.as_str()));
            }
        }
    }
    settled
}

/// Which events retention has deleted from the restored copy.
struct Deleted {
    /// Retention has deleted no event from this time on.
    until: Option<UnixMillis>,
    /// The time of the newest event that the copy had.
    copied_at: Option<UnixMillis>,
}

impl Deleted {
    /// Returns whether the copy had the events of a time, and retention has deleted them since. Later ones are lost, however old
    /// they are.
    fn holds(&self, time: UnixMillis) -> bool {
        let ends = self.until.zip(self.copied_at);
        ends.is_some_and(|(until, copied_at)| time < until && time <= copied_at)
    }
}

/// Reads a line of an export. `None` for what needs no look-up.
fn line(text: &str) -> anyhow::Result<Option<Line>> {
    let value: serde_json::Value = serde_json::from_str(text).context("no line of an export")?;
    if value.get("removed_leaves").is_some() {
        return Ok(None);
    }
    if value.get("fault").is_some() {
        bail!("an event could not be read when the record was exported: find out what it was");
    }
    let line: Line = serde_json::from_value(value).context("no line of an export")?;
    line.time()?;
    let counts = line.outcome == Outcome::Success.as_ref() && Effect::of(&line.action) != Effect::Neither;
    Ok(counts.then_some(line))
}

/// Returns up to which time retention may have deleted events.
async fn deleted_until(db: &Database) -> anyhow::Result<Option<UnixMillis>> {
    let filter = Filter {
        action: Some(action::AUDIT_EVENTS_DELETE.as_str().to_owned()),
        ..Filter::default()
    };
    let newest = listed(db, &filter, 1).await?.into_iter().next();
    let until = newest.and_then(|event| event.detail.get("until")?.parse().ok());
    Ok(until.and_then(|until: Timestamp| UnixMillis::from_timestamp(&until)))
}

async fn listed(db: &Database, filter: &Filter, count: i32) -> anyhow::Result<Vec<EventRow>> {
    let page = PageRequest::parse(&mut Violations::default(), "lost", &[], count, "");
    let page = page.context("reading the record")?;
    let (events, _) = audit::list(db.read(), filter, &page).await?.into_parts();
    Ok(events)
}

/// Adds the events that the database lacks. Returns how many it has.
async fn missing(db: &Database, lines: Vec<Line>, lost: &mut Vec<Line>) -> anyhow::Result<usize> {
    let ids: Vec<_> = lines.iter().map(|line| line.event_id.clone()).collect();
    let known = audit::known(db.read(), &ids).await?;
    let before = lost.len();
    let count = lines.len();
    lost.extend(lines.into_iter().filter(|line| !known.contains(&line.event_id)));
    Ok(count - (lost.len() - before))
}

async fn report(db: &Database, lost: &[Line], out: &mut impl Write) -> anyhow::Result<()> {
    let creates = |line: &&Line| matches!(Effect::of(&line.action), Effect::Creates(_) | Effect::Begins);
    // A link is made with its secret, which has no event of its own.
    let subjects = |line: &Line| [line.subject.clone(), line.detail.get("secret_id").cloned()];
    let is_link = |line: &&Line| line.action == action::DELIVERY_CREATE.as_str();
    let created = lost
        .iter()
        .filter(|line| creates(line) || is_link(line))
        .flat_map(subjects)
        .flatten();
    let created: HashSet<_> = created.collect();
    let settled = settled(lost);
    let (mut takes, mut gives, mut done, mut gone) = (Vec::new(), Vec::new(), 0, 0);
    for line in lost
        .iter()
        .filter(|line| !settled.contains(line.event_id.as_str()))
    {
        match Effect::of(&line.action) {
            Effect::Creates(again) => gives.push((line, again)),
            _ if line.is_of(&created) => gone += 1,
            Effect::Gives(again) => gives.push((line, again)),
            Effect::Takes(_) if is_done_again(db, line).await? => done += 1,
            Effect::Takes(again) => {
                takes.push((line, again.unwrap_or("what this version does not know: find out")));
            }
            Effect::Begins | Effect::Neither => {}
        }
    }
    section(out, "took something away. Do each again, from the top", &takes)?;
    section(out, "gave something. Do again what is still wanted", &gives)?;
    writeln!(
        out,
        "{done} missing events were done again; {gone} were about what is missing itself; {} were a suspension and its end",
        settled.len()
    )?;
    match takes.len() {
        0 => Ok(()),
        count => Err(Found(format!(
            "{count} events that took something away are not in the record of this database"
        ))
        .into()),
    }
}

fn section(out: &mut impl Write, what: &str, lines: &[(&Line, &str)]) -> anyhow::Result<()> {
    if !lines.is_empty() {
        writeln!(out, "{} missing events {what}:", lines.len())?;
    }
    for (line, again) in lines {
        let Line {
            time,
            action,
            event_id,
            actor_kind,
            actor_id,
            ..
        } = line;
        write!(out, "{time} {action}: {again}")?;
        let named = [
            ("tenant", &line.tenant_id),
            ("client", &line.client_id),
            ("subject", &line.subject),
        ];
        for (name, id) in named {
            if let Some(id) = id {
                write!(out, " {name}={id}")?;
            }
        }
        let detail = serde_json::to_string(&line.detail)?;
        writeln!(out, " by={actor_kind}/{actor_id} event={event_id} {detail}")?;
    }
    Ok(())
}

/// Returns whether the database has an event that did the same later.
async fn is_done_again(db: &Database, line: &Line) -> anyhow::Result<bool> {
    for action in line.again() {
        let filter = Filter {
            action: Some(action.to_owned()),
            subject: line.subject.clone(),
            outcome: Some(Outcome::Success),
            from: Some(line.time()?),
            ..Filter::default()
        };
        let events = listed(db, &filter, COMPARED).await?;
        if events.iter().any(|event| line.is_done_by(event)) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_retention_deletes_is_skipped_only_if_the_copy_had_it() {
        let at = UnixMillis::from_millis;
        let copy = |until, copied_at| Deleted { until, copied_at };
        let held = |copy: Deleted| [10, 20, 30].map(|time| copy.holds(at(time)));
        assert_eq!(held(copy(Some(at(30)), Some(at(30)))), [true, true, false]);
        // An event after the copy is lost, although retention deletes events of its age.
        assert_eq!(held(copy(Some(at(30)), Some(at(10)))), [true, false, false]);
        assert_eq!(held(copy(Some(at(30)), None)), [false; 3]);
        assert_eq!(held(copy(None, Some(at(30)))), [false; 3]);
    }

    #[test]
    fn a_suspension_that_ended_later_is_settled() {
        let line = |event_id: &str, action: &str, subject: &str| Line {
            event_id: event_id.into(),
            time: String::new(),
            action: action.into(),
            outcome: "success".into(),
            actor_kind: "operator".into(),
            actor_id: "opr_1".into(),
            tenant_id: None,
            client_id: None,
            subject: Some(subject.into()),
            detail: BTreeMap::new(),
        };
        let lost = [
            line("1", "client.reinstate", "cli_1"),
            line("2", "client.suspend", "cli_1"),
            line("3", "client.suspend", "cli_2"),
            line("4", "tenant.reinstate", "cli_2"),
            line("5", "client.reinstate", "cli_1"),
            line("6", "client.suspend", "cli_1"),
            line("7", "user.deactivate", "usr_1"),
            line("8", "user.reactivate", "usr_1"),
            // What was altered is suspended once more.
            line("9", "tenant.suspend", "tnt_1"),
            line("10", "tenant.suspend", "tnt_1"),
            line("11", "tenant.reinstate", "tnt_1"),
        ];
        assert_eq!(
            settled(&lost),
            HashSet::from(["2", "5", "7", "8", "9", "10", "11"])
        );
    }

    #[test]
    fn only_new_values_are_compared() {
        let detail = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            let owned = pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            owned.collect()
        };
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
        let detail = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            let owned = pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            owned.collect()
        };
        let state = ("state", r#"{"new":"suspended","old":"active"}"#);
        let whole = detail(&[("reason", "leaked"), state]);
        let altered = detail(&[("reason", "again"), ("altered", "clients")]);
        assert!(set_the_same("client.suspend", &whole, &altered));
        assert!(set_the_same("client.suspend", &altered, &whole));
        // A change that removed a forged row beside its own has values.
        let scopes = |new| detail(&[("scopes", new), ("altered", "changes")]);
        let [one, other] = [r#"{"new":["a"]}"#, r#"{"new":["b"]}"#].map(scopes);
        assert!(!set_the_same("client.update", &one, &other));
        let revoked = |reason| detail(&[("reason", reason), ("altered", "client_secrets")]);
        let [rotated, compromised] = ["rotated", "compromised"].map(revoked);
        assert!(!set_the_same("client_secret.revoke", &compromised, &rotated));
        assert!(set_the_same("client_secret.revoke", &rotated, &rotated));
    }

    #[test]
    fn a_line_that_can_not_be_read_is_an_error_and_removed_leaves_are_none() {
        let removed = r#"{"position":"1/9/4294967295","removed_leaves":{"log":1,"from":0,"through":9}}"#;
        assert!(line(removed).unwrap().is_none());
        for bad in [
            "",
            "{}",
            r#"{"position":"1/2/0","fault":"the leaf's row is missing or can't be read"}"#,
        ] {
            assert!(line(bad).is_err(), "{bad}");
        }
    }
}
