//! The actions of audit events: names and help texts. Whoever records an event takes its action from here, so that this file is
//! the whole list. docs/OPERATIONS.md shows it.
//!
//! A name stays as it is: it is in stored events and in what people filter by.

/// An action, as `<resource>.<verb>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action(&'static str);

impl Action {
    /// Returns the name.
    pub const fn as_str(self) -> &'static str {
        self.0
    }

    /// Makes an action that only tests record.
    #[cfg(feature = "testing")]
    pub(super) const fn test(name: &'static str) -> Self {
        Self(name)
    }
}

/// Defines the constants and the list of all actions.
macro_rules! actions {
    ($($(#[doc = $help:literal])+ $constant:ident = $name:literal;)+) => {
        $($(#[doc = $help])+ pub const $constant: Action = Action($name);)+

        /// All actions with their help texts, in the order of this file.
        pub const ALL: &[(Action, &str)] = &[$(($constant, concat!($($help),+).trim_ascii())),+];
    };
}

actions! {
    /// Retention deleted the oldest events.
    AUDIT_EVENTS_DELETE = "audit_events.delete";
    /// An operator asked to let the record go on after a fault.
    AUDIT_LOG_REQUEST_RESUME = "audit_log.request_resume";
    /// Another person confirmed that, and a new log began.
    AUDIT_LOG_RESUME = "audit_log.resume";
    /// A call of an operator or a Tenant Admin was rejected, or one with a credential that is not accepted; with `count`, so many
    /// calls of a minute. Each event is REFUSED.
    CALL_REJECT = "call.reject";
    /// Rows of a change feed that somebody without the keys had written were removed, by a transaction without another event.
    CHANGES_REPAIR = "changes.repair";
    /// `rotate-data-key` added a version of a data key.
    DATA_KEY_ROTATE = "data_key.rotate";
    /// `migrate --new-epoch` began a new epoch in a database that was restored.
    EPOCH_START = "epoch.start";
    /// `rotate-master-key` wrapped the data keys by another master key.
    MASTER_KEY_ROTATE = "master_key.rotate";

    /// AmendClient applied an approved request to its client.
    CLIENT_AMEND = "client.amend";
    /// RegisterClient registered the client of an approved request.
    CLIENT_REGISTER = "client.register";
    /// ReinstateClient ended the suspension of a client.
    CLIENT_REINSTATE = "client.reinstate";
    /// SetClientKeys removed keys of a client.
    CLIENT_SET_KEYS = "client.set_keys";
    /// SuspendClient suspended a client.
    CLIENT_SUSPEND = "client.suspend";
    /// UpdateClient took something away from a client.
    CLIENT_UPDATE = "client.update";
    /// CreateClientSecret created another secret.
    CLIENT_SECRET_CREATE = "client_secret.create";
    /// RevokeClientSecret revoked a secret.
    CLIENT_SECRET_REVOKE = "client_secret.revoke";
    /// Somebody opened a one-time link to credentials. REFUSED: it was opened before or has ended, or the release code was
    /// missing or wrong.
    DELIVERY_CLAIM = "delivery.claim";
    /// CreateDelivery created a one-time link to a new secret.
    DELIVERY_CREATE = "delivery.create";
    /// A link ended before anybody opened it, and its secret with it.
    DELIVERY_END = "delivery.end";
    /// ReleaseDelivery released a link.
    DELIVERY_RELEASE = "delivery.release";
    /// The call that opened a link came again within a minute, and got the same secret.
    DELIVERY_REPEAT = "delivery.repeat";
    /// `migrate --new-epoch` ended links that were not used.
    EPOCH_END_LINKS = "epoch.end_links";
    /// ApproveIntegrationRequest approved a request.
    INTEGRATION_REQUEST_APPROVE = "integration_request.approve";
    /// RejectIntegrationRequest rejected a request.
    INTEGRATION_REQUEST_REJECT = "integration_request.reject";
    /// SubmitIntegrationRequest submitted a request.
    INTEGRATION_REQUEST_SUBMIT = "integration_request.submit";
    /// CreateOperator or the command line created an operator.
    OPERATOR_CREATE = "operator.create";
    /// RevokeOperator revoked an operator.
    OPERATOR_REVOKE = "operator.revoke";
    /// CreateScope created a scope.
    SCOPE_CREATE = "scope.create";
    /// UpdateScope changed a scope.
    SCOPE_UPDATE = "scope.update";
    /// A creating call came again with its `request_id` (detail `method`), and its response held the same secret.
    SECRET_SHOW_AGAIN = "secret.show_again";
    /// token-service reported by which algorithms it signs.
    SIGNING_ALGORITHMS_REPORT = "signing_algorithms.report";
    /// CreateTenant created a tenant.
    TENANT_CREATE = "tenant.create";
    /// ReinstateTenant ended the suspension of a tenant.
    TENANT_REINSTATE = "tenant.reinstate";
    /// SuspendTenant suspended a tenant.
    TENANT_SUSPEND = "tenant.suspend";
    /// UpdateTenant changed a tenant.
    TENANT_UPDATE = "tenant.update";
    /// DeactivateUser deactivated a user.
    USER_DEACTIVATE = "user.deactivate";
    /// A Tenant Admin set a password by a one-time link. REFUSED: it was used before or has ended, or the release code was
    /// missing or wrong.
    USER_ENROL = "user.enrol";
    /// ReactivateUser reactivated a user.
    USER_REACTIVATE = "user.reactivate";
    /// RegisterUser registered a user.
    USER_REGISTER = "user.register";
    /// ReleaseEnrolment released a link to set a password.
    USER_RELEASE_ENROLMENT = "user.release_enrolment";
    /// ResetUserPassword ended the password of a Tenant Admin, and created a link to set another one.
    USER_RESET_PASSWORD = "user.reset_password";
    /// A Tenant Admin's account name and password were checked. REFUSED: they were not accepted.
    USER_SIGN_IN = "user.sign_in";
    /// CreateWorkload or the command line created a workload.
    WORKLOAD_CREATE = "workload.create";
    /// RevokeWorkload revoked a workload.
    WORKLOAD_REVOKE = "workload.revoke";

    /// A Tenant Admin signed out, or may no longer act (detail `reason`).
    ADMIN_SESSION_END = "admin_session.end";
    /// A Tenant Admin signed in. REFUSED: account name and password were not accepted.
    ADMIN_SESSION_OPEN = "admin_session.open";
    /// A client pushed an authorization request.
    AUTHORIZATION_REQUEST_PUSH = "authorization_request.push";
    /// A client's assertion came that was used before. Each event is REFUSED.
    CLIENT_ASSERTION_REUSE = "client_assertion.reuse";
    /// A credential was right, and its use was not. Each event is REFUSED.
    CLIENT_CREDENTIAL_REFUSE = "client_credential.refuse";
    /// A code came with the proof of another key, or with a wrong verifier or redirect URI. Each event is REFUSED.
    CODE_REFUSE = "code.refuse";
    /// A code whose answer was lost may be used again.
    CODE_REOPEN = "code.reopen";
    /// A code came that was used before; its refresh tokens ended. Each event is REFUSED.
    CODE_REPLAY = "code.replay";
    /// A client redeemed the code of a consent, which counts from then on.
    CONSENT_ACTIVATE = "consent.activate";
    /// A Tenant Admin approved a setup; the consent waits for its code to be redeemed.
    CONSENT_APPROVE = "consent.approve";
    /// A Tenant Admin changed the networks that a client may call from.
    CONSENT_CHANGE_ALLOWED_NETWORKS = "consent.change_allowed_networks";
    /// A Tenant Admin changed the user whose permissions API transactions use.
    CONSENT_CHANGE_DESIGNATED_USER = "consent.change_designated_user";
    /// A Tenant Admin denied a setup.
    CONSENT_DENY = "consent.deny";
    /// The call that approved a setup came again, and got the same code.
    CONSENT_REPEAT = "consent.repeat";
    /// A Tenant Admin or an operator revoked a consent.
    CONSENT_REVOKE = "consent.revoke";
    /// A newer consent of the same client took the place of a consent.
    CONSENT_SUPERSEDE = "consent.supersede";
    /// A proof came of another key than those of the client's `dpop_jkts`, or none came. Each event is REFUSED.
    DPOP_KEY_REFUSE = "dpop_key.refuse";
    /// A pushed request came without a right proof. Each event is REFUSED.
    PUSHED_REQUEST_REFUSE = "pushed_request.refuse";
    /// The newest refresh token came again within 30 s, and was answered again.
    REFRESH_TOKEN_REPEAT = "refresh_token.repeat";
    /// A refresh token came that was used up; all of its family ended. Each event is REFUSED.
    REFRESH_TOKEN_REUSE = "refresh_token.reuse";
    /// A setup began.
    SETUP_START = "setup.start";
    /// A first signing key was created.
    SIGNING_KEY_CREATE = "signing_key.create";
    /// RotateSigningKey put a key of another algorithm in the place of the next one.
    SIGNING_KEY_REPLACE_NEXT = "signing_key.replace_next";
    /// RevokeSigningKey or `migrate --new-epoch` revoked a signing key.
    SIGNING_KEY_REVOKE = "signing_key.revoke";
    /// RotateSigningKey or the schedule made the next signing key the active one.
    SIGNING_KEY_ROTATE = "signing_key.rotate";
    /// An access token was issued; its `jti` is the id of the event.
    TOKEN_ISSUE = "token.issue";
    /// A token request came from outside of the networks, or without a right proof. Each event is REFUSED.
    TOKEN_REFUSE = "token.refuse";
    /// A client revoked one of its tokens.
    TOKEN_REVOKE = "token.revoke";
    /// A live access token was introspected whose bearer may not use it. Each event is REFUSED.
    TOKEN_USE_REFUSE = "token_use.refuse";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_and_help_texts_have_one_form() {
        let mut names = HashSet::new();
        for (action, help) in ALL {
            let name = action.as_str();
            assert!(names.insert(name), "{name} twice");
            let parts = name.split_once('.').map(|(resource, verb)| [resource, verb]);
            let is_word =
                |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            assert!(
                parts.is_some_and(|parts| parts.into_iter().all(is_word)),
                "{name}"
            );
            assert!(help.ends_with('.') && !help.contains('\n'), "{name}: {help}");
        }
    }
}
