//! `SigningKeyService`.

use accord::{
    rpc::auth::Principal,
    token::v1::{self as pb, signing_key_service_server::SigningKeyService},
};
use tonic::{Request, Response, Status};

use super::creation;
use crate::{error::Error, grpc::convert::signing_key as convert, oauth::OAuth};

#[tonic::async_trait]
impl SigningKeyService for OAuth {
    async fn list_signing_keys(
        &self,
        request: Request<pb::ListSigningKeysRequest>,
    ) -> Result<Response<pb::ListSigningKeysResponse>, Status> {
        let (state, page) = convert::list(request.get_ref()).map_err(Error::from)?;
        let keys = self.store.list_signing_keys(state, &page).await?;
        Ok(Response::new(convert::list_response(keys, self.store.now())))
    }

    async fn rotate_signing_key(
        &self,
        request: Request<pb::RotateSigningKeyRequest>,
    ) -> Result<Response<pb::RotateSigningKeyResponse>, Status> {
        let request_id = convert::rotate(request.get_ref()).map_err(Error::from)?;
        let creation = creation(&request, "RotateSigningKey", request_id);
        let key = self.store.rotate_signing_key(&creation).await?;
        self.cache.learn().await;
        Ok(Response::new(pb::RotateSigningKeyResponse {
            signing_key: Some(convert::message(key, self.store.now())),
        }))
    }

    async fn revoke_signing_key(
        &self,
        request: Request<pb::RevokeSigningKeyRequest>,
    ) -> Result<Response<pb::RevokeSigningKeyResponse>, Status> {
        let origin = Principal::of(&request).origin();
        let (kid, reason) = convert::revoke(request.get_ref()).map_err(Error::from)?;
        let key = self.store.revoke_signing_key(&origin, &kid, &reason).await?;
        self.cache.learn().await;
        Ok(Response::new(pb::RevokeSigningKeyResponse {
            signing_key: Some(convert::message(key, self.store.now())),
        }))
    }
}
