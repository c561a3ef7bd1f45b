//! The refresh rule against every order of events: callers that race, replicas whose clocks differ, answers
//! and commits that get lost, and a thief.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use accord::testing::TEST_START;
use proptest::{collection::vec, prelude::*};

use super::*;

/// The most that a replica's clock differs. A replica whose clock differs more is not ready.
const SKEW: i64 = 5_000;
/// After this time every replica agrees that the window is over.
const APART: i64 = 30_000 + 2 * SKEW + 1;

/// One family in a database that can lose its newest commits.
struct World {
    now: UnixMillis,
    commits: Vec<Generations>,
    ended: bool,
    repeats: usize,
}

impl World {
    fn new() -> Self {
        Self {
            now: TEST_START,
            commits: vec![Generations::first(TEST_START)],
            ended: false,
            repeats: 0,
        }
    }

    fn wait(&mut self, millis: i64) {
        self.now = UnixMillis::from_millis(self.now.as_millis() + millis);
    }

    fn read(&self) -> Generations {
        *self.commits.last().unwrap()
    }

    fn judge(&self, read: &Generations, token: u32, skew: i64) -> Renewal {
        read.renew(token, UnixMillis::from_millis(self.now.as_millis() + skew))
    }

    /// Carries out a decision. Returns `None` if another call moved the family since the read.
    fn commit(&mut self, read: Generations, renewal: Renewal) -> Option<Option<u32>> {
        let now = self.read();
        match renewal {
            _ if self.ended => return Some(None),
            Renewal::HandOut(_) if (now.used, now.current) != (read.used, read.current) => return None,
            Renewal::HandOut(next) => {
                self.commits.push(next);
                return Some(Some(next.current));
            }
            Renewal::Repeat => {
                self.repeats += 1;
                return Some(Some(read.current));
            }
            Renewal::Same => return Some(Some(read.current)),
            Renewal::Replay => self.ended = true,
        }
        Some(None)
    }

    /// Serves a call without interruption. Returns the token, unless the family has ended.
    fn serve(&mut self, token: u32, skew: i64) -> Option<u32> {
        let read = self.read();
        self.commit(read, self.judge(&read, token, skew)).unwrap()
    }

    fn fail_over(&mut self, lost: usize) {
        self.commits
            .truncate(self.commits.len().saturating_sub(lost).max(1));
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Send,
    Read { call: usize, skew: i64 },
    Commit { call: usize },
    Receive { call: usize },
    Lose { call: usize },
    Wait(i64),
    FailOver { lost: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let call = 0..4_usize;
    prop_oneof![
        4 => Just(Step::Send),
        4 => (call.clone(), -SKEW..=SKEW).prop_map(|(call, skew)| Step::Read { call, skew }),
        4 => call.clone().prop_map(|call| Step::Commit { call }),
        3 => call.clone().prop_map(|call| Step::Receive { call }),
        1 => call.prop_map(|call| Step::Lose { call }),
        2 => (0..=SKEW).prop_map(Step::Wait),
        2 => (0..=2 * APART).prop_map(Step::Wait),
        1 => (1..4_usize).prop_map(|lost| Step::FailOver { lost }),
    ]
}

/// The progress of a call of the holder.
#[derive(Clone, Copy)]
enum Stage {
    Sent,
    Judged(Generations, Renewal),
    Answered(u32),
}

/// What the holder knows, and what it can't know.
struct Holder {
    /// The token that it received last.
    token: u32,
    /// The token for which it received that one.
    predecessor: u32,
    /// By presented token, the newest that was handed out for it.
    handed_out: BTreeMap<u32, u32>,
    /// Whether it went on with a token although a newer one was handed out for the same predecessor.
    parted: bool,
}

impl Holder {
    /// Uses the newest token that it has.
    fn present(&mut self) -> u32 {
        self.parted |= self
            .handed_out
            .get(&self.predecessor)
            .is_some_and(|newest| *newest > self.token);
        self.token
    }
}

/// Runs the holder's calls as `steps` say, with at most `workers` concurrent calls.
fn run_holder(world: &mut World, steps: &[Step], workers: usize) -> Holder {
    let mut holder = Holder {
        token: 1,
        predecessor: 0,
        handed_out: BTreeMap::new(),
        parted: false,
    };
    let mut calls: Vec<(u32, Stage)> = Vec::new();
    for step in steps {
        match *step {
            // No worker uses a newer token while an older call runs.
            Step::Send if calls.len() < workers && calls.iter().all(|(token, _)| *token == holder.token) => {
                calls.push((holder.present(), Stage::Sent));
            }
            Step::Read { call, skew } => {
                if let Some((token, stage @ Stage::Sent)) = calls.get_mut(call) {
                    let read = world.read();
                    *stage = Stage::Judged(read, world.judge(&read, *token, skew));
                }
            }
            Step::Commit { call } => {
                if let Some((presented, stage)) = calls.get_mut(call)
                    && let Stage::Judged(read, renewal) = *stage
                {
                    *stage = match world.commit(read, renewal) {
                        None => Stage::Sent,
                        Some(Some(token)) => {
                            let newest = holder.handed_out.entry(*presented).or_default();
                            *newest = token.max(*newest);
                            Stage::Answered(token)
                        }
                        Some(None) => return holder,
                    };
                }
            }
            Step::Receive { call } => {
                if let Some(&(presented, Stage::Answered(token))) = calls.get(call) {
                    (holder.token, holder.predecessor) = (token, presented);
                    calls.remove(call);
                }
            }
            Step::Lose { call } if call < calls.len() => {
                calls.remove(call);
            }
            Step::Wait(millis) => world.wait(millis),
            Step::FailOver { lost } => world.fail_over(lost),
            Step::Send | Step::Lose { .. } => {}
        }
    }
    holder
}

/// One call of the holder (0) or the thief (1) in turn, after a pause.
type Turn = (usize, i64, i64, bool, usize);

/// Runs the calls of two parties that hold the same token, one call at a time. Returns their newest tokens.
fn run_both(world: &mut World, turns: &[Turn]) -> [u32; 2] {
    let mut newest = [1, 1];
    for &(party, pause, skew, received, lost_commits) in turns {
        world.wait(pause);
        if let Some(token) = world.serve(newest[party], skew)
            && received
        {
            newest[party] = token;
        }
        world.fail_over(lost_commits);
    }
    newest
}

fn turn() -> impl Strategy<Value = Turn> {
    let pause = prop_oneof![0..=SKEW, 0..=2 * APART];
    let lost_commits = prop_oneof![9 => Just(0), 1 => 1..3_usize];
    (0..2_usize, pause, -SKEW..=SKEW, any::<bool>(), lost_commits)
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 512,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_holder_that_makes_one_call_at_a_time_never_loses_the_connection(steps in vec(step(), 0..120)) {
        let mut world = World::new();
        let token = run_holder(&mut world, &steps, 1).token;
        prop_assert!(!world.ended);
        prop_assert!(world.serve(token, 0).is_some_and(|next| next > token));
    }

    #[test]
    fn workers_that_race_lose_the_connection_only_if_they_go_on_with_the_older_of_two_tokens(
        steps in vec(step(), 0..120),
    ) {
        let mut world = World::new();
        let mut holder = run_holder(&mut world, &steps, 4);
        if !world.ended {
            let token = holder.present();
            world.serve(token, 0);
        }
        prop_assert!(!world.ended || holder.parted);
    }

    #[test]
    fn of_two_who_hold_the_same_token_the_one_left_behind_ends_the_family(
        turns in vec(turn(), 0..30),
        first in 0..2_usize,
        skews in vec(-SKEW..=SKEW, 4),
    ) {
        let mut world = World::new();
        let mut newest = run_both(&mut world, &turns);
        // Each calls twice more, further apart than the window. A lost commit lets the party behind catch up once;
        // otherwise three calls are enough.
        for (skew, party) in skews.into_iter().zip([first, 1 - first, first, 1 - first]) {
            world.wait(APART);
            if let Some(token) = world.serve(newest[party], skew) {
                newest[party] = token;
            }
        }
        prop_assert!(world.ended, "{newest:?}");
    }
}

#[test]
fn limit_a_thief_who_always_follows_within_thirty_seconds_shows_in_the_repeats_alone() {
    let mut world = World::new();
    let (mut holder, mut thief) = (1, 1);
    for round in 1..=50 {
        world.wait(APART);
        holder = world.serve(holder, 0).unwrap();
        world.wait(30_000);
        thief = world.serve(thief, 0).unwrap();
        assert_eq!((holder, world.repeats), (thief, round));
    }
}

#[test]
fn limit_a_worker_that_uses_a_newer_token_while_its_older_request_is_under_way_ends_the_family() {
    let mut world = World::new();
    let under_way = 1;
    let newer = world.serve(1, 0).unwrap();
    world.serve(newer, 0).unwrap();
    assert_eq!(world.serve(under_way, 0), None);
    assert!(world.ended);
}

/// Within the window racing callers get one token, across its end two.
#[test]
fn limit_a_race_across_the_end_of_the_window_ends_the_family_if_the_newer_answer_gets_lost() {
    let mut world = World::new();
    let lost = world.serve(1, 0);
    world.wait(30_000);
    let received = world.serve(1, 0).unwrap();
    world.wait(1);
    let newer = world.serve(1, 0);
    assert!(lost == Some(received) && newer > lost);
    assert_eq!(world.serve(received, 0), None);
}

#[test]
fn a_generation_between_used_and_current_is_a_replay_and_repeats_do_not_move_the_time() {
    let generations = Generations {
        used: 3,
        current: 5,
        handed_out_at: TEST_START,
    };
    let (soon, late) = (TEST_START.plus(REPEAT_WINDOW), TEST_START.plus(REPEAT_WINDOW * 2));
    let hand_out = |used, current| {
        Renewal::HandOut(Generations {
            used,
            current,
            handed_out_at: late,
        })
    };
    for (presented, expected) in [
        (0, Renewal::Replay),
        (2, Renewal::Replay),
        (3, hand_out(3, 6)),
        (4, Renewal::Replay),
        (5, hand_out(5, 6)),
        (9, hand_out(9, 10)),
    ] {
        assert_eq!(generations.renew(presented, late), expected, "{presented}");
    }
    assert_eq!(generations.renew(3, soon), Renewal::Repeat);
    let first = Generations::first(TEST_START);
    assert_eq!(first.renew(0, late), Renewal::Replay);
}

#[test]
fn a_kept_token_stays_the_same_and_its_predecessors_end_the_family() {
    let at = |millis: i64| UnixMillis::from_millis(TEST_START.as_millis() + millis);
    let first = Generations::first(TEST_START);
    assert_eq!(first.renew_without_rotation(1, at(30_000)), Renewal::Same);
    let moved = Generations {
        handed_out_at: at(30_001),
        ..first
    };
    assert_eq!(
        first.renew_without_rotation(1, at(30_001)),
        Renewal::HandOut(moved)
    );
    assert_eq!(first.renew_without_rotation(0, at(0)), Renewal::Replay);
    // Rotated before the client began to keep it.
    let rotated = Generations {
        used: 4,
        current: 6,
        handed_out_at: TEST_START,
    };
    for presented in [4, 6] {
        assert_eq!(
            rotated.renew_without_rotation(presented, at(1)),
            Renewal::Same,
            "{presented}"
        );
        let moved = Generations {
            handed_out_at: at(60_000),
            ..rotated
        };
        assert_eq!(
            rotated.renew_without_rotation(presented, at(60_000)),
            Renewal::HandOut(moved),
            "{presented}"
        );
    }
    for presented in [0, 1, 3, 5] {
        assert_eq!(
            rotated.renew_without_rotation(presented, at(1)),
            Renewal::Replay,
            "{presented}"
        );
    }
    // A commit that the database lost.
    let newer = Generations {
        current: 7,
        handed_out_at: at(1),
        ..rotated
    };
    assert_eq!(rotated.renew_without_rotation(7, at(1)), Renewal::HandOut(newer));
}
