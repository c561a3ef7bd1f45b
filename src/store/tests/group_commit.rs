#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    pin::pin,
    sync::{Arc, Mutex},
};

use futures_util::{FutureExt, future::join_all};
use tokio::{sync::Semaphore, task::JoinSet};

use super::*;

/// An item, and how its group fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Item {
    number: usize,
    fault: Option<Fault>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Conflicts,
    Panics,
}

fn item(number: usize) -> Item {
    Item { number, fault: None }
}

/// Records its groups. Each takes a permit.
#[derive(Clone)]
struct Groups {
    groups: Arc<Mutex<Vec<Vec<usize>>>>,
    permits: Arc<Semaphore>,
}

impl Groups {
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

impl Work for Groups {
    type Item = Item;
    type Outcome = usize;

    const NAME: &'static str = "test";

    async fn run(&self, items: &[Item]) -> Result<Vec<usize>, StoreError> {
        self.permits.acquire().await.unwrap().forget();
        match items.iter().find_map(|item| item.fault) {
            Some(Fault::Conflicts) => return Err(StoreError::Conflict),
            Some(Fault::Panics) => panic!("a bug"),
            None => {}
        }
        let numbers: Vec<_> = items.iter().map(|item| item.number).collect();
        self.groups.lock().unwrap().push(numbers.clone());
        Ok(numbers)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_caller_gets_the_outcome_of_its_item() {
    let work = Groups::new(Semaphore::MAX_PERMITS);
    let group = GroupCommit::start(work.clone());
    let mut callers = JoinSet::new();
    for number in 0..2000 {
        let group = group.clone();
        callers.spawn(async move { (number, group.submit(item(number)).await.unwrap()) });
    }
    for (number, outcome) in callers.join_all().await {
        assert_eq!(number, outcome);
    }
    let mut numbers = work.groups().concat();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..2000).collect::<Vec<_>>(), "each once");
}

#[tokio::test(start_paused = true)]
async fn items_submitted_while_a_group_runs_form_the_next_group() {
    let work = Groups::new(0);
    let group = GroupCommit::start(work.clone());
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
    work.permits.add_permits(2);
    first.await.unwrap();
    others.await.0.unwrap();
    assert_eq!(work.groups(), [vec![0], vec![1, 2, 3]]);
}

/// Runs the tasks that can run, without time passing.
async fn settle() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_waits_for_as_many_items_as_the_last_but_at_most_a_millisecond() {
    let work = Groups::new(Semaphore::MAX_PERMITS);
    let group = GroupCommit::start(work.clone());
    let (zero, one) = tokio::join!(group.submit(item(0)), group.submit(item(1)));
    zero.and(one).unwrap();
    assert_eq!(work.groups(), [[0, 1]]);
    // Two items are expected; the second comes within the millisecond.
    let mut two = pin!(group.submit(item(2)));
    assert!((&mut two).now_or_never().is_none());
    settle().await;
    assert_eq!(work.groups().len(), 1, "waits for another");
    group.submit(item(3)).await.unwrap();
    two.await.unwrap();
    assert_eq!(work.groups()[1], [2, 3]);
    // Only one comes, and then only one is expected.
    let before = tokio::time::Instant::now();
    group.submit(item(4)).await.unwrap();
    group.submit(item(5)).await.unwrap();
    assert_eq!(work.groups()[2..], [[4], [5]]);
    assert!(before.elapsed() <= 2 * GATHER_TIME, "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn after_a_large_group_half_as_many_items_are_awaited() {
    let work = Groups::new(Semaphore::MAX_PERMITS);
    let group = GroupCommit::start(work.clone());
    let submit = |numbers: std::ops::Range<usize>| join_all(numbers.map(|number| group.submit(item(number))));
    let many = 4 * SMALL_GROUP;
    submit(0..many).await;
    assert_eq!(work.groups().len(), 1);
    let mut half = pin!(submit(many..many + many / 2 - 1));
    assert!((&mut half).now_or_never().is_none());
    settle().await;
    assert_eq!(work.groups().len(), 1, "waits for another");
    let started = tokio::time::Instant::now();
    group.submit(item(many + many / 2)).await.unwrap();
    half.await;
    assert_eq!(work.groups()[1].len(), many / 2);
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn an_item_that_fails_fails_no_other() {
    for fault in [Fault::Conflicts, Fault::Panics] {
        let work = Groups::new(Semaphore::MAX_PERMITS);
        let (queue, waiting) = mpsc::channel(MAX_QUEUE);
        let group = GroupCommit::<Groups> {
            queue,
            under_way: Arc::default(),
        };
        let bad = Item {
            fault: Some(fault),
            ..item(1)
        };
        let mut three =
            Box::pin(async { tokio::join!(group.submit(item(0)), group.submit(bad), group.submit(item(2))) });
        assert!((&mut three).now_or_never().is_none());
        let working = tokio::spawn(serve(work.clone(), waiting, group.under_way.clone()));
        let outcomes = three.await;
        assert!(matches!(outcomes, (Ok(0), Err(_), Ok(2))), "{fault:?}");
        assert_eq!(work.groups(), [[0], [2]], "{fault:?}");
        assert!(group.submit(bad).await.is_err());
        assert_eq!(group.submit(item(3)).await.unwrap(), 3, "{fault:?}");
        drop(group);
        working.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded_while_the_work_hangs_and_every_caller_gets_an_error_in_time() {
    let work = Groups::new(0);
    let group = GroupCommit::start(work.clone());
    let mut callers: Vec<_> = (0..=MAX_QUEUE + MAX_GROUP)
        .map(|number| Box::pin(group.submit(item(number))))
        .collect();
    let mut rejected = 0;
    for caller in &mut callers {
        if let Some(outcome) = caller.now_or_never() {
            assert!(matches!(outcome, Err(StoreError::Unavailable(_))));
            rejected += 1;
        }
    }
    assert!(rejected > 0, "the queue is bounded");
    callers.truncate(MAX_QUEUE - 1);
    // The items of callers that gave up are skipped, even if the work resumes.
    let gave_up = callers.split_off(1);
    drop(gave_up);
    let before = tokio::time::Instant::now();
    assert!(matches!(callers.remove(0).await, Err(StoreError::Unavailable(_))));
    assert!(before.elapsed() <= GROUP_TIMEOUT + GATHER_TIME);
    work.permits.add_permits(Semaphore::MAX_PERMITS / 2);
    assert_eq!(group.submit(item(9000)).await.unwrap(), 9000);
    assert_eq!(work.groups(), [[9000]]);
}
