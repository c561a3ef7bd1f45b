//! A registry whose feed can fail, and a directory that asks it.

#![allow(clippy::unwrap_used)]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use accord::{
    random::SeededRandom,
    registry::v1::{
        self as pb,
        directory_service_server::{DirectoryService, DirectoryServiceServer},
    },
    rpc::status::{ErrorReason, Problem},
    testing::test_clock,
    text::{
        id::{ClientId, SecretId},
        opaque::{ClientSecret, OpaqueToken, SecretTagKey, TokenKind},
    },
};
use tokio::net::TcpListener;
use tonic::{
    Code, Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

use super::{Directory, Memory};
use crate::registry::Registry;

/// Clients, each changed twice in a burst.
pub const CLIENTS: usize = 3;
/// Changes in a burst.
pub const BURST: usize = 2 * CLIENTS;
/// Changes in an answer: less than a burst.
const PAGE: usize = 2;

/// Every client's secret is made of these bits.
const RIGHT: [u8; 32] = [1; 32];

/// Every client's secret.
pub fn right() -> ClientSecret {
    secret(&RIGHT)
}

/// Another one, with the right one's id.
pub fn wrong() -> ClientSecret {
    secret(&[2; 32])
}

fn secret(bits: &[u8; 32]) -> ClientSecret {
    let client_id = ClientId::generate(&*test_clock(), &SeededRandom::new(3));
    ClientSecret::compose(&SecretTagKey::new(1, &[1; 32]), &client_id, secret_id(), bits)
}

fn secret_id() -> SecretId {
    SecretId::generate(&*test_clock(), &SeededRandom::new(3))
}

/// What becomes of the next question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is answered.
    Answered,
    /// It fails before anything is read.
    Fails,
    /// The answer is read and gets lost.
    Lost,
    /// The answer is read, and arrives after the next change was made.
    Late,
    /// It is asked twice at a time.
    Twice,
    /// A change is made between the answer's position and its list.
    Overtaken,
}

pub const FATES: [Fate; 6] = [
    Fate::Answered,
    Fate::Fails,
    Fate::Lost,
    Fate::Late,
    Fate::Twice,
    Fate::Overtaken,
];

pub struct State {
    pub clients: Vec<ClientId>,
    /// Which client each change was about.
    pub changes: Vec<usize>,
    pub fate: Fate,
    /// What was asked about secrets.
    pub asked: Asked,
}

/// How often secrets were checked.
#[derive(Debug, Default)]
pub struct Asked {
    pub checks: usize,
    /// The most at a time.
    pub at_once: usize,
    under_way: usize,
}

impl State {
    pub fn version(&self, client: usize, seq: usize) -> i64 {
        let changes = self.changes.iter().take(seq);
        changes.filter(|changed| **changed == client).count() as i64
    }

    pub fn change(&mut self) {
        self.changes.push(self.changes.len() % CLIENTS);
    }

    fn position(&self, seq: usize) -> Option<pb::FeedPosition> {
        Some(pb::FeedPosition {
            epoch: "epochone".into(),
            seq: seq as i64,
        })
    }
}

#[derive(Clone)]
pub struct Fake(pub Arc<Mutex<State>>);

impl Fake {
    /// A registry of these clients, in which nothing has changed.
    pub fn of(clients: Vec<ClientId>) -> Self {
        Self(Arc::new(Mutex::new(State {
            clients,
            changes: Vec::new(),
            fate: Fate::Answered,
            asked: Asked::default(),
        })))
    }

    /// What was asked about secrets since this was called the last time.
    pub fn asked(&self) -> Asked {
        std::mem::take(&mut self.0.lock().unwrap().asked)
    }
}

#[tonic::async_trait]
impl DirectoryService for Fake {
    async fn list_changes(
        &self,
        request: Request<pb::ListChangesRequest>,
    ) -> Result<Response<pb::ListChangesResponse>, Status> {
        let mut state = self.0.lock().unwrap();
        let fate = std::mem::replace(&mut state.fate, Fate::Answered);
        if fate == Fate::Fails {
            return Err(Status::unavailable("fails"));
        }
        let now_at = state.changes.len();
        if fate == Fate::Overtaken {
            state.change();
        }
        let after = request.into_inner().after.unwrap_or_default();
        let is_first = after.epoch.is_empty();
        let from = after.seq as usize;
        let until = if is_first {
            from
        } else {
            state.changes.len().min(from + PAGE)
        };
        let more = !is_first && until < state.changes.len();
        let told = (from..until).map(|at| pb::Change {
            seq: at as i64 + 1,
            kind: pb::ChangeKind::Client.into(),
            id: state.clients[state.changes[at]].to_string(),
            ends_tokens: true,
            ..Default::default()
        });
        let answer = pb::ListChangesResponse {
            changes: told.collect(),
            position: state.position(if more { until } else { now_at.max(until) }),
            more,
            ..Default::default()
        };
        match fate {
            Fate::Lost => return Err(Status::unavailable("lost")),
            Fate::Late => state.change(),
            _ => {}
        }
        Ok(Response::new(answer))
    }

    async fn get_client_profile(
        &self,
        request: Request<pb::GetClientProfileRequest>,
    ) -> Result<Response<pb::GetClientProfileResponse>, Status> {
        let state = self.0.lock().unwrap();
        let client_id = request.into_inner().client_id;
        let client = state.clients.iter().position(|id| id.as_str() == client_id);
        let now_at = state.changes.len();
        Ok(Response::new(pb::GetClientProfileResponse {
            client: Some(pb::ClientProfile {
                client_id,
                state: pb::ClientState::Active.into(),
                version: state.version(client.unwrap(), now_at),
                ..Default::default()
            }),
            position: state.position(now_at),
        }))
    }

    async fn authenticate_client(
        &self,
        request: Request<pb::AuthenticateClientRequest>,
    ) -> Result<Response<pb::AuthenticateClientResponse>, Status> {
        let request = request.into_inner();
        let count = |count: fn(&mut Asked)| count(&mut self.0.lock().unwrap().asked);
        count(|asked| {
            asked.checks += 1;
            asked.under_way += 1;
            asked.at_once = asked.at_once.max(asked.under_way);
        });
        // Who comes at the same time is here before this one leaves.
        tokio::task::yield_now().await;
        count(|asked| asked.under_way -= 1);
        let state = self.0.lock().unwrap();
        if request.client_secret != right().expose() {
            return Err(Problem::new(Code::Unauthenticated, ErrorReason::InvalidClient, "").into());
        }
        Ok(Response::new(pb::AuthenticateClientResponse {
            client: Some(pb::ClientProfile {
                client_id: request.client_id,
                state: pb::ClientState::Active.into(),
                ..Default::default()
            }),
            secret_id: secret_id().to_string(),
            secret_expire_time: None,
            position: state.position(state.changes.len()),
        }))
    }

    async fn authenticate_tenant_admin(
        &self,
        _: Request<pb::AuthenticateTenantAdminRequest>,
    ) -> Result<Response<pb::AuthenticateTenantAdminResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn authenticate_caller(
        &self,
        _: Request<pb::AuthenticateCallerRequest>,
    ) -> Result<Response<pb::AuthenticateCallerResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn resolve_user(
        &self,
        _: Request<pb::ResolveUserRequest>,
    ) -> Result<Response<pb::ResolveUserResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_tenant_profile(
        &self,
        _: Request<pb::GetTenantProfileRequest>,
    ) -> Result<Response<pb::GetTenantProfileResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn report_secret_use(
        &self,
        _: Request<pb::ReportSecretUseRequest>,
    ) -> Result<Response<pb::ReportSecretUseResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// A directory that asks this registry, and remembers.
pub async fn directory(fake: &Fake) -> Directory {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let serving = Server::builder().add_service(DirectoryServiceServer::new(fake.clone()));
    tokio::spawn(serving.serve_with_incoming(incoming));
    let random = SeededRandom::new(1);
    let token = OpaqueToken::generate(TokenKind::Workload, &random);
    let memory = Memory {
        follows: true,
        // The rule is about positions: the machine may be slow.
        stale_max: Duration::from_secs(3600),
    };
    Directory::new(
        Registry::new(&url, &token).unwrap(),
        test_clock(),
        &random,
        memory,
    )
}
