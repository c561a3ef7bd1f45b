//! What an admin, a guesser and a stranger notice of the delays.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::{Ipv4Addr, Ipv6Addr};

use accord::random::SeededRandom;

use super::{tally::HALF_LIFE, *};

const START: UnixMillis = UnixMillis::from_millis(1_800_000_000_000);

fn delays() -> SignInDelays {
    SignInDelays::new(&SeededRandom::new(1))
}

fn tenant(id: &str) -> TenantId {
    TenantId::parse(id).unwrap()
}

fn address(last: u32) -> Option<IpAddr> {
    Some(Ipv4Addr::from_bits(0xc000_0200 + last).into())
}

fn retry_after(rejected: Result<Attempt, Error>) -> Duration {
    match rejected {
        Err(Error::TooManySignIns(retry_after)) => retry_after,
        other => panic!("{other:?}"),
    }
}

impl SignInDelays {
    fn at(&self, name: &str, from: Option<IpAddr>, now: UnixMillis) -> Result<Attempt, Error> {
        self.begin(&tenant("acme"), name, from, now)
    }

    /// Fails so often, one after another. Gives the delays in milliseconds.
    fn fail(&self, name: &str, from: Option<IpAddr>, times: u32) -> Vec<u128> {
        let attempts = (0..times).map(|_| {
            let attempt = self.at(name, from, START).unwrap();
            let delay = attempt.delay().as_millis();
            drop(attempt);
            delay
        });
        attempts.collect()
    }

    /// The delay of an attempt that is then not counted, as no real one is.
    fn waits(&self, name: &str, from: Option<IpAddr>) -> u128 {
        self.waits_at(name, from, START)
    }

    fn waits_at(&self, name: &str, from: Option<IpAddr>, now: UnixMillis) -> u128 {
        let attempt = self.at(name, from, now).unwrap();
        attempt.each(|tally, key| tally.subtract(key, 1.0, now));
        attempt.delay().as_millis()
    }
}

#[test]
fn an_account_waits_longer_with_each_failure_from_anywhere() {
    let expected = [0, 0, 0, 250, 500, 1000, 2000, 4000, 4000, 4000];
    assert_eq!(delays().fail("ada", address(1), 10), expected);
    assert_eq!(delays().fail("ada", None, 10), expected);
    let delays = delays();
    let from_everywhere: Vec<_> = (0..10)
        .flat_map(|last| delays.fail("ada", address(last), 1))
        .collect();
    assert_eq!(from_everywhere, expected);
    assert_eq!(delays.waits("ada", address(99)), 4000);
    assert_eq!(delays.waits("bob", address(1)), 0);
    let elsewhere = delays
        .begin(&tenant("globex"), "ada", address(99), START)
        .unwrap();
    assert_eq!(elsewhere.delay(), Duration::ZERO, "another tenant's account");
}

#[test]
fn an_address_waits_longer_with_each_failure_for_anybody() {
    let delays = delays();
    for number in 0..10 {
        assert_eq!(delays.fail(&format!("user{number}"), address(1), 1), [0]);
    }
    let next: Vec<_> = (10..17)
        .flat_map(|number| delays.fail(&format!("user{number}"), address(1), 1))
        .collect();
    assert_eq!(next, [250, 500, 1000, 2000, 4000, 4000, 4000]);
    assert_eq!(delays.waits("ada", address(2)), 0);
    assert_eq!(delays.waits("ada", None), 0);
}

#[test]
fn delays_fade() {
    let delays = delays();
    delays.fail("ada", address(1), 1000);
    let after = |half_lives| delays.waits_at("ada", address(2), START.plus(HALF_LIFE * half_lives));
    assert_eq!([0, 1, 2, 3, 4].map(after), [4000, 4000, 4000, 500, 0]);
    let from_there = |half_lives| delays.waits_at("bob", address(1), START.plus(HALF_LIFE * half_lives));
    assert_eq!([0, 1, 2].map(from_there), [4000, 4000, 0]);
}

#[test]
fn a_success_forgets_what_its_own_address_did_and_no_more() {
    let delays = delays();
    delays.fail("ada", address(1), 4);
    delays.fail("ada", address(2), 4);
    delays.fail("bob", address(1), 9);
    delays.at("ada", address(1), START).unwrap().succeeded(START);
    assert_eq!(delays.waits("ada", address(3)), 500, "four from elsewhere stay");
    assert_eq!(delays.waits("eve", address(1)), 0, "nine of ten free ones stay");
    delays.fail("eve", address(1), 1);
    assert_eq!(delays.waits("zoe", address(1)), 250);
    delays.at("ada", None, START).unwrap().succeeded(START);
    assert_eq!(delays.waits("ada", None), 500, "nobody can say whose they were");
}

#[test]
fn a_guesser_with_an_account_of_its_own_is_not_forgiven() {
    let delays = delays();
    for _ in 0..20 {
        delays.fail("ada", address(1), 1);
        delays.at("mallory", address(1), START).unwrap().succeeded(START);
    }
    assert_eq!(delays.waits("ada", address(1)), 4000);
    assert_eq!(delays.waits("zoe", address(1)), 4000);
}

#[test]
fn guesses_at_the_same_time_are_no_more_than_one_after_another() {
    let delays = delays();
    let begin = |name: &str, last| delays.at(name, address(last), START);
    let free: Vec<_> = (0..4).map(|_| begin("ada", 1).unwrap()).collect();
    assert_eq!(
        free.iter().map(|a| a.delay().as_millis()).collect::<Vec<_>>(),
        [0, 0, 0, 250]
    );
    assert_eq!(retry_after(begin("ada", 1)), Duration::from_secs(1));
    assert_eq!(
        delays.waits("ada", address(2)),
        500,
        "another address gets through"
    );
    drop(free);
    let one = begin("ada", 1).unwrap();
    assert_eq!(one.delay().as_millis(), 500);
    assert_eq!(retry_after(begin("ada", 1)), Duration::from_secs(1));
    drop(one);
    assert_eq!(delays.waits("ada", address(1)), 1000);
}

#[test]
fn an_attempt_without_an_answer_is_a_failure() {
    let delays = delays();
    for _ in 0..4 {
        drop(delays.at("ada", address(1), START).unwrap());
    }
    assert_eq!(delays.waits("ada", address(1)), 500);
    assert_eq!(delays.waits("ada", address(2)), 500);
    delays.at("ada", address(1), START).unwrap().succeeded(START);
    assert_eq!(delays.waits("ada", address(2)), 0);
    delays.at("ada", None, START).unwrap().succeeded(START);
    assert_eq!(
        delays.waits("ada", None),
        0,
        "a success leaves no failure of its own"
    );
}

#[test]
fn an_address_has_eight_attempts_at_a_time() {
    let delays = delays();
    let begin = |number: usize, last| delays.at(&format!("user{number}"), address(last), START);
    let held: Vec<_> = (0..8).map(|number| begin(number, 1).unwrap()).collect();
    assert!(begin(8, 1).is_err());
    assert!(begin(8, 2).is_ok());
    let many: Vec<_> = (0..100).map(|_| delays.at("ada", None, START).unwrap()).collect();
    assert_eq!(
        many.last().unwrap().delay(),
        MAX_DELAY,
        "they wait, and are not refused"
    );
    drop((held, many));
    assert!(begin(8, 1).is_ok());
}

#[test]
fn spellings_of_a_name_and_addresses_of_a_network_are_one() {
    let delays = delays();
    for name in [
        "Ada@Firm.example",
        "ada@firm.example",
        " ADA@FIRM.EXAMPLE\n",
        "ada@firm.EXAMPLE",
    ] {
        delays.fail(name, None, 1);
    }
    assert_eq!(delays.waits("ada@firm.example", None), 500);
    for name in ["ａｄａ", "ada\u{200d}", "ªda", "\u{3000}ADA", "\u{feff}ada"] {
        delays.fail(name, None, 1);
    }
    assert_eq!(delays.waits("𝐚da", None), 1000);
    assert_eq!(delays.waits("ada", None), 1000);
    assert_eq!(delays.waits("Å", None), 0, "another name");
    for no_name in ["", "\u{202e}ada", "ada\0", &"x".repeat(321)] {
        delays.fail(no_name, None, 1);
    }
    assert_eq!(
        delays.waits("\u{378}", None),
        500,
        "texts that are no names are one"
    );

    let network = |host: u128| Some(IpAddr::from(Ipv6Addr::from_bits((0x2001_0db8 << 96) + host)));
    for host in 0..11 {
        delays.fail(&format!("user{host}"), network(host), 1);
    }
    assert_eq!(delays.waits("zoe", network(u64::MAX.into())), 500);
    assert_eq!(delays.waits("zoe", network(1 << 64)), 0);
    let mapped = Some(IpAddr::from(Ipv4Addr::new(192, 0, 2, 7).to_ipv6_mapped()));
    for number in 0..11 {
        delays.fail(&format!("user{number}"), address(7), 1);
    }
    assert_eq!(delays.waits("zoe", mapped), 500);
}

#[test]
fn what_can_not_be_remembered_waits_longest() {
    let delays = SignInDelays::with_room(&SeededRandom::new(1), 16);
    let held: Vec<_> = (0..16)
        .map(|last| delays.at("ada", address(last), START).unwrap())
        .collect();
    assert_eq!(delays.waits("bob", address(99)), 4000);
    drop(held);
    assert_eq!(delays.waits("bob", address(99)), 0);
}

#[test]
fn nothing_is_shown() {
    let delays = delays();
    let attempt = delays.at("ada", address(1), START).unwrap();
    assert_eq!(
        format!("{delays:?} {attempt:?}"),
        "SignInDelays([redacted]) Attempt { delay: 0ns, .. }"
    );
}

/// Numbers for the loops below.
struct Numbers(SeededRandom);

impl Numbers {
    fn below(&self, end: u32) -> u32 {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        u32::from_le_bytes(bytes) % end
    }
}

/// Strangers do whatever they can, in every order; somebody from another address is let through.
#[test]
fn strangers_refuse_nobody_else_and_leave_nothing_behind() {
    for seed in 0..20 {
        let numbers = Numbers(SeededRandom::new(seed));
        let delays = SignInDelays::with_room(&SeededRandom::new(seed), 64);
        let mut now = START;
        let mut held = Vec::new();
        for _ in 0..2000 {
            let name = ["ada", "bob", "zoë"][numbers.below(3) as usize];
            let from = (numbers.below(8) > 0).then(|| address(numbers.below(12)).unwrap());
            match delays.at(name, from, now) {
                Ok(attempt) => held.push(attempt),
                rejected => {
                    assert!(from.is_some(), "without an address nothing is rejected");
                    assert!((Duration::from_secs(1)..=MAX_DELAY).contains(&retry_after(rejected)));
                }
            }
            if numbers.below(3) > 0 && !held.is_empty() {
                let attempt = held.swap_remove(numbers.below(held.len() as u32) as usize);
                match numbers.below(8) {
                    0 => attempt.succeeded(now),
                    _ => drop(attempt),
                }
            }
            now = now.plus(Duration::from_millis(numbers.below(2000).into()));
            let admin = delays.at("ada", address(99), now).unwrap();
            assert!(admin.delay() <= MAX_DELAY);
        }
        held.clear();
        let later = now.plus(HALF_LIFE * 7);
        for last in 0..12 {
            assert_eq!(delays.waits_at("ada", address(last), later), 0, "seed {seed}");
        }
        let tallies = delays.0.tallies.lock();
        assert!(tallies.iter().all(|tally| tally.len() <= 64));
    }
}

/// A guesser at many addresses who wastes no millisecond, keeps every slot busy and honours every delay.
#[test]
fn an_hour_of_guessing_gets_a_guess_per_address_and_delay() {
    const ADDRESSES: u32 = 5;
    let delays = delays();
    let hour = START.plus(Duration::from_secs(3600));
    let mut now = START;
    let mut waiting: Vec<(UnixMillis, Attempt)> = Vec::new();
    let mut guesses = 0;
    while now < hour {
        for last in 0..ADDRESSES {
            while let Ok(attempt) = delays.at("ada", address(last), now) {
                waiting.push((now.plus(attempt.delay()), attempt));
            }
        }
        waiting.sort_by_key(|(due, _)| *due);
        let (due, attempt) = waiting.remove(0);
        now = now.plus(due.since(now));
        drop(attempt);
        guesses += 1;
    }
    let longest = 3600 / 4 * ADDRESSES;
    assert!(guesses > longest / 2, "{guesses}: the loop does guess");
    assert!(guesses < longest + 10 * ADDRESSES, "{guesses}");
}
