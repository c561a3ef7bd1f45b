//! `accord demo`: the six steps of an integration against a running environment, each through the interface of the
//! person who takes it.
//!
//! It prints requests and responses with masked secrets, and fails at the first wrong response. It is also the first
//! end-to-end test.

use std::io::Write;

use accord::{clock::SharedClock, random::SharedRandom};
use anyhow::ensure;

use crate::dev_file::DevFile;

mod narrator;
mod onboarding;
mod setup;
mod tokens;

use narrator::Narrator;

/// The result of the demonstration.
#[derive(Clone)]
pub struct Outcome {
    /// The registered client.
    pub client_id: String,
    /// The grant.
    pub grant_id: String,
    /// Every secret that was issued, for tests that search for them.
    pub secrets: Vec<String>,
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outcome")
            .field("client_id", &self.client_id)
            .field("grant_id", &self.grant_id)
            .finish_non_exhaustive()
    }
}

/// Walks through the six steps and prints them to `out`.
pub async fn run(
    target: &DevFile,
    clock: SharedClock,
    random: SharedRandom,
    out: &mut (dyn Write + Send),
) -> anyhow::Result<Outcome> {
    let mut say = Narrator::new(out);
    let mut secrets = Vec::new();

    say.step(1, "Collect", "the partner's request is recorded by an operator")?;
    let request_id = onboarding::collect(target, &mut say).await?;

    say.step(2, "Register", "the request is approved and the client registered")?;
    let link = onboarding::register(target, &mut say, &request_id).await?;
    secrets.push(link.claim_token.clone());

    say.step(3, "Provision", "the partner opens the one-time link")?;
    let bundle = onboarding::provision(target, &mut say, &link).await?;
    secrets.push(bundle.client_secret.clone());

    say.step(
        4,
        "Develop",
        "the partner sends the Tenant Admin to the tenant's authority",
    )?;
    let pkce = setup::Pkce::new(&*random);
    let setup = setup::start(target, &mut say, &bundle, &pkce).await?;

    say.step(
        5,
        "Consent",
        "the Tenant Admin signs in, grants, and designates the API user",
    )?;
    let approval = setup::approve(target, &mut say, &setup).await?;
    secrets.extend([
        approval.admin_session,
        approval.code.clone(),
        pkce.verifier.clone(),
    ]);

    say.step(
        6,
        "Issue",
        "the client obtains tokens and calls the protected resource",
    )?;
    let client = tokens::Client {
        tenant_id: &target.tenant_id,
        bundle: &bundle,
    };
    let first = tokens::by_code(target, &mut say, &client, &approval.code, &pkce.verifier).await?;
    let renewed = tokens::by_refresh_token(target, &mut say, &client, &first.refresh_token).await?;
    let own = tokens::by_client_credentials(target, &mut say, &client).await?;
    ensure!(
        first.grant_id == own.grant_id,
        "the tokens must belong to one grant"
    );
    tokens::introspect(target, &mut say, &renewed.access_token).await?;
    tokens::call_resource(target, &mut say, clock, &own.access_token).await?;
    for token in [&first, &renewed, &own] {
        secrets.extend([token.access_token.clone(), token.refresh_token.clone()]);
    }
    secrets.retain(|secret| !secret.is_empty());

    say.done("All six steps held.")?;
    Ok(Outcome {
        client_id: bundle.client_id,
        grant_id: first.grant_id,
        secrets,
    })
}
