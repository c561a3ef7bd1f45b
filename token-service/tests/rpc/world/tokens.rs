//! Token requests of the test client, and what callers learn of its tokens.

use accord::{
    token::v1::{self as pb, issue_token_request as issue},
    verify::AccessTokenClaims,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;
use token_service::model::signing_key::Signer;
use tonic::Status;

use super::{REDIRECT_URI, TestClient, VERIFIER, World};
use crate::harness::ok;

/// The claim `cnf` of an access token: the key that it is bound to.
#[track_caller]
pub fn confirmation(token: &str) -> Value {
    let claims = token.split('.').nth(1).unwrap();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    claims["cnf"].clone()
}

impl World {
    pub fn by_code(&self, code: &str) -> pb::IssueTokenRequest {
        self.client
            .asking(issue::Grant::AuthorizationCode(pb::AuthorizationCodeGrant {
                code: code.into(),
                redirect_uri: REDIRECT_URI.into(),
                code_verifier: VERIFIER.into(),
            }))
    }

    pub fn by_refresh_token(&self, refresh_token: &str) -> pb::IssueTokenRequest {
        self.client
            .asking(issue::Grant::RefreshToken(pb::RefreshTokenGrant {
                refresh_token: refresh_token.into(),
            }))
    }

    pub fn by_client_credentials(&self) -> pb::IssueTokenRequest {
        self.client
            .asking(issue::Grant::ClientCredentials(pb::ClientCredentialsGrant {}))
    }

    pub async fn issue(&self, request: pb::IssueTokenRequest) -> Result<pb::IssueTokenResponse, Status> {
        Ok(self.tokens().issue_token(request).await?.into_inner())
    }

    /// Redeems a new code of the client.
    pub async fn first_tokens(&self) -> pb::IssueTokenResponse {
        let code = self.code().await;
        self.issue(self.by_code(&code)).await.unwrap()
    }

    pub async fn refresh(&self, refresh_token: &str) -> Result<pb::IssueTokenResponse, Status> {
        self.issue(self.by_refresh_token(refresh_token)).await
    }

    /// Introspects a token as the Cloud API does.
    pub async fn introspect(&self, token: &str) -> pb::IntrospectTokenResponse {
        let request = pb::IntrospectTokenRequest {
            tenant_id: "acme".into(),
            token: token.into(),
            ..Default::default()
        };
        ok(self.internal_tokens().introspect_token(request).await)
    }

    /// Signs claims with the private half of a signing key, as a thief of the key would.
    pub async fn forge(&self, kid: &str, claims: &AccessTokenClaims) -> String {
        let (algorithm, pkcs8) = self.harness.store.unseal_signing_key(kid).await.unwrap();
        let signer = Signer::new(kid.to_owned(), algorithm, &pkcs8).unwrap();
        signer.sign_access_token(claims).unwrap().to_string()
    }

    /// Rotates the signing keys, whenever the last rotation was.
    pub async fn rotate_signing_keys(&self) {
        let request = pb::RotateSigningKeyRequest {
            force: true,
            ..Default::default()
        };
        ok(self.harness.signing_keys().rotate_signing_key(request).await);
    }

    pub async fn is_active(&self, token: &str) -> bool {
        let answer = self.introspect(token).await;
        let active = answer.active.expect("it is always set");
        if !active {
            let inactive = pb::IntrospectTokenResponse {
                active: Some(false),
                ..Default::default()
            };
            assert_eq!(answer, inactive, "an inactive token has no other field");
        }
        active
    }

    /// Revokes a token as the client.
    pub async fn revoke(&self, token: &str) -> Result<(), Status> {
        let request = self.client.revoking(token);
        self.tokens().revoke_token(request).await.map(drop)
    }
}

impl TestClient {
    /// A token request of this client, for `acme`.
    pub fn asking(&self, grant: issue::Grant) -> pb::IssueTokenRequest {
        pb::IssueTokenRequest {
            tenant_id: "acme".into(),
            client_id: self.client_id.clone(),
            client_authentication: Some(issue::ClientAuthentication::ClientSecret(
                self.client_secret.clone(),
            )),
            grant: Some(grant),
            scopes: Vec::new(),
            resource: String::new(),
            ..Default::default()
        }
    }

    /// The same request, sent by this client.
    pub fn instead(&self, request: &pb::IssueTokenRequest) -> pb::IssueTokenRequest {
        pb::IssueTokenRequest {
            tenant_id: request.tenant_id.clone(),
            ..self.asking(request.grant.clone().unwrap())
        }
    }

    pub fn revoking(&self, token: &str) -> pb::RevokeTokenRequest {
        pb::RevokeTokenRequest {
            tenant_id: "acme".into(),
            token: token.into(),
            client_id: self.client_id.clone(),
            client_authentication: Some(pb::revoke_token_request::ClientAuthentication::ClientSecret(
                self.client_secret.clone(),
            )),
        }
    }

    pub fn introspecting(&self, token: &str) -> pb::IntrospectTokenRequest {
        pb::IntrospectTokenRequest {
            tenant_id: "acme".into(),
            token: token.into(),
            client_id: self.client_id.clone(),
            client_authentication: Some(pb::introspect_token_request::ClientAuthentication::ClientSecret(
                self.client_secret.clone(),
            )),
            ..Default::default()
        }
    }
}
