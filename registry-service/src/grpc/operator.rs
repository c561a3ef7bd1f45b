//! `OperatorService`.

use accord::{
    registry::v1::{self as pb, operator_service_server::OperatorService},
    rpc::auth::Principal,
};
use tonic::{Request, Response, Status};

use super::{Api, creation};
use crate::{error::Error, grpc::convert::caller as convert, model::caller};

#[tonic::async_trait]
impl OperatorService for Api {
    async fn create_operator(
        &self,
        request: Request<pb::CreateOperatorRequest>,
    ) -> Result<Response<pb::CreateOperatorResponse>, Status> {
        let (new, request_id) = convert::create_operator(request.get_ref()).map_err(Error::from)?;
        let creation = creation(&request, "CreateOperator", request_id);
        let created = caller::create_operator(&self.store, &creation, new).await?;
        Ok(Response::new(convert::created_operator(created)))
    }

    async fn list_operators(
        &self,
        request: Request<pb::ListOperatorsRequest>,
    ) -> Result<Response<pb::ListOperatorsResponse>, Status> {
        let page = convert::list_operators(request.get_ref()).map_err(Error::from)?;
        let operators = caller::list_operators(&self.store, &page).await?;
        Ok(Response::new(convert::operators_response(operators)))
    }

    async fn revoke_operator(
        &self,
        request: Request<pb::RevokeOperatorRequest>,
    ) -> Result<Response<pb::RevokeOperatorResponse>, Status> {
        let origin = Principal::of(&request).origin();
        let id = convert::operator_id(&request.get_ref().operator_id).map_err(Error::from)?;
        let operator = caller::revoke_operator(&self.store, &origin, &id).await?;
        Ok(Response::new(pb::RevokeOperatorResponse {
            operator: Some(convert::operator(operator)),
        }))
    }

    async fn create_workload(
        &self,
        request: Request<pb::CreateWorkloadRequest>,
    ) -> Result<Response<pb::CreateWorkloadResponse>, Status> {
        let (new, request_id) = convert::create_workload(request.get_ref()).map_err(Error::from)?;
        let creation = creation(&request, "CreateWorkload", request_id);
        let created = caller::create_workload(&self.store, &creation, new).await?;
        Ok(Response::new(convert::created_workload(created)))
    }

    async fn list_workloads(
        &self,
        request: Request<pb::ListWorkloadsRequest>,
    ) -> Result<Response<pb::ListWorkloadsResponse>, Status> {
        let page = convert::list_workloads(request.get_ref()).map_err(Error::from)?;
        let workloads = caller::list_workloads(&self.store, &page).await?;
        Ok(Response::new(convert::workloads_response(workloads)))
    }

    async fn revoke_workload(
        &self,
        request: Request<pb::RevokeWorkloadRequest>,
    ) -> Result<Response<pb::RevokeWorkloadResponse>, Status> {
        let origin = Principal::of(&request).origin();
        let id = convert::workload_id(&request.get_ref().workload_id).map_err(Error::from)?;
        let workload = caller::revoke_workload(&self.store, &origin, &id).await?;
        Ok(Response::new(pb::RevokeWorkloadResponse {
            workload: Some(convert::workload(workload)),
        }))
    }
}
