//! `SigningKeyService`.

use accord::{
    rpc::{
        auth::{Principal, creation},
        status::Reply,
    },
    token::v1::{self as pb, signing_key_service_server::SigningKeyService},
};
use tonic::{Request, Response};

use crate::{
    grpc::convert::signing_key as convert,
    oauth::{OAuth, signing_keys},
};

#[tonic::async_trait]
impl SigningKeyService for OAuth {
    async fn list_signing_keys(
        &self,
        request: Request<pb::ListSigningKeysRequest>,
    ) -> Reply<pb::ListSigningKeysResponse> {
        let (state, page) = convert::list(request.get_ref())?;
        let keys = self.store.list_signing_keys(state, &page).await?;
        Ok(Response::new(convert::list_response(keys, self.store.now())))
    }

    async fn rotate_signing_key(
        &self,
        request: Request<pb::RotateSigningKeyRequest>,
    ) -> Reply<pb::RotateSigningKeyResponse> {
        let (request_id, algorithm) = convert::rotate(request.get_ref())?;
        let force = request.get_ref().force;
        let creation = creation(&request, "RotateSigningKey", request_id);
        let key = signing_keys::rotate(self, &creation, algorithm, force).await?;
        self.cache.catch_up_or_log().await;
        Ok(Response::new(pb::RotateSigningKeyResponse {
            signing_key: Some(convert::message(key, self.store.now())),
        }))
    }

    async fn revoke_signing_key(
        &self,
        request: Request<pb::RevokeSigningKeyRequest>,
    ) -> Reply<pb::RevokeSigningKeyResponse> {
        let origin = Principal::of(&request).origin();
        let (kid, reason) = convert::revoke(request.get_ref())?;
        let key = self.store.revoke_signing_key(&origin, &kid, &reason).await?;
        self.cache.catch_up_or_log().await;
        Ok(Response::new(pb::RevokeSigningKeyResponse {
            signing_key: Some(convert::message(key, self.store.now())),
        }))
    }
}
