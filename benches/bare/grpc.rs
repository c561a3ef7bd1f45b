//! `IssueToken` that signs and `IntrospectToken` that verifies, in a tonic server.

use std::sync::Arc;

use accord::token::v1::{
    self as pb,
    token_service_server::{TokenService, TokenServiceServer},
};
use anyhow::Result;
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

use super::{EXPIRES_IN, SCOPE, Signer, verify_proof};

pub async fn serve(listener: TcpListener, signer: Arc<Signer>) -> Result<()> {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = Server::builder().add_service(TokenServiceServer::new(Bare(signer)));
    Ok(server.serve_with_incoming(incoming).await?)
}

struct Bare(Arc<Signer>);

type Reply<T> = Result<Response<T>, Status>;

fn unimplemented<T>() -> Reply<T> {
    Err(Status::unimplemented("not in a bare server"))
}

#[tonic::async_trait]
impl TokenService for Bare {
    async fn issue_token(&self, request: Request<pb::IssueTokenRequest>) -> Reply<pb::IssueTokenResponse> {
        let Self(signer) = self;
        let request = request.into_inner();
        let is_bound = !request.dpop_proof.is_empty();
        let jkt = is_bound.then(|| verify_proof(&request.dpop_proof)).transpose();
        let jkt = jkt.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let signed = signer.issue(request.tenant_id, Some(request.client_id), jkt);
        Ok(Response::new(pb::IssueTokenResponse {
            access_token: signed.map_err(|error| Status::internal(error.to_string()))?,
            token_type: if is_bound { "DPoP" } else { "Bearer" }.to_owned(),
            expires_in: EXPIRES_IN,
            refresh_token: String::new(),
            scope: SCOPE.to_owned(),
            grant_id: signer.grant_id.clone(),
        }))
    }

    async fn push_authorization_request(
        &self,
        _: Request<pb::PushAuthorizationRequestRequest>,
    ) -> Reply<pb::PushAuthorizationRequestResponse> {
        unimplemented()
    }

    async fn introspect_token(
        &self,
        request: Request<pb::IntrospectTokenRequest>,
    ) -> Reply<pb::IntrospectTokenResponse> {
        let Ok(claims) = self.0.verify(&request.into_inner().token) else {
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
            cnf: None,
        }))
    }

    async fn revoke_token(&self, _: Request<pb::RevokeTokenRequest>) -> Reply<pb::RevokeTokenResponse> {
        unimplemented()
    }

    async fn get_json_web_key_set(
        &self,
        _: Request<pb::GetJsonWebKeySetRequest>,
    ) -> Reply<pb::GetJsonWebKeySetResponse> {
        unimplemented()
    }

    async fn get_authority_metadata(
        &self,
        _: Request<pb::GetAuthorityMetadataRequest>,
    ) -> Reply<pb::GetAuthorityMetadataResponse> {
        unimplemented()
    }

    async fn list_revocations(
        &self,
        _: Request<pb::ListRevocationsRequest>,
    ) -> Reply<pb::ListRevocationsResponse> {
        unimplemented()
    }
}
