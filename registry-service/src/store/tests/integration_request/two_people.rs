//! Who may approve whose request.

use super::*;

#[tokio::test]
async fn with_a_second_operator_nobody_but_an_admin_approves_what_the_same_person_submitted() {
    use Role::{Admin, Approver, Registrar};
    for database in databases() {
        let (mut store, _) = seeded(&database.url).await;
        let ada = operator(&store, "Ada", &[Registrar, Approver], Some("Ada")).await;
        let second_credential = operator(&store, "Ada's laptop", &[Approver], Some("ada")).await;
        let named = operator(&store, "Grace", &[Registrar], Some("Grace Hopper")).await;
        let spelt = operator(&store, "G", &[Approver], Some("grace hopper")).await;
        let other = operator(&store, "Eve", &[Approver], Some("Eve")).await;
        // Nobody knows whether these are persons of their own.
        let unnamed = operator(&store, "U", &[Registrar, Approver], None).await;
        let admin = operator(&store, "Root", &[Admin], Some("Grace Hopper")).await;
        // Who submits, who approves, whether it takes a second person, and whether the event names one person.
        for (submitter, approver, needs_another, is_same) in [
            (&ada, &ada, true, true),
            (&ada, &second_credential, true, true),
            (&named, &spelt, true, true),
            (&named, &admin, false, true),
            (&ada, &other, false, false),
            (&named, &ada, false, false),
            (&named, &unnamed, true, false),
            (&unnamed, &ada, true, false),
        ] {
            let call = Creation {
                origin: submitter.clone(),
                ..creation("SubmitIntegrationRequest")
            };
            let submit = async |store: &Store| {
                let new = new_request(&["acme"], &["a.read"]);
                let submitted = store.submit_integration_request(&call, new).await;
                submitted.unwrap().integration_request_id
            };
            let approve = async |store: &Store, id: &IntegrationRequestId| {
                let deciding = store.decide_integration_request(approver, id, Decision::Approve);
                deciding.await
            };
            store.second_operator = true;
            let id = submit(&store).await;
            let approved = approve(&store, &id).await;
            let found = store.find_integration_request(&id).await.unwrap().unwrap();
            let expected = is_same.then_some("submitted it");
            if needs_another {
                let Err(Error::SecondOperatorRequired { event, .. }) = approved else {
                    panic!("{database:?}: {approved:?}");
                };
                assert_eq!(event.subject.as_deref(), Some(id.as_str()), "{database:?}");
                assert_eq!(event.detail.get("same_person").map(String::as_str), expected);
                assert_eq!((found.state, event.outcome), (State::Submitted, Outcome::Refused));
                // Whoever submitted a request may withdraw it.
                let reject = Decision::Reject("a mistake".into());
                let rejected = store.decide_integration_request(approver, &id, reject).await;
                assert_eq!(rejected.unwrap().state, State::Rejected, "{database:?}");
            } else {
                assert_eq!(approved.unwrap().state, State::Approved, "{database:?}");
                let event = newest_event(&store).await;
                assert_eq!(event.subject.as_deref(), Some(id.as_str()), "{database:?}");
                let same_person = event.detail.get("same_person").map(String::as_str);
                assert_eq!(same_person, expected, "{database:?}");
                assert_eq!(event.outcome, Outcome::Success, "{database:?}");
            }
            store.second_operator = false;
            let id = submit(&store).await;
            assert_eq!(approve(&store, &id).await.unwrap().state, State::Approved);
        }
    }
}

#[tokio::test]
async fn an_approval_from_before_the_rule_counts_only_if_it_was_another_persons() {
    use Role::{Admin, Approver, Registrar};
    for database in databases() {
        let (mut store, _) = seeded(&database.url).await;
        let ada = operator(&store, "Ada", &[Registrar, Approver], Some("Ada")).await;
        let eve = operator(&store, "Eve", &[Approver], Some("Eve")).await;
        let unnamed = operator(&store, "U", &[Approver], None).await;
        let admin = operator(&store, "Root", &[Admin], Some("Ada")).await;
        for (approver, counts) in [(&ada, false), (&unnamed, false), (&eve, true), (&admin, true)] {
            store.second_operator = false;
            let call = Creation {
                origin: ada.clone(),
                ..creation("SubmitIntegrationRequest")
            };
            let new = new_request(&["acme"], &["a.read"]);
            let id = store.submit_integration_request(&call, new).await.unwrap();
            let id = id.integration_request_id;
            let approved = store.decide_integration_request(approver, &id, Decision::Approve);
            approved.await.unwrap();
            store.second_operator = true;
            let client = ClientId::generate(&*store.clock, &SystemRandom);
            let tx = store.db.write().await.unwrap();
            let marked = store
                .mark_registered(&tx, &id, &client, action::CLIENT_AMEND)
                .await;
            tx.rollback().await.unwrap();
            assert_eq!(marked.is_ok(), counts, "{database:?} {approver:?}");
            let Err(error) = marked else { continue };
            let why = "the request can't be applied: its approval lacks a second person";
            assert_eq!(error.to_string(), why, "{database:?} {approver:?}");
            let Error::SecondOperatorRequired { event, .. } = error else {
                panic!("{error:?}")
            };
            assert_eq!(event.action, action::CLIENT_AMEND, "{database:?} {approver:?}");
        }
    }
}

#[tokio::test]
async fn an_approver_whom_the_submitter_has_added_is_told() {
    for database in databases() {
        let (mut store, _) = seeded(&database.url).await;
        store.second_operator = true;
        let root = operator(&store, "Root", &[Role::Admin], Some("Root")).await;
        let new = NewCaller {
            name: "Puppet".into(),
            authority: Authority::Roles(vec![Role::Approver]),
            certificate_name: None,
            person: Some("Somebody else".into()),
        };
        let call = |method| Creation {
            origin: root.clone(),
            ..creation(method)
        };
        let (puppet, _) = store.create_caller(&call("CreateOperator"), new).await.unwrap();
        let mut by_puppet = origin();
        by_puppet.actor.id = puppet.caller.id().to_owned();
        let (call, new) = (
            call("SubmitIntegrationRequest"),
            new_request(&["acme"], &["a.read"]),
        );
        let submitted = store.submit_integration_request(&call, new).await;
        let id = submitted.unwrap().integration_request_id;
        store
            .decide_integration_request(&by_puppet, &id, Decision::Approve)
            .await
            .unwrap();
        let event = newest_event(&store).await;
        assert_eq!(
            event.detail["second_person"], "was added by the first",
            "{database:?}"
        );
    }
}
