//! Databases that fail in other ways than by an error, under load: no answer but success and UNAVAILABLE, readiness that
//! tells the truth, nothing acknowledged that is lost, and the service as before soon after the database is.
//!
//! The bounds are times of the real clock, since processes run here. Tests poll for a condition until a deadline.

use std::{
    collections::HashSet,
    fmt,
    net::SocketAddr,
    time::{Duration, Instant},
};

use accord::{
    audit::v1::{ListAuditEventsRequest, audit_service_client::AuditServiceClient},
    registry::v1::{ListScopesRequest, scope_service_client::ScopeServiceClient},
    testing::{DurablePostgres, calls::ok},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use tokio::time::sleep;

use crate::harness::{
    partner::{Partner, World},
    services::Services,
};
use load::Load;

pub mod administrator;
pub mod cluster;
pub mod disk;
mod load;
pub mod network;
pub mod password;
pub mod pooler;
pub mod server;

/// How soon readiness tells of a fault.
const TOLD: Duration = Duration::from_millis(2_500);
/// How soon the service is whole after its database.
const WHOLE: Duration = Duration::from_secs(30);
/// A service is whole if no call fails that begins within this time.
const UNBROKEN: Duration = Duration::from_millis(1_500);
/// How long a fault lasts.
const FAULT: Duration = Duration::from_secs(3);
/// How much the memory of a service may grow, in KiB.
const MEMORY: u64 = 96 * 1024;
const POLL: Duration = Duration::from_millis(20);

/// Both services under load.
struct Stage {
    services: Services,
    world: World,
    partners: Vec<Partner>,
    load: Load,
    memory: [u64; 2],
}

impl Stage {
    async fn set(registry_url: &str, token_url: &str) -> Self {
        Self::set_with(registry_url, token_url, &[]).await
    }

    /// Does the same with more settings of token-service.
    async fn set_with(registry_url: &str, token_url: &str, settings: &[(&'static str, &str)]) -> Self {
        let services = Services::start_with(registry_url, token_url, settings).await;
        let world = World::new(&services.target);
        let partners = vec![world.partner().await, world.partner().await];
        let load = Load::start(&world, &partners).await;
        let mut stage = Self {
            services,
            world,
            partners,
            load,
            memory: [0; 2],
        };
        stage.is_whole_soon("the start").await;
        stage.memory = stage.memory();
        stage
    }

    fn memory(&self) -> [u64; 2] {
        [self.services.registry.memory(), self.services.token.memory()]
    }

    /// Waits until the services, 0 for the registry and 1 for token-service, say whether they are ready.
    async fn say(&self, services: &[usize], ready: bool, within: Duration, what: &str) {
        let started = Instant::now();
        while services
            .iter()
            .any(|service| self.load.seen.is_ready(*service) != ready)
        {
            assert!(
                started.elapsed() < within,
                "{what}: after {within:?} {services:?} are not yet ready={ready}; {:?}",
                self.load.seen.wrong()
            );
            sleep(POLL).await;
        }
    }

    /// Waits until both services are ready and calls succeed.
    async fn is_whole_soon(&self, what: &str) {
        let started = Instant::now();
        let mut since = started;
        while since.elapsed() < UNBROKEN || self.load.seen.failures_since(since) > 0 {
            if self.load.seen.failures_since(since) > 0
                || ![0, 1].iter().all(|one| self.load.seen.is_ready(*one))
            {
                since = Instant::now();
            }
            assert!(
                started.elapsed() < WHOLE + UNBROKEN,
                "{what}: not whole after {WHOLE:?}; {:?}\n{}\n{}",
                self.load.seen.wrong(),
                tail(&self.services.registry.stderr()),
                tail(&self.services.token.stderr()),
            );
            sleep(POLL).await;
        }
        assert_eq!(self.load.seen.wrong(), [""; 0], "{what}");
    }

    /// Stops the load. Checks that nothing is missing that a caller was told, and that the services have not grown.
    async fn ends(self, what: impl fmt::Display) -> Ended {
        let memory = self.memory();
        for (now, before) in memory.iter().zip(self.memory) {
            assert!(*now < before + MEMORY, "{what}: {before} KiB became {now} KiB");
        }
        let seen = self.load.stop().await;
        assert_eq!(seen.wrong(), [""; 0], "{what}");
        let recorded = recorded(&self.world).await;
        let tokens = std::mem::take(&mut *seen.tokens.lock().unwrap());
        assert!(!tokens.is_empty());
        for token in &tokens {
            assert!(recorded.contains(token), "{what}: a token without its event");
        }
        let known = scopes(&self.world).await;
        for scope in seen.scopes.lock().unwrap().iter() {
            assert!(known.contains(scope), "{what}: {scope} is lost");
        }
        for log in [self.services.registry.stderr(), self.services.token.stderr()] {
            let lines = log
                .lines()
                .filter(|line| line.contains("database unavailable"))
                .count();
            assert!(
                lines < 200,
                "{what}: {lines} lines say that the database is unavailable"
            );
        }
        Ended {
            services: self.services,
            world: self.world,
            partners: self.partners.clone(),
        }
    }
}

/// What is left of a stage without load.
struct Ended {
    services: Services,
    world: World,
    partners: Vec<Partner>,
}

fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().rev().take(8).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

/// The `jti` of an access token.
pub fn jti(token: &str) -> String {
    let claims = token.split('.').nth(1).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    claims["jti"].as_str().unwrap().to_owned()
}

/// Returns the tokens in the audit record.
async fn recorded(world: &World) -> HashSet<String> {
    let mut audit = AuditServiceClient::new(world.token_operator.clone());
    let (mut recorded, mut page_token) = (HashSet::new(), String::new());
    loop {
        let request = ListAuditEventsRequest {
            page_size: 500,
            page_token,
            ..Default::default()
        };
        let page = ok(audit.list_audit_events(request).await);
        let ids = page.audit_events.into_iter();
        recorded.extend(ids.filter_map(|event| event.detail.get("jti").cloned()));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return recorded;
        }
    }
}

/// Returns the names of the scopes in the catalogue.
async fn scopes(world: &World) -> HashSet<String> {
    let mut scopes = ScopeServiceClient::new(world.operator.clone());
    let (mut names, mut page_token) = (HashSet::new(), String::new());
    loop {
        let request = ListScopesRequest {
            page_size: 500,
            page_token,
        };
        let page = ok(scopes.list_scopes(request).await);
        names.extend(page.scopes.into_iter().map(|scope| scope.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return names;
        }
    }
}

/// The address of a server by its URL.
fn address(url: &str) -> SocketAddr {
    let url: url::Url = url.parse().unwrap();
    let (host, port) = (url.host_str().unwrap(), url.port().unwrap());
    SocketAddr::new(host.parse().unwrap(), port)
}

/// Returns how many sessions the services have on a server.
fn sessions(server: &DurablePostgres) -> i64 {
    server.number("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'accord'")
}

/// The most sessions of two services: each has eight for reads, eight for writes and two for its heartbeat.
const SESSIONS: i64 = 2 * 18;
