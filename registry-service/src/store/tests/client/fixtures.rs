//! Registries with clients, for tests of the store.

use super::*;

/// A store with the tenants `acme` and `globex`, and the scopes `a.read` and `a.write`.
pub(in crate::store) async fn seeded(url: &str) -> (Store, Arc<ManualClock>) {
    let (store, clock) = store(url).await;
    add_tenants(&store).await;
    for name in ["a.read", "a.write"] {
        let new = NewScope {
            name: ScopeName::parse(name).unwrap(),
            description: format!("allows {name}"),
        };
        store.create_scope(&creation("CreateScope"), new).await.unwrap();
    }
    (store, clock)
}

/// An operator: a new person, where the rule of two people asks for persons.
pub(super) async fn somebody(store: &Store, role: Role) -> Origin {
    if !store.second_operator {
        return origin();
    }
    let person = uuid::Uuid::new_v4().to_string();
    operator(store, &person, &[role], Some(&person)).await
}

/// An approved request for both tenants and both scopes, with these keys, of a client that authenticates in this way.
pub(super) async fn approved(
    store: &Store,
    json_web_key_set: &str,
    security: Security,
) -> IntegrationRequestId {
    approved_for(
        store,
        json_web_key_set,
        security,
        RequestedSecurityProfile::Unspecified,
    )
    .await
}

/// The same, of a client that follows this profile.
pub(in crate::store) async fn approved_for(
    store: &Store,
    json_web_key_set: &str,
    security: Security,
    security_profile: RequestedSecurityProfile,
) -> IntegrationRequestId {
    let new = NewIntegrationRequest {
        presentation: DisplayInfo {
            partner_name: "Partner".into(),
            display_name: "Contact Sync".into(),
            goals: "Keep contacts in step".into(),
        },
        contact_email: "dev@partner.example".into(),
        tenant_ids: ["acme", "globex"].map(|id| TenantId::parse(id).unwrap()).into(),
        scopes: ["a.read", "a.write"].map(requested).into(),
        redirect_uris: vec!["https://app.example/cb".into()],
        notes: String::new(),
        json_web_key_set: json_web_key_set.to_owned(),
        security,
        security_profile,
        amends: None,
    };
    let call = Creation {
        origin: somebody(store, Role::Registrar).await,
        ..creation("SubmitIntegrationRequest")
    };
    let submitted = store.submit_integration_request(&call, new).await.unwrap();
    let approver = somebody(store, Role::Approver).await;
    store
        .decide_integration_request(&approver, &submitted.integration_request_id, Decision::Approve)
        .await
        .unwrap()
        .integration_request_id
}

pub(in crate::store) fn requested(name: &str) -> RequestedScope {
    RequestedScope {
        name: ScopeName::parse(name).unwrap(),
        reason: format!("to use {name}"),
    }
}

/// Registers a client.
pub(in crate::store) async fn registered(store: &Store, delivery: Method) -> (Client, Handover) {
    registered_with_keys(store, delivery, "").await
}

/// Registers a client with these keys.
pub(in crate::store) async fn registered_with_keys(
    store: &Store,
    delivery: Method,
    json_web_key_set: &str,
) -> (Client, Handover) {
    let request_id = approved(store, json_web_key_set, Security::default()).await;
    let call = Creation {
        origin: somebody(store, Role::Registrar).await,
        ..creation("RegisterClient")
    };
    let registered = store.register_client(&call, &request_id, Some(delivery)).await;
    registered.unwrap()
}

/// Returns the secret or the claim token.
pub(in crate::store) fn text(handover: &Handover) -> &str {
    match handover {
        Handover::Bundle(bundle) => bundle.client_secret.as_ref().unwrap().expose(),
        Handover::Link(link) => link.claim_token.expose(),
    }
}
