//! Sessions of Tenant Admins: who opens one, and what ends it.

use std::time::{Duration, Instant};

use accord::{audit::v1::AuditOutcome, clock::Clock, token::v1 as pb};
use tonic::Code;

use super::{MINUTE, assert_session_invalid, deny, sign_out, use_session};
use crate::{
    fake_registry::Question,
    harness::{assert_rejected, assert_violations, ok},
    world::{PASSWORD, World},
};

#[tokio::test]
async fn a_sign_in_opens_a_session_for_an_hour_at_most() {
    let world = World::start().await;
    let setup = world.setup().await;
    let request = world.credentials(&setup.setup_id);
    let answer = ok(world.setups().sign_in_tenant_admin(request).await);
    assert!(answer.admin_session.starts_with("ads_"));
    let end = world.clock().now().plus(60 * MINUTE);
    assert_eq!(answer.expire_time, Some(end.to_timestamp()));
    let event = world.audit_events("admin_session.open").await.remove(0);
    assert_eq!(
        (event.tenant_id.as_str(), event.subject.as_str()),
        ("acme", world.admin_id.as_str())
    );
    assert_eq!(event.detail["setup_id"], setup.setup_id);
    assert!(!format!("{event:?}").contains(&answer.admin_session));
}

#[tokio::test]
async fn a_sign_in_needs_the_right_password_and_a_pending_setup() {
    let world = World::start().await;
    let sign_in = async |request| world.setups().sign_in_tenant_admin(request).await.map(drop);
    for (account_name, password) in [
        (world.admin_name(), "wrong"),
        ("nobody", PASSWORD),
        (world.api_user_name(), PASSWORD),
    ] {
        let request = pb::SignInTenantAdminRequest {
            account_name: account_name.into(),
            password: password.into(),
            ..world.credentials("")
        };
        assert_rejected(sign_in(request).await, Code::Unauthenticated, "SIGN_IN_FAILED");
    }
    let refused = world.audit_events("admin_session.open").await;
    assert_eq!(refused.len(), 3);
    assert!(!format!("{refused:?}").contains(world.admin_name()));

    assert_violations(
        sign_in(pb::SignInTenantAdminRequest {
            tenant_id: "A".into(),
            setup_id: "set_".into(),
            ..Default::default()
        })
        .await,
        &["tenant_id", "setup_id", "account_name", "password"],
    );
    let setup = world.setup().await;
    let elsewhere = pb::SignInTenantAdminRequest {
        tenant_id: "globex".into(),
        ..world.credentials(&setup.setup_id)
    };
    for request in [elsewhere, world.credentials("set_01jd0000000000000000000000")] {
        let metadata = assert_rejected(sign_in(request).await, Code::NotFound, "NOT_FOUND");
        assert_eq!(metadata["resource"], "setup");
    }
    let session = world.sign_in(&setup.setup_id).await;
    deny(&world, &setup.setup_id, &session).await.unwrap();
    let refused = sign_in(world.credentials(&setup.setup_id)).await;
    assert_eq!(
        assert_rejected(refused, Code::FailedPrecondition, "WRONG_STATE")["state"],
        "DENIED"
    );
    let late = world.setup().await;
    world.clock().advance(60 * MINUTE);
    let refused = sign_in(world.credentials(&late.setup_id)).await;
    assert_eq!(
        assert_rejected(refused, Code::FailedPrecondition, "WRONG_STATE")["state"],
        "EXPIRED"
    );
    world.registry().set_unavailable(true);
    assert_rejected(
        sign_in(world.credentials("")).await,
        Code::Unavailable,
        "UNAVAILABLE",
    );
}

/// Right and wrong guesses leave the same trace, so that nobody can tell them apart by the next attempt.
#[tokio::test]
async fn a_cancelled_sign_in_is_counted_recorded_and_delayed() {
    for (password, outcome) in [
        ("wrong", AuditOutcome::Refused),
        (PASSWORD, AuditOutcome::Success),
    ] {
        let world = World::start().await;
        let guess = pb::SignInTenantAdminRequest {
            password: password.into(),
            client_address: "192.0.2.1".into(),
            ..world.credentials("")
        };
        for count in 1..=4 {
            let (asked, answer) = tokio::sync::oneshot::channel();
            let (hung_up, held) = tokio::sync::oneshot::channel::<()>();
            world.registry().delay(Question::SignIn, async move {
                asked.send(()).unwrap();
                held.await.unwrap();
            });
            let mut setups = world.setups();
            let mut request = tonic::Request::new(guess.clone());
            // A short deadline does not shorten the attempt either.
            request.set_timeout(Duration::from_secs(1));
            let call = tokio::spawn(async move { setups.sign_in_tenant_admin(request).await });
            answer.await.unwrap();
            call.abort();
            assert!(call.await.unwrap_err().is_cancelled());
            hung_up.send(()).unwrap();
            while world.audit_events("admin_session.open").await.len() < count {
                tokio::task::yield_now().await;
            }
        }
        let events = world.audit_events("admin_session.open").await;
        assert!(
            events.iter().all(|event| event.outcome() == outcome),
            "{password}"
        );
        // Three failures are free; after the fourth everybody waits 500 ms for this account.
        assert!(waited(&world).await >= Duration::from_millis(500), "{password}");
    }
}

/// How long the admin's sign-in takes.
async fn waited(world: &World) -> Duration {
    let started = Instant::now();
    world.sign_in("").await;
    started.elapsed()
}

#[tokio::test]
async fn an_attempt_that_the_registry_could_not_check_counts() {
    let world = World::start().await;
    world.registry().set_unavailable(true);
    for _ in 0..4 {
        let refused = world.setups().sign_in_tenant_admin(world.credentials("")).await;
        assert_rejected(refused, Code::Unavailable, "UNAVAILABLE");
    }
    world.registry().set_unavailable(false);
    assert!(waited(&world).await >= Duration::from_millis(500));
}

#[tokio::test]
async fn spellings_of_a_name_share_its_failures() {
    let world = World::start().await;
    let name = world.admin_name();
    for spelling in [
        name.to_uppercase(),
        format!("\u{3000}{name}"),
        format!("{name}\u{200b}"),
        name.replace('a', "\u{ff41}"),
    ] {
        let guess = pb::SignInTenantAdminRequest {
            account_name: spelling,
            password: "wrong".into(),
            ..world.credentials("")
        };
        let refused = world.setups().sign_in_tenant_admin(guess).await;
        assert_rejected(refused, Code::Unauthenticated, "SIGN_IN_FAILED");
    }
    assert!(waited(&world).await >= Duration::from_millis(500));
}

#[tokio::test]
async fn a_sign_out_ends_the_session_of_the_same_workload() {
    let world = World::start().await;
    let session = world.sign_in("").await;
    use_session(&world, &session).await.unwrap();
    let request = pb::SignOutTenantAdminRequest {
        admin_session: session.clone(),
    };
    world.other_setups().sign_out_tenant_admin(request).await.unwrap();
    use_session(&world, &session).await.unwrap();
    for _ in 0..2 {
        sign_out(&world, &session).await.unwrap();
        assert_session_invalid(use_session(&world, &session).await);
    }
    assert_violations(sign_out(&world, &session[1..]).await, &["admin_session"]);
    assert_violations(sign_out(&world, "").await, &["admin_session"]);
}

#[tokio::test]
async fn a_session_is_of_use_to_its_own_workload_alone() {
    let world = World::start().await;
    let session = world.sign_in("").await;
    let request = pb::ListConsentsRequest {
        tenant_id: "acme".into(),
        admin_session: session.clone(),
        ..Default::default()
    };
    let refused = world.other_consents().list_consents(request).await;
    assert_session_invalid(refused.map(drop));
    use_session(&world, &session).await.unwrap();
    for text in [
        "",
        "ads_",
        &session[..session.len() - 1],
        &session.replace("ads_", "acc_"),
    ] {
        assert_session_invalid(use_session(&world, text).await);
    }
}

#[tokio::test]
async fn a_session_ends_with_its_user_or_tenant_for_good() {
    type Change = fn(&World);
    let changes: [(Change, Change); 5] = [
        (
            |world| world.deactivate_admin(true),
            |world| world.deactivate_admin(false),
        ),
        (
            |world| world.set_admin_role(false),
            |world| world.set_admin_role(true),
        ),
        (|world| world.end_admin_sessions(), |_| ()),
        (
            |world| world.suspend("tenant", true),
            |world| world.suspend("tenant", false),
        ),
        (|world| world.start_registry_epoch(), |_| ()),
    ];
    for (index, (end, restore)) in changes.into_iter().enumerate() {
        let world = World::start().await;
        let session = world.sign_in("").await;
        use_session(&world, &session).await.unwrap();
        end(&world);
        assert_session_invalid(use_session(&world, &session).await);
        restore(&world);
        assert_session_invalid(use_session(&world, &session).await);
        let again = world.sign_in("").await;
        use_session(&world, &again)
            .await
            .unwrap_or_else(|status| panic!("case {index}: {status:?}"));
        let ended = world.audit_events("admin_session.end").await;
        assert_eq!(
            (ended.len(), ended[0].detail["reason"].as_str()),
            (1, "no_longer_allowed"),
            "case {index}"
        );
    }
}

#[tokio::test]
async fn a_change_between_two_uses_ends_the_session_even_if_it_was_undone() {
    let world = World::start().await;
    let session = world.sign_in("").await;
    world.deactivate_admin(true);
    world.deactivate_admin(false);
    assert_session_invalid(use_session(&world, &session).await);
}
