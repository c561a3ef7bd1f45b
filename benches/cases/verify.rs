//! Checks of tokens: what introspection works with, and a check in this process that asks nobody.

use std::{
    fs::File,
    io::BufReader,
    time::{Duration, Instant},
};

use accord::{
    token::v1::{
        ClientCredentialsGrant, GetJsonWebKeySetRequest, IssueTokenRequest, JsonWebKey,
        issue_token_request::{ClientAuthentication, Grant},
        token_service_client::TokenServiceClient,
    },
    verify::{Checker, Expected, key_id},
};
use anyhow::Context;
use hdrhistogram::Histogram;
use tonic::transport::Channel;

use super::Run;
use crate::{
    load::{Latency, Outcome, Work, stock::Person},
    measure::{Part, Sample},
    options::Case,
    seed::cloud_api_url,
    stage::Stage,
};

/// How long a checker may take to be ready.
const PATIENCE: Duration = Duration::from_secs(10);

/// Introspection at a stage, of its own tokens.
pub fn introspection(stage: &Stage) -> Work {
    Work::Introspect {
        issuer: stage.setup.token_grpc.clone(),
        workload_token: stage.setup.workload_token.clone(),
    }
}

/// A token of a stage, with all that it takes to check it.
struct Checkable {
    token: String,
    tenant_id: String,
    issuer: String,
    keys: Vec<JsonWebKey>,
}

/// The public key that a stage signs with, as a JWK has it.
pub async fn signing_key(stage: &Stage) -> anyhow::Result<String> {
    let Checkable { token, keys, .. } = checkable(stage).await?;
    let kid = key_id(&token).context("a token without a kid")?;
    let key = keys.into_iter().find(|key| key.kid == kid);
    Ok(key.context("a token's key is not published")?.x)
}

async fn checkable(stage: &Stage) -> anyhow::Result<Checkable> {
    let people: Vec<Person> = serde_json::from_reader(BufReader::new(File::open(&stage.seeded.people)?))?;
    let person = people.into_iter().next().context("nobody")?;
    let server = format!("http://{}", stage.setup.token_grpc);
    let mut client: TokenServiceClient<Channel> = TokenServiceClient::connect(server).await?;
    let tenant_id = person.tenant_id.clone();
    let keys = GetJsonWebKeySetRequest { tenant_id };
    let keys = client.get_json_web_key_set(keys).await?.into_inner().keys;
    let request = IssueTokenRequest {
        tenant_id: person.tenant_id.clone(),
        client_id: person.client_id,
        client_authentication: Some(ClientAuthentication::ClientSecret(person.client_secret)),
        grant: Some(Grant::ClientCredentials(ClientCredentialsGrant {})),
        ..Default::default()
    };
    Ok(Checkable {
        token: client.issue_token(request).await?.into_inner().access_token,
        issuer: format!("{}/{}", stage.setup.public_base_url(), person.tenant_id),
        tenant_id: person.tenant_id,
        keys,
    })
}

impl Run<'_> {
    /// Measures `accord::verify` on one thread, as a resource server would use it: under its lease on what was
    /// revoked.
    pub(super) async fn offline(&mut self) -> anyhow::Result<()> {
        let case = Case::Offline;
        let Some(stage) = self.stages.first().filter(|_| self.options.wants(case)) else {
            return Ok(());
        };
        self.next(case.name(), None);
        let (checkable, span) = (checkable(stage).await?, self.options.span());
        let server = format!("http://{}", stage.setup.token_grpc);
        let checker = Checker::connect(&server, &stage.setup.workload_token)?;
        tokio::time::timeout(PATIENCE, checker.ready())
            .await
            .context("the checker is not ready")?;
        let checking = tokio::spawn(async move { check(&checker, &checkable, span).await });
        self.results.add(case.name(), None, checking.await??);
        Ok(())
    }
}

async fn check(checker: &Checker, checkable: &Checkable, span: Duration) -> anyhow::Result<Sample> {
    let audience = cloud_api_url(0);
    let expected = Expected {
        issuer: &checkable.issuer,
        audience: &audience,
        tenant_id: &checkable.tenant_id,
    };
    let mut nanoseconds = Histogram::<u64>::new(3)?;
    let began = Instant::now();
    while began.elapsed() < span {
        let since = Instant::now();
        checker.check(&checkable.token, &expected).await?;
        nanoseconds.record(u64::try_from(since.elapsed().as_nanos())?)?;
        // What keeps the checker informed needs its turn, too.
        tokio::task::consume_budget().await;
    }
    let seconds = began.elapsed().as_secs_f64();
    let answers = nanoseconds.len();
    Ok(Sample {
        outcome: Outcome {
            seconds,
            answers,
            all_answers: answers,
            latency: Latency::of(&nanoseconds, 1e6),
            ..Default::default()
        },
        memory: Part::default(),
        cpu: Part {
            server: seconds * 1e6 / answers as f64,
            ..Default::default()
        },
    })
}
