//! An audit record of many events: how soon it is sealed and verified, and how soon an event, a token and the page of a
//! tenant are found in it.

use std::{
    fs,
    process::Stdio,
    time::{Duration, Instant},
};

use accord::{
    audit::v1::{
        GetCheckpointRequest, GetInclusionProofRequest, TraceTokenRequest,
        audit_service_client::AuditServiceClient,
    },
    rpc::channel::HopChannel,
    store::Database,
    text::id::EventId,
};
use accord_cli::call;
use anyhow::{Context, Result, ensure};
use http_body_util::{BodyExt, Empty};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1::handshake, header};
use hyper_util::rt::TokioIo;
use sea_orm::{ConnectionTrait, Statement};
use tokio::{net::TcpStream, time::sleep};
use tonic::Code;

use super::{
    seed::Dataset,
    services::{Service, Setup},
    settle,
    usage::memory,
};
use crate::{protocol::Plan, results::quantile, soak::storage::Storage};

/// The exit status of `accord audit verify` if it found nothing wrong, and could not check everything.
const NOT_CHECKED: i32 = 3;
/// How often the end of something is looked for.
const POLL: Duration = Duration::from_millis(50);

/// A deployment whose record is filled.
pub struct Recording<'a> {
    pub plan: &'a Plan,
    pub setup: &'a Setup,
    pub dataset: &'a Dataset,
    pub token: &'a mut Service,
}

impl Recording<'_> {
    /// Fills the record with at least so many events while token-service is down, and measures. Returns the figures by name.
    pub async fn measure(self, events: u64) -> Result<Vec<(String, f64)>> {
        let mut figures = Vec::new();
        let mut figure = |name: &str, value: f64| figures.push((name.to_owned(), value));
        let audit = self
            .setup
            .run("registry", "operator create eve --role auditor")
            .await?;
        // A killed one would keep the lease of the sealer for a while.
        self.token.stop().await?;
        let before = self.bytes().await?;
        let (groups, jtis) = self.dataset.record(events).await?;
        settle(&self.plan.token_url).await?;
        let (tenant_id, session) = self.dataset.admin_session(self.setup).await?;

        *self.token = self.setup.start_token().await?;
        let (began, mut most) = (Instant::now(), 0.0_f64);
        while sealed(&self.plan.token_url).await? < groups {
            most = most.max(memory(self.token.pid()?)?);
            sleep(POLL).await;
        }
        figure("events", events as f64);
        figure(
            "events sealed a second",
            events as f64 / began.elapsed().as_secs_f64(),
        );
        figure("token-service MiB while it seals", most);
        figure("bytes an event", (self.bytes().await? - before) / events as f64);

        let channel = call::with_token(&self.token.addresses.grpc, &audit)?;
        let mut client = AuditServiceClient::new(channel);
        let newest = jtis.iter().max().context("no event")?.to_string();
        let asked = || GetInclusionProofRequest {
            event_id: newest.clone(),
            log_size: 0,
        };
        // The head is signed after the events are sealed.
        while let Err(status) = client.get_inclusion_proof(asked()).await {
            ensure!(status.code() == Code::Unavailable, "{status}");
            sleep(POLL).await;
        }
        let (seconds, most) = self.verify(&mut client).await?;
        figure("seconds to verify", seconds);
        figure("MiB to verify", most);

        let path = format!("/{tenant_id}/integrations");
        let cookie = format!("accord-admin-{tenant_id}={}", session.expose());
        let [proof, trace, page] = self.searches(&mut client, jtis, (&path, &cookie)).await?;
        figure("ms to prove an event", proof);
        figure("ms to trace a token", trace);
        figure("ms for the page of connected integrations", page);
        Ok(figures)
    }

    /// Proves and traces tokens, and loads a page for each. Returns the median of each in milliseconds.
    async fn searches(
        &self,
        client: &mut AuditServiceClient<HopChannel>,
        jtis: Vec<EventId>,
        (path, cookie): (&str, &str),
    ) -> Result<[f64; 3]> {
        let (mut proofs, mut traces, mut pages) = (Vec::new(), Vec::new(), Vec::new());
        for jti in jtis {
            let (event_id, log_size) = (jti.to_string(), 0);
            let began = Instant::now();
            let asked = GetInclusionProofRequest { event_id, log_size };
            client.get_inclusion_proof(asked).await?;
            proofs.push(millis(began));
            let began = Instant::now();
            client.trace_token(TraceTokenRequest { jti: jti.into() }).await?;
            traces.push(millis(began));
            let began = Instant::now();
            get(&self.token.addresses.http, path, cookie).await?;
            pages.push(millis(began));
        }
        Ok([proofs, traces, pages].map(|values| quantile(values, 0.5)))
    }

    /// Runs `accord audit verify` to its end. Returns its seconds, and the most MiB that it used.
    async fn verify(&self, client: &mut AuditServiceClient<HopChannel>) -> Result<(f64, f64)> {
        let checkpoint = client.get_checkpoint(GetCheckpointRequest {}).await?.into_inner();
        let key = self.plan.directory.join("log.key");
        fs::write(&key, checkpoint.verifier_key)?;
        let mut command = self.setup.accord();
        command.args(["audit", "verify", "--key"]).arg(&key);
        command.env("ACCORD_AUDIT_DATABASE_URL", &self.plan.token_url);
        command.stdout(Stdio::null()).kill_on_drop(true);
        let (began, mut most) = (Instant::now(), 0.0_f64);
        let mut child = command.spawn()?;
        let ended = loop {
            if let Some(ended) = child.try_wait()? {
                break ended;
            }
            if let Some(used) = child.id().and_then(|pid| memory(pid).ok()) {
                most = most.max(used);
            }
            sleep(POLL).await;
        };
        // The grants were written for the measurement, without events: a verification without keys can't check their rows.
        let is_intact = matches!(ended.code(), Some(0 | NOT_CHECKED));
        ensure!(is_intact, "accord audit verify: {ended}");
        Ok((began.elapsed().as_secs_f64(), most))
    }

    /// Returns the bytes of the tables of token-service's database.
    async fn bytes(&self) -> Result<f64> {
        let sizes = Storage::open(self.plan).await?.sizes().await?;
        let is_table =
            |name: &str| name.starts_with("token.") && name.ends_with(" bytes") && !name.contains("(log)");
        Ok(sizes
            .iter()
            .filter(|(name, _)| is_table(name))
            .map(|(_, bytes)| bytes)
            .sum())
    }
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// Returns how many groups are sealed.
async fn sealed(url: &str) -> Result<u64> {
    let db = Database::connect(url).await?;
    let sum = "SELECT CAST(COALESCE(SUM(sealed), 0) AS bigint) AS groups FROM audit_writers";
    let row = db
        .read()
        .query_one_raw(Statement::from_string(db.backend(), sum))
        .await?;
    let groups: i64 = row.context("no sum")?.try_get("", "groups")?;
    db.close().await;
    Ok(u64::try_from(groups)?)
}

/// Requests a page, and reads it to its end.
async fn get(server: &str, path: &str, cookie: &str) -> Result<()> {
    let (mut sender, connection) = handshake(TokioIo::new(TcpStream::connect(server).await?)).await?;
    tokio::spawn(connection);
    let request = Request::get(path)
        .header(header::HOST, server)
        .header(header::COOKIE, cookie)
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    ensure!(status == StatusCode::OK, "{path}: {status}");
    response.into_body().collect().await?;
    Ok(())
}
