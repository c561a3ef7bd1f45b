//! Operators and workloads, on both databases.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use accord::{
    random::SystemRandom,
    store::change,
    testing::databases,
    text::caller::{CertificateName, Role, WorkloadKind},
};

use super::*;
use crate::store::testing::{audited, creation, origin, repeatable, store};

fn ada() -> NewCaller {
    NewCaller {
        name: "Ada".into(),
        authority: Authority::Roles(vec![Role::Auditor, Role::Approver]),
        certificate_name: None,
        person: None,
    }
}

fn pages() -> NewCaller {
    NewCaller {
        name: "pages".into(),
        authority: Authority::Kind(WorkloadKind::InternalService),
        certificate_name: None,
        person: None,
    }
}

#[tokio::test]
async fn a_token_finds_its_caller_until_it_is_revoked() {
    for database in databases() {
        let (store, _) = store(&database.url).await;
        let mut ids = Vec::new();
        for new in [ada(), pages()] {
            let caller_type = new.authority.caller_type();
            let (record, token) = store
                .create_caller(&creation("Create"), new.clone())
                .await
                .unwrap();
            let token = token.unwrap();
            let authority = match record.caller.clone() {
                Caller::Operator { roles, .. } => Authority::Roles(roles),
                Caller::Workload { kind, .. } => Authority::Kind(kind),
            };
            assert_eq!(
                (authority, &record.name),
                (new.authority, &new.name),
                "{database:?}"
            );
            let found = store.find_caller_record(Credential::Token(&token)).await.unwrap();
            assert_eq!(found.as_ref(), Some(&record), "{database:?}");
            let id = record.caller.id();
            let revoked = store
                .revoke_caller(&origin(), caller_type, id, "a test")
                .await
                .unwrap();
            assert_eq!(revoked.revoked_at, Some(store.now()), "{database:?}");
            let again = store
                .revoke_caller(&origin(), caller_type, id, "a test")
                .await
                .unwrap();
            assert_eq!(again, revoked, "{database:?}");
            assert_eq!(
                store.find_caller_record(Credential::Token(&token)).await.unwrap(),
                None,
                "{database:?}"
            );
            // The second revocation is published again.
            ids.extend([id.to_owned(), id.to_owned(), id.to_owned()]);
        }
        let actions = [
            "operator.create",
            "operator.revoke",
            "workload.create",
            "workload.revoke",
        ];
        assert_eq!(audited(&store).await, actions, "{database:?}");
        let changes = change::list_after(store.db.read(), 0, 10).await.unwrap();
        let changed: Vec<_> = changes.iter().map(|change| change.id.clone()).collect();
        assert_eq!(changed, ids, "{database:?}");
        assert!(changes.iter().all(|change| change.kind == change_kind::CALLER));
    }
}

#[tokio::test]
async fn unknown_tokens_and_tokens_of_other_kinds_find_no_caller() {
    let database = accord::testing::sqlite();
    let (store, _) = store(&database.url).await;
    let (operator, _) = store.create_caller(&creation("Create"), ada()).await.unwrap();
    for kind in [
        TokenKind::Operator,
        TokenKind::Workload,
        TokenKind::Claim,
        TokenKind::Enrolment,
    ] {
        let token = OpaqueToken::generate(kind, &SystemRandom);
        assert_eq!(
            store.find_caller_record(Credential::Token(&token)).await.unwrap(),
            None
        );
    }
    let unknown = OperatorId::generate(&*store.clock, &SystemRandom);
    for (caller_type, id) in [
        (CallerType::Operator, unknown.as_str()),
        (CallerType::Workload, operator.caller.id()),
    ] {
        let revoked = store.revoke_caller(&origin(), caller_type, id, "a test").await;
        let name: &str = caller_type.into();
        assert!(matches!(revoked, Err(Error::NotFound(resource)) if resource == name));
    }
}

#[tokio::test]
async fn a_name_is_unique_among_the_live_callers_of_a_type() {
    for database in databases() {
        let (store, _) = store(&database.url).await;
        let namesake = NewCaller {
            name: ada().name,
            ..pages()
        };
        store.create_caller(&creation("Create"), namesake).await.unwrap();
        for new in [ada(), pages()] {
            let name: &str = new.authority.caller_type().into();
            let (first, _) = store
                .create_caller(&creation("Create"), new.clone())
                .await
                .unwrap();
            let second = store.create_caller(&creation("Create"), new.clone()).await;
            assert!(
                matches!(&second, Err(Error::NameTaken { resource, id }) if *resource == name && id == first.caller.id()),
                "{database:?}: {second:?}"
            );
            store
                .revoke_callers_named(&origin(), &[&new.name, "nobody"])
                .await
                .unwrap();
            let (third, _) = store.create_caller(&creation("Create"), new).await.unwrap();
            assert_ne!(first.caller.id(), third.caller.id(), "{database:?}");
        }
    }
}

#[tokio::test]
async fn a_certificate_name_belongs_to_one_live_caller_of_any_type() {
    for database in databases() {
        let (store, _) = store(&database.url).await;
        assert!(
            with_certificate_names(&store.db, 2).await.unwrap().is_empty(),
            "{database:?}"
        );
        let named = |new: NewCaller| NewCaller {
            certificate_name: Some(CertificateName::parse("ada.example").unwrap()),
            ..new
        };
        let call = repeatable("Create", b"1");
        let created = store.create_caller(&call, named(ada())).await.unwrap();
        let (first, token) = &created;
        assert!(token.is_none(), "{database:?}");
        assert_eq!(first.certificate_name.as_deref(), Some("ada.example"));
        let again = store.create_caller(&call, named(ada())).await.unwrap();
        assert_eq!((&again.0, again.1.is_none()), (first, true), "{database:?}");
        let ids = with_certificate_names(&store.db, 2).await.unwrap();
        assert_eq!(ids, [first.caller.id()], "{database:?}");

        let names = ["x.example".to_owned(), "ada.example".to_owned()];
        let by_name = Credential::Certificate(&names);
        let found = store.find_caller_record(by_name).await.unwrap();
        assert_eq!(found.as_ref(), Some(first), "{database:?}");
        let none = store
            .find_caller_record(Credential::Certificate(&names[..1]))
            .await;
        assert_eq!(none.unwrap(), None, "{database:?}");

        let second = store.create_caller(&creation("Create"), named(pages())).await;
        assert!(
            matches!(second, Err(Error::AlreadyExists("certificate_name"))),
            "{database:?}"
        );
        let id = first.caller.id();
        store
            .revoke_caller(&origin(), CallerType::Operator, id, "a test")
            .await
            .unwrap();
        assert_eq!(
            store.find_caller_record(by_name).await.unwrap(),
            None,
            "{database:?}"
        );
        assert!(
            with_certificate_names(&store.db, 2).await.unwrap().is_empty(),
            "{database:?}"
        );
        let (third, _) = store
            .create_caller(&creation("Create"), named(pages()))
            .await
            .unwrap();
        let found = store.find_caller_record(by_name).await.unwrap();
        assert_eq!(found, Some(third), "{database:?}");
    }
}

#[tokio::test]
async fn a_repeated_call_returns_the_same_token_and_another_call_does_not() {
    for database in databases() {
        let (store, clock) = store(&database.url).await;
        for new in [ada(), pages()] {
            let call = repeatable("Create", b"1");
            let (first, token) = store.create_caller(&call, new.clone()).await.unwrap();
            let (again, same) = store.create_caller(&call, new.clone()).await.unwrap();
            assert_eq!(first, again, "{database:?}");
            assert_eq!(token.unwrap().expose(), same.unwrap().expose(), "{database:?}");
            let other = Creation {
                content: b"other".to_vec().into(),
                ..call.clone()
            };
            let reused = store.create_caller(&other, new.clone()).await;
            assert!(matches!(reused, Err(Error::RequestIdReused)), "{database:?}");
            clock.advance(std::time::Duration::from_secs(601));
            let late = store.create_caller(&call, new).await;
            assert!(matches!(late, Err(Error::RequestIdReused)), "{database:?}");
        }
        let events = audited(&store).await;
        let shown_again = events.iter().filter(|action| *action == "secret.show_again");
        assert_eq!(shown_again.count(), 2, "{database:?}");
    }
}

#[tokio::test]
async fn lists_are_in_the_order_of_creation() {
    for database in databases() {
        let (store, clock) = store(&database.url).await;
        for name in ["c", "a", "b"] {
            clock.advance(std::time::Duration::from_millis(1));
            for new in [ada(), pages()] {
                let new = NewCaller {
                    name: name.into(),
                    ..new
                };
                store.create_caller(&creation("Create"), new).await.unwrap();
            }
        }
        for caller_type in [CallerType::Operator, CallerType::Workload] {
            let (mut names, mut token) = (Vec::new(), String::new());
            for expected in [2, 1] {
                let page = PageRequest::test(2, &token);
                let page = store.list_callers(caller_type, &page).await.unwrap();
                let records;
                (records, token) = page.into_parts();
                assert_eq!(records.len(), expected, "{database:?}");
                names.extend(records.into_iter().map(|record| record.name));
            }
            assert_eq!(names, ["c", "a", "b"], "{database:?}");
            assert!(token.is_empty(), "{database:?}");
        }
    }
}
