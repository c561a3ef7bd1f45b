//! Which actions take something away, which give or create something, and what does each again.
//!
//! What was refused changed nothing. An action that no table names takes something away, so that one of a later version is listed.

use accord::store::audit::action::{self, Action};

/// Actions that take something away, and what does each again.
const TAKES: &[(Action, &str)] = &[
    // It may have named the first key of proofs, or begun the FAPI profile.
    (action::CLIENT_AMEND, "SubmitIntegrationRequest, then AmendClient"),
    (action::CLIENT_SET_KEYS, "SetClientKeys"),
    (action::CLIENT_SUSPEND, "SuspendClient"),
    (action::CLIENT_UPDATE, "UpdateClient"),
    (action::CLIENT_SECRET_REVOKE, "RevokeClientSecret"),
    (action::CONSENT_CHANGE_ALLOWED_NETWORKS, "ChangeAllowedNetworks"),
    (action::CONSENT_CHANGE_DESIGNATED_USER, "ChangeDesignatedUser"),
    (action::CONSENT_REVOKE, "RevokeConsent"),
    // A newer consent has taken its place, and is lost.
    (action::CONSENT_SUPERSEDE, "RevokeConsent"),
    (action::DATA_KEY_ROTATE, "rotate-data-key"),
    (action::INTEGRATION_REQUEST_REJECT, "RejectIntegrationRequest"),
    (action::MASTER_KEY_ROTATE, "rotate-master-key"),
    (action::OPERATOR_REVOKE, "RevokeOperator"),
    (action::SCOPE_UPDATE, "UpdateScope"),
    (action::TENANT_SUSPEND, "SuspendTenant"),
    (action::TENANT_UPDATE, "UpdateTenant"),
    (action::USER_DEACTIVATE, "DeactivateUser"),
    // The password of the copy counts.
    (action::USER_ENROL, "ResetUserPassword"),
    (action::USER_RESET_PASSWORD, "ResetUserPassword"),
    (action::WORKLOAD_REVOKE, "RevokeWorkload"),
];

/// Actions of the table above that another one does again, or takes more away than.
pub(super) const DONE_BY_ANOTHER: &[(Action, Action)] = &[
    (action::CLIENT_AMEND, action::CLIENT_SUSPEND),
    (action::CLIENT_SET_KEYS, action::CLIENT_SUSPEND),
    (action::CLIENT_UPDATE, action::CLIENT_SUSPEND),
    (action::CONSENT_CHANGE_ALLOWED_NETWORKS, action::CONSENT_REVOKE),
    (action::CONSENT_CHANGE_DESIGNATED_USER, action::CONSENT_REVOKE),
    (action::CONSENT_SUPERSEDE, action::CONSENT_REVOKE),
    (action::TENANT_UPDATE, action::TENANT_SUSPEND),
    (action::USER_ENROL, action::USER_RESET_PASSWORD),
];

/// Actions that suspend their subject, and what lifts each again.
pub(super) const LIFTED_BY: &[(Action, Action)] = &[
    (action::CLIENT_SUSPEND, action::CLIENT_REINSTATE),
    (action::TENANT_SUSPEND, action::TENANT_REINSTATE),
    (action::USER_DEACTIVATE, action::USER_REACTIVATE),
];

/// Actions that give something, and what does each again.
const GIVES: &[(Action, &str)] = &[
    (action::CLIENT_REINSTATE, "ReinstateClient"),
    (action::CONSENT_ACTIVATE, "a new setup"),
    (action::DELIVERY_CREATE, "CreateDelivery"),
    (action::INTEGRATION_REQUEST_APPROVE, "ApproveIntegrationRequest"),
    (action::TENANT_REINSTATE, "ReinstateTenant"),
    (action::USER_REACTIVATE, "ReactivateUser"),
];

/// Actions that create their subject, and what does each again. What was done to it later is lost with it.
const CREATES: &[(Action, &str)] = &[
    (action::CLIENT_REGISTER, "RegisterClient"),
    (action::CLIENT_SECRET_CREATE, "CreateClientSecret"),
    (action::CONSENT_APPROVE, "a new setup"),
    (action::INTEGRATION_REQUEST_SUBMIT, "SubmitIntegrationRequest"),
    (action::OPERATOR_CREATE, "CreateOperator"),
    (action::SCOPE_CREATE, "CreateScope"),
    (action::TENANT_CREATE, "CreateTenant"),
    (action::USER_REGISTER, "RegisterUser"),
    (action::WORKLOAD_CREATE, "CreateWorkload"),
];

/// The action that creates a setup, which ends within the hour: nothing to do again, nor was what was decided on it.
const BEGINS: Action = action::SETUP_START;

/// Actions that leave nothing to do: they concern what the new epoch ends, what lasts minutes, or the record itself.
const NEITHER: &[Action] = &[
    action::ADMIN_SESSION_END,
    action::ADMIN_SESSION_OPEN,
    action::AUDIT_EVENTS_DELETE,
    action::AUDIT_LOG_REQUEST_RESUME,
    action::AUDIT_LOG_RESUME,
    action::AUTHORIZATION_REQUEST_PUSH,
    action::CHANGES_REPAIR,
    action::CODE_REOPEN,
    // A setup lasts an hour.
    action::CONSENT_DENY,
    action::CONSENT_REPEAT,
    action::DELIVERY_CLAIM,
    action::DELIVERY_END,
    action::DELIVERY_RELEASE,
    action::DELIVERY_REPEAT,
    action::EPOCH_END_LINKS,
    action::EPOCH_START,
    action::REFRESH_TOKEN_REPEAT,
    action::SECRET_SHOW_AGAIN,
    action::SIGNING_ALGORITHMS_REPORT,
    action::SIGNING_KEY_CREATE,
    action::SIGNING_KEY_REPLACE_NEXT,
    action::SIGNING_KEY_REVOKE,
    action::SIGNING_KEY_ROTATE,
    action::TOKEN_ISSUE,
    action::TOKEN_REVOKE,
    action::USER_RELEASE_ENROLMENT,
    action::USER_SIGN_IN,
];

/// What an event did to what people may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// It took something away. With what does it again, unless this version does not know the action.
    Takes(Option<&'static str>),
    Gives(&'static str),
    Creates(&'static str),
    Begins,
    Neither,
}

impl Effect {
    pub(super) fn of(action: &str) -> Self {
        let again = |table: &[(Action, &'static str)]| {
            let found = table.iter().find(|(of, _)| of.as_str() == action);
            found.map(|(_, again)| *again)
        };
        match (again(GIVES), again(CREATES)) {
            (Some(gives), _) => Self::Gives(gives),
            (None, Some(creates)) => Self::Creates(creates),
            (None, None) if action == BEGINS.as_str() => Self::Begins,
            (None, None) if NEITHER.iter().any(|of| of.as_str() == action) => Self::Neither,
            (None, None) => Self::Takes(again(TAKES)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_stands_in_one_table_unless_it_is_always_refused() {
        let named = [TAKES, GIVES, CREATES].into_iter().flatten();
        let named = named.map(|(action, _)| action).chain(NEITHER).chain([&BEGINS]);
        let named: Vec<_> = named.collect();
        for (action, help) in action::ALL {
            let is_always_refused = help.ends_with("Each event is REFUSED.");
            let tables = named.iter().filter(|named| **named == action).count();
            assert_eq!(tables, usize::from(!is_always_refused), "{action:?}");
        }
    }

    #[test]
    fn an_action_has_the_effect_of_its_table_and_an_unknown_one_takes_away() {
        for action in DONE_BY_ANOTHER.iter().flat_map(|(of, other)| [of, other]) {
            let effect = Effect::of(action.as_str());
            assert!(matches!(effect, Effect::Takes(Some(_))), "{action:?}");
        }
        for (ends, lifts) in LIFTED_BY {
            let (ends, lifts) = (ends.as_str(), lifts.as_str());
            assert!(matches!(Effect::of(ends), Effect::Takes(Some(_))), "{ends}");
            assert!(matches!(Effect::of(lifts), Effect::Gives(_)), "{lifts}");
        }
        assert_eq!(Effect::of("client.suspend"), Effect::Takes(Some("SuspendClient")));
        assert_eq!(Effect::of("client.reinstate"), Effect::Gives("ReinstateClient"));
        assert_eq!(Effect::of("token.issue"), Effect::Neither);
        assert_eq!(Effect::of(BEGINS.as_str()), Effect::Begins);
        assert_eq!(Effect::of("client.of_a_later_version"), Effect::Takes(None));
    }
}
