//! `OperatorService`.

use accord::{
    registry::v1::{self as pb, operator_service_server::OperatorService},
    rpc::auth::Principal,
};
use tonic::{Request, Response, Status};

use super::{Api, creation};
use crate::{grpc::convert::caller as convert, model::caller::CallerType};

#[tonic::async_trait]
impl OperatorService for Api {
    async fn create_operator(
        &self,
        request: Request<pb::CreateOperatorRequest>,
    ) -> Result<Response<pb::CreateOperatorResponse>, Status> {
        let (new, request_id) = convert::create_operator(request.get_ref())?;
        let creation = creation(&request, "CreateOperator", request_id);
        let (record, token) = self.store.create_caller(&creation, new).await?;
        Ok(Response::new(pb::CreateOperatorResponse {
            operator: convert::operator(record),
            operator_token: token.expose().to_owned(),
        }))
    }

    async fn list_operators(
        &self,
        request: Request<pb::ListOperatorsRequest>,
    ) -> Result<Response<pb::ListOperatorsResponse>, Status> {
        let page = convert::list_operators(request.get_ref())?;
        let page = self.store.list_callers(CallerType::Operator, &page).await?;
        Ok(Response::new(pb::ListOperatorsResponse {
            operators: page.items.into_iter().filter_map(convert::operator).collect(),
            next_page_token: page.next_page_token,
        }))
    }

    async fn revoke_operator(
        &self,
        request: Request<pb::RevokeOperatorRequest>,
    ) -> Result<Response<pb::RevokeOperatorResponse>, Status> {
        let origin = Principal::of(&request).origin();
        let id = convert::operator_id(&request.get_ref().operator_id)?;
        let revoking = self
            .store
            .revoke_caller(&origin, CallerType::Operator, id.as_str());
        Ok(Response::new(pb::RevokeOperatorResponse {
            operator: convert::operator(revoking.await?),
        }))
    }

    async fn create_workload(
        &self,
        request: Request<pb::CreateWorkloadRequest>,
    ) -> Result<Response<pb::CreateWorkloadResponse>, Status> {
        let (new, request_id) = convert::create_workload(request.get_ref())?;
        let creation = creation(&request, "CreateWorkload", request_id);
        let (record, token) = self.store.create_caller(&creation, new).await?;
        Ok(Response::new(pb::CreateWorkloadResponse {
            workload: convert::workload(record),
            workload_token: token.expose().to_owned(),
        }))
    }

    async fn list_workloads(
        &self,
        request: Request<pb::ListWorkloadsRequest>,
    ) -> Result<Response<pb::ListWorkloadsResponse>, Status> {
        let page = convert::list_workloads(request.get_ref())?;
        let page = self.store.list_callers(CallerType::Workload, &page).await?;
        Ok(Response::new(pb::ListWorkloadsResponse {
            workloads: page.items.into_iter().filter_map(convert::workload).collect(),
            next_page_token: page.next_page_token,
        }))
    }

    async fn revoke_workload(
        &self,
        request: Request<pb::RevokeWorkloadRequest>,
    ) -> Result<Response<pb::RevokeWorkloadResponse>, Status> {
        let origin = Principal::of(&request).origin();
        let id = convert::workload_id(&request.get_ref().workload_id)?;
        let revoking = self
            .store
            .revoke_caller(&origin, CallerType::Workload, id.as_str());
        Ok(Response::new(pb::RevokeWorkloadResponse {
            workload: convert::workload(revoking.await?),
        }))
    }
}
