#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    pin::pin,
    sync::{Arc, Mutex},
};

use futures_util::{FutureExt, future::join_all};
use tokio::{sync::Semaphore, task::JoinSet};

use super::*;

/// What an item asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Item {
    number: usize,
    fault: Option<Fault>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Refused,
    Panics,
}

fn item(number: usize) -> Item {
    Item { number, fault: None }
}

/// Notes its groups. Each takes a permit.
#[derive(Clone)]
struct Notes {
    groups: Arc<Mutex<Vec<Vec<usize>>>>,
    permits: Arc<Semaphore>,
}

impl Notes {
    fn new(permits: usize) -> Self {
        Self {
            groups: Arc::default(),
            permits: Arc::new(Semaphore::new(permits)),
        }
    }

    fn groups(&self) -> Vec<Vec<usize>> {
        self.groups.lock().unwrap().clone()
    }
}

impl Work for Notes {
    type Item = Item;
    type Outcome = usize;

    async fn run(&self, items: &[Item]) -> Result<Vec<usize>, StoreError> {
        self.permits.acquire().await.unwrap().forget();
        match items.iter().find_map(|item| item.fault) {
            Some(Fault::Refused) => return Err(StoreError::Conflict),
            Some(Fault::Panics) => panic!("a bug"),
            None => {}
        }
        let numbers: Vec<_> = items.iter().map(|item| item.number).collect();
        self.groups.lock().unwrap().push(numbers.clone());
        Ok(numbers)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_is_told_what_became_of_his_own() {
    let notes = Notes::new(Semaphore::MAX_PERMITS);
    let group = GroupCommit::start(notes.clone());
    let mut callers = JoinSet::new();
    for number in 0..2000 {
        let group = group.clone();
        callers.spawn(async move { (number, group.submit(item(number)).await.unwrap()) });
    }
    for (number, outcome) in callers.join_all().await {
        assert_eq!(number, outcome);
    }
    let mut numbers = notes.groups().concat();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..2000).collect::<Vec<_>>(), "each once");
}

#[tokio::test(start_paused = true)]
async fn those_who_come_while_one_is_under_way_are_the_next_group() {
    let notes = Notes::new(0);
    let group = GroupCommit::start(notes.clone());
    let first = group.submit(item(0));
    let others = async {
        tokio::join!(
            group.submit(item(1)),
            group.submit(item(2)),
            group.submit(item(3))
        )
    };
    let mut first = pin!(first);
    assert!((&mut first).now_or_never().is_none());
    tokio::task::yield_now().await;
    let mut others = pin!(others);
    assert!((&mut others).now_or_never().is_none());
    notes.permits.add_permits(2);
    first.await.unwrap();
    others.await.0.unwrap();
    assert_eq!(notes.groups(), [vec![0], vec![1, 2, 3]]);
}

/// Lets whatever can go on do so, without time passing.
async fn settle() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn as_many_as_before_are_waited_for_but_no_longer_than_a_moment() {
    let notes = Notes::new(Semaphore::MAX_PERMITS);
    let group = GroupCommit::start(notes.clone());
    let (zero, one) = tokio::join!(group.submit(item(0)), group.submit(item(1)));
    zero.and(one).unwrap();
    assert_eq!(notes.groups(), [[0, 1]]);
    // One of two that are expected: the second comes before the moment is over.
    let mut two = pin!(group.submit(item(2)));
    assert!((&mut two).now_or_never().is_none());
    settle().await;
    assert_eq!(notes.groups().len(), 1, "waits for another");
    group.submit(item(3)).await.unwrap();
    two.await.unwrap();
    assert_eq!(notes.groups()[1], [2, 3]);
    // Nobody else comes; and then nobody is expected.
    let before = tokio::time::Instant::now();
    group.submit(item(4)).await.unwrap();
    group.submit(item(5)).await.unwrap();
    assert_eq!(notes.groups()[2..], [[4], [5]]);
    assert!(before.elapsed() <= 2 * GATHER_TIME, "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn of_many_before_half_are_waited_for() {
    let notes = Notes::new(Semaphore::MAX_PERMITS);
    let group = GroupCommit::start(notes.clone());
    let ask = |numbers: std::ops::Range<usize>| join_all(numbers.map(|number| group.submit(item(number))));
    let many = 4 * SMALL_GROUP;
    ask(0..many).await;
    assert_eq!(notes.groups().len(), 1);
    let mut half = pin!(ask(many..many + many / 2 - 1));
    assert!((&mut half).now_or_never().is_none());
    settle().await;
    assert_eq!(notes.groups().len(), 1, "waits for another");
    let begun = tokio::time::Instant::now();
    group.submit(item(many + many / 2)).await.unwrap();
    half.await;
    assert_eq!(notes.groups()[1].len(), many / 2);
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn one_that_fails_takes_no_other_along_and_work_goes_on() {
    for fault in [Fault::Refused, Fault::Panics] {
        let notes = Notes::new(Semaphore::MAX_PERMITS);
        let (queue, waiting) = mpsc::channel(MAX_QUEUE);
        let group = GroupCommit { queue };
        let bad = Item {
            fault: Some(fault),
            ..item(1)
        };
        let mut three =
            Box::pin(async { tokio::join!(group.submit(item(0)), group.submit(bad), group.submit(item(2))) });
        assert!((&mut three).now_or_never().is_none());
        let working = tokio::spawn(serve(notes.clone(), waiting));
        let told = three.await;
        assert!(matches!(told, (Ok(0), Err(_), Ok(2))), "{fault:?}");
        assert_eq!(notes.groups(), [[0], [2]], "{fault:?}");
        assert!(group.submit(bad).await.is_err());
        assert_eq!(group.submit(item(3)).await.unwrap(), 3, "{fault:?}");
        drop(group);
        working.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn work_that_hangs_makes_no_queue_without_bound_and_everybody_is_told_in_time() {
    let notes = Notes::new(0);
    let group = GroupCommit::start(notes.clone());
    let mut callers: Vec<_> = (0..=MAX_QUEUE + MAX_GROUP)
        .map(|number| Box::pin(group.submit(item(number))))
        .collect();
    let mut refused = 0;
    for caller in &mut callers {
        if let Some(told) = caller.now_or_never() {
            assert!(matches!(told, Err(StoreError::Unavailable)));
            refused += 1;
        }
    }
    assert!(refused > 0, "the queue has an end");
    callers.truncate(MAX_QUEUE - 1);
    // For who gives up nothing is done, even if the work goes on later.
    let gave_up = callers.split_off(1);
    drop(gave_up);
    let before = tokio::time::Instant::now();
    assert!(matches!(callers.remove(0).await, Err(StoreError::Unavailable)));
    assert!(before.elapsed() <= GROUP_TIMEOUT + GATHER_TIME);
    notes.permits.add_permits(Semaphore::MAX_PERMITS / 2);
    assert_eq!(group.submit(item(9000)).await.unwrap(), 9000);
    assert_eq!(notes.groups(), [[9000]]);
}
