//! The limits of `IssueToken` and `IntrospectToken`: a tonic server that signs, or verifies, and answers.

use accord::token::v1::{
    self as pb,
    token_service_server::{TokenService, TokenServiceServer},
};
use anyhow::Context;
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

use super::{
    listen,
    signer::{EXPIRES_IN, Signer},
    verifier::Verifier,
};
use crate::child;

/// In a child: signs.
pub fn sign() -> anyhow::Result<()> {
    let subject = child::hear()?.context("no configuration")?;
    serve(Api::Sign(Signer::new(subject)?))
}

/// In a child: verifies.
pub fn verify() -> anyhow::Result<()> {
    let key = child::hear()?.context("no configuration")?;
    serve(Api::Verify(Verifier::new(&key)?))
}

#[tokio::main]
async fn serve(api: Api) -> anyhow::Result<()> {
    let incoming = TcpIncoming::from(listen().await?).with_nodelay(Some(true));
    let server = Server::builder().add_service(TokenServiceServer::new(api));
    Ok(server.serve_with_incoming(incoming).await?)
}

enum Api {
    Sign(Signer),
    Verify(Verifier),
}

fn not_here<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("a bare server does one thing"))
}

#[tonic::async_trait]
impl TokenService for Api {
    async fn issue_token(
        &self,
        request: Request<pb::IssueTokenRequest>,
    ) -> Result<Response<pb::IssueTokenResponse>, Status> {
        let Self::Sign(signer) = self else {
            return not_here();
        };
        let request = request.into_inner();
        let signed = signer.issue(request.tenant_id, Some(request.client_id));
        Ok(Response::new(pb::IssueTokenResponse {
            access_token: signed.map_err(|error| Status::internal(error.to_string()))?,
            token_type: "Bearer".to_owned(),
            expires_in: EXPIRES_IN,
            refresh_token: String::new(),
            scope: signer.scope().to_owned(),
            grant_id: signer.grant_id().to_owned(),
        }))
    }

    async fn introspect_token(
        &self,
        request: Request<pb::IntrospectTokenRequest>,
    ) -> Result<Response<pb::IntrospectTokenResponse>, Status> {
        let Self::Verify(verifier) = self else {
            return not_here();
        };
        let Ok(claims) = verifier.claims(&request.into_inner().token) else {
            return Ok(Response::new(pb::IntrospectTokenResponse {
                active: Some(false),
                ..Default::default()
            }));
        };
        Ok(Response::new(pb::IntrospectTokenResponse {
            active: Some(true),
            scope: claims.scope,
            client_id: claims.client_id,
            sub: claims.sub,
            aud: claims.aud,
            iss: claims.iss,
            exp: claims.exp,
            iat: claims.iat,
            jti: claims.jti,
            token_type: "Bearer".to_owned(),
            tenant_id: claims.tenant_id,
            grant_id: claims.grant_id,
        }))
    }

    async fn revoke_token(
        &self,
        _: Request<pb::RevokeTokenRequest>,
    ) -> Result<Response<pb::RevokeTokenResponse>, Status> {
        not_here()
    }

    async fn get_json_web_key_set(
        &self,
        _: Request<pb::GetJsonWebKeySetRequest>,
    ) -> Result<Response<pb::GetJsonWebKeySetResponse>, Status> {
        not_here()
    }

    async fn get_authority_metadata(
        &self,
        _: Request<pb::GetAuthorityMetadataRequest>,
    ) -> Result<Response<pb::GetAuthorityMetadataResponse>, Status> {
        not_here()
    }

    async fn list_revocations(
        &self,
        _: Request<pb::ListRevocationsRequest>,
    ) -> Result<Response<pb::ListRevocationsResponse>, Status> {
        not_here()
    }
}
