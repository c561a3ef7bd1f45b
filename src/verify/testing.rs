//! An authority for tests: a signer, and a gRPC server in memory whose responses a test can spoil. Everything runs on
//! tokio's clock, which tests pause.

#![allow(clippy::unwrap_used)]

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    signature::{Ed25519KeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hyper_util::rt::TokioIo;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use tokio::time::Instant;
use tonic::{
    Code, Request, Response, Status,
    transport::{Channel, Endpoint, Server},
};

use super::{ACCESS_TOKEN_TYPE, AccessTokenClaims, Checker, CheckerBuilder, Tenant};
use crate::{
    clock::{ManualClock, UnixMillis},
    token::v1::{
        self as pb, RevocationKind,
        token_service_server::{TokenService, TokenServiceServer},
    },
};

pub(super) const NOW: i64 = 1_800_000_000;
pub(super) const EPOCH: &str = "aa-bb";
pub(super) const ISSUER: &str = "https://auth.example/firm";
pub(super) const AUDIENCE: &str = "https://api.firm.example/v1";
/// The workload token of every test.
pub(super) const WORKLOAD: &str = "acw_a_secret_of_the_resource_server";

pub(super) fn tenant() -> Tenant {
    Tenant {
        tenant_id: "firm".into(),
        issuer: ISSUER.into(),
        audience: AUDIENCE.into(),
    }
}

/// Claims that are valid at [`NOW`], issued at position 0 of both feeds.
pub(super) fn claims() -> AccessTokenClaims {
    AccessTokenClaims {
        iss: ISSUER.into(),
        aud: AUDIENCE.into(),
        sub: "usr_1".into(),
        client_id: "cli_1".into(),
        tenant_id: "firm".into(),
        grant_id: "grt_1".into(),
        family_id: None,
        scope: "a b".into(),
        jti: "1".into(),
        iat: NOW as u32,
        exp: NOW as u32 + 300,
        rev: format!("{EPOCH}.0.0"),
        cnf: None,
    }
}

pub(super) fn header(kid: &str) -> Header {
    let mut header = Header::new(Algorithm::EdDSA);
    header.typ = Some(ACCESS_TOKEN_TYPE.into());
    header.kid = Some(kid.into());
    header
}

pub(super) struct Signer {
    pub(super) kid: String,
    pub(super) key: EncodingKey,
    pub(super) x: String,
}

impl Signer {
    pub(super) fn new(kid: &str) -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        Self {
            kid: kid.into(),
            key: EncodingKey::from_ed_der(der.as_ref()),
            x: URL_SAFE_NO_PAD.encode(pair.public_key().as_ref()),
        }
    }

    pub(super) fn sign(&self, claims: &AccessTokenClaims) -> String {
        jsonwebtoken::encode(&header(&self.kid), claims, &self.key).unwrap()
    }

    pub(super) fn json_web_key(&self) -> pb::JsonWebKey {
        pb::JsonWebKey {
            kty: "OKP".into(),
            crv: "Ed25519".into(),
            x: self.x.clone(),
            kid: self.kid.clone(),
            r#use: "sig".into(),
            alg: "EdDSA".into(),
            ..Default::default()
        }
    }
}

pub(super) fn revocation(kind: RevocationKind, id: &str, seq: i64) -> pb::Revocation {
    pb::Revocation {
        kind: kind.into(),
        id: id.into(),
        seq,
    }
}

/// A fault of one response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The call fails.
    Fails(Code),
    /// The response is computed at once and arrives later.
    ArrivesAfter(Duration),
    /// The response has the state of this long ago, and says so.
    IsOld(Duration),
    /// The response starts again at the first revocation.
    Repeats,
    /// The response starts a snapshot that was not requested.
    StartsSnapshot,
}

/// The authority. Clones share its state.
#[derive(Clone)]
pub(super) struct Authority(Arc<Mutex<State>>);

struct State {
    epoch: String,
    /// The prefix of cursors.
    cursors: String,
    log: Vec<(Instant, pb::Revocation)>,
    page: usize,
    faults: VecDeque<Option<Fault>>,
    down: bool,
    keys: Vec<pb::JsonWebKey>,
    keys_down: bool,
    lists: usize,
    key_reads: usize,
}

impl Authority {
    /// Creates an authority with this key, no revocations, and two revocations a response.
    pub(super) fn new(signer: &Signer) -> Self {
        Self(Arc::new(Mutex::new(State {
            epoch: EPOCH.into(),
            cursors: "a".into(),
            log: Vec::new(),
            page: 2,
            faults: VecDeque::new(),
            down: false,
            keys: vec![signer.json_web_key()],
            keys_down: false,
            lists: 0,
            key_reads: 0,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Adds a revocation at the next position.
    pub(super) fn revoke(&self, kind: RevocationKind, id: &str) {
        let mut state = self.state();
        let seq = i64::try_from(state.log.len()).unwrap() + 1;
        state.log.push((Instant::now(), revocation(kind, id, seq)));
    }

    /// Starts a new epoch without revocations.
    pub(super) fn restore(&self, epoch: &str) {
        let mut state = self.state();
        state.epoch = epoch.into();
        state.log.clear();
    }

    /// Rejects the cursors returned before.
    pub(super) fn forget_cursors(&self) {
        self.state().cursors.push('b');
    }

    /// Sets the faults of the next responses.
    pub(super) fn spoil(&self, faults: impl IntoIterator<Item = Option<Fault>>) {
        self.state().faults.extend(faults);
    }

    /// Sets whether every call hangs.
    pub(super) fn set_down(&self, down: bool) {
        self.state().down = down;
    }

    /// Sets whether every read of keys fails.
    pub(super) fn set_keys_down(&self, down: bool) {
        self.state().keys_down = down;
    }

    pub(super) fn set_keys(&self, signers: &[&Signer]) {
        self.state().keys = signers.iter().map(|signer| signer.json_web_key()).collect();
    }

    /// Returns how often revocations and keys were requested.
    pub(super) fn calls(&self) -> (usize, usize) {
        let state = self.state();
        (state.lists, state.key_reads)
    }

    /// Opens a channel to a new server of this authority.
    pub(super) fn channel(&self) -> Channel {
        let service = TokenServiceServer::new(self.clone());
        let connect = move |_| {
            let service = service.clone();
            async move {
                let (client, server) = tokio::io::duplex(64 * 1024);
                let incoming = tokio_stream::once(Ok::<_, io::Error>(server));
                tokio::spawn(
                    Server::builder()
                        .add_service(service)
                        .serve_with_incoming(incoming),
                );
                Ok::<_, io::Error>(TokioIo::new(client))
            }
        };
        Endpoint::from_static("http://in.memory").connect_with_connector_lazy(tower::service_fn(connect))
    }

    /// Returns the builder of a checker whose clock shows [`NOW`].
    pub(super) fn checker(&self) -> CheckerBuilder {
        let clock = ManualClock::new(UnixMillis::from_millis(NOW * 1000));
        Checker::over(self.channel(), WORKLOAD)
            .unwrap()
            .clock(Arc::new(clock))
    }
}

impl State {
    /// Returns the response for `cursor` with the state at `as_of`.
    fn respond(&self, cursor: &str, as_of: Instant) -> Result<pb::ListRevocationsResponse, Status> {
        let (from, snapshot) = match cursor.split_once(':') {
            Some((epoch, from)) if epoch == self.epoch => {
                let from = from.strip_prefix(&self.cursors);
                let from = from.ok_or(Status::invalid_argument("unknown cursor"))?;
                (from.parse().unwrap(), false)
            }
            _ => (0, true),
        };
        let visible = self.log.iter().take_while(|(at, _)| *at <= as_of).count();
        let to = visible.min(from + self.page).max(from);
        Ok(pb::ListRevocationsResponse {
            revocations: self.log[from..to]
                .iter()
                .map(|(_, revocation)| revocation.clone())
                .collect(),
            next_cursor: format!("{}:{}{to}", self.epoch, self.cursors),
            snapshot,
            more: to < visible,
            read_time: None,
            epoch: self.epoch.clone(),
            age: Some(as_of.elapsed().try_into().unwrap()),
        })
    }
}

#[tonic::async_trait]
impl TokenService for Authority {
    async fn list_revocations(
        &self,
        request: Request<pb::ListRevocationsRequest>,
    ) -> Result<Response<pb::ListRevocationsResponse>, Status> {
        let authorization = request.metadata().get("authorization").unwrap();
        assert_eq!(authorization.to_str().unwrap(), format!("Bearer {WORKLOAD}"));
        let cursor = request.into_inner().cursor;
        let (answer, wait) = {
            let mut state = self.state();
            state.lists += 1;
            let fault = state.faults.pop_front().flatten();
            let now = Instant::now();
            let answer = match fault {
                Some(Fault::Fails(code)) => Err(Status::new(code, "spoilt")),
                Some(Fault::IsOld(age)) => state.respond(&cursor, now.checked_sub(age).unwrap()),
                Some(Fault::Repeats) => state.respond(&format!("{}:{}0", state.epoch, state.cursors), now),
                Some(Fault::StartsSnapshot) => state.respond("", now),
                Some(Fault::ArrivesAfter(_)) | None => state.respond(&cursor, now),
            };
            let wait = match fault {
                _ if state.down => Some(Duration::from_secs(3600)),
                Some(Fault::ArrivesAfter(wait)) => Some(wait),
                _ => None,
            };
            (answer, wait)
        };
        if let Some(wait) = wait {
            tokio::time::sleep(wait).await;
        }
        answer.map(Response::new)
    }

    async fn get_json_web_key_set(
        &self,
        request: Request<pb::GetJsonWebKeySetRequest>,
    ) -> Result<Response<pb::GetJsonWebKeySetResponse>, Status> {
        assert!(
            !request.metadata().contains_key("authorization"),
            "anyone may read keys"
        );
        let (keys, failing) = {
            let mut state = self.state();
            state.key_reads += 1;
            (state.keys.clone(), state.down || state.keys_down)
        };
        if failing {
            return Err(Status::unavailable("down"));
        }
        Ok(Response::new(pb::GetJsonWebKeySetResponse { keys }))
    }

    async fn issue_token(
        &self,
        _: Request<pb::IssueTokenRequest>,
    ) -> Result<Response<pb::IssueTokenResponse>, Status> {
        Err(Status::unimplemented("not part of the test"))
    }

    async fn push_authorization_request(
        &self,
        _: Request<pb::PushAuthorizationRequestRequest>,
    ) -> Result<Response<pb::PushAuthorizationRequestResponse>, Status> {
        Err(Status::unimplemented("not part of the test"))
    }

    async fn introspect_token(
        &self,
        _: Request<pb::IntrospectTokenRequest>,
    ) -> Result<Response<pb::IntrospectTokenResponse>, Status> {
        Err(Status::unimplemented("not part of the test"))
    }

    async fn revoke_token(
        &self,
        _: Request<pb::RevokeTokenRequest>,
    ) -> Result<Response<pb::RevokeTokenResponse>, Status> {
        Err(Status::unimplemented("not part of the test"))
    }

    async fn get_authority_metadata(
        &self,
        _: Request<pb::GetAuthorityMetadataRequest>,
    ) -> Result<Response<pb::GetAuthorityMetadataResponse>, Status> {
        Err(Status::unimplemented("not part of the test"))
    }
}
