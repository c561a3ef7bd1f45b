//! `ProvisioningService`.

use accord::{
    registry::v1::{provisioning_service_server::ProvisioningService, *},
    rpc::status::{Problem, Reply},
    text::opaque::{OpaqueToken, TokenKind},
};
use tonic::{Request, Response};
use zeroize::Zeroizing;

use super::{
    Api,
    convert::{client as convert, only_field},
    creation, parts,
};
use crate::authentication::complete;

#[tonic::async_trait]
impl ProvisioningService for Api {
    async fn create_delivery(&self, call: Request<CreateDeliveryRequest>) -> Reply<CreateDeliveryResponse> {
        let (client_id, request_id) = convert::create_delivery(call.get_ref())?;
        let creation = creation(&call, "CreateDelivery", request_id);
        let link = self.store.create_delivery(&creation, &client_id).await?;
        let delivery_link = Some(convert::link(link, &self.public_base_url));
        Ok(Response::new(CreateDeliveryResponse { delivery_link }))
    }

    async fn release_delivery(&self, _: Request<ReleaseDeliveryRequest>) -> Reply<ReleaseDeliveryResponse> {
        Err(Problem::not_available("ReleaseDelivery").into())
    }

    async fn claim_delivery(&self, call: Request<ClaimDeliveryRequest>) -> Reply<ClaimDeliveryResponse> {
        let (origin, message) = parts(call);
        let token = Zeroizing::new(message.claim_token);
        let token = only_field("claim_token", OpaqueToken::parse(TokenKind::Claim, &token))?;
        let store = self.store.clone();
        let bundle = complete(async move { store.claim_delivery(&origin, &token).await }).await?;
        let bundle = Some(convert::bundle(bundle, &self.public_base_url));
        Ok(Response::new(ClaimDeliveryResponse { bundle }))
    }
}
