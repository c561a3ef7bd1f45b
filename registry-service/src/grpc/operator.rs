//! `OperatorService`.

use accord::{
    registry::v1::{operator_service_server::OperatorService, *},
    rpc::status::Reply,
    text::id::{OperatorId, WorkloadId},
};
use prost::Message;
use tonic::{Request, Response};

use super::{
    Api,
    convert::{caller as convert, id_and_reason, unfiltered_page},
    creation, parts,
};
use crate::{model::caller::CallerType, store::caller::require_ca_for};

#[tonic::async_trait]
impl OperatorService for Api {
    async fn create_operator(&self, call: Request<CreateOperatorRequest>) -> Reply<CreateOperatorResponse> {
        let (new, request_id) = convert::create_operator(call.get_ref(), self.store.second_operator)?;
        require_ca_for(&new, self.has_client_ca)?;
        let creation = creation(&call, "CreateOperator", request_id);
        let (record, token) = self.store.create_caller(&creation, new).await?;
        Ok(Response::new(CreateOperatorResponse {
            operator: convert::operator(record),
            operator_token: token.map_or_else(String::new, |token| token.expose().to_owned()),
        }))
    }

    async fn list_operators(&self, call: Request<ListOperatorsRequest>) -> Reply<ListOperatorsResponse> {
        let message = call.into_inner();
        let page = unfiltered_page("operators", message.page_size, &message.page_token)?;
        let page = self.store.list_callers(CallerType::Operator, &page).await?;
        let (operators, next_page_token) = page
            .map(convert::operator)
            .fit(|operator| operator.as_ref().map_or(0, Message::encoded_len));
        Ok(Response::new(ListOperatorsResponse {
            operators: operators.into_iter().flatten().collect(),
            next_page_token,
        }))
    }

    async fn revoke_operator(&self, call: Request<RevokeOperatorRequest>) -> Reply<RevokeOperatorResponse> {
        let (origin, message) = parts(call);
        let id = OperatorId::parse(&message.operator_id);
        let (id, reason) = id_and_reason("operator_id", id, &message.reason)?;
        let revoked = self
            .store
            .revoke_caller(&origin, CallerType::Operator, id.as_str(), &reason);
        let operator = convert::operator(revoked.await?);
        Ok(Response::new(RevokeOperatorResponse { operator }))
    }

    async fn create_workload(&self, call: Request<CreateWorkloadRequest>) -> Reply<CreateWorkloadResponse> {
        let (new, request_id) = convert::create_workload(call.get_ref())?;
        require_ca_for(&new, self.has_client_ca)?;
        let creation = creation(&call, "CreateWorkload", request_id);
        let (record, token) = self.store.create_caller(&creation, new).await?;
        Ok(Response::new(CreateWorkloadResponse {
            workload: convert::workload(record),
            workload_token: token.map_or_else(String::new, |token| token.expose().to_owned()),
        }))
    }

    async fn list_workloads(&self, call: Request<ListWorkloadsRequest>) -> Reply<ListWorkloadsResponse> {
        let message = call.into_inner();
        let page = unfiltered_page("workloads", message.page_size, &message.page_token)?;
        let page = self.store.list_callers(CallerType::Workload, &page).await?;
        let (workloads, next_page_token) = page
            .map(convert::workload)
            .fit(|workload| workload.as_ref().map_or(0, Message::encoded_len));
        Ok(Response::new(ListWorkloadsResponse {
            workloads: workloads.into_iter().flatten().collect(),
            next_page_token,
        }))
    }

    async fn revoke_workload(&self, call: Request<RevokeWorkloadRequest>) -> Reply<RevokeWorkloadResponse> {
        let (origin, message) = parts(call);
        let id = WorkloadId::parse(&message.workload_id);
        let (id, reason) = id_and_reason("workload_id", id, &message.reason)?;
        let revoked = self
            .store
            .revoke_caller(&origin, CallerType::Workload, id.as_str(), &reason);
        let workload = convert::workload(revoked.await?);
        Ok(Response::new(RevokeWorkloadResponse { workload }))
    }
}
