//! Clients that authenticate by a key or a certificate, are limited to keys and networks, or follow a profile.

mod profile;

use accord::registry::v1::provisioning_service_client::ProvisioningServiceClient;
use prost_types::FieldMask;
use tonic_types::StatusExt;

use super::*;
use crate::{
    harness::{request_id, submission},
    integration_request::security::KEYS,
};

const JKTS: [&str; 3] = [
    "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I",
    "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
    "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
];

fn by_key() -> pb::SubmitIntegrationRequestRequest {
    pb::SubmitIntegrationRequestRequest {
        token_endpoint_auth_method: "private_key_jwt".into(),
        json_web_key_set: KEYS.into(),
        ..submission(&["acme"], &["contacts.read"])
    }
}

/// Registers the client of a request, which gets no secret. Returns its bundle, too.
async fn registered_without_secret(
    harness: &Harness,
    request: pb::SubmitIntegrationRequestRequest,
) -> (pb::Client, pb::CredentialBundle) {
    let id = harness.approved(request).await;
    let call = register(&id, DeliveryMethod::Unspecified);
    let answer = ok(client(harness).register_client(call).await);
    match answer.credentials.unwrap() {
        Credentials::Bundle(bundle) => (answer.client.unwrap(), bundle),
        Credentials::DeliveryLink(_) => panic!("there is nothing secret"),
    }
}

fn update(client: &pb::Client, mask: &[&str]) -> pb::UpdateClientRequest {
    pb::UpdateClientRequest {
        client: Some(client.clone()),
        update_mask: Some(FieldMask {
            paths: mask.iter().map(ToString::to_string).collect(),
        }),
    }
}

#[tokio::test]
async fn a_client_with_a_key_gets_no_secret() {
    for harness in [
        Harness::start().await,
        Harness::start_with_second_operator().await,
    ] {
        seed(&harness).await;
        let id = harness.approved(by_key()).await;
        let mut shown = Vec::new();
        for delivery in [DeliveryMethod::Link, DeliveryMethod::Inline] {
            let id = match delivery {
                DeliveryMethod::Link => id.clone(),
                _ => harness.approved(by_key()).await,
            };
            let call = pb::RegisterClientRequest {
                request_id: request_id(),
                ..register(&id, delivery)
            };
            let first = ok(client(&harness).register_client(call.clone()).await);
            let Some(Credentials::Bundle(bundle)) = first.credentials.clone() else {
                panic!("{delivery:?}")
            };
            assert_eq!(bundle.client_secret, "");
            assert_eq!(bundle.endpoints.len(), 1);
            assert_eq!(
                bundle.endpoints[0].tenant_authority_url,
                format!("{PUBLIC_BASE_URL}/acme")
            );
            // The same call again.
            assert_eq!(ok(client(&harness).register_client(call).await), first);
            let registered = first.client.unwrap();
            assert_eq!(registered.client_id, bundle.client_id);
            assert_eq!(registered.token_endpoint_auth_method, "private_key_jwt");
            assert!(secrets(&harness, &registered.client_id).await.is_empty());
            assert_eq!(get(&harness, &registered.client_id).await, registered);
            shown.push(registered);
        }
        let client_id = shown.remove(0).client_id;
        let profile = profile(&harness, &client_id).await;
        assert_eq!(profile.token_endpoint_auth_method, "private_key_jwt");
        assert!(profile.live_secrets.is_empty());
        // Nor later.
        let creating = pb::CreateClientSecretRequest {
            client_id: client_id.clone(),
            delivery: DeliveryMethod::Link.into(),
            ..Default::default()
        };
        assert_violations(
            client(&harness).create_client_secret(creating).await,
            &["client_id"],
        );
        let creating = pb::CreateDeliveryRequest {
            client_id: client_id.clone(),
            ..Default::default()
        };
        let mut provisioning = ProvisioningServiceClient::new(harness.operator(Role::Registrar));
        assert_violations(provisioning.create_delivery(creating).await, &["client_id"]);
        assert!(secrets(&harness, &client_id).await.is_empty());
        let event = harness.audit_events("client.register").await.remove(0);
        assert!(event.detail["security"].contains("private_key_jwt"));
        assert!(!event.detail.contains_key("secret_id"));
    }
}

#[tokio::test]
async fn a_client_that_authenticates_by_its_keys_keeps_one() {
    let harness = seeded().await;
    let (registered, _) = registered_without_secret(&harness, by_key()).await;
    let without = pb::SetClientKeysRequest {
        client_id: registered.client_id.clone(),
        json_web_key_set: String::new(),
    };
    let refused = client(&harness).set_client_keys(without).await;
    assert_violations(refused, &["json_web_key_set"]);
    assert_eq!(get(&harness, &registered.client_id).await, registered);
}

#[tokio::test]
async fn token_service_learns_how_a_client_authenticates_and_what_limits_it() {
    let harness = seeded().await;
    let request = pb::SubmitIntegrationRequestRequest {
        token_endpoint_auth_method: "tls_client_auth".into(),
        tls_client_auth_san_ip: "192.0.2.7".into(),
        json_web_key_set: String::new(),
        jwks_uri: "https://partner.example/jwks".into(),
        dpop_jkts: vec![JKTS[0].into()],
        allowed_networks: vec!["192.0.2.0/24".into()],
        security_profile: pb::SecurityProfile::Fapi20.into(),
        ..by_key()
    };
    let (registered, _) = registered_without_secret(&harness, request).await;
    let profile = profile(&harness, &registered.client_id).await;
    assert_eq!(profile.token_endpoint_auth_method, "tls_client_auth");
    assert_eq!(profile.tls_client_auth_san_ip, "192.0.2.7");
    assert_eq!(profile.jwks_uri, "https://partner.example/jwks");
    assert_eq!(profile.dpop_jkts, [JKTS[0]]);
    assert_eq!(profile.allowed_networks, ["192.0.2.0/24"]);
    assert_eq!(profile.security_profile(), pb::SecurityProfile::Fapi20);
    assert_eq!(profile.profile_start_time, registered.create_time);
    assert_eq!(registered.profile_start_time, registered.create_time);
    assert_eq!(registered.allowed_networks, profile.allowed_networks);
    assert_eq!(registered.tls_client_auth_san_ip, "192.0.2.7");
}

#[tokio::test]
async fn an_update_narrows_keys_of_proofs_and_networks() {
    let harness = seeded().await;
    let (created, _) = registered(&harness).await;
    let change = async |client_id: &str, jkts: &[&str], networks: &[&str], mask: &[&str]| {
        let wanted = pb::Client {
            client_id: client_id.into(),
            dpop_jkts: jkts.iter().map(ToString::to_string).collect(),
            allowed_networks: networks.iter().map(ToString::to_string).collect(),
            ..Default::default()
        };
        client(&harness).update_client(update(&wanted, mask)).await
    };
    let both = ["allowed_networks", "dpop_jkts"];
    let before = profile(&harness, &created.client_id).await;
    // Whoever names the first key decides who may prove, so that an amendment does.
    let first = change(&created.client_id, &JKTS[..1], &[], &["dpop_jkts"]).await;
    assert_violations(first, &["client.dpop_jkts"]);
    let keys = pb::SubmitIntegrationRequestRequest {
        dpop_jkts: JKTS[..2].iter().map(ToString::to_string).collect(),
        ..Default::default()
    };
    harness.amend(&created.client_id, keys).await;
    let limited = profile(&harness, &created.client_id).await;
    assert!(
        limited.tokens_ended_seq > before.tokens_ended_seq,
        "tokens of other keys end"
    );
    // From any network to some.
    let some = change(
        &created.client_id,
        &[],
        &["192.0.2.0/24", "2001:db8::/32"],
        &["allowed_networks"],
    )
    .await;
    let some = ok(some).client.unwrap();
    assert_eq!(some.dpop_jkts, JKTS[..2]);
    assert_eq!(some.allowed_networks, ["192.0.2.0/24", "2001:db8::/32"]);
    let after = profile(&harness, &created.client_id).await;
    // A consent page shows the networks.
    assert!(after.version > before.version);
    assert_eq!(after.tokens_ended_seq, limited.tokens_ended_seq);
    assert_eq!(after.families_ended_seq, 0);
    let narrower = change(&created.client_id, &[JKTS[1]], &["192.0.2.128/25"], &both).await;
    let narrower = ok(narrower).client.unwrap();
    assert_eq!(
        (narrower.dpop_jkts.len(), &narrower.allowed_networks[..]),
        (1, &["192.0.2.128/25".to_owned()][..])
    );
    // Networks alone end nothing.
    let ended = profile(&harness, &created.client_id).await.tokens_ended_seq;
    ok(change(
        &created.client_id,
        &[],
        &["192.0.2.128/26"],
        &["allowed_networks"],
    )
    .await);
    assert_eq!(
        profile(&harness, &created.client_id).await.tokens_ended_seq,
        ended
    );

    for (jkts, networks) in [
        (&[][..], &[][..]),
        (&[JKTS[0]], &["192.0.2.0/24"]),
        (&[JKTS[1], JKTS[2]], &["0.0.0.0/0"]),
        (&[JKTS[2]], &["198.51.100.0/24"]),
    ] {
        let refused = change(&created.client_id, jkts, networks, &both).await;
        let mut fields = vec!["client.dpop_jkts", "client.allowed_networks"];
        if jkts.is_empty() {
            // A list that an update names has elements.
            fields = vec!["client.dpop_jkts"];
            let networks = change(&created.client_id, &[], &[], &["allowed_networks"]).await;
            assert_violations(networks, &["client.allowed_networks"]);
        }
        assert_violations(refused, &fields);
    }
    let refused = change(&created.client_id, &["x"], &["192.0.2.129/25"], &both).await;
    assert_violations(refused, &["client.dpop_jkts[0]", "client.allowed_networks[0]"]);
    let events = harness.audit_events("client.update").await;
    assert_eq!(events.len(), 3);
    let networks = &events[0].detail["allowed_networks"];
    assert_eq!(networks, r#"{"new":["192.0.2.128/26"],"old":["192.0.2.128/25"]}"#);
    assert!(events[1].detail["dpop_jkts"].contains(JKTS[0]));
}

#[tokio::test]
async fn an_amendment_adds_keys_of_proofs_and_networks() {
    let harness = seeded().await;
    let (created, _) = registered(&harness).await;
    let amend = async |jkts: &[&str], networks: &[&str]| {
        let additions = pb::SubmitIntegrationRequestRequest {
            dpop_jkts: jkts.iter().map(ToString::to_string).collect(),
            allowed_networks: networks.iter().map(ToString::to_string).collect(),
            ..Default::default()
        };
        harness.amend(&created.client_id, additions).await
    };
    amend(&[JKTS[0]], &["192.0.2.0/24"]).await;
    // From any key to one: tokens of others end.
    let ended = profile(&harness, &created.client_id).await.tokens_ended_seq;
    assert!(ended > 0);
    let wider = amend(&[JKTS[0], JKTS[1]], &["198.51.100.0/24"]).await;
    assert_eq!(wider.dpop_jkts, JKTS[..2]);
    assert_eq!(wider.allowed_networks, ["192.0.2.0/24", "198.51.100.0/24"]);
    let every = amend(&[], &["0.0.0.0/0", "::/0"]).await;
    assert!(every.allowed_networks.is_empty(), "both lift the limit");
    let event = harness.audit_events("client.amend").await.remove(0);
    assert_eq!(
        event.detail["allowed_networks"],
        r#"{"new":[],"old":["192.0.2.0/24","198.51.100.0/24"]}"#
    );
    let unchanged = profile(&harness, &created.client_id).await.tokens_ended_seq;
    assert_eq!(unchanged, ended);
}

#[tokio::test]
async fn a_change_to_a_key_ends_the_secrets_and_their_links() {
    let harness = seeded().await;
    let (created, link) = registered_with_link(&harness).await;
    let client_id = &created.client_id;
    let to_key = pb::SubmitIntegrationRequestRequest {
        token_endpoint_auth_method: "private_key_jwt".into(),
        json_web_key_set: KEYS.into(),
        ..Default::default()
    };
    let amended = harness.amend(client_id, to_key).await;
    assert_eq!(amended.security_profile(), pb::SecurityProfile::Unspecified);
    let mut provisioning = ProvisioningServiceClient::new(harness.anonymous());
    let claim = pb::ClaimDeliveryRequest {
        claim_token: link.claim_token,
        ..Default::default()
    };
    let refused = provisioning.claim_delivery(claim).await;
    assert_rejected(refused, Code::FailedPrecondition, "LINK_INVALID");
    assert!(secrets(&harness, client_id).await[0].revoke_time.is_some());
    // Back to secrets, and a new one.
    let back = pb::SubmitIntegrationRequestRequest {
        token_endpoint_auth_method: "client_secret_basic".into(),
        ..Default::default()
    };
    let back = harness.amend(client_id, back).await;
    assert_eq!(back.token_endpoint_auth_method, "client_secret_basic");
    assert!(profile(&harness, client_id).await.live_secrets.is_empty());
    let creating = pb::CreateClientSecretRequest {
        client_id: client_id.clone(),
        ..Default::default()
    };
    let (_, secret) = add_secret(&harness, creating).await.unwrap();
    assert!(authenticate(&harness, client_id, &secret).await.is_ok());
}

#[tokio::test]
async fn what_does_not_fit_the_client_is_no_amendment() {
    let harness = seeded().await;
    let (created, _) = registered(&harness).await;
    let mut requests = IntegrationRequestServiceClient::new(harness.operator(Role::Registrar));
    let mut rejected = async |change: fn(&mut pb::SubmitIntegrationRequestRequest), fields: &[&str]| {
        let mut request = pb::SubmitIntegrationRequestRequest {
            client_id: created.client_id.clone(),
            ..Default::default()
        };
        change(&mut request);
        assert_violations(requests.submit_integration_request(request).await, fields);
    };
    let method = "token_endpoint_auth_method";
    rejected(
        |r| r.security_profile = pb::SecurityProfile::Fapi20.into(),
        &[method],
    )
    .await;
    rejected(
        |r| r.token_endpoint_auth_method = "private_key_jwt".into(),
        &[method],
    )
    .await;
    rejected(|r| r.tls_client_auth_san_dns = "a.example".into(), &[method]).await;
    // Nothing to leave, and nothing to begin.
    rejected(
        |r| r.security_profile = pb::SecurityProfile::None.into(),
        &["client_id"],
    )
    .await;
    rejected(
        |r| {
            r.profile_start_time = Some(prost_types::Timestamp {
                seconds: 4_000_000_000,
                nanos: 0,
            })
        },
        &["profile_start_time"],
    )
    .await;
    // A URL takes the place of a key set, and a key set its place.
    let keys = pb::SubmitIntegrationRequestRequest {
        json_web_key_set: KEYS.into(),
        ..Default::default()
    };
    let with_keys = harness.amend(&created.client_id, keys.clone()).await;
    let url = pb::SubmitIntegrationRequestRequest {
        jwks_uri: "https://partner.example/jwks".into(),
        ..Default::default()
    };
    let with_url = harness.amend(&created.client_id, url).await;
    assert_eq!(
        (with_url.jwks_uri.as_str(), with_url.json_web_key_set.as_str()),
        ("https://partner.example/jwks", "")
    );
    let again = harness.amend(&created.client_id, keys).await;
    assert_eq!(
        (again.jwks_uri.as_str(), &again.json_web_key_set),
        ("", &with_keys.json_web_key_set)
    );
}
