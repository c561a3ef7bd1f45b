//! Which actions take something away, which give or create something, and what does each again.
//!
//! An action that no table names takes something away, so that one of a later version is listed.

/// Actions that take something away, and what does each again.
const TAKES: &[(&str, &str)] = &[
    // It may have named the first key of proofs, or begun the FAPI profile.
    ("client.amend", "SubmitIntegrationRequest, then AmendClient"),
    ("client.set_keys", "SetClientKeys"),
    ("client.suspend", "SuspendClient"),
    ("client.update", "UpdateClient"),
    ("client_secret.revoke", "RevokeClientSecret"),
    ("consent.change_allowed_networks", "ChangeAllowedNetworks"),
    ("consent.change_designated_user", "ChangeDesignatedUser"),
    ("consent.revoke", "RevokeConsent"),
    // A newer consent has taken its place, and is lost.
    ("consent.supersede", "RevokeConsent"),
    ("data_key.rotate", "rotate-data-key"),
    ("integration_request.reject", "RejectIntegrationRequest"),
    ("master_key.rotate", "rotate-master-key"),
    ("operator.revoke", "RevokeOperator"),
    ("scope.update", "UpdateScope"),
    ("tenant.suspend", "SuspendTenant"),
    ("tenant.update", "UpdateTenant"),
    ("user.deactivate", "DeactivateUser"),
    // The password of the copy counts.
    ("user.enrol", "ResetUserPassword"),
    ("user.reset_password", "ResetUserPassword"),
    ("workload.revoke", "RevokeWorkload"),
];

/// Actions of the table above that another one does again, or takes more away than.
pub(super) const DONE_BY_ANOTHER: &[(&str, &str)] = &[
    ("client.amend", "client.suspend"),
    ("client.set_keys", "client.suspend"),
    ("client.update", "client.suspend"),
    ("consent.change_allowed_networks", "consent.revoke"),
    ("consent.change_designated_user", "consent.revoke"),
    ("consent.supersede", "consent.revoke"),
    ("tenant.update", "tenant.suspend"),
    ("user.enrol", "user.reset_password"),
];

/// Actions that suspend their subject, and what lifts each again.
pub(super) const LIFTED_BY: &[(&str, &str)] = &[
    ("client.suspend", "client.reinstate"),
    ("tenant.suspend", "tenant.reinstate"),
    ("user.deactivate", "user.reactivate"),
];

/// Actions that give something, and what does each again.
const GIVES: &[(&str, &str)] = &[
    ("client.reinstate", "ReinstateClient"),
    ("consent.activate", "a new setup"),
    ("delivery.create", "CreateDelivery"),
    ("integration_request.approve", "ApproveIntegrationRequest"),
    ("integration_request.register", "RegisterClient"),
    ("tenant.reinstate", "ReinstateTenant"),
    ("user.reactivate", "ReactivateUser"),
];

/// Actions that create their subject, and what does each again. What was done to it later is lost with it.
const CREATES: &[(&str, &str)] = &[
    ("client.register", "RegisterClient"),
    ("client_secret.create", "CreateClientSecret"),
    ("consent.approve", "a new setup"),
    ("integration_request.submit", "SubmitIntegrationRequest"),
    ("operator.create", "CreateOperator"),
    ("scope.create", "CreateScope"),
    ("tenant.create", "CreateTenant"),
    ("user.register", "RegisterUser"),
    ("workload.create", "CreateWorkload"),
];

/// The action that creates a setup, which ends within the hour: nothing to do again, nor was what was decided on it.
const BEGINS: &str = "setup.start";

/// Actions that leave nothing to do: they concern what the new epoch ends, what lasts minutes, or the record itself.
const NEITHER: &[&str] = &[
    "admin_session.end",
    "admin_session.open",
    "audit_events.delete",
    "audit_log.request_resume",
    "audit_log.resume",
    "authorization_request.push",
    "code.reopen",
    // A setup lasts an hour.
    "consent.deny",
    "consent.repeat",
    "delivery.claim",
    "delivery.end",
    "delivery.release",
    "delivery.repeat",
    "epoch.end_links",
    "epoch.start",
    "refresh_token.repeat",
    "refresh_token.reuse",
    "secret.show_again",
    "signing_algorithms.report",
    "signing_key.create",
    "signing_key.replace_next",
    "signing_key.revoke",
    "signing_key.rotate",
    "token.issue",
    "token.revoke",
    "user.release_enrolment",
    "user.sign_in",
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
        let again = |table: &[(&str, &'static str)]| {
            let found = table.iter().find(|(of, _)| *of == action);
            found.map(|(_, again)| *again)
        };
        match (again(GIVES), again(CREATES)) {
            (Some(gives), _) => Self::Gives(gives),
            (None, Some(creates)) => Self::Creates(creates),
            (None, None) if action == BEGINS => Self::Begins,
            (None, None) if NEITHER.contains(&action) => Self::Neither,
            (None, None) => Self::Takes(again(TAKES)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn an_action_stands_in_one_table_and_an_unknown_one_takes_away() {
        let named = [TAKES, GIVES, CREATES]
            .into_iter()
            .flatten()
            .map(|(action, _)| *action);
        let all: Vec<_> = named.chain(NEITHER.iter().copied()).collect();
        let different: HashSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
        for (action, again) in DONE_BY_ANOTHER {
            assert!(matches!(Effect::of(action), Effect::Takes(Some(_))), "{action}");
            assert!(matches!(Effect::of(again), Effect::Takes(Some(_))), "{again}");
        }
        for (ends, lifts) in LIFTED_BY {
            assert!(matches!(Effect::of(ends), Effect::Takes(Some(_))), "{ends}");
            assert!(matches!(Effect::of(lifts), Effect::Gives(_)), "{lifts}");
        }
        assert_eq!(Effect::of("client.suspend"), Effect::Takes(Some("SuspendClient")));
        assert_eq!(Effect::of("client.reinstate"), Effect::Gives("ReinstateClient"));
        assert_eq!(Effect::of("token.issue"), Effect::Neither);
        assert_eq!(Effect::of(BEGINS), Effect::Begins);
        assert_eq!(Effect::of("client.of_a_later_version"), Effect::Takes(None));
    }
}
