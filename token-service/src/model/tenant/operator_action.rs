//! What operators did to a tenant, as its Tenant Admins see it.

use accord::text::id::EventId;

/// What an operator did. It holds no facts of another tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorAction {
    /// The id of its event, which holds its time.
    pub event_id: EventId,
    /// The action, as `<resource>.<verb>`.
    pub action: String,
    /// The operator.
    pub operator_id: String,
    /// Why, in the operator's words; empty if no reason was given.
    pub reason: String,
    /// The id of what it was done to; empty if none.
    pub subject: String,
    /// The client concerned; empty if none.
    pub client_id: String,
    /// Whether it was refused.
    pub is_refused: bool,
    /// The fields that an update set.
    pub changed_fields: Vec<String>,
    /// Whether it takes two persons, and one may have been behind both.
    pub is_single_person: bool,
}

impl OperatorAction {
    /// Says in plain words what was done.
    pub fn description(&self) -> String {
        let done = match self.action.as_str() {
            "tenant.create" => "Created this organisation",
            "tenant.update" => "Changed this organisation",
            "tenant.suspend" => "Suspended this organisation: no integration has access",
            "tenant.reinstate" => "Ended the suspension of this organisation",
            "user.register" => "Registered a user",
            "user.deactivate" => "Deactivated a user",
            "user.reactivate" => "Reactivated a user",
            "user.reset_password" => "Created a link to reset a user’s password",
            "user.release_enrolment" => "Released a link to set a user’s password",
            "client.register" => "Registered an integration that may ask for access",
            "client.amend" => "Extended or changed an integration by an approved request",
            "client.update" => "Took something away from an integration",
            "client.set_keys" => "Removed keys of an integration",
            "client.suspend" => "Suspended an integration",
            "client.reinstate" => "Ended the suspension of an integration",
            "client_secret.create" => "Created a secret of an integration",
            "client_secret.revoke" => "Revoked a secret of an integration",
            "delivery.create" => "Created a link to a secret of an integration",
            "delivery.release" => "Released a link to a secret of an integration",
            "delivery.end" => "Ended a link to a secret of an integration",
            "integration_request.submit" => "Submitted a request for an integration",
            "integration_request.approve" => "Approved a request for an integration",
            "consent.revoke" => "Revoked the access of an integration",
            other => other,
        };
        let mut text = done.to_owned();
        let fields: Vec<_> = self.changed_fields.iter().map(|name| field(name)).collect();
        if !fields.is_empty() {
            text = format!("{text} ({})", fields.join(", "));
        }
        if self.is_single_person {
            text = format!("{text}, perhaps without a second person");
        }
        if self.is_refused {
            text = format!("Refused attempt: {text}");
        }
        text
    }
}

/// Says in plain words what a field of an update is.
fn field(name: &str) -> &str {
    match name {
        "allowed_networks" => "the networks it may connect from",
        "cloud_api_url" => "the URL of the Cloud API",
        "display_name" => "the name",
        "dpop_jkts" => "the keys its access is bound to",
        "json_web_key_set" | "jwks_uri" => "the keys",
        "redirect_uris" => "the redirect URIs",
        "scopes" => "the permissions it may ask for",
        "security_profile" => "the security profile",
        "tls_client_auth" => "the certificate",
        "token_endpoint_auth_method" => "how it proves who it is",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use accord::store::audit::action;

    use super::*;

    fn action(name: &str, changed: &[&str], is_refused: bool) -> String {
        of(name, changed, is_refused).description()
    }

    fn of(name: &str, changed: &[&str], is_refused: bool) -> OperatorAction {
        OperatorAction {
            event_id: EventId::parse("01kdvdna00000000000000000b").unwrap(),
            action: name.to_owned(),
            operator_id: "opr_1".to_owned(),
            reason: String::new(),
            subject: String::new(),
            client_id: String::new(),
            is_refused,
            changed_fields: changed.iter().map(|name| (*name).to_owned()).collect(),
            is_single_person: false,
        }
    }

    #[test]
    fn what_operators_do_to_a_tenant_is_told_in_plain_words() {
        // Of these resources operators change what a tenant has.
        let resources = [
            "tenant",
            "user",
            "client",
            "client_secret",
            "delivery",
            "integration_request",
        ];
        // No operator does these, and a rejected request concerns no tenant yet.
        let others = [
            action::DELIVERY_CLAIM,
            action::DELIVERY_REPEAT,
            action::INTEGRATION_REQUEST_REJECT,
            action::USER_ENROL,
            action::USER_SIGN_IN,
        ];
        let mut told = vec![action::CONSENT_REVOKE];
        told.extend(action::ALL.iter().map(|(action, _)| *action).filter(|action| {
            let resource = action.as_str().split_once('.').unwrap().0;
            resources.contains(&resource) && !others.contains(action)
        }));
        for (known, _) in action::ALL {
            let text = of(known.as_str(), &[], false).description();
            assert_eq!(text != known.as_str(), told.contains(known), "{known:?}");
        }
    }

    #[test]
    fn an_action_is_told_in_plain_words() {
        assert_eq!(
            action("tenant.update", &["cloud_api_url"], false),
            "Changed this organisation (the URL of the Cloud API)"
        );
        assert_eq!(
            action("client.suspend", &[], true),
            "Refused attempt: Suspended an integration"
        );
        let approved = OperatorAction {
            is_single_person: true,
            ..of("integration_request.approve", &[], false)
        };
        assert_eq!(
            approved.description(),
            "Approved a request for an integration, perhaps without a second person"
        );
        // A newer registry may record more than this service knows.
        assert_eq!(action("client.rename", &["more"], false), "client.rename (more)");
    }
}
