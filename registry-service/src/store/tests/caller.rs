//! Operators and workloads, on both databases.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use accord::{random::SystemRandom, store::change, testing::databases};

use super::*;
use crate::{
    model::caller::{CallerRecord, find_by_token, revoke_by_name},
    store::testing::{audited, creation, origin, repeatable, store},
};
use accord::rpc::auth::WorkloadKind;

fn ada() -> NewOperator {
    NewOperator {
        name: "Ada".into(),
        roles: vec![Role::Auditor, Role::Approver],
    }
}

fn pages() -> NewWorkload {
    NewWorkload {
        name: "pages".into(),
        kind: WorkloadKind::InternalService,
    }
}

#[tokio::test]
async fn a_token_finds_its_caller_until_it_is_revoked() {
    for database in databases() {
        let (store, _) = store(&database.url).await;
        let (operator, token) = store
            .create_operator(&creation("CreateOperator"), ada())
            .await
            .unwrap();
        assert_eq!(operator.roles, [Role::Auditor, Role::Approver]);
        let found = find_by_token(&store, &token).await.unwrap();
        assert_eq!(
            found,
            Some(CallerRecord::Operator(operator.clone())),
            "{database:?}"
        );

        let (workload, workload_token) = store
            .create_workload(&creation("CreateWorkload"), pages())
            .await
            .unwrap();
        let found = find_by_token(&store, &workload_token).await.unwrap();
        assert_eq!(
            found,
            Some(CallerRecord::Workload(workload.clone())),
            "{database:?}"
        );

        let by = origin();
        let first = store.revoke_operator(&by, &operator.operator_id).await.unwrap();
        assert_eq!(first.revoked_at, Some(store.now()));
        assert_eq!(
            store.revoke_operator(&by, &operator.operator_id).await.unwrap(),
            first
        );
        store.revoke_workload(&by, &workload.workload_id).await.unwrap();
        store.revoke_workload(&by, &workload.workload_id).await.unwrap();
        for token in [token, workload_token] {
            assert_eq!(find_by_token(&store, &token).await.unwrap(), None, "{database:?}");
        }
        assert_eq!(
            audited(&store).await,
            [
                "operator.create",
                "workload.create",
                "operator.revoke",
                "workload.revoke"
            ],
            "{database:?}"
        );
        let changes = change::list_after(store.db.read(), 0, 10).await.unwrap();
        let ids: Vec<_> = changes.iter().map(|change| change.id.as_str()).collect();
        let (operator, workload) = (operator.operator_id.as_str(), workload.workload_id.as_str());
        assert_eq!(ids, [operator, workload, operator, workload], "{database:?}");
        assert!(changes.iter().all(|change| change.kind == change_kind::CALLER));
    }
}

#[tokio::test]
async fn an_unknown_token_and_one_of_another_kind_find_nobody() {
    let database = accord::testing::sqlite();
    let (store, _) = store(&database.url).await;
    let (_, operator) = store
        .create_operator(&creation("CreateOperator"), ada())
        .await
        .unwrap();
    for kind in [
        TokenKind::Operator,
        TokenKind::Workload,
        TokenKind::Claim,
        TokenKind::Enrolment,
    ] {
        let token = OpaqueToken::generate(kind, &SystemRandom);
        assert_eq!(find_by_token(&store, &token).await.unwrap(), None);
    }
    assert!(
        store
            .find_workload_by_token(&operator.digest())
            .await
            .unwrap()
            .is_none()
    );
    let id = OperatorId::generate(&*store.clock, &SystemRandom);
    assert!(matches!(
        store.revoke_operator(&origin(), &id).await,
        Err(Error::NotFound("operator"))
    ));
    let id = WorkloadId::generate(&*store.clock, &SystemRandom);
    assert!(matches!(
        store.revoke_workload(&origin(), &id).await,
        Err(Error::NotFound("workload"))
    ));
}

#[tokio::test]
async fn a_name_is_unique_among_the_living() {
    for database in databases() {
        let (store, _) = store(&database.url).await;
        let (first, _) = store
            .create_operator(&creation("CreateOperator"), ada())
            .await
            .unwrap();
        let second = store.create_operator(&creation("CreateOperator"), ada()).await;
        assert!(
            matches!(second, Err(Error::AlreadyExists("operator"))),
            "{database:?}"
        );
        store
            .create_workload(&creation("CreateWorkload"), pages())
            .await
            .unwrap();
        let second = store.create_workload(&creation("CreateWorkload"), pages()).await;
        assert!(
            matches!(second, Err(Error::AlreadyExists("workload"))),
            "{database:?}"
        );

        revoke_by_name(&store, &origin(), &["Ada", "pages", "nobody"])
            .await
            .unwrap();
        let (third, _) = store
            .create_operator(&creation("CreateOperator"), ada())
            .await
            .unwrap();
        assert_ne!(first.operator_id, third.operator_id);
        store
            .create_workload(&creation("CreateWorkload"), pages())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_repeated_call_shows_the_same_token_and_another_one_does_not() {
    for database in databases() {
        let (store, clock) = store(&database.url).await;
        let call = repeatable("CreateOperator", b"ada");
        let (first, token) = store.create_operator(&call, ada()).await.unwrap();
        let (again, same) = store.create_operator(&call, ada()).await.unwrap();
        assert_eq!((&first, token.expose()), (&again, same.expose()), "{database:?}");
        let call = repeatable("CreateWorkload", b"pages");
        let (_, token) = store.create_workload(&call, pages()).await.unwrap();
        let (_, same) = store.create_workload(&call, pages()).await.unwrap();
        assert_eq!(token.expose(), same.expose(), "{database:?}");

        let other = Creation {
            content: b"other".to_vec().into(),
            ..call.clone()
        };
        let reused = store.create_workload(&other, pages()).await;
        assert!(matches!(reused, Err(Error::RequestIdReused)), "{database:?}");
        clock.advance(std::time::Duration::from_secs(601));
        let late = store.create_workload(&call, pages()).await;
        assert!(matches!(late, Err(Error::RequestIdReused)), "{database:?}");
    }
}

#[tokio::test]
async fn lists_are_in_the_order_of_creation() {
    for database in databases() {
        let (store, clock) = store(&database.url).await;
        for name in ["c", "a", "b"] {
            clock.advance(std::time::Duration::from_millis(1));
            let (operator, workload) = (
                NewOperator {
                    name: name.into(),
                    ..ada()
                },
                NewWorkload {
                    name: name.into(),
                    ..pages()
                },
            );
            store
                .create_operator(&creation("CreateOperator"), operator)
                .await
                .unwrap();
            store
                .create_workload(&creation("CreateWorkload"), workload)
                .await
                .unwrap();
        }
        let first = PageRequest::parse("operators", &[], 2, "").unwrap();
        let operators = store.list_operators(&first).await.unwrap();
        let names: Vec<_> = operators
            .items
            .iter()
            .map(|operator| operator.name.as_str())
            .collect();
        assert_eq!(names, ["c", "a"], "{database:?}");
        let second = PageRequest::parse("operators", &[], 2, &operators.next_page_token).unwrap();
        let rest = store.list_operators(&second).await.unwrap();
        assert_eq!(
            (rest.items.len(), rest.items[0].name.as_str()),
            (1, "b"),
            "{database:?}"
        );
        let all = PageRequest::parse("workloads", &[], 0, "").unwrap();
        let workloads = store.list_workloads(&all).await.unwrap();
        let names: Vec<_> = workloads
            .items
            .iter()
            .map(|workload| workload.name.as_str())
            .collect();
        assert_eq!(names, ["c", "a", "b"], "{database:?}");
        assert!(workloads.next_page_token.is_empty());
    }
}
