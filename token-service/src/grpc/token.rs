//! `TokenService`.

use accord::{
    rpc::{auth::Principal, status::Problem},
    token::v1::{self as pb, token_service_server::TokenService},
};
use tonic::{Request, Response, Status};

use crate::{
    error::Error,
    grpc::convert::{signing_key::json_web_key, token as convert},
    oauth::{
        OAuth,
        client_authentication::authenticate,
        introspection::{Requester, introspect},
        issuance, metadata, revocation,
        revocation_feed::{self, Cursor},
    },
};

#[tonic::async_trait]
impl TokenService for OAuth {
    async fn issue_token(
        &self,
        request: Request<pb::IssueTokenRequest>,
    ) -> Result<Response<pb::IssueTokenResponse>, Status> {
        let request = convert::issue(request.into_inner())?;
        let issued = issuance::issue(self, &request).await?;
        Ok(Response::new(convert::issued(issued)))
    }

    async fn push_authorization_request(
        &self,
        _: Request<pb::PushAuthorizationRequestRequest>,
    ) -> Result<Response<pb::PushAuthorizationRequestResponse>, Status> {
        Err(Problem::not_available("PushAuthorizationRequest").into())
    }

    async fn introspect_token(
        &self,
        request: Request<pb::IntrospectTokenRequest>,
    ) -> Result<Response<pb::IntrospectTokenResponse>, Status> {
        let by_workload = matches!(Principal::of(&request), Principal::Caller(_));
        let asked = convert::introspect(request.into_inner(), by_workload)?;
        let requester = match &asked.credentials {
            None => Requester::Workload,
            Some(credentials) => {
                let authenticated = authenticate(self, &asked.tenant_id, credentials).await?;
                Requester::Client(authenticated.client.value.client_id.clone())
            }
        };
        let active = introspect(self, &requester, &asked.tenant_id, &asked.token).await?;
        Ok(Response::new(convert::introspected(active)))
    }

    async fn revoke_token(
        &self,
        request: Request<pb::RevokeTokenRequest>,
    ) -> Result<Response<pb::RevokeTokenResponse>, Status> {
        let (tenant_id, token, credentials) = convert::revoke(request.into_inner())?;
        let authenticated = authenticate(self, &tenant_id, &credentials).await?;
        let client_id = &authenticated.client.value.client_id;
        revocation::revoke(self, client_id, &tenant_id, &token).await?;
        Ok(Response::new(pb::RevokeTokenResponse {}))
    }

    async fn get_json_web_key_set(
        &self,
        _request: Request<pb::GetJsonWebKeySetRequest>,
    ) -> Result<Response<pb::GetJsonWebKeySetResponse>, Status> {
        let keys = self.cache.keys().await?.value;
        Ok(Response::new(pb::GetJsonWebKeySetResponse {
            keys: keys.published_at(self.store.now()).map(json_web_key).collect(),
        }))
    }

    async fn get_authority_metadata(
        &self,
        request: Request<pb::GetAuthorityMetadataRequest>,
    ) -> Result<Response<pb::GetAuthorityMetadataResponse>, Status> {
        let tenant_id = convert::tenant_id(&request.get_ref().tenant_id).map_err(Error::from)?;
        let metadata = metadata::of_tenant(self, &tenant_id).await?;
        Ok(Response::new(convert::metadata(metadata)))
    }

    async fn list_revocations(
        &self,
        request: Request<pb::ListRevocationsRequest>,
    ) -> Result<Response<pb::ListRevocationsResponse>, Status> {
        let cursor = Cursor::parse(&request.get_ref().cursor).map_err(Error::from)?;
        let page = revocation_feed::after(self, cursor.as_ref()).await?;
        Ok(Response::new(convert::revocations(page, self.store.now())))
    }
}
