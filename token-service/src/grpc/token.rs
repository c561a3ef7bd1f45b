//! `TokenService`.

use accord::{
    rpc::{auth::Principal, status::Reply, tls::peer::ClientCertificate},
    text::id::TenantId,
    token::v1::{self as pb, token_service_server::TokenService},
};
use tonic::{Request, Response, Status};

use crate::{
    grpc::convert::{only_field, token as convert},
    oauth::{
        OAuth,
        client_authentication::authenticate_and_spend,
        introspection::{Requester, introspect},
        issuance, metadata, pushed_request, revocation,
        revocation_feed::{self, Cursor},
    },
};

/// Returns the certificate of the client that made a call, if it presented one.
fn client_certificate<T>(oauth: &OAuth, request: &Request<T>) -> Result<Option<ClientCertificate>, Status> {
    let (extensions, headers) = (request.extensions(), request.metadata().as_ref());
    oauth.mutual_tls.certificates.find(extensions, headers)
}

#[tonic::async_trait]
impl TokenService for OAuth {
    async fn issue_token(&self, request: Request<pb::IssueTokenRequest>) -> Reply<pb::IssueTokenResponse> {
        let certificate = client_certificate(self, &request)?;
        let request = request.into_inner();
        let grant_type = convert::grant_type(&request);
        let request = convert::issue(request, certificate);
        let request = request.inspect_err(|error| issuance::count_rejected(grant_type, error.reason()))?;
        let issued = issuance::issue(self, &request).await?;
        Ok(convert::issued(issued))
    }

    async fn push_authorization_request(
        &self,
        request: Request<pb::PushAuthorizationRequestRequest>,
    ) -> Reply<pb::PushAuthorizationRequestResponse> {
        let certificate = client_certificate(self, &request)?;
        let request = convert::push(request.into_inner(), certificate)?;
        Ok(convert::pushed(pushed_request::push(self, request).await?))
    }

    async fn introspect_token(
        &self,
        request: Request<pb::IntrospectTokenRequest>,
    ) -> Reply<pb::IntrospectTokenResponse> {
        let by_workload = matches!(Principal::of(&request), Principal::Caller(..));
        let certificate = client_certificate(self, &request)?;
        let request = convert::introspect(request.into_inner(), by_workload, certificate)?;
        let tenant_id = &request.tenant_id;
        let requester = match &request.credentials {
            None => Requester::Workload,
            Some(credentials) => {
                Requester::Client(authenticate_and_spend(self, tenant_id, credentials).await?)
            }
        };
        let binding = request.binding.as_ref();
        let introspected = introspect(self, &requester, tenant_id, &request.token, binding).await?;
        Ok(Response::new(introspected))
    }

    async fn revoke_token(&self, request: Request<pb::RevokeTokenRequest>) -> Reply<pb::RevokeTokenResponse> {
        let certificate = client_certificate(self, &request)?;
        let (tenant_id, token, credentials) = convert::revoke(request.into_inner(), certificate)?;
        let client_id = authenticate_and_spend(self, &tenant_id, &credentials).await?;
        revocation::revoke(self, &client_id, &tenant_id, &token).await?;
        Ok(Response::new(pb::RevokeTokenResponse {}))
    }

    async fn get_json_web_key_set(
        &self,
        _: Request<pb::GetJsonWebKeySetRequest>,
    ) -> Reply<pb::GetJsonWebKeySetResponse> {
        Ok(Response::new(metadata::json_web_key_set(self).await?))
    }

    async fn get_authority_metadata(
        &self,
        request: Request<pb::GetAuthorityMetadataRequest>,
    ) -> Reply<pb::GetAuthorityMetadataResponse> {
        let tenant_id = only_field("tenant_id", TenantId::parse(&request.get_ref().tenant_id))?;
        Ok(Response::new(metadata::of_tenant(self, &tenant_id).await?))
    }

    async fn list_revocations(
        &self,
        request: Request<pb::ListRevocationsRequest>,
    ) -> Reply<pb::ListRevocationsResponse> {
        let cursor = Cursor::parse(&request.get_ref().cursor)?;
        let page = revocation_feed::after(self, cursor.as_ref()).await?;
        Ok(Response::new(convert::revocations(page, self.store.now())))
    }
}
