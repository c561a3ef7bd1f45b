//! `ScopeService`.

use accord::{
    registry::v1::{scope_service_server::ScopeService, *},
    rpc::status::Reply,
};
use prost::Message;
use tonic::{Request, Response};

use super::{
    Api,
    convert::{scope as convert, unfiltered_page},
    creation, parts,
};

#[tonic::async_trait]
impl ScopeService for Api {
    async fn create_scope(&self, call: Request<CreateScopeRequest>) -> Reply<CreateScopeResponse> {
        let (new, request_id) = convert::create(call.get_ref())?;
        let creation = creation(&call, "CreateScope", request_id);
        let scope = self.store.create_scope(&creation, new).await?;
        let scope = Some(convert::message(scope));
        Ok(Response::new(CreateScopeResponse { scope }))
    }

    async fn list_scopes(&self, call: Request<ListScopesRequest>) -> Reply<ListScopesResponse> {
        let message = call.into_inner();
        let page = unfiltered_page("scopes", message.page_size, &message.page_token)?;
        let page = self.store.list_scopes(&page).await?;
        let (scopes, next_page_token) = page.map(convert::message).fit(Message::encoded_len);
        Ok(Response::new(ListScopesResponse {
            scopes,
            next_page_token,
        }))
    }

    async fn update_scope(&self, call: Request<UpdateScopeRequest>) -> Reply<UpdateScopeResponse> {
        let (origin, message) = parts(call);
        let (name, update) = convert::update(message)?;
        let scope = self.store.update_scope(&origin, &name, update).await?;
        let scope = Some(convert::message(scope));
        Ok(Response::new(UpdateScopeResponse { scope }))
    }
}
