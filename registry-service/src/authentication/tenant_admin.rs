//! The sign-in of Tenant Admins, and their enrolment by a one-time link.

use accord::{
    store::audit::{Event, Origin},
    text::{id::TenantId, opaque::OpaqueToken},
};
use zeroize::Zeroizing;

use super::complete;
use crate::{
    error::{Error, Result},
    model::{
        account_name::AccountName,
        tenant,
        user::{self, Password, Selector, User},
    },
    store::Store,
};

/// Checks a Tenant Admin's account name and password. `account_name` is `None` if it is malformed. Success and
/// [`Error::SignInFailed`] each cost one argon2 run and record one event.
///
/// # Errors
/// [`Error::SignInFailed`], whatever the reason; [`Error::Busy`].
pub async fn sign_in(
    store: &Store,
    origin: Origin,
    tenant_id: TenantId,
    account_name: Option<AccountName>,
    password: Zeroizing<String>,
) -> Result<User> {
    let store = store.clone();
    complete(async move {
        let user = match account_name.map(Selector::AccountName) {
            Some(selector) => store.find_user(&tenant_id, &selector).await?,
            None => None,
        };
        let tenant = store.find_tenant(&tenant_id).await?;
        let mut event = Event::new("user.sign_in");
        if tenant.is_some() {
            event = event.tenant(&tenant_id);
        }
        if let Some(user) = &user {
            event = event.subject(user.user_id.as_str());
        }

        let tenant_is_active = tenant.is_some_and(|tenant| tenant.state == tenant::State::Active);
        let admin =
            user.filter(|user| tenant_is_active && user.tenant_admin && user.state == user::State::Active);
        let stored = admin.as_ref().and_then(|admin| {
            let hash = admin.password.as_ref()?;
            Some((admin.user_id.as_str(), hash))
        });
        // A text that is too short or too long for a password costs a run too.
        let password = Password::parse(password).map(|password| password.bytes());
        let password = password.unwrap_or_default();
        let is_right = store.hasher.verify_password(password, stored).await?;
        let admin = admin.filter(|_| is_right);
        let event = if admin.is_some() { event } else { event.refused() };
        store.record(&origin, event).await?;
        admin.ok_or(Error::SignInFailed)
    })
    .await
}

/// Sets the password that a Tenant Admin chose. The enrolment token works once.
///
/// # Errors
/// [`Error::LinkInvalid`] for a token that is unknown, used or expired; [`Error::Busy`].
pub async fn complete_enrolment(
    store: &Store,
    origin: Origin,
    token: OpaqueToken,
    password: Password,
) -> Result<TenantId> {
    let store = store.clone();
    complete(async move {
        // Rejects a guessed token without an argon2 run.
        let user_id = store.find_enrolment(&token).await?.ok_or(Error::LinkInvalid)?;
        let hashed = store.hasher.hash(user_id.as_str(), password.bytes()).await?;
        store.use_enrolment(&origin, &token, hashed).await
    })
    .await
}
