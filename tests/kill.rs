//! Killed at any moment, the services leave no token without its audit event, and lose nothing that was sealed: the record of the
//! restarted service contains every token that a client received, and each log begins with every one that a checkpoint was kept of.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use accord::{
    audit::v1::{ListAuditEventsRequest, audit_service_client::AuditServiceClient},
    registry::v1::{CreateScopeRequest, scope_service_client::ScopeServiceClient},
    testing::{calls::ok, durable_postgres, sqlite},
    token::v1::token_service_client::TokenServiceClient,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use tokio::task::JoinSet;

use crate::harness::{
    checkpoints::SavedCheckpoints,
    partner::{World, own_grant, refresh_grant},
    services::Services,
};

tests!(every_token_has_its_event_whenever_the_services_are_killed,);

/// Concurrent callers.
const CALLERS: usize = 16;
/// How often the services are killed.
const KILLS: usize = 4;

/// The `jti` of an access token.
fn jti(token: &str) -> String {
    let claims = token.split('.').nth(1).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    claims["jti"].as_str().unwrap().to_owned()
}

/// Returns the tokens in the record.
async fn recorded(services: &Services) -> HashSet<String> {
    let operator = accord_cli::call::with_token(&services.target.token_grpc, &services.target.operator_token);
    let mut audit = AuditServiceClient::new(operator.unwrap());
    let mut recorded = HashSet::new();
    let mut page_token = String::new();
    loop {
        let request = ListAuditEventsRequest {
            action: "token.issue".into(),
            page_size: 500,
            page_token,
            ..Default::default()
        };
        let page = ok(audit.list_audit_events(request).await);
        let ids = page
            .audit_events
            .into_iter()
            .map(|event| event.detail["jti"].clone());
        recorded.extend(ids);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return recorded;
        }
    }
}

async fn every_token_has_its_event_whenever_the_services_are_killed() {
    // A database whose commits reach the disk, as in production.
    let postgres = durable_postgres(&[&std::env::temp_dir()]);
    for database in std::iter::once(sqlite()).chain(postgres.as_ref().map(|server| server.database())) {
        let registry = match &postgres {
            Some(server) if database.label == "postgres" => server.database(),
            _ => sqlite(),
        };
        let mut services = Services::start(&registry.url, &database.url).await;
        let saved = SavedCheckpoints::new(&services, [&registry.url, &database.url]).await;
        let given: Arc<Mutex<Vec<String>>> = Arc::default();
        for kill in 0..KILLS {
            let world = World::new(&services.target);
            let partner = world.partner().await;
            let first = world.first_tokens(&partner).await;
            given.lock().unwrap().push(first.access_token);
            let over = Arc::new(AtomicBool::new(false));
            let count = given.lock().unwrap().len();
            let mut callers = JoinSet::new();
            for caller in 0..CALLERS {
                let mut request = world.token_request(&partner, own_grant());
                if caller == 0 {
                    request.grant = Some(refresh_grant(&first.refresh_token));
                }
                let channel = accord_cli::call::open(&services.target.token_grpc).unwrap();
                let (given, over) = (given.clone(), over.clone());
                callers.spawn(async move {
                    let mut tokens = TokenServiceClient::new(channel);
                    while !over.load(Ordering::Relaxed) {
                        let Ok(answer) = tokens.issue_token(request.clone()).await else {
                            continue;
                        };
                        let answer = answer.into_inner();
                        given.lock().unwrap().push(answer.access_token);
                        if caller == 0 {
                            request.grant = Some(refresh_grant(&answer.refresh_token));
                        }
                    }
                });
            }
            // The registry writes, too.
            let (operator, still) = (world.operator.clone(), over.clone());
            callers.spawn(async move {
                let mut scopes = ScopeServiceClient::new(operator);
                for number in 0.. {
                    let scope = CreateScopeRequest {
                        name: format!("kill{kill}.scope{number}"),
                        description: "is written meanwhile".into(),
                        ..Default::default()
                    };
                    let answer = scopes.create_scope(scope).await;
                    assert!(number > 0 || answer.is_ok(), "{answer:?}");
                    if answer.is_err() {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    if still.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
            // At a different moment each time: after this number of tokens.
            while given.lock().unwrap().len() < count + 200 + 57 * kill {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            saved.save().await;
            for process in [&mut services.registry, &mut services.token] {
                process.signal("KILL");
            }
            for process in [&mut services.registry, &mut services.token] {
                process.wait();
            }
            over.store(true, Ordering::Relaxed);
            callers.join_all().await;
            saved.save().await;
            services.start_again();
        }
        let recorded = recorded(&services).await;
        let given = std::mem::take(&mut *given.lock().unwrap());
        assert!(given.len() > KILLS * 200, "{database:?}");
        for token in &given {
            assert!(
                recorded.contains(&jti(token)),
                "{database:?}: a token without its event"
            );
        }
        saved.verify().await;
    }
}
