//! `ConsentService`.

use accord::{
    rpc::{
        auth::{Caller, Principal},
        status::{Problem, Reply},
    },
    token::v1::{self as pb, consent_service_server::ConsentService},
};
use tonic::{Request, Response};

use super::begin;
use crate::{
    consent::{Consents, connected::ConsentChange, receipt::ProvenReceipt},
    grpc::convert::consent as convert,
};

#[tonic::async_trait]
impl ConsentService for Consents {
    async fn get_consent(&self, request: Request<pb::GetConsentRequest>) -> Reply<pb::GetConsentResponse> {
        let (mut call, request) = begin(self, request, |request| &mut request.admin_session);
        let (tenant_id, grant_id) = convert::ids(&request.tenant_id, &request.grant_id)?;
        let consent = call.get_consent(&tenant_id, &grant_id).await?;
        Ok(Response::new(pb::GetConsentResponse {
            consent: Some(convert::message(consent)),
        }))
    }

    async fn list_consents(
        &self,
        request: Request<pb::ListConsentsRequest>,
    ) -> Reply<pb::ListConsentsResponse> {
        let (mut call, request) = begin(self, request, |request| &mut request.admin_session);
        let (tenant_id, filter, page) = convert::list(&request)?;
        let consents = call.list_consents(&tenant_id, &filter, &page).await?;
        Ok(Response::new(convert::list_response(consents)))
    }

    async fn revoke_consent(
        &self,
        request: Request<pb::RevokeConsentRequest>,
    ) -> Reply<pb::RevokeConsentResponse> {
        let principal = Principal::of(&request);
        let by_operator = matches!(principal, Principal::Caller(Caller::Operator { .. }, _));
        let (mut call, request) = begin(self, request, |request| &mut request.admin_session);
        let (tenant_id, grant_id, reason) = convert::revoke(&request, by_operator)?;
        let consent = call.revoke_consent(&tenant_id, &grant_id, &reason).await?;
        Ok(Response::new(pb::RevokeConsentResponse {
            consent: Some(convert::message(consent)),
        }))
    }

    async fn change_designated_user(
        &self,
        request: Request<pb::ChangeDesignatedUserRequest>,
    ) -> Reply<pb::ChangeDesignatedUserResponse> {
        let (mut call, request) = begin(self, request, |request| &mut request.admin_session);
        let (tenant_id, grant_id) = convert::change_designated_user(&request)?;
        let change = ConsentChange::DesignatedUser(&request.designated_account_name);
        let changed = call.change_consent(&tenant_id, &grant_id, change);
        Ok(Response::new(pb::ChangeDesignatedUserResponse {
            consent: Some(convert::message(changed.await?)),
        }))
    }

    async fn change_allowed_networks(
        &self,
        request: Request<pb::ChangeAllowedNetworksRequest>,
    ) -> Reply<pb::ChangeAllowedNetworksResponse> {
        let (mut call, request) = begin(self, request, |request| &mut request.admin_session);
        let (tenant_id, grant_id, networks) = convert::change_allowed_networks(&request)?;
        let change = ConsentChange::AllowedNetworks(&networks);
        let changed = call.change_consent(&tenant_id, &grant_id, change);
        Ok(Response::new(pb::ChangeAllowedNetworksResponse {
            consent: Some(convert::message(changed.await?)),
        }))
    }

    async fn get_grant_usage(
        &self,
        request: Request<pb::GetGrantUsageRequest>,
    ) -> Reply<pb::GetGrantUsageResponse> {
        let (mut call, request) = begin(self, request, |request| &mut request.admin_session);
        let (tenant_id, grant_id) = convert::ids(&request.tenant_id, &request.grant_id)?;
        let report = call.grant_usage(&tenant_id, &grant_id).await?;
        Ok(Response::new(convert::usage(report)))
    }

    async fn get_consent_receipt(
        &self,
        request: Request<pb::GetConsentReceiptRequest>,
    ) -> Reply<pb::GetConsentReceiptResponse> {
        let (mut call, request) = begin(self, request, |request| &mut request.admin_session);
        let (tenant_id, grant_id) = convert::ids(&request.tenant_id, &request.grant_id)?;
        let ProvenReceipt { receipt, proof } = call.consent_receipt(&tenant_id, &grant_id).await?;
        let proof = proof.to_json().map_err(|error| Problem::internal(&error))?;
        Ok(Response::new(pb::GetConsentReceiptResponse { receipt, proof }))
    }

    async fn list_operator_actions(
        &self,
        request: Request<pb::ListOperatorActionsRequest>,
    ) -> Reply<pb::ListOperatorActionsResponse> {
        let (mut call, request) = begin(self, request, |request| &mut request.admin_session);
        let (tenant_id, page) = convert::list_operator_actions(&request)?;
        let actions = call.operator_actions(&tenant_id, &page).await?;
        Ok(Response::new(convert::operator_actions(actions)))
    }
}
