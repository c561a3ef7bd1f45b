//! What an amendment makes of a client.

#![allow(clippy::unwrap_used)]

use accord::{
    clock::UnixMillis,
    random::SystemRandom,
    testing::test_clock,
    text::id::{ClientId, IntegrationRequestId, ScopeName, TenantId},
};

use super::*;
use crate::model::{
    client::{Added, State, security::Security},
    integration_request::{Amends, DisplayInfo, RequestedScope, RequestedSecurityProfile},
};

fn scope(name: &str, reason: &str) -> RequestedScope {
    RequestedScope {
        name: ScopeName::parse(name).unwrap(),
        reason: reason.into(),
    }
}

fn tenant(id: &str) -> TenantId {
    TenantId::parse(id).unwrap()
}

fn key(kid: &str) -> String {
    let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    format!(r#"{{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","kid":"{kid}","x":"{x}"}}"#)
}

fn keys(kids: &[&str]) -> String {
    let keys: Vec<_> = kids.iter().map(|kid| key(kid)).collect();
    let parsed = ClientKeys::parse(&format!(r#"{{"keys":[{}]}}"#, keys.join(",")));
    parsed.unwrap().as_str().to_owned()
}

fn client() -> Client {
    let (clock, random) = (test_clock(), SystemRandom);
    Client {
        client_id: ClientId::generate(&*clock, &random),
        integration_request_id: IntegrationRequestId::generate(&*clock, &random),
        presentation: DisplayInfo {
            partner_name: "Partner".into(),
            display_name: "Contact Sync".into(),
            goals: "Keep contacts in step".into(),
        },
        tenant_ids: vec![tenant("acme")],
        scopes: vec![scope("a.read", "to read")],
        added: Added::default(),
        redirect_uris: vec!["https://app.example/cb".into()],
        state: State::Active,
        version: 1,
        tokens_ended_seq: 0,
        families_ended_seq: 0,
        created_at: UnixMillis::from_millis(0),
        updated_at: UnixMillis::from_millis(0),
        etag: 7,
        json_web_key_set: keys(&["one"]),
        security: Security::default(),
        fapi_from: None,
    }
}

const NOW: UnixMillis = UnixMillis::from_millis(1_000);

fn amended(client: &Client, request: &NewIntegrationRequest) -> Result<ClientUpdate, Violations> {
    super::amended(client, request, NOW)
}

/// An amendment that adds nothing.
fn request() -> NewIntegrationRequest {
    NewIntegrationRequest {
        presentation: DisplayInfo {
            partner_name: String::new(),
            display_name: String::new(),
            goals: String::new(),
        },
        contact_email: String::new(),
        tenant_ids: Vec::new(),
        scopes: Vec::new(),
        redirect_uris: Vec::new(),
        notes: String::new(),
        json_web_key_set: String::new(),
        security: Security::default(),
        security_profile: RequestedSecurityProfile::Unspecified,
        amends: Some(Amends {
            client_id: client().client_id,
            etag: 7,
        }),
    }
}

fn fields(result: Result<ClientUpdate, Violations>) -> Vec<String> {
    let violations = result.err().unwrap_or_default().into_vec();
    violations.into_iter().map(|violation| violation.field).collect()
}

#[test]
fn an_amendment_adds_to_what_the_client_has() {
    let amendment = NewIntegrationRequest {
        presentation: DisplayInfo {
            display_name: "New name".into(),
            ..request().presentation
        },
        tenant_ids: ["acme", "globex"].map(tenant).into(),
        scopes: vec![scope("a.write", "to write"), scope("a.read", "to read more")],
        redirect_uris: vec![
            "https://app.example/other".into(),
            "https://app.example/cb".into(),
        ],
        json_web_key_set: keys(&["one", "two"]),
        ..request()
    };
    let update = amended(&client(), &amendment).unwrap();
    assert_eq!(update.display_name.as_deref(), Some("New name"));
    assert_eq!(update.tenant_ids.unwrap(), ["acme", "globex"].map(tenant));
    assert_eq!(
        update.scopes.unwrap(),
        [scope("a.read", "to read more"), scope("a.write", "to write")]
    );
    let uris = update.redirect_uris.unwrap();
    assert_eq!(uris, ["https://app.example/cb", "https://app.example/other"]);
    assert_eq!(update.json_web_key_set.unwrap(), keys(&["one", "two"]));
}

#[test]
fn an_amendment_leaves_alone_what_it_does_not_name() {
    let amendment = NewIntegrationRequest {
        json_web_key_set: keys(&["two"]),
        ..request()
    };
    let update = amended(&client(), &amendment).unwrap();
    assert_eq!(update.json_web_key_set.as_ref(), Some(&keys(&["one", "two"])));
    assert!(!update.is_shown() && !update.narrows(&client()));
}

#[test]
fn an_amendment_adds_something_but_not_too_much() {
    assert_eq!(fields(amended(&client(), &request())), ["client_id"]);
    let same = NewIntegrationRequest {
        presentation: client().presentation,
        tenant_ids: client().tenant_ids,
        scopes: client().scopes,
        redirect_uris: client().redirect_uris,
        json_web_key_set: client().json_web_key_set,
        ..request()
    };
    assert_eq!(fields(amended(&client(), &same)), ["client_id"]);
    let kids: Vec<_> = (0..10).map(|n| n.to_string()).collect();
    let too_much = NewIntegrationRequest {
        presentation: DisplayInfo {
            partner_name: "Somebody else".into(),
            ..request().presentation
        },
        tenant_ids: (0..MAX_REFERENCES)
            .map(|n| tenant(&format!("tenant-{n}")))
            .collect(),
        scopes: (0..MAX_REFERENCES)
            .map(|n| scope(&format!("{n:0>40}"), "why"))
            .collect(),
        redirect_uris: (0..MAX_REDIRECT_URIS)
            .map(|n| format!("https://app.example/{n}"))
            .collect(),
        json_web_key_set: keys(&kids.iter().map(String::as_str).collect::<Vec<_>>()),
        ..request()
    };
    assert_eq!(
        fields(amended(&client(), &too_much)),
        [
            "partner_name",
            "json_web_key_set.keys",
            "tenant_ids",
            "scopes",
            "redirect_uris",
            "scopes"
        ]
    );
    let almost = NewIntegrationRequest {
        presentation: request().presentation,
        tenant_ids: too_much.tenant_ids[1..].into(),
        scopes: too_much.scopes[..60].into(),
        redirect_uris: too_much.redirect_uris[1..].into(),
        json_web_key_set: keys(&kids[1..].iter().map(String::as_str).collect::<Vec<_>>()),
        ..request()
    };
    assert!(amended(&client(), &almost).is_ok());
}

#[test]
fn an_update_of_an_operator_adds_and_rewords_nothing() {
    let client = Client {
        tenant_ids: ["acme", "globex"].map(tenant).into(),
        scopes: vec![scope("a.read", "to read"), scope("a.write", "to write")],
        redirect_uris: vec![
            "https://app.example/cb".into(),
            "https://app.example/other".into(),
        ],
        ..client()
    };
    let narrower = ClientUpdate {
        tenant_ids: Some(vec![tenant("globex")]),
        scopes: Some(vec![scope("a.write", "to write")]),
        redirect_uris: Some(vec!["https://app.example/other".into()]),
        ..ClientUpdate::default()
    };
    assert!(narrower.require_narrowing(&client, "client.").is_ok());
    let wider = ClientUpdate {
        tenant_ids: Some(["acme", "initech"].map(tenant).into()),
        scopes: Some(vec![
            scope("a.read", "another reason"),
            scope("b.read", "to read"),
        ]),
        redirect_uris: Some(vec!["https://app.example/cb?".into()]),
        ..ClientUpdate::default()
    };
    let refused = wider
        .require_narrowing(&client, "client.")
        .map(|()| ClientUpdate::default());
    assert_eq!(
        fields(refused),
        [
            "client.tenant_ids[1]",
            "client.scopes[0].reason",
            "client.scopes[1].name",
            "client.redirect_uris[0]",
        ]
    );
}

#[test]
fn lists_in_another_order_change_nothing() {
    let list = |elements: [&str; 2]| elements.map(str::to_owned).to_vec();
    let client = Client {
        tenant_ids: vec![tenant("acme"), tenant("globex")],
        scopes: vec![scope("a.write", "to write"), scope("a.read", "to read")],
        redirect_uris: list(["https://app.example/cb", "https://app.example/a"]),
        security: Security {
            dpop_jkts: list(["b", "a"]),
            ..Security::default()
        },
        ..client()
    };
    let update = ClientUpdate {
        tenant_ids: Some(vec![tenant("globex"), tenant("acme")]),
        scopes: Some(vec![scope("a.read", "to read"), scope("a.write", "to write")]),
        redirect_uris: Some(list(["https://app.example/a", "https://app.example/cb"])),
        dpop_jkts: Some(list(["a", "b"])),
        ..ClientUpdate::default()
    };
    assert!(update.clone().effective(&client).is_none());
    let reworded = ClientUpdate {
        scopes: Some(vec![
            scope("a.read", "to read more"),
            scope("a.write", "to write"),
        ]),
        ..update
    };
    let effective = reworded.effective(&client).unwrap();
    assert!(effective.scopes.is_some());
    assert!(effective.tenant_ids.is_none() && effective.redirect_uris.is_none());
    assert!(effective.dpop_jkts.is_none());
}
