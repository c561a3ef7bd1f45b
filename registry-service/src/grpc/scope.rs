//! `ScopeService`.

use accord::{
    registry::v1::{self as pb, scope_service_server::ScopeService},
    rpc::auth::Principal,
};
use tonic::{Request, Response, Status};

use super::{Api, creation};
use crate::grpc::convert::scope as convert;

#[tonic::async_trait]
impl ScopeService for Api {
    async fn create_scope(
        &self,
        request: Request<pb::CreateScopeRequest>,
    ) -> Result<Response<pb::CreateScopeResponse>, Status> {
        let (new, request_id) = convert::create(request.get_ref().clone())?;
        let creation = creation(&request, "CreateScope", request_id);
        let scope = self.store.create_scope(&creation, new).await?;
        Ok(Response::new(pb::CreateScopeResponse {
            scope: Some(convert::message(scope)),
        }))
    }

    async fn list_scopes(
        &self,
        request: Request<pb::ListScopesRequest>,
    ) -> Result<Response<pb::ListScopesResponse>, Status> {
        let page = convert::list(request.get_ref())?;
        let scopes = self.store.list_scopes(&page).await?;
        Ok(Response::new(convert::list_response(scopes)))
    }

    async fn update_scope(
        &self,
        request: Request<pb::UpdateScopeRequest>,
    ) -> Result<Response<pb::UpdateScopeResponse>, Status> {
        let origin = Principal::of(&request).origin();
        let (name, update) = convert::update(request.into_inner())?;
        let scope = self.store.update_scope(&origin, &name, update).await?;
        Ok(Response::new(pb::UpdateScopeResponse {
            scope: Some(convert::message(scope)),
        }))
    }
}
