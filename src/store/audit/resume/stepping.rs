//! The rows at which the sealer stops, and how far a new log must step to get past them.

use super::{
    super::{
        check::{self, Altered},
        extent::of_rows,
        leaf_rows::{OWN, rows_after},
        seal::{SealError, unsealed_writers},
    },
    ResumeError,
    stepped::Stepped,
};
use crate::{
    keys::Keyring,
    store::{Keyed, StoreError, change},
};

/// How many rows are read at a time.
const ROWS: u64 = 500;
/// The most rows that are read of a source.
const MOST_ROWS: i64 = 100_000;

/// A run of rows to step over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) rows: Stepped,
    /// What the sealer says about the first of them.
    pub(super) fault: String,
}

/// What a new log steps over.
pub(super) struct Steps {
    pub(super) steps: Vec<Step>,
    /// Whether the change counter was edited, removed or put back, so that it goes on far beyond all that it can have counted.
    pub(super) has_no_counter: bool,
}

/// Returns the first faulty run of each source: rows that are missing, or that no holder of the keys has written. A later run
/// of the same source needs a resume of its own, because what lies between is sealed first. So is what comes before a run: a
/// source with rows that the sealer has not reached is left out.
///
/// Without a counter that a holder of the keys has written, and that has counted all events, their numbers go on behind `jump`.
pub(super) async fn steps(
    conn: &impl Keyed,
    keyring: &Keyring,
    own_sealed: i64,
    jump: i64,
) -> Result<Steps, ResumeError> {
    // Before the counter, which is committed with them: it reaches them, or somebody has put back an older one.
    let first = checked(conn, keyring, OWN, own_sealed).await?;
    let written = first.iter().rev().find(|(_, checked)| checked.is_ok());
    let reached = written.map_or(own_sealed, |(number, _)| *number);
    // Before the other rows: they reach it, or one of them is gone.
    let counted = match change::last_event_number(conn).await {
        Ok(counted) => Some(counted).filter(|counted| *counted >= reached),
        Err(StoreError::Altered(_) | StoreError::Corrupt(_)) => None,
        Err(error) => return Err(error.into()),
    };
    let (mut steps, mut waits) = (Vec::new(), Vec::new());
    let own = match counted {
        Some(counted) => step(conn, keyring, (OWN, own_sealed), Some(counted)).await?,
        None => Some(without_counter(first.first(), own_sealed, jump)?),
    };
    let mut place = |step: Step, sealed: i64| match step.rows.from == sealed + 1 {
        true => steps.push(step),
        false => waits.push(step.fault),
    };
    if let Some(step) = own {
        place(step, own_sealed);
    }
    for writer in unsealed_writers(conn).await? {
        if let Some(step) = step(conn, keyring, (&writer.writer, writer.sealed), None).await? {
            place(step, writer.sealed);
        }
    }
    if steps.is_empty()
        && let Some(fault) = waits.first()
    {
        return Err(ResumeError::CannotStepOver(format!(
            "{fault}; what comes before it is not sealed yet: let the service run until it is"
        )));
    }
    for Step { rows, .. } in &mut steps {
        rows.digest = of_rows(conn, &rows.writer, (rows.from, rows.through)).await?;
    }
    Ok(Steps {
        steps,
        has_no_counter: counted.is_none(),
    })
}

/// Returns the run of numbers that events leave out, because nobody knows which ones were given.
fn without_counter(first: Option<&CheckedRow>, own_sealed: i64, jump: i64) -> Result<Step, ResumeError> {
    let fault = "the change counter was edited, removed or put back".to_owned();
    let from = match first {
        Some((number, Ok(()))) if *number == own_sealed + 1 => number + 1,
        _ => own_sealed + 1,
    };
    if jump <= own_sealed {
        return Err(ResumeError::CannotStepOver(fault));
    }
    Ok(over(OWN, from..=jump, &fault))
}

/// Returns the first faulty run of a source after a number. `reached` is the highest number that it has given, if that is
/// known.
async fn step(
    conn: &impl Keyed,
    keyring: &Keyring,
    (source, sealed): (&str, i64),
    reached: Option<i64>,
) -> Result<Option<Step>, ResumeError> {
    let source_id = source.to_owned();
    let mut run: Option<(i64, String)> = None;
    let (mut expected, mut has_gap) = (sealed + 1, false);
    loop {
        let rows = checked(conn, keyring, source, expected - 1).await?;
        for (number, checked) in &rows {
            let (number, is_gap) = (*number, *number > expected);
            if run.is_none() && (is_gap || checked.is_err()) {
                let fault = match checked {
                    Err(Altered(what)) if !is_gap => SealError::Altered {
                        source_id: source_id.clone(),
                        number,
                        event_id: String::new(),
                        what,
                    },
                    _ => SealError::Missing {
                        source_id: source_id.clone(),
                        number: expected,
                    },
                };
                run = Some((expected, fault.to_string()));
            }
            if let (Some((from, fault)), Ok(())) = (&run, checked) {
                return Ok(Some(over(source, *from..=number - 1, fault)));
            }
            has_gap |= is_gap;
            expected = number + 1;
        }
        if (rows.len() as u64) < ROWS {
            break;
        }
        if expected - sealed > MOST_ROWS && run.is_some() {
            let what = format!("more than {MOST_ROWS} rows are altered");
            return Err(ResumeError::CannotStepOver(what));
        }
    }
    let last = expected - 1;
    match (run, reached) {
        (None, Some(reached)) if reached > last => {
            let fault = SealError::Missing {
                source_id,
                number: expected,
            };
            Ok(Some(over(source, expected..=reached, &fault.to_string())))
        }
        (None, _) => Ok(None),
        (Some((from, fault)), Some(reached)) if last <= reached => {
            Ok(Some(over(source, from..=reached, &fault)))
        }
        (Some((from, fault)), None) if !has_gap => Ok(Some(over(source, from..=last, &fault))),
        (Some((_, fault)), _) => Err(ResumeError::CannotStepOver(format!(
            "{fault}; number {last} lies beyond what was written, and no key has its MAC: keep a copy of the row and delete it"
        ))),
    }
}

fn over(source: &str, numbers: std::ops::RangeInclusive<i64>, fault: &str) -> Step {
    Step {
        rows: Stepped {
            writer: source.to_owned(),
            from: *numbers.start(),
            through: *numbers.end(),
            digest: String::new(),
        },
        fault: fault.to_owned(),
    }
}

/// The number of a row, and whether a holder of the keys has written it.
type CheckedRow = (i64, Result<(), Altered>);

/// Returns the next rows of a source after a number.
async fn checked(
    conn: &impl Keyed,
    keyring: &Keyring,
    source: &str,
    after: i64,
) -> Result<Vec<CheckedRow>, StoreError> {
    let rows = rows_after(conn, source, after, ROWS).await?;
    let checked = rows
        .iter()
        .map(|row| (row.number(), check::check(keyring, row).map(drop)));
    Ok(checked.collect())
}
