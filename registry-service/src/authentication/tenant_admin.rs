//! Signs Tenant Admins in, and enrols them by a one-time link.

use accord::{
    store::audit::{Event, Origin, action},
    text::{account_name::AccountName, id::TenantId, validation::only_field},
};
use zeroize::Zeroizing;

use crate::{
    error::{Error, Result},
    model::{
        account_name, link, purpose, tenant,
        user::{self, Completion, Selector, User, password::Password},
    },
    store::{EnrollingUser, Store},
};

/// The product's name. Guessers try passwords that contain it.
const PRODUCT: &str = "Accord";

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
    let user = match account_name.map(Selector::AccountName) {
        Some(selector) => store.find_user(&tenant_id, &selector).await?,
        None => None,
    };
    let tenant = store.find_tenant(&tenant_id).await?;
    let mut event = Event::new(action::USER_SIGN_IN);
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
    // Runs argon2 for a malformed password too, so that its time tells nothing about the account.
    let password = Password::parse(&password).map(|password| password.bytes());
    let password = password.unwrap_or_default();
    let is_right = store.hasher.verify_password(password, stored).await?;
    let admin = admin.filter(|_| is_right);
    let event = if admin.is_some() { event } else { event.refused() };
    store.record(&origin, event).await?;
    admin.ok_or(Error::SignInFailed)
}

/// Sets the password that a Tenant Admin chose. The enrolment token works once; a refused password leaves it open. Within a
/// minute a call with the same request id and password gets the first answer again. Any other attempt with a token that
/// was used, ended or expired is recorded, and so is any without the release code of a link that needs one.
///
/// # Errors
/// [`Error::EnrolmentUsed`]; [`Error::LinkInvalid`] for a token that is unknown, ended or expired, and without
/// the right release code; [`Error::Invalid`] for a
/// password that is too easy to guess; [`Error::Busy`].
pub async fn complete_enrolment(store: &Store, origin: Origin, completion: Completion) -> Result<TenantId> {
    let Completion {
        token,
        release_code,
        mut password,
        request_id,
    } = completion;
    let used_by = request_id.map(|id| link::use_mac(&token, id));
    let find = async || store.find_enrolment(&token).await?.ok_or(Error::LinkInvalid);
    // Rejects a guessed token, and a guessed release code, without an argon2 run.
    let enrolment = find().await?;
    if enrolment.needs_code {
        let checked = store.check_enrolment_code(&origin, &token, release_code.as_ref());
        checked.await?;
    }
    if enrolment.is_open(store.now()) {
        let admin = store.find_enrolling_user(&enrolment).await?;
        password = require_strong(store, &admin, password).await?;
        let hashed = store.hasher.hash(&admin.user_id, password.bytes()).await?;
        match store.use_enrolment(&origin, &token, used_by, hashed).await {
            // The enrolment was used, ended or expired since it was read.
            Err(Error::LinkInvalid) => {}
            result => return result,
        }
    }
    let enrolment = find().await?;
    let (tenant_id, user_id) = (enrolment.tenant_id, enrolment.user_id);
    let (used_at, first_used_by) = (enrolment.used_at, enrolment.used_by);
    if link::is_repeat(used_at, first_used_by.as_deref(), used_by, store.now()) {
        let user = store
            .find_user(&tenant_id, &Selector::Id(user_id.clone()))
            .await?;
        let stored = user.and_then(|user| user.password);
        let stored = stored.as_ref().map(|hash| (user_id.as_str(), hash));
        if store.hasher.verify_password(password.bytes(), stored).await? {
            return Ok(tenant_id);
        }
    }
    let why = used_at.map_or("ended", |_| "used before");
    let event = Event::new(action::USER_ENROL)
        .tenant(&tenant_id)
        .subject(user_id.as_str());
    let event = event.detail("why", why).refused();
    store.record(&origin, event).await?;
    Err(used_at.map_or(Error::LinkInvalid, |used_at| Error::EnrolmentUsed { used_at }))
}

/// Rejects a password that is too easy to guess for this user; returns any other. Checks it on a blocking thread, since
/// that takes up to a few tenths of a second.
async fn require_strong(store: &Store, admin: &EnrollingUser, password: Password) -> Result<Password> {
    let admin = admin.clone();
    let version = admin.name_key_version;
    let keyring = store.keyring.with_version(purpose::ACCOUNT_NAME, version).await?;
    let checked = tokio::task::spawn_blocking(move || {
        let key = keyring.require(purpose::ACCOUNT_NAME, admin.name_key_version)?;
        let names = [admin.tenant_id.as_str(), &admin.tenant_name, PRODUCT];
        let words = names
            .iter()
            .flat_map(|name| name.split_whitespace().chain([*name]));
        let words: Vec<_> = words.collect();
        let is_account_name =
            |name: &str| account_name::hash_under(key, &admin.tenant_id, name) == admin.name_hash.as_slice();
        let strong = password.require_strong(&words, is_account_name);
        only_field("password", strong.map(|()| password)).map_err(Error::Invalid)
    });
    checked.await.map_err(|_| Error::Hashing)?
}
