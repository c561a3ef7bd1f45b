//! PostgreSQL as a cluster that loses its leader in every way, under load: nothing acknowledged is lost, nothing revoked
//! comes alive, and the services are whole within 30 seconds without a restart.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use tokio::{task::spawn_blocking, time::sleep};

use super::{POLL, Stage, UNBROKEN, WHOLE, tail};
use crate::harness::{
    network::{Host, Network},
    partner::{World, code_grant},
    process::Process,
    refusal::BOUND,
};
use nodes::Cluster;
use revocations::Revocations;

mod nodes;
mod revocations;

tests_on_hosts!(the_services_outlive_the_loss_of_the_leader_of_their_database);

/// The first tokens live as long as the test.
const SETTINGS: [(&str, &str); 1] = [("ACCORD_TOKEN_ACCESS_TOKEN_SECONDS", "900")];
/// How soon a replica that has just started answers.
const STARTED: Duration = Duration::from_secs(10);

/// What happens to the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    /// A person lets it hand over.
    SwitchOver,
    /// Patroni and PostgreSQL are killed.
    Kill,
    /// No packet reaches its host or comes from there.
    Cut,
    /// The same, and Patroni hangs: PostgreSQL goes on answering those on its host.
    CutWithoutPatroni,
    /// All processes of its host stop, and go on later.
    Freeze,
}

async fn the_services_outlive_the_loss_of_the_leader_of_their_database() {
    let losses: &[Loss] = match std::env::var("ACCORD_TEST_LONG").is_ok_and(|value| value == "1") {
        true => &[
            Loss::SwitchOver,
            Loss::Kill,
            Loss::Cut,
            Loss::CutWithoutPatroni,
            Loss::Freeze,
        ],
        false => &[Loss::SwitchOver, Loss::CutWithoutPatroni],
    };
    let mut network = Network::new();
    let mut cluster = Cluster::start(&mut network).await;
    let urls = [
        cluster.database("registry").await,
        cluster.database("token").await,
    ];
    let mut stage = Stage::set_with(&urls[0], &urls[1], &SETTINGS).await;
    let (_second, address) = stage.services.another_token_service();
    let mut target = stage.services.target.clone();
    target.token_grpc = address;
    let replicas = [stage.world.clone(), World::new(&target)];
    let partner = stage.world.partner().await;
    let tokens = stage.world.first_tokens(&partner).await;
    stage.load.issue(&replicas[1], &stage.partners[0]);
    stage.load.introspect(&replicas[1], tokens.access_token);
    stage.load.renew(&replicas[1], &partner, tokens.refresh_token);
    let revocations = Revocations::start(&stage.load.seen, &replicas, &stage.partners[0]);
    stage.is_whole_soon("the start").await;

    for loss in losses {
        lose_the_leader(&mut cluster, &stage, &urls, *loss).await;
    }
    revocations.ends(&replicas).await;
    stage.ends("the cluster").await;
}

async fn lose_the_leader(cluster: &mut Cluster, stage: &Stage, urls: &[String; 2], loss: Loss) {
    let leader = cluster.leader().await.unwrap();
    let stranded = match loss {
        Loss::CutWithoutPatroni => Some(Stranded::start(cluster, stage, urls, leader).await),
        _ => None,
    };
    let node = &cluster.nodes[leader];
    let lost_at = Instant::now();
    let mut switching = None;
    match loss {
        Loss::SwitchOver => switching = Some(cluster.switch_over()),
        Loss::Kill => node.kill_database(),
        Loss::Cut => node.host.cut(),
        Loss::CutWithoutPatroni => {
            node.signal_patroni("STOP");
            node.host.cut();
        }
        Loss::Freeze => node.signal_all("STOP"),
    }
    another_leads(cluster, leader, loss, lost_at).await;
    let seconds = is_whole(stage, cluster, loss, lost_at).await.as_secs_f32();
    let _ = writeln!(std::io::stderr(), "{loss:?}: whole after {seconds:.1} s");
    if let Some(switching) = switching {
        let output = switching.await.unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    if let Some(stranded) = &stranded {
        // The old leader still leads, by what it answers there, and knows the grant as active.
        let state = "SELECT NOT pg_is_in_recovery()";
        assert_eq!(cluster.nodes[leader].query(state).as_deref(), Ok("t"));
        let answer = stranded.active().await;
        assert!(
            answer.as_ref().is_err_and(|error| error.contains("Unavailable")),
            "{answer:?}"
        );
        stage.world.revoke_consent(&stranded.grant_id).await;
        sleep(BOUND).await;
        stranded.refuses().await;
    }
    let healed_at = Instant::now();
    let node = &mut cluster.nodes[leader];
    match loss {
        Loss::SwitchOver => {}
        Loss::Kill => node.start_patroni_again(),
        Loss::Cut => node.host.join(),
        Loss::CutWithoutPatroni => {
            node.host.join();
            node.signal_patroni("CONT");
        }
        Loss::Freeze => node.signal_all("CONT"),
    }
    if let Some(stranded) = &stranded {
        stranded.refuses().await;
    }
    cluster.is_complete_soon().await;
    is_whole(stage, cluster, loss, Instant::now()).await;
    // The host that is back brings work to the others: its database is wound back, and copied if need be.
    let failures = stage.load.seen.failures_since(healed_at);
    let _ = writeln!(
        std::io::stderr(),
        "{loss:?}: {failures} calls fail once the old leader is back"
    );
    assert_eq!(stage.load.seen.failures_since(healed_at + WHOLE), 0, "{loss:?}");
    assert_eq!(stage.load.seen.wrong(), [""; 0], "{loss:?}");
}

/// Waits until another host leads.
async fn another_leads(cluster: &Cluster, leader: usize, loss: Loss, lost_at: Instant) {
    while cluster.leader().await.is_none_or(|now| now == leader) {
        assert!(
            lost_at.elapsed() < WHOLE,
            "{loss:?}: no other leader\n{}",
            cluster.logs()
        );
        sleep(POLL).await;
    }
}

/// Waits until both services are ready and no call fails. Returns how long after a moment that is.
async fn is_whole(stage: &Stage, cluster: &Cluster, loss: Loss, since: Instant) -> Duration {
    let seen = &stage.load.seen;
    let mut whole_at = Instant::now();
    loop {
        let is_ready = [0, 1].iter().all(|one| seen.is_ready(*one));
        if !is_ready || seen.failures_since(whole_at) > 0 {
            whole_at = Instant::now();
        } else if whole_at.elapsed() > UNBROKEN {
            break;
        }
        assert!(
            since.elapsed() < WHOLE + UNBROKEN,
            "{loss:?}: not whole after {WHOLE:?}; {:?}\n{}\n{}\n{}",
            seen.wrong(),
            tail(&stage.services.registry.stderr()),
            tail(&stage.services.token.stderr()),
            cluster.logs(),
        );
        sleep(POLL).await;
    }
    whole_at - since
}

/// Services on the host of the leader, which use its PostgreSQL whatever Patroni and HAProxy say.
struct Stranded {
    host: Host,
    address: String,
    workload_token: String,
    tenant_id: String,
    grant_id: String,
    token: String,
    _processes: [Process; 2],
}

impl Stranded {
    async fn start(cluster: &Cluster, stage: &Stage, urls: &[String; 2], leader: usize) -> Self {
        let urls = urls.each_ref().map(|url| cluster.directly(url, leader));
        let host = cluster.nodes[leader].host.clone();
        let (processes, address) = stage.services.another_pair(&host, &urls);
        let partner = stage.world.partner().await;
        let approved = stage.world.approve(&partner).await;
        let tokens = stage.world.issue(&partner, code_grant(&approved)).await.unwrap();
        let stranded = Self {
            host,
            address,
            workload_token: stage.world.target.workload_token.clone(),
            tenant_id: stage.world.target.tenant_id.clone(),
            grant_id: approved.grant_id,
            token: tokens.access_token,
            _processes: processes,
        };
        let started = Instant::now();
        while stranded.active().await != Ok(true) {
            assert!(started.elapsed() < STARTED, "{:?}", stranded.active().await);
        }
        stranded
    }

    /// Returns what token-service says of the token.
    async fn active(&self) -> Result<bool, String> {
        let mut call = self.host.command("grpcurl");
        let request = serde_json::json!({ "tenant_id": self.tenant_id, "token": self.token });
        call.args(["-plaintext", "-max-time", "3", "-d", &request.to_string()]);
        call.arg("-H")
            .arg(format!("authorization: Bearer {}", self.workload_token));
        call.args([&self.address, "accord.token.v1.TokenService/IntrospectToken"]);
        let output = spawn_blocking(move || call.output().unwrap()).await.unwrap();
        if !output.status.success() {
            return Err(String::from_utf8(output.stderr).unwrap());
        }
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        Ok(answer["active"] == true)
    }

    /// Checks for a while that the token is not active, whatever the old leader still answers.
    async fn refuses(&self) {
        for _ in 0..10 {
            let answer = self.active().await;
            assert_ne!(answer, Ok(true), "active at the side of the old leader");
            sleep(POLL).await;
        }
    }
}
