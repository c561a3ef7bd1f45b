//! `ConsentService`.

use accord::{
    rpc::{
        auth::{Caller, Principal},
        status::Problem,
    },
    token::v1::{self as pb, consent_service_server::ConsentService},
};
use tonic::{Request, Response, Status};

use crate::{
    consent::{
        Consents, Facts,
        connected::{self, Access},
    },
    error::Error,
    grpc::convert::consent as convert,
};

#[tonic::async_trait]
impl ConsentService for Consents {
    async fn get_consent(
        &self,
        request: Request<pb::GetConsentRequest>,
    ) -> Result<Response<pb::GetConsentResponse>, Status> {
        let principal = Principal::of(&request);
        let request = request.get_ref();
        let (tenant_id, grant_id) =
            convert::ids(&request.tenant_id, &request.grant_id).map_err(Error::from)?;
        let access = Access::new(&principal, &request.admin_session, &tenant_id);
        let mut facts = Facts::new(&self.registry);
        let consent = connected::get(self, &mut facts, access, &grant_id).await?;
        Ok(Response::new(pb::GetConsentResponse {
            consent: Some(convert::message(consent)),
        }))
    }

    async fn list_consents(
        &self,
        request: Request<pb::ListConsentsRequest>,
    ) -> Result<Response<pb::ListConsentsResponse>, Status> {
        let principal = Principal::of(&request);
        let request = request.get_ref();
        let (tenant_id, filter, page) = convert::list(request).map_err(Error::from)?;
        let access = Access::new(&principal, &request.admin_session, &tenant_id);
        let mut facts = Facts::new(&self.registry);
        let consents = connected::list(self, &mut facts, access, &filter, &page).await?;
        Ok(Response::new(convert::list_response(consents)))
    }

    async fn revoke_consent(
        &self,
        request: Request<pb::RevokeConsentRequest>,
    ) -> Result<Response<pb::RevokeConsentResponse>, Status> {
        let principal = Principal::of(&request);
        let request = request.get_ref();
        let by_operator = matches!(principal, Principal::Caller(Caller::Operator { .. }));
        let (tenant_id, grant_id, reason) = convert::revoke(request, by_operator).map_err(Error::from)?;
        let access = Access::new(&principal, &request.admin_session, &tenant_id);
        let mut facts = Facts::new(&self.registry);
        let consent = connected::revoke(self, &mut facts, access, &grant_id, &reason).await?;
        Ok(Response::new(pb::RevokeConsentResponse {
            consent: Some(convert::message(consent)),
        }))
    }

    async fn change_designated_user(
        &self,
        request: Request<pb::ChangeDesignatedUserRequest>,
    ) -> Result<Response<pb::ChangeDesignatedUserResponse>, Status> {
        let principal = Principal::of(&request);
        let request = request.get_ref();
        let (tenant_id, grant_id) = convert::change_designated_user(request).map_err(Error::from)?;
        let access = Access::new(&principal, &request.admin_session, &tenant_id);
        let account_name = &request.designated_account_name;
        let mut facts = Facts::new(&self.registry);
        let consent =
            connected::change_designated_user(self, &mut facts, access, &grant_id, account_name).await?;
        Ok(Response::new(pb::ChangeDesignatedUserResponse {
            consent: Some(convert::message(consent)),
        }))
    }

    async fn change_allowed_networks(
        &self,
        _: Request<pb::ChangeAllowedNetworksRequest>,
    ) -> Result<Response<pb::ChangeAllowedNetworksResponse>, Status> {
        Err(Problem::not_available("ChangeAllowedNetworks").into())
    }

    async fn get_grant_usage(
        &self,
        _: Request<pb::GetGrantUsageRequest>,
    ) -> Result<Response<pb::GetGrantUsageResponse>, Status> {
        Err(Problem::not_available("GetGrantUsage").into())
    }
}
