#![allow(clippy::unwrap_used)]

use sea_orm::ConnectionTrait;

use super::*;
use crate::{
    clock::ManualClock,
    store::{
        audit::{CallerAddress, EventRow, Filter, Outcome},
        fixture::migrated,
    },
    testing::{TestDatabase, test_clock},
    text::page::PageRequest,
};

const METHOD: &str = "accord.registry.v1.ClientService/SuspendClient";
const DENIED: &str = "PERMISSION_DENIED";

struct Setup {
    place: TestDatabase,
    db: Database,
    clock: Arc<ManualClock>,
    rejected: RejectedCalls,
}

async fn setups() -> Vec<Setup> {
    let databases = migrated().await.into_iter();
    databases
        .map(|(place, db)| {
            let clock = test_clock();
            let rejected = RejectedCalls::new(db.clone(), clock.clone());
            Setup {
                place,
                db,
                clock,
                rejected,
            }
        })
        .collect()
}

/// A call of an operator; of a stranger for an empty id.
fn call(id: &str, address: &str, method: &str) -> RejectedCall {
    let kind = match id {
        "" => ActorKind::Anonymous,
        _ => ActorKind::Operator,
    };
    let origin = Origin {
        actor: Actor {
            kind,
            id: id.to_owned(),
        },
        certificate: None,
        session: None,
        address: Some(CallerAddress::Peer(address.parse().unwrap())),
        request_id: "req-00001".to_owned(),
    };
    RejectedCall {
        caller: NotedCaller { origin, event: None },
        method: method.to_owned(),
        reason: DENIED,
    }
}

impl Setup {
    async fn reject(&self, id: &str, address: &str, method: &str) {
        self.rejected.record(call(id, address, method)).finish().await;
    }

    async fn end_minute(&self) {
        self.clock.advance(PERIOD);
        self.rejected.write_ended().await;
    }

    /// All events, the oldest first.
    async fn events(&self) -> Vec<EventRow> {
        let filter = Filter {
            outcome: Some(Outcome::Refused),
            ..Filter::default()
        };
        let (mut all, mut token) = (Vec::new(), String::new());
        loop {
            let page = PageRequest::test(500, &token);
            let (events, next) = audit::list(self.db.read(), &filter, &page)
                .await
                .unwrap()
                .into_parts();
            all.extend(events);
            if next.is_empty() {
                all.reverse();
                return all;
            }
            token = next;
        }
    }
}

/// How many calls an event stands for.
fn calls(event: &EventRow) -> u64 {
    event
        .detail
        .get("count")
        .map_or(1, |count| count.parse().unwrap())
}

#[tokio::test]
async fn a_flood_is_listed_first_and_then_counted_by_method_and_reason() {
    for setup in setups().await {
        for number in 0..10_000 {
            let method = if number % 4 == 0 { "other" } else { METHOD };
            setup.reject("opr_1", "192.0.2.1", method).await;
        }
        setup.reject("opr_2", "192.0.2.1", METHOD).await;
        let listed = setup.events().await;
        assert_eq!(listed.len(), 11, "{:?}", setup.place);
        assert!(
            listed
                .iter()
                .all(|event| event.action == action::CALL_REJECT.as_str() && calls(event) == 1)
        );
        assert_eq!(listed[10].actor.id, "opr_2");
        setup.end_minute().await;
        let events = setup.events().await;
        let mut counts: Vec<_> = events[11..]
            .iter()
            .map(|event| (event.detail["method"].as_str(), calls(event)))
            .collect();
        counts.sort_unstable();
        assert_eq!(counts, [(METHOD, 7_493), ("other", 2_497)], "{:?}", setup.place);
        let count = &events[11];
        assert_eq!(
            (count.actor.id.as_str(), &*count.detail["error_reason"]),
            ("opr_1", DENIED)
        );
        assert_eq!(count.detail["first_time"], "2026-01-01T00:00:00Z");
        // The next minute begins with a list again, and has nothing of the last one.
        setup.reject("opr_1", "192.0.2.1", METHOD).await;
        setup.end_minute().await;
        assert_eq!(setup.events().await.len(), 14, "{:?}", setup.place);
    }
}

#[tokio::test]
async fn the_first_call_of_a_new_minute_writes_the_counts_of_the_last() {
    for setup in setups().await {
        for _ in 0..LISTED + 3 {
            setup.reject("opr_1", "192.0.2.1", METHOD).await;
        }
        setup.clock.advance(PERIOD);
        setup.reject("opr_1", "192.0.2.1", METHOD).await;
        let events = setup.events().await;
        let total: u64 = events.iter().map(calls).sum();
        assert_eq!((events.len(), total), (12, 14), "{:?}", setup.place);
    }
}

#[tokio::test]
async fn strangers_cost_a_bounded_number_of_rows_and_no_call_is_missing() {
    for setup in setups().await {
        for number in 0_u32..20_000 {
            let address = format!("10.{}.{}.1", number / 256 % 256, number % 256);
            let method = format!("method {}", number % 3);
            setup.reject("", &address, &method).await;
        }
        assert_eq!(
            setup.events().await.len(),
            LISTED_UNNAMED as usize,
            "{:?}",
            setup.place
        );
        setup.rejected.write_all().await;
        let events = setup.events().await;
        let most = LISTED_UNNAMED as usize + MAX_COUNTS + 1;
        assert!(events.len() <= most, "{:?}: {}", setup.place, events.len());
        let total: u64 = events.iter().map(calls).sum();
        assert_eq!(total, 20_000, "{:?}", setup.place);
        let others: Vec<_> = events
            .iter()
            .filter(|event| !event.detail.contains_key("method"))
            .collect();
        assert_eq!((others.len(), others[0].address), (1, None), "{:?}", setup.place);
    }
}

#[tokio::test]
async fn a_network_of_ipv6_is_one_stranger() {
    for setup in setups().await {
        for host in 1..=LISTED + 5 {
            setup.reject("", &format!("2001:db8::{host:x}"), METHOD).await;
        }
        setup.reject("", "2001:db8:0:1::1", METHOD).await;
        setup.rejected.write_all().await;
        let counts: Vec<_> = setup.events().await.iter().map(calls).collect();
        assert_eq!(
            (counts.len(), counts.last()),
            (LISTED as usize + 2, Some(&5)),
            "{:?}",
            setup.place
        );
    }
}

#[tokio::test]
async fn what_the_database_does_not_take_is_counted_and_written_later() {
    for setup in setups().await {
        let rename = async |from: &str, to: &str| {
            let statement = format!("ALTER TABLE {from} RENAME TO {to}");
            setup.db.read().execute_unprepared(&statement).await.unwrap();
        };
        rename("audit_events", "hidden").await;
        for _ in 0..3 {
            setup.reject("opr_1", "192.0.2.1", METHOD).await;
        }
        setup.end_minute().await;
        rename("hidden", "audit_events").await;
        assert_eq!(setup.events().await.len(), 0, "{:?}", setup.place);
        setup.end_minute().await;
        let events = setup.events().await;
        assert_eq!((events.len(), calls(&events[0])), (1, 3), "{:?}", setup.place);
    }
}

#[tokio::test]
async fn a_rejection_that_tells_more_is_listed_as_it_is_and_counted_as_any_other() {
    for setup in setups().await {
        for _ in 0..=LISTED {
            let mut rejected = call("opr_1", "192.0.2.1", METHOD);
            let event = Event::test("delivery.release").detail("same_person", "created it");
            rejected.caller.event = Some(Box::new(event));
            setup.rejected.record(rejected).finish().await;
        }
        setup.end_minute().await;
        let actions: Vec<_> = setup.events().await.into_iter().map(|e| e.action).collect();
        let expected = [
            vec!["delivery.release"; LISTED as usize],
            vec![action::CALL_REJECT.as_str()],
        ]
        .concat();
        assert_eq!(actions, expected, "{:?}", setup.place);
    }
}
