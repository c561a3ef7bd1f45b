//! Tokens that are revoked under load. Nothing calls one of them active once its revocation has been acknowledged.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use accord::token::v1::{
    IntrospectTokenRequest, RevokeTokenRequest, revoke_token_request::ClientAuthentication,
    token_service_client::TokenServiceClient,
};
use tokio::{task::JoinSet, time::interval};
use tonic::Status;

use crate::{
    faults::load::Seen,
    harness::{
        partner::{Partner, World, own_grant},
        refusal::BOUND,
    },
};

const PACE: Duration = Duration::from_millis(200);

/// Tokens with the time at which their revocation was acknowledged.
type Acknowledged = Arc<Mutex<Vec<(String, Instant)>>>;

/// Callers that revoke tokens, and others that present them.
pub struct Revocations {
    acknowledged: Acknowledged,
    over: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Revocations {
    /// Revokes tokens at the first replica, and presents them to each.
    pub fn start(seen: &Arc<Seen>, replicas: &[World], partner: &Partner) -> Self {
        let mut revocations = Self {
            acknowledged: Arc::default(),
            over: Arc::default(),
            tasks: JoinSet::new(),
        };
        let (world, partner) = (replicas[0].clone(), partner.clone());
        revocations.every_tick(move |acknowledged| {
            let (world, partner) = (world.clone(), partner.clone());
            async move { revoke(&world, &partner, &acknowledged).await }
        });
        for (number, world) in replicas.iter().cloned().enumerate() {
            let seen = seen.clone();
            let mut turn = 0;
            revocations.every_tick(move |acknowledged| {
                turn += 1;
                let (world, seen) = (world.clone(), seen.clone());
                async move {
                    let known = acknowledged.lock().unwrap().clone();
                    let old = known.iter().filter(|(_, at)| at.elapsed() >= BOUND).rev();
                    // The newest one, and in turn each of the others.
                    let count = known.len().max(1);
                    for (token, _) in old.clone().take(1).chain(old.skip(turn % count).take(1)) {
                        if matches!(is_active(&world, token).await, Ok(Some(true))) {
                            seen.note_wrong(format!("replica {number} calls a revoked token active"));
                        }
                    }
                }
            });
        }
        revocations
    }

    fn every_tick<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        mut call: impl FnMut(Acknowledged) -> F + Send + 'static,
    ) {
        let (acknowledged, over) = (self.acknowledged.clone(), self.over.clone());
        self.tasks.spawn(async move {
            let (mut ticks, mut calls) = (interval(PACE), JoinSet::new());
            while !over.load(Ordering::Relaxed) {
                ticks.tick().await;
                calls.spawn(call(acknowledged.clone()));
                while calls.try_join_next().is_some() {}
            }
            calls.join_all().await;
        });
    }

    /// Stops. Checks every revocation that was acknowledged, at each replica.
    pub async fn ends(self, replicas: &[World]) {
        self.over.store(true, Ordering::Relaxed);
        self.tasks.join_all().await;
        let acknowledged = self.acknowledged.lock().unwrap().clone();
        assert!(
            acknowledged.len() > 10,
            "{} tokens were revoked",
            acknowledged.len()
        );
        for world in replicas {
            for (token, _) in &acknowledged {
                assert_eq!(is_active(world, token).await.unwrap(), Some(false));
            }
        }
    }
}

async fn revoke(world: &World, partner: &Partner, acknowledged: &Acknowledged) {
    let Ok(issued) = world.issue(partner, own_grant()).await else {
        return;
    };
    let token = issued.access_token;
    let secret = ClientAuthentication::ClientSecret(partner.client_secret.clone());
    let request = RevokeTokenRequest {
        tenant_id: world.target.tenant_id.clone(),
        token: token.clone(),
        client_id: partner.client_id.clone(),
        client_authentication: Some(secret),
    };
    if world.tokens().revoke_token(request).await.is_ok() {
        acknowledged.lock().unwrap().push((token, Instant::now()));
    }
}

/// Returns what a replica says of a token.
async fn is_active(world: &World, token: &str) -> Result<Option<bool>, Status> {
    let request = IntrospectTokenRequest {
        tenant_id: world.target.tenant_id.clone(),
        token: token.into(),
        ..Default::default()
    };
    let mut tokens = TokenServiceClient::new(world.workload.clone());
    let answer = tokens.introspect_token(request).await?;
    Ok(answer.into_inner().active)
}
