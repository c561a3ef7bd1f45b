//! `ProvisioningService`.

use accord::{
    registry::v1::{provisioning_service_server::ProvisioningService, *},
    rpc::status::Reply,
    text::id::DeliveryId,
};
use tonic::{Request, Response};

use super::{
    Api,
    convert::{client as convert, only_field},
    creation, parts,
};

#[tonic::async_trait]
impl ProvisioningService for Api {
    async fn create_delivery(&self, call: Request<CreateDeliveryRequest>) -> Reply<CreateDeliveryResponse> {
        let (client_id, request_id) = convert::create_delivery(call.get_ref())?;
        let creation = creation(&call, "CreateDelivery", request_id);
        let link = self.store.create_delivery(&creation, &client_id).await?;
        let delivery_link = Some(convert::link(link, &self.public_base_url));
        Ok(Response::new(CreateDeliveryResponse { delivery_link }))
    }

    async fn release_delivery(
        &self,
        call: Request<ReleaseDeliveryRequest>,
    ) -> Reply<ReleaseDeliveryResponse> {
        let (origin, message) = parts(call);
        let id = only_field("delivery_id", DeliveryId::parse(&message.delivery_id))?;
        let released = self.store.release_delivery(&origin, &id).await?;
        Ok(Response::new(ReleaseDeliveryResponse {
            release_code: released.code.grouped().to_string(),
            client_id: released.recipient.client_id.into(),
            client_display_name: released.recipient.display_name,
            contact_email: released.recipient.contact_email,
            creator: released.creator,
            create_time: Some(released.created_at.to_timestamp()),
        }))
    }

    async fn claim_delivery(&self, call: Request<ClaimDeliveryRequest>) -> Reply<ClaimDeliveryResponse> {
        let (origin, message) = parts(call);
        let (token, request_id, code) = convert::claim(message)?;
        let claim = self
            .store
            .claim_delivery(&origin, &token, request_id, code.as_ref());
        let bundle = claim.await?;
        let bundle = Some(convert::bundle(bundle, &self.public_base_url));
        Ok(Response::new(ClaimDeliveryResponse { bundle }))
    }
}
