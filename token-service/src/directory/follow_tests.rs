//! No change is missed, whatever becomes of a question or its answer, at every point of a burst of changes.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use accord::{
    id::ClientId,
    opaque::{OpaqueToken, TokenKind},
    random::SeededRandom,
    registry::v1::{
        self as pb,
        directory_service_server::{DirectoryService, DirectoryServiceServer},
    },
    testing::test_clock,
};
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

use super::*;
use crate::{directory::Memory, registry::Registry};

/// Clients, each changed twice in a burst.
const CLIENTS: usize = 3;
/// Changes in a burst.
const BURST: usize = 2 * CLIENTS;
/// Changes in an answer: less than a burst.
const PAGE: usize = 2;

/// What becomes of the next question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
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

const FATES: [Fate; 6] = [
    Fate::Answered,
    Fate::Fails,
    Fate::Lost,
    Fate::Late,
    Fate::Twice,
    Fate::Overtaken,
];

struct State {
    clients: Vec<ClientId>,
    /// Which client each change was about.
    changes: Vec<usize>,
    fate: Fate,
}

impl State {
    fn version(&self, client: usize, seq: usize) -> i64 {
        let changes = self.changes.iter().take(seq);
        changes.filter(|changed| **changed == client).count() as i64
    }

    fn change(&mut self) {
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
struct Fake(Arc<Mutex<State>>);

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
        _: Request<pb::AuthenticateClientRequest>,
    ) -> Result<Response<pb::AuthenticateClientResponse>, Status> {
        Err(Status::unimplemented(""))
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

async fn directory(fake: &Fake) -> Directory {
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

/// What is answered never claims to know a change that it does not show; and what is remembered is of the
/// feed's position, or newer.
async fn is_honest(directory: &Directory, fake: &Fake) {
    let clients = fake.0.lock().unwrap().clients.clone();
    for (index, id) in clients.iter().enumerate() {
        let answer = directory.client(id).await.unwrap();
        let shown = answer.value.version;
        let claimed = answer.position.seq as usize;
        let known = fake.0.lock().unwrap().version(index, claimed);
        assert!(shown >= known, "claims {claimed} and shows {shown} of {known}");
    }
}

#[tokio::test]
async fn no_change_is_missed_whatever_becomes_of_a_question() {
    let random = SeededRandom::new(2);
    for fate in FATES {
        for at in 0..=BURST {
            let clients = (0..CLIENTS).map(|_| ClientId::generate(&*test_clock(), &random));
            let fake = Fake(Arc::new(Mutex::new(State {
                clients: clients.collect(),
                changes: Vec::new(),
                fate: Fate::Answered,
            })));
            let directory = directory(&fake).await;
            ask(&directory).await.unwrap();
            is_honest(&directory, &fake).await;
            for step in 0..=BURST {
                if step == at {
                    fake.0.lock().unwrap().fate = fate;
                    let told = if fate == Fate::Twice {
                        let (one, other) = tokio::join!(ask(&directory), ask(&directory));
                        one.and(other)
                    } else {
                        ask(&directory).await
                    };
                    let fails = matches!(fate, Fate::Fails | Fate::Lost);
                    assert_eq!(told.is_err(), fails, "{fate:?} at {at}");
                    is_honest(&directory, &fake).await;
                }
                fake.0.lock().unwrap().change();
                is_honest(&directory, &fake).await;
            }
            ask(&directory).await.unwrap();
            let last = fake.0.lock().unwrap().changes.len();
            assert_eq!(
                directory.cache.position().unwrap().seq,
                last as i64,
                "{fate:?} at {at}"
            );
            let clients = fake.0.lock().unwrap().clients.clone();
            for (index, id) in clients.iter().enumerate() {
                let shown = directory.client(id).await.unwrap().value.version;
                let expected = fake.0.lock().unwrap().version(index, last);
                assert_eq!(shown, expected, "{fate:?} at {at}");
            }
            // And all that ended is told, the last position of each.
            let ended = directory.ended_after(0, 100).await.unwrap().value;
            let seqs: Vec<_> = ended.iter().map(|ended| ended.seq as usize).collect();
            let expected: Vec<_> = (last + 1 - CLIENTS..=last).collect();
            assert_eq!(seqs, expected, "{fate:?} at {at}");
        }
    }
}
