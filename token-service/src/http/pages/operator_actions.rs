//! What operators did to a tenant, for its Tenant Admins.

use axum::{extract::RawQuery, http::StatusCode, response::Response};

use super::{
    context::PageContext,
    dates,
    error::PageError,
    view::{OperatorActionsPage, ShownAction},
};
use crate::{error::Error, model::tenant::operator_action::OperatorAction};

/// `GET /{tenant}/operator-actions`.
pub(super) async fn list(mut page: PageContext, RawQuery(query): RawQuery) -> Result<Response, PageError> {
    if page.session().await?.is_none() {
        return Ok(page.redirect("sign-in"));
    }
    let request = page.list_request("actions", query)?;
    let actions = page.call.operator_actions(&page.tenant.tenant_id, &request);
    let (status, actions) = match actions.await {
        Ok(actions) => (StatusCode::OK, Some(actions)),
        Err(Error::RegistryUnavailable | Error::RegistryRejectsCredential) => {
            (StatusCode::SERVICE_UNAVAILABLE, None)
        }
        Err(error) => return Err(error.into()),
    };
    let is_unavailable = actions.is_none();
    let (actions, next) = actions.map(|actions| actions.into_parts()).unwrap_or_default();
    let view = OperatorActionsPage {
        frame: page.frame(true),
        actions: actions.into_iter().map(shown).collect(),
        next_url: (!next.is_empty()).then(|| page.path(&format!("operator-actions?page={next}"))),
        is_unavailable,
    };
    Ok(page.html(status, &view))
}

fn shown(action: OperatorAction) -> ShownAction {
    ShownAction {
        description: action.description(),
        time: dates::minute(action.event_id.time()),
        operator_id: action.operator_id,
        reason: action.reason,
        subject: action.subject,
        client_id: action.client_id,
    }
}
