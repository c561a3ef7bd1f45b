//! The unmodified `oauth2` crate.

use accord_cli::dev::Dev;
use oauth2::{
    AccessToken, AuthType, AuthUrl, AuthorizationCode, ClientId, ClientSecret, CsrfToken, EndpointNotSet,
    EndpointSet, HttpRequest, HttpResponse, IntrospectionUrl, PkceCodeChallenge, PkceCodeVerifier,
    RedirectUrl, RequestTokenError, RevocationUrl, Scope, StandardRevocableToken, TokenIntrospectionResponse,
    TokenResponse, TokenUrl,
    basic::{
        BasicClient, BasicErrorResponse, BasicErrorResponseType as Code, BasicTokenResponse, BasicTokenType,
    },
};
use tempfile::TempDir;

use super::{
    Way,
    admin::{Admin, Decision, parameter},
    stop,
};
use crate::harness::{
    dev,
    partner::{Partner, REDIRECT_URI, SCOPES, World},
};

tests!(
    the_oauth2_crate_needs_the_tenant_authority_url_alone,
    the_oauth2_crate_parses_every_error,
);

type Client = BasicClient<EndpointSet, EndpointNotSet, EndpointSet, EndpointSet, EndpointSet>;
type TokenError = RequestTokenError<reqwest::Error, BasicErrorResponse>;

/// An environment as if behind TLS, since the crate revokes over https alone; and a client of it.
struct Scene {
    world: World,
    way: Way,
    partner: Partner,
    client: Client,
    dev: Dev,
    _directory: TempDir,
}

impl Scene {
    async fn set() -> Self {
        let (directory, dev) = dev::start_behind("https://accord.example").await;
        let world = World::new(&dev.file);
        let way = Way::to(&dev.file);
        let partner = world.partner().await;
        let client = discovered(&way, &world, &partner).await;
        Self {
            world,
            way,
            partner,
            client,
            dev,
            _directory: directory,
        }
    }

    /// The HTTP client that the crate is handed: nothing but transport.
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, reqwest::Error> {
        let (parts, body) = request.into_parts();
        let url = self.way.url(&parts.uri.to_string());
        let sent = self
            .way
            .http
            .request(parts.method, url)
            .headers(parts.headers)
            .body(body);
        let mut answer = sent.send().await?;
        let mut response = HttpResponse::new(Vec::new());
        *response.status_mut() = answer.status();
        *response.headers_mut() = std::mem::take(answer.headers_mut());
        *response.body_mut() = answer.bytes().await?.to_vec();
        Ok(response)
    }

    /// Returns a code that the Tenant Admin approved on the pages, and its verifier.
    async fn code(&self) -> (AuthorizationCode, PkceCodeVerifier) {
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let (url, state) = self
            .client
            .authorize_url(CsrfToken::new_random)
            .add_scopes(SCOPES.map(|scope| Scope::new(scope.into())))
            .add_extra_param("resource", &self.world.target.cloud_api_url)
            .set_pkce_challenge(challenge)
            .url();
        let mut admin = Admin::new(&self.world.target);
        let back = admin.decide(url.as_str(), Decision::Approve(&SCOPES)).await;
        assert!(back.as_str().starts_with(REDIRECT_URI));
        assert_eq!(parameter(&back, "state").as_ref(), Some(state.secret()));
        assert_eq!(
            parameter(&back, "iss").as_ref(),
            Some(&self.world.target.tenant_authority_url)
        );
        (
            AuthorizationCode::new(parameter(&back, "code").unwrap()),
            verifier,
        )
    }

    async fn redeem(
        &self,
        client: &Client,
        code: &AuthorizationCode,
        verifier: &PkceCodeVerifier,
    ) -> Result<BasicTokenResponse, TokenError> {
        client
            .exchange_code(code.clone())
            .set_pkce_verifier(PkceCodeVerifier::new(verifier.secret().clone()))
            .request_async(&|request| self.send(request))
            .await
    }

    async fn refresh(&self, tokens: &BasicTokenResponse) -> Result<BasicTokenResponse, TokenError> {
        let request = self
            .client
            .exchange_refresh_token(tokens.refresh_token().unwrap());
        request.request_async(&|request| self.send(request)).await
    }

    async fn own(&self, client: &Client, scopes: &[&str]) -> Result<BasicTokenResponse, TokenError> {
        let scopes = scopes.iter().map(|scope| Scope::new((*scope).into()));
        let request = client.exchange_client_credentials().add_scopes(scopes);
        request.request_async(&|request| self.send(request)).await
    }

    async fn revoke(&self, token: StandardRevocableToken) {
        let request = self.client.revoke_token(token).unwrap();
        request
            .request_async(&|request| self.send(request))
            .await
            .unwrap();
    }

    async fn active(&self, token: &AccessToken) -> bool {
        let request = self.client.introspect(token);
        request
            .request_async(&|request| self.send(request))
            .await
            .unwrap()
            .active()
    }
}

/// Builds a client from the metadata alone.
async fn discovered(way: &Way, world: &World, partner: &Partner) -> Client {
    let issuer = &world.target.tenant_authority_url;
    let (base, tenant) = issuer.rsplit_once('/').unwrap();
    let inserted = format!("{base}/.well-known/oauth-authorization-server/{tenant}");
    let metadata = way.get_json(&inserted).await;
    for suffix in ["oauth-authorization-server", "openid-configuration"] {
        let elsewhere = way.get_json(&format!("{issuer}/.well-known/{suffix}")).await;
        assert_eq!(elsewhere, metadata, "{suffix}");
    }
    assert_eq!(metadata["issuer"], issuer.as_str());
    for (member, value) in [
        ("response_types_supported", "code"),
        ("grant_types_supported", "authorization_code"),
        ("grant_types_supported", "refresh_token"),
        ("grant_types_supported", "client_credentials"),
        ("code_challenge_methods_supported", "S256"),
        ("token_endpoint_auth_methods_supported", "client_secret_basic"),
        ("token_endpoint_auth_methods_supported", "client_secret_post"),
    ] {
        let values = metadata[member].as_array().unwrap();
        assert!(
            values.iter().any(|known| known == value),
            "{member} has no {value}"
        );
    }
    let keys = way.get_json(metadata["jwks_uri"].as_str().unwrap()).await;
    assert!(!keys["keys"].as_array().unwrap().is_empty());

    let endpoint = |name: &str| metadata[format!("{name}_endpoint")].as_str().unwrap().to_owned();
    BasicClient::new(ClientId::new(partner.client_id.clone()))
        .set_client_secret(ClientSecret::new(partner.client_secret.clone()))
        .set_auth_uri(AuthUrl::new(endpoint("authorization")).unwrap())
        .set_token_uri(TokenUrl::new(endpoint("token")).unwrap())
        .set_introspection_url(IntrospectionUrl::new(endpoint("introspection")).unwrap())
        .set_revocation_url(RevocationUrl::new(endpoint("revocation")).unwrap())
        .set_redirect_uri(RedirectUrl::new(REDIRECT_URI.to_owned()).unwrap())
}

#[track_caller]
fn refused(result: Result<BasicTokenResponse, TokenError>, code: Code) {
    match result.expect_err("not refused") {
        RequestTokenError::ServerResponse(error) => assert_eq!(*error.error(), code),
        other => panic!("no error answer: {other}"),
    }
}

async fn the_oauth2_crate_needs_the_tenant_authority_url_alone() {
    let scene = Scene::set().await;
    refused(scene.own(&scene.client, &[]).await, Code::UnauthorizedClient);

    let (code, verifier) = scene.code().await;
    let first = scene.redeem(&scene.client, &code, &verifier).await.unwrap();
    assert_eq!(*first.token_type(), BasicTokenType::Bearer);
    assert_eq!(first.expires_in().map(|life| life.as_secs()), Some(300));
    let scopes: Vec<&str> = first
        .scopes()
        .unwrap()
        .iter()
        .map(|scope| scope.as_str())
        .collect();
    assert_eq!(scopes, SCOPES);

    let introspected = scene
        .client
        .introspect(first.access_token())
        .request_async(&|request| scene.send(request))
        .await
        .unwrap();
    assert!(introspected.active());
    assert_eq!(
        introspected.client_id().map(|id| id.as_str()),
        Some(scene.partner.client_id.as_str())
    );
    assert_eq!(
        introspected.iss(),
        Some(scene.world.target.tenant_authority_url.as_str())
    );
    assert_eq!(
        introspected.aud(),
        Some(&vec![scene.world.target.cloud_api_url.clone()])
    );
    assert!(introspected.sub().is_some_and(|sub| sub.starts_with("usr_")));
    let life = introspected.exp().unwrap() - introspected.iat().unwrap();
    assert_eq!(life.num_seconds(), 300);

    let second = scene.refresh(&first).await.unwrap();
    assert_ne!(
        second.refresh_token().unwrap().secret(),
        first.refresh_token().unwrap().secret()
    );
    assert_ne!(second.access_token().secret(), first.access_token().secret());

    for auth_type in [AuthType::BasicAuth, AuthType::RequestBody] {
        let client = scene.client.clone().set_auth_type(auth_type);
        let own = scene.own(&client, &["contacts.read"]).await.unwrap();
        assert!(own.refresh_token().is_none());
        let scopes: Vec<&str> = own.scopes().unwrap().iter().map(|scope| scope.as_str()).collect();
        assert_eq!(scopes, ["contacts.read"]);
        assert!(scene.active(own.access_token()).await);
        scene.revoke(own.access_token().into()).await;
        assert!(!scene.active(own.access_token()).await);
    }

    scene.revoke(second.refresh_token().unwrap().into()).await;
    refused(scene.refresh(&second).await, Code::InvalidGrant);
    assert!(!scene.active(second.access_token()).await);
    assert!(
        scene.own(&scene.client, &[]).await.is_ok(),
        "the consent is still active"
    );
    stop(scene.dev).await;
}

async fn the_oauth2_crate_parses_every_error() {
    let scene = Scene::set().await;
    let wrong = scene
        .client
        .clone()
        .set_client_secret(ClientSecret::new("acs_wrong".into()));

    // A caller without the secret does not use a code up.
    let (code, verifier) = scene.code().await;
    refused(scene.redeem(&wrong, &code, &verifier).await, Code::InvalidClient);
    let first = scene.redeem(&scene.client, &code, &verifier).await.unwrap();
    refused(scene.own(&wrong, &[]).await, Code::InvalidClient);
    refused(
        scene.own(&scene.client, &["documents.read"]).await,
        Code::InvalidScope,
    );

    // A second use ends the first one's tokens.
    refused(
        scene.redeem(&scene.client, &code, &verifier).await,
        Code::InvalidGrant,
    );
    assert!(!scene.active(first.access_token()).await);
    refused(scene.refresh(&first).await, Code::InvalidGrant);

    // A wrong verifier burns the code, and so does another redirect URI.
    let (code, verifier) = scene.code().await;
    let guess = PkceCodeVerifier::new("g".repeat(43));
    refused(
        scene.redeem(&scene.client, &code, &guess).await,
        Code::InvalidGrant,
    );
    refused(
        scene.redeem(&scene.client, &code, &verifier).await,
        Code::InvalidGrant,
    );
    let (code, verifier) = scene.code().await;
    let elsewhere = RedirectUrl::new(format!("{REDIRECT_URI}/")).unwrap();
    let elsewhere = scene.client.clone().set_redirect_uri(elsewhere);
    refused(
        scene.redeem(&elsewhere, &code, &verifier).await,
        Code::InvalidGrant,
    );

    let mut admin = Admin::new(&scene.world.target);
    let (challenge, _) = PkceCodeChallenge::new_random_sha256();
    let asked = scene
        .client
        .authorize_url(CsrfToken::new_random)
        .set_pkce_challenge(challenge);
    let (url, state) = asked.url();
    let back = admin.decide(url.as_str(), Decision::Deny).await;
    assert_eq!(parameter(&back, "error").as_deref(), Some("access_denied"));
    assert_eq!(parameter(&back, "state").as_ref(), Some(state.secret()));
    assert_eq!(parameter(&back, "code"), None);
    let (url, state) = scene.client.authorize_url(CsrfToken::new_random).url();
    let back = admin.decide(url.as_str(), Decision::Deny).await;
    assert_eq!(
        parameter(&back, "error").as_deref(),
        Some("invalid_request"),
        "PKCE is required"
    );
    assert_eq!(parameter(&back, "state").as_ref(), Some(state.secret()));
    assert_eq!(
        parameter(&back, "iss").as_ref(),
        Some(&scene.world.target.tenant_authority_url)
    );
    stop(scene.dev).await;
}
