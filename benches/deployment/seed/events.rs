//! A record of issued tokens as a month of traffic leaves it, and a Tenant Admin's session to look at it.

use std::{sync::Arc, time::Duration};

use accord::{
    clock::{Clock, SystemClock, UnixMillis},
    random::{Random, SystemRandom},
    rpc::run::Service as _,
    store::audit::{
        Actor, ActorKind, CallerAddress, Event, GrantType, GroupWriter, IssuedToken, Origin, Record, next_id,
    },
    text::{
        id::{ClientId, EventId, GrantId, TenantId, UserId},
        opaque::OpaqueToken,
    },
};
use anyhow::{Context, Result};
use sea_orm::EntityTrait;
use token_service::{model::admin_session::NewSession, store::entity::grant};
use tokio::task::JoinSet;

use super::{Dataset, registry, token_store};
use crate::{bare::SCOPE, deployment::services::Setup};

/// Tokens in a group: as many as 64 callers leave.
const GROUP: u64 = 34;
/// As many replicas have written.
const WRITERS: u64 = 4;
/// How long ago the first token was issued.
const AGE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Of how many groups one token is looked for afterwards.
const SAMPLES: u64 = 20;
/// The caller that the pages act as.
const PAGES: &str = "wkl_00000000000000000000000000";

/// The clock of an event.
#[derive(Debug)]
struct At(UnixMillis);

impl Clock for At {
    fn now(&self) -> UnixMillis {
        self.0
    }
}

impl Dataset {
    /// Records at least so many tokens of all grants, evenly over a month. Returns how many groups hold them, and the ids of
    /// some.
    pub async fn record(&self, tokens: u64) -> Result<(u64, Vec<EventId>)> {
        let (db, _) = token_store(&self.plan).await?;
        let grants: Arc<[grant::Model]> = grant::Entity::find().all(db.read()).await?.into();
        let groups = tokens.div_ceil(GROUP);
        let began = UnixMillis::from_millis(SystemClock.now().as_millis() - AGE.as_millis() as i64);
        let mut writers = JoinSet::new();
        for first in 0..WRITERS {
            let (db, grants) = (db.clone(), grants.clone());
            writers.spawn(async move {
                let writer = GroupWriter::new(Arc::new(SystemClock), Arc::new(SystemRandom));
                let mut some = Vec::new();
                for number in (first..groups).step_by(WRITERS as usize) {
                    let since = AGE.as_millis() as u64 * number / groups;
                    let at = began.plus(Duration::from_millis(since));
                    let records = (0..GROUP).map(|index| {
                        let grant = &grants[(number * GROUP + index) as usize % grants.len()];
                        record(grant, at.plus(Duration::from_millis(index)))
                    });
                    let records = records.collect::<Result<Vec<(EventId, Record)>>>()?;
                    if number % groups.div_ceil(SAMPLES) == 0 {
                        some.extend(records.first().map(|(jti, _)| jti.clone()));
                    }
                    let records: Vec<Record> = records.into_iter().map(|(_, record)| record).collect();
                    let tx = db.write().await?;
                    let appended = writer.append(&tx, &records).await?.context("no group")?;
                    tx.commit().await?;
                    appended.committed();
                }
                anyhow::Ok(some)
            });
        }
        let mut some = Vec::new();
        while let Some(written) = writers.join_next().await {
            some.extend(written??);
        }
        db.close().await;
        Ok((groups, some))
    }

    /// Opens a session of the first client's Tenant Admin for the pages. Returns the tenant and the session's token.
    pub async fn admin_session(&self, setup: &Setup) -> Result<(TenantId, OpaqueToken)> {
        let registry = registry(setup, &self.plan).await?;
        let position = registry.database().position().await?;
        registry.database().close().await;
        let tenant = &self.clients.first().context("no client")?.tenant;
        let origin = Origin {
            actor: Actor {
                kind: ActorKind::Workload,
                id: PAGES.to_owned(),
            },
            ..Origin::system("benchmark")
        };
        let session = NewSession {
            tenant_id: tenant.tenant_id.clone(),
            user_id: tenant.user_id.clone(),
            setup_id: None,
            position,
        };
        let (db, store) = token_store(&self.plan).await?;
        let (token, _) = store.open_admin_session(&origin, session).await?;
        db.close().await;
        Ok((tenant.tenant_id.clone(), token))
    }
}

fn record(grant: &grant::Model, at: UnixMillis) -> Result<(EventId, Record)> {
    let clock = At(at);
    let client_id = ClientId::parse(&grant.client_id)?;
    let jti = next_id(&clock, &SystemRandom);
    let mut request = [0; 16];
    SystemRandom.fill(&mut request);
    let origin = Origin {
        actor: Actor {
            kind: ActorKind::Client,
            id: client_id.to_string(),
        },
        certificate: None,
        session: None,
        address: Some(CallerAddress::Forwarded([203, 0, 113, request[0] % 8].into())),
        request_id: uuid::Builder::from_random_bytes(request).into_uuid().to_string(),
    };
    let issued = IssuedToken {
        jti: jti.clone(),
        grant_id: GrantId::parse(&grant.grant_id)?,
        user_id: UserId::parse(&grant.designated_user_id)?,
        grant_type: GrantType::ClientCredentials,
        key_thumbprint: [7; 32],
        scope: SCOPE.to_owned(),
    };
    let event = Event::issued(issued)
        .tenant(&TenantId::parse(&grant.tenant_id)?)
        .client(&client_id);
    Ok((jti, Record::new(&clock, &SystemRandom, origin, event)))
}
