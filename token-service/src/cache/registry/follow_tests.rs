//! No change is missed, whatever becomes of a question or its answer, at every point of a burst of changes.

#![allow(clippy::unwrap_used, clippy::panic)]

use accord::{random::SeededRandom, testing::test_clock, text::id::ClientId};

use super::*;
use crate::cache::registry::fixture::{BURST, CLIENTS, FATES, Fake, Fate, directory};

/// What is answered never claims to know a change that it does not show; and what is remembered is of the
/// feed's position, or newer.
async fn is_honest(directory: &Directory, fake: &Fake) {
    let clients = fake.0.lock().unwrap().clients.clone();
    for (index, id) in clients.iter().enumerate() {
        let answer = directory.client(id).await.unwrap();
        let shown = answer.value.version;
        let claimed = answer.position.seq as usize;
        let known = fake.0.lock().unwrap().version(index, claimed);
        assert!(shown >= known, "claims {claimed} and shows {shown} of {known}");
    }
}

#[tokio::test]
async fn no_change_is_missed_whatever_becomes_of_a_question() {
    let random = SeededRandom::new(2);
    for fate in FATES {
        for at in 0..=BURST {
            let clients = (0..CLIENTS).map(|_| ClientId::generate(&*test_clock(), &random));
            let fake = Fake::of(clients.collect());
            let directory = directory(&fake).await;
            ask(&directory).await.unwrap();
            is_honest(&directory, &fake).await;
            for step in 0..=BURST {
                if step == at {
                    fake.0.lock().unwrap().fate = fate;
                    let told = if fate == Fate::Twice {
                        let (one, other) = tokio::join!(ask(&directory), ask(&directory));
                        one.and(other)
                    } else {
                        ask(&directory).await
                    };
                    let fails = matches!(fate, Fate::Fails | Fate::Lost);
                    assert_eq!(told.is_err(), fails, "{fate:?} at {at}");
                    is_honest(&directory, &fake).await;
                }
                fake.0.lock().unwrap().change();
                is_honest(&directory, &fake).await;
            }
            ask(&directory).await.unwrap();
            let last = fake.0.lock().unwrap().changes.len();
            assert_eq!(
                directory.cache.position().unwrap().seq,
                last as i64,
                "{fate:?} at {at}"
            );
            let clients = fake.0.lock().unwrap().clients.clone();
            for (index, id) in clients.iter().enumerate() {
                let shown = directory.client(id).await.unwrap().value.version;
                let expected = fake.0.lock().unwrap().version(index, last);
                assert_eq!(shown, expected, "{fate:?} at {at}");
            }
            // And all that ended is told, the last position of each.
            let ended = directory.ended_after(0, 100).await.unwrap().value;
            let seqs: Vec<_> = ended.iter().map(|ended| ended.seq as usize).collect();
            let expected: Vec<_> = (last + 1 - CLIENTS..=last).collect();
            assert_eq!(seqs, expected, "{fate:?} at {at}");
        }
    }
}
