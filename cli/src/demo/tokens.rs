//! Step 6: tokens by each of the three grant types, and their use.

use accord::{
    clock::SharedClock,
    registry::v1::CredentialBundle,
    token::v1::{
        self as pb, issue_token_request::ClientAuthentication, issue_token_request::Grant,
        token_service_client::TokenServiceClient,
    },
};
use anyhow::ensure;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{
    narrator::{Narrator, masked},
    onboarding::REDIRECT_URI,
};
use crate::{
    call::{answer, open, with_token},
    dev_file::DevFile,
    resource,
};

/// The client that requests tokens.
pub struct Client<'a> {
    /// The tenant.
    pub tenant_id: &'a str,
    /// The client's credentials.
    pub bundle: &'a CredentialBundle,
}

impl Client<'_> {
    async fn issue(
        &self,
        target: &DevFile,
        say: &mut Narrator<'_>,
        grant: Grant,
        shown: &[(&str, &str)],
    ) -> anyhow::Result<pb::IssueTokenResponse> {
        let mut fields = vec![
            ("client_id", self.bundle.client_id.as_str()),
            ("client_secret", "acs_********"),
        ];
        fields.extend(shown);
        say.sent("client", "TokenService.IssueToken", &fields)?;
        let request = pb::IssueTokenRequest {
            tenant_id: self.tenant_id.to_owned(),
            client_id: self.bundle.client_id.clone(),
            client_authentication: Some(ClientAuthentication::ClientSecret(
                self.bundle.client_secret.clone(),
            )),
            grant: Some(grant),
            ..Default::default()
        };
        let mut tokens = TokenServiceClient::new(open(&target.token_grpc)?);
        let issued = answer("IssueToken", tokens.issue_token(request).await)?;
        let refresh_token = if issued.refresh_token.is_empty() {
            "(none)".to_owned()
        } else {
            masked(&issued.refresh_token)
        };
        say.got(&[
            ("access_token", &masked(&issued.access_token)),
            ("token_type", &issued.token_type),
            ("expires_in", &format!("{} s", issued.expires_in)),
            ("refresh_token", &refresh_token),
            ("scope", &issued.scope),
            ("grant_id", &issued.grant_id),
        ])?;
        Ok(issued)
    }
}

/// Redeems the authorization code.
pub async fn by_code(
    target: &DevFile,
    say: &mut Narrator<'_>,
    client: &Client<'_>,
    code: &str,
    verifier: &str,
) -> anyhow::Result<pb::IssueTokenResponse> {
    let grant = Grant::AuthorizationCode(pb::AuthorizationCodeGrant {
        code: code.to_owned(),
        redirect_uri: REDIRECT_URI.to_owned(),
        code_verifier: verifier.to_owned(),
    });
    let (code, verifier) = (masked(code), masked(verifier));
    let shown = [("authorization_code", &*code), ("code_verifier", &*verifier)];
    client.issue(target, say, grant, &shown).await
}

/// Redeems the refresh token. Checks that the next one is different.
pub async fn by_refresh_token(
    target: &DevFile,
    say: &mut Narrator<'_>,
    client: &Client<'_>,
    refresh_token: &str,
) -> anyhow::Result<pb::IssueTokenResponse> {
    let grant = Grant::RefreshToken(pb::RefreshTokenGrant {
        refresh_token: refresh_token.to_owned(),
    });
    let issued = client
        .issue(target, say, grant, &[("refresh_token", &masked(refresh_token))])
        .await?;
    ensure!(
        issued.refresh_token != refresh_token,
        "the refresh token must change with each use"
    );
    Ok(issued)
}

/// Requests a token with the client's own credentials.
pub async fn by_client_credentials(
    target: &DevFile,
    say: &mut Narrator<'_>,
    client: &Client<'_>,
) -> anyhow::Result<pb::IssueTokenResponse> {
    let grant = Grant::ClientCredentials(pb::ClientCredentialsGrant {});
    client
        .issue(target, say, grant, &[("client_credentials", "{}")])
        .await
}

/// Introspects a token as an internal service. Checks that it is active.
pub async fn introspect(target: &DevFile, say: &mut Narrator<'_>, access_token: &str) -> anyhow::Result<()> {
    say.sent(
        "internal service",
        "TokenService.IntrospectToken",
        &[("token", &masked(access_token))],
    )?;
    let request = pb::IntrospectTokenRequest {
        tenant_id: target.tenant_id.clone(),
        token: access_token.to_owned(),
        ..Default::default()
    };
    let mut tokens = TokenServiceClient::new(with_token(&target.token_grpc, &target.workload_token)?);
    let token = answer("IntrospectToken", tokens.introspect_token(request).await)?;
    say.got(&[
        ("active", if token.active() { "true" } else { "false" }),
        ("sub", &token.sub),
        ("aud", &token.aud),
        ("scope", &token.scope),
    ])?;
    ensure!(token.active(), "the token must be active");
    Ok(())
}

/// Calls a protected resource without a token and with one. Checks that it rejects the first call and accepts the
/// second.
pub async fn call_resource(
    target: &DevFile,
    say: &mut Narrator<'_>,
    clock: SharedClock,
    access_token: &str,
) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let base = Url::parse(&target.cloud_api_url)?;
    let base = base.path().trim_end_matches('/');
    let url = format!("http://{}{base}/matters", listener.local_addr()?);
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(resource::serve(listener, target, clock, shutdown.clone()).await?);

    let http = reqwest::Client::new();
    say.sent(
        "client",
        "GET /matters of a protected resource",
        &[("authorization", "(none)")],
    )?;
    let without = http.get(&url).send().await?;
    say.got(&[("status", without.status().as_str())])?;
    ensure!(
        without.status() == 401,
        "the resource must reject a call without a token"
    );

    let shown = format!("Bearer {}", masked(access_token));
    say.sent(
        "client",
        "GET /matters of a protected resource",
        &[("authorization", &shown)],
    )?;
    let with = http.get(&url).bearer_auth(access_token).send().await?;
    let status = with.status();
    let body = with.text().await?;
    say.got(&[("status", status.as_str()), ("body", &body)])?;
    ensure!(status == 200, "the resource must accept the token");

    shutdown.cancel();
    drop(http);
    serving.await??;
    Ok(())
}
