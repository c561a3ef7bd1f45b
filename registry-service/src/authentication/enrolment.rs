//! The enrolment of Tenant Admins, who choose their password by a one-time link.

use accord::{
    store::audit::Origin,
    text::{id::TenantId, opaque::OpaqueToken},
};

use super::complete;
use crate::{error::Error, model::user::Password, store::Store};

/// Sets the password that a Tenant Admin has chosen. The enrolment token works once.
///
/// # Errors
/// [`Error::LinkInvalid`] for a token that is unknown, used or expired; [`Error::Busy`].
pub async fn complete_enrolment(
    store: &Store,
    origin: Origin,
    token: OpaqueToken,
    password: Password,
) -> Result<TenantId, Error> {
    let store = store.clone();
    complete(async move {
        // A guessed token costs no hash.
        let user_id = store.find_enrolment(&token).await?.ok_or(Error::LinkInvalid)?;
        let hashed = store.hasher().hash(user_id.as_str(), password.bytes()).await?;
        store.use_enrolment(&origin, &token, hashed).await
    })
    .await
}
