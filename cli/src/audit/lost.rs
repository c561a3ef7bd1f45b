//! `accord audit lost`: what a restored database no longer knows, from an export of the record that was kept elsewhere.
//!
//! A restore brings back what was taken away after the copy: a consent that was revoked, a client that was suspended. The tables
//! of [`effects`] say which actions take something away, and what does each again.

use std::{
    collections::{HashMap, HashSet},
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
    text::page::PageRequest,
};
use anyhow::{Context, bail};
use prost_types::Timestamp;

use self::{
    effects::{Effect, LIFTED_BY},
    exported::{ExportedEvent, read_line},
};
use super::Found;

mod effects;
mod exported;

/// How many events are looked up at a time.
const BATCH_SIZE: usize = 500;
/// How many events are compared with a missing one of their kind: the newest.
const COMPARED: u64 = 50;

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
    let Compared {
        mut lost,
        known,
        unreadable,
    } = compare(db, records, &deleted, out).await?;
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

/// An export beside the database.
#[derive(Default)]
struct Compared {
    /// The events that the database lacks.
    lost: Vec<ExportedEvent>,
    /// How many the database has.
    known: usize,
    /// How many lines can't be read.
    unreadable: usize,
}

impl Compared {
    /// Adds these events.
    async fn add(&mut self, db: &Database, events: Vec<ExportedEvent>) -> anyhow::Result<()> {
        let ids: Vec<_> = events.iter().map(|event| event.event_id.clone()).collect();
        let known = audit::known(db.read(), &ids).await?;
        self.known += known.len();
        let lost = events
            .into_iter()
            .filter(|event| !known.contains(&event.event_id));
        self.lost.extend(lost);
        Ok(())
    }
}

/// Looks for the events of these files in the database. Skips those that retention has deleted, and tells of lines that can't be
/// read.
async fn compare(
    db: &Database,
    records: &[PathBuf],
    deleted: &Deleted,
    out: &mut impl Write,
) -> anyhow::Result<Compared> {
    let (mut compared, mut batch, mut seen) = (Compared::default(), Vec::new(), HashSet::new());
    for path in records {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        for (number, text) in BufReader::new(file).lines().enumerate() {
            let at = || format!("{}, line {}", path.display(), number + 1);
            let line = match read_line(&text.with_context(at)?) {
                Ok(Some(line)) => line,
                Ok(None) => continue,
                Err(error) => {
                    writeln!(out, "{}: {error:#}", at())?;
                    compared.unreadable += 1;
                    continue;
                }
            };
            let is_deleted = line.time().is_ok_and(|time| deleted.holds(time));
            // Two exports may overlap.
            if !is_deleted && seen.insert(line.event_id.clone()) {
                batch.push(line);
            }
            if batch.len() == BATCH_SIZE {
                compared.add(db, std::mem::take(&mut batch)).await?;
            }
        }
    }
    compared.add(db, batch).await?;
    Ok(compared)
}

/// Returns the ids of ends that were lifted again later, and of what has lifted them: together they change nothing. `lost` begins
/// with the oldest.
fn settled(lost: &[ExportedEvent]) -> HashSet<&str> {
    let (mut open, mut settled) = (HashMap::<_, Vec<&ExportedEvent>>::new(), HashSet::new());
    for line in lost {
        for (ends, lifts) in LIFTED_BY {
            let target = (ends.as_str(), &line.tenant_id, &line.subject);
            if line.action == ends.as_str() {
                open.entry(target).or_default().push(line);
            } else if line.action == lifts.as_str()
                && let Some(ended) = open.remove(&target)
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

/// Returns the time before which retention may have deleted events.
async fn deleted_until(db: &Database) -> anyhow::Result<Option<UnixMillis>> {
    let filter = Filter {
        action: Some(action::AUDIT_EVENTS_DELETE.as_str().to_owned()),
        ..Filter::default()
    };
    let newest = listed(db, &filter, 1).await?.into_iter().next();
    let until = newest.and_then(|event| event.detail.get("until")?.parse().ok());
    Ok(until.and_then(|until: Timestamp| UnixMillis::from_timestamp(&until)))
}

async fn listed(db: &Database, filter: &Filter, count: u64) -> anyhow::Result<Vec<EventRow>> {
    let page = audit::list(db.read(), filter, &PageRequest::first(count)).await?;
    Ok(page.into_parts().0)
}

async fn report(db: &Database, lost: &[ExportedEvent], out: &mut impl Write) -> anyhow::Result<()> {
    let creates =
        |line: &&ExportedEvent| matches!(Effect::of(&line.action), Effect::Creates(_) | Effect::Begins);
    // A link is made with its secret, which has no event of its own.
    let subjects = |line: &ExportedEvent| [line.subject.clone(), line.detail.get("secret_id").cloned()];
    let is_link = |line: &&ExportedEvent| line.action == action::DELIVERY_CREATE.as_str();
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
            _ if line.concerns_any(&created) => gone += 1,
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

fn section(out: &mut impl Write, what: &str, lines: &[(&ExportedEvent, &str)]) -> anyhow::Result<()> {
    if !lines.is_empty() {
        writeln!(out, "{} missing events {what}:", lines.len())?;
    }
    for (line, again) in lines {
        let ExportedEvent {
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
async fn is_done_again(db: &Database, line: &ExportedEvent) -> anyhow::Result<bool> {
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
    use std::collections::BTreeMap;

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
        let line = |event_id: &str, action: &str, subject: &str| ExportedEvent {
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
}
