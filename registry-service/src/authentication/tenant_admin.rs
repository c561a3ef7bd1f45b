//! The sign-in of Tenant Admins.

use accord::{
    store::audit::{Event, Origin},
    text::id::TenantId,
};
use zeroize::Zeroizing;

use super::complete;
use crate::{
    error::Error,
    model::{
        account_name::AccountName,
        tenant,
        user::{self, Password, User},
    },
    store::Store,
};

/// Checks a Tenant Admin's account name and password: one argon2 run and one event, whatever the answer.
///
/// # Errors
/// [`Error::SignInFailed`], whatever the reason; [`Error::Busy`].
pub async fn sign_in(
    store: &Store,
    origin: Origin,
    tenant_id: TenantId,
    account_name: Option<AccountName>,
    password: Zeroizing<String>,
) -> Result<User, Error> {
    let store = store.clone();
    complete(async move {
        let known = match &account_name {
            Some(name) => store.find_user_by_name(&tenant_id, name).await?,
            None => None,
        };
        let tenant = store.find_tenant(&tenant_id).await?;
        let tenant_is_active = tenant
            .as_ref()
            .is_some_and(|tenant| tenant.state == tenant::State::Active);
        let admin = known
            .clone()
            .filter(|user| tenant_is_active && user.tenant_admin && user.state == user::State::Active);
        let stored = admin
            .as_ref()
            .and_then(|user| Some((user.user_id.as_str(), user.password.as_ref()?)));
        // A text of a length that no password has costs what a password costs.
        let typed = Password::parse(password)
            .map(|password| password.bytes())
            .unwrap_or_default();
        let is_right = store.hasher().verify_password(typed, stored).await?;

        let mut event = Event::new("user.sign_in");
        if tenant.is_some() {
            event = event.tenant(&tenant_id);
        }
        if let Some(user) = &known {
            event = event.subject(user.user_id.as_str());
        }
        match admin {
            Some(admin) if is_right => {
                store.record(&origin, event).await?;
                Ok(admin)
            }
            _ => {
                store.record(&origin, event.refused()).await?;
                Err(Error::SignInFailed)
            }
        }
    })
    .await
}
