//! How a request says that its client authenticates, and what limits it.

use tonic_types::StatusExt;

use super::*;

/// The Ed25519 key of RFC 8037 appendix A.2.
pub const KEYS: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
/// The thumbprint of the key of RFC 9449 §6.1, and one more.
const JKT: &str = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
const OTHER_JKT: &str = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs";

fn base() -> pb::SubmitIntegrationRequestRequest {
    submission(&["acme"], &["contacts.read"])
}

async fn submitted(
    harness: &Harness,
    request: pb::SubmitIntegrationRequestRequest,
) -> pb::IntegrationRequest {
    let answer = client(harness).submit_integration_request(request).await;
    ok(answer).integration_request.unwrap()
}

#[tokio::test]
async fn a_request_shows_what_was_asked_for() {
    let harness = seeded().await;
    let by_certificate = pb::SubmitIntegrationRequestRequest {
        token_endpoint_auth_method: "tls_client_auth".into(),
        tls_client_auth_subject_dn: "CN=sync,O=Partner Ltd,C=DE".into(),
        dpop_jkts: vec![JKT.into(), OTHER_JKT.into()],
        security_profile: pb::SecurityProfile::Fapi20.into(),
        allowed_networks: vec![
            "203.0.113.0/24".into(),
            "0.0.0.0/1".into(),
            "2001:DB8::/32".into(),
        ],
        ..base()
    };
    let shown = submitted(&harness, by_certificate.clone()).await;
    assert_eq!(shown.token_endpoint_auth_method, "tls_client_auth");
    assert_eq!(shown.tls_client_auth_subject_dn, "CN=sync,O=Partner Ltd,C=DE");
    assert_eq!(shown.dpop_jkts, by_certificate.dpop_jkts);
    assert_eq!(shown.security_profile(), pb::SecurityProfile::Fapi20);
    assert_eq!(shown.profile_start_time, None);
    assert_eq!(
        shown.allowed_networks,
        ["203.0.113.0/24", "0.0.0.0/1", "2001:db8::/32"]
    );
    assert_eq!(get(&harness, &shown.integration_request_id).await, shown);
    let event = harness.audit_events("integration_request.submit").await.remove(0);
    for told in [
        "tls_client_auth",
        "CN=sync,O=Partner Ltd,C=DE",
        JKT,
        "203.0.113.0/24",
    ] {
        assert!(event.detail["security"].contains(told), "{told}");
    }
    assert!(event.detail["security_profile"].contains("fapi2"));

    let fetched = pb::SubmitIntegrationRequestRequest {
        token_endpoint_auth_method: "private_key_jwt".into(),
        jwks_uri: "https://partner.example/jwks.json?v=1".into(),
        allowed_networks: vec!["0.0.0.0/0".into(), "::/0".into()],
        ..base()
    };
    let shown = submitted(&harness, fetched).await;
    assert_eq!(shown.jwks_uri, "https://partner.example/jwks.json?v=1");
    assert_eq!(shown.allowed_networks, ["0.0.0.0/0", "::/0"]);
    let set = |change: fn(&mut pb::SubmitIntegrationRequestRequest)| {
        let mut request = pb::SubmitIntegrationRequestRequest {
            token_endpoint_auth_method: "tls_client_auth".into(),
            ..base()
        };
        change(&mut request);
        request
    };
    let shown = submitted(
        &harness,
        set(|r| r.tls_client_auth_san_dns = "sync.partner.example".into()),
    )
    .await;
    assert_eq!(shown.tls_client_auth_san_dns, "sync.partner.example");
    let shown = submitted(
        &harness,
        set(|r| r.tls_client_auth_san_uri = "spiffe://partner.example/sync".into()),
    )
    .await;
    assert_eq!(shown.tls_client_auth_san_uri, "spiffe://partner.example/sync");
    let shown = submitted(&harness, set(|r| r.tls_client_auth_san_ip = "2001:db8::1".into())).await;
    assert_eq!(shown.tls_client_auth_san_ip, "2001:db8::1");
    let shown = submitted(
        &harness,
        set(|r| r.tls_client_auth_san_email = "ops@partner.example".into()),
    )
    .await;
    assert_eq!(shown.tls_client_auth_san_email, "ops@partner.example");
}

#[tokio::test]
async fn all_violations_are_reported_at_once() {
    let harness = seeded().await;
    let bad = pb::SubmitIntegrationRequestRequest {
        jwks_uri: "http://partner.example/jwks.json".into(),
        token_endpoint_auth_method: "client_secret_jwt".into(),
        tls_client_auth_subject_dn: "sync".into(),
        tls_client_auth_san_dns: "Sync.partner.example".into(),
        tls_client_auth_san_uri: "no uri".into(),
        tls_client_auth_san_ip: "2001:DB8::1".into(),
        tls_client_auth_san_email: "nobody".into(),
        dpop_jkts: vec![
            JKT.into(),
            JKT.into(),
            format!("{JKT}="),
            "short".into(),
            JKT.replace('I', "J"),
        ],
        allowed_networks: vec![
            "203.0.113.0/24".into(),
            "203.0.113.7/24".into(),
            "203.0.113.128/25".into(),
            "somewhere".into(),
        ],
        security_profile: 9,
        profile_start_time: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
        ..base()
    };
    let refused = client(&harness).submit_integration_request(bad).await;
    assert_violations(
        refused,
        &[
            "token_endpoint_auth_method",
            "tls_client_auth_subject_dn",
            "tls_client_auth_san_dns",
            "tls_client_auth_san_uri",
            "tls_client_auth_san_ip",
            "tls_client_auth_san_email",
            "tls_client_auth_san_dns",
            "tls_client_auth_san_uri",
            "tls_client_auth_san_ip",
            "tls_client_auth_san_email",
            "jwks_uri",
            "dpop_jkts[1]",
            "dpop_jkts[2]",
            "dpop_jkts[3]",
            "dpop_jkts[4]",
            "allowed_networks[1]",
            "allowed_networks[2]",
            "allowed_networks[3]",
            "profile_start_time",
            "security_profile",
        ],
    );
}

#[tokio::test]
async fn what_does_not_belong_together_is_rejected_with_the_right_value() {
    let harness = seeded().await;
    let rejected = async |change: fn(&mut pb::SubmitIntegrationRequestRequest)| {
        let mut request = base();
        change(&mut request);
        let refused = client(&harness).submit_integration_request(request).await;
        let details = refused.err().and_then(|status| status.get_details_bad_request());
        let violations = details.map(|bad| bad.field_violations).unwrap_or_default();
        let texts = violations
            .into_iter()
            .map(|v| format!("{} {}", v.field, v.description));
        texts.collect::<Vec<_>>()
    };
    for (change, expected) in [
        (
            (|r| r.token_endpoint_auth_method = "tls_client_auth".into())
                as fn(&mut pb::SubmitIntegrationRequestRequest),
            "token_endpoint_auth_method must come with exactly one of",
        ),
        (
            |r| r.tls_client_auth_san_dns = "sync.partner.example".into(),
            "token_endpoint_auth_method must be tls_client_auth",
        ),
        (
            |r| r.token_endpoint_auth_method = "private_key_jwt".into(),
            "token_endpoint_auth_method must come with json_web_key_set or jwks_uri",
        ),
        (
            |r| r.token_endpoint_auth_method = "self_signed_tls_client_auth".into(),
            "token_endpoint_auth_method must come with json_web_key_set or jwks_uri",
        ),
        (
            |r| {
                r.jwks_uri = "https://partner.example/jwks".into();
                r.json_web_key_set = KEYS.into();
            },
            "jwks_uri must be empty",
        ),
        (
            |r| r.security_profile = pb::SecurityProfile::Fapi20.into(),
            "token_endpoint_auth_method must be private_key_jwt, tls_client_auth or self_signed_tls_client_auth",
        ),
        (
            |r| {
                r.security_profile = pb::SecurityProfile::Fapi20.into();
                r.token_endpoint_auth_method = "client_secret_basic".into();
                r.json_web_key_set = KEYS.into();
            },
            "token_endpoint_auth_method must be private_key_jwt, tls_client_auth or self_signed_tls_client_auth",
        ),
        (
            |r| {
                r.security_profile = pb::SecurityProfile::Fapi20.into();
                r.token_endpoint_auth_method = "private_key_jwt".into();
                r.json_web_key_set = KEYS.into();
                r.redirect_uris = vec!["http://localhost/cb".into()];
            },
            "redirect_uris must all use https",
        ),
        (
            |r| r.security_profile = pb::SecurityProfile::None.into(),
            "security_profile must be unspecified",
        ),
        (
            |r| {
                r.security_profile = pb::SecurityProfile::Fapi20.into();
                r.token_endpoint_auth_method = "private_key_jwt".into();
                r.json_web_key_set = KEYS.into();
                r.profile_start_time = Some(prost_types::Timestamp {
                    seconds: 4_000_000_000,
                    nanos: 0,
                });
            },
            "profile_start_time must be absent",
        ),
        (
            |r| r.allowed_networks = (0..17).map(|n| format!("10.{n}.0.0/16")).collect(),
            "allowed_networks must have at most 16 elements",
        ),
    ] {
        let found = rejected(change).await;
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(expected), "{found:?}");
    }
    let jkt = |n: usize| {
        format!(
            "{}{}",
            &JKT[..42],
            ["A", "E", "I", "M", "Q", "U", "Y", "c", "g", "k", "o"][n]
        )
    };
    let mut request = base();
    request.dpop_jkts = (0..11).map(jkt).collect();
    let refused = client(&harness).submit_integration_request(request.clone()).await;
    assert_violations(refused, &["dpop_jkts"]);
    request.dpop_jkts.pop();
    submitted(&harness, request).await;
}
