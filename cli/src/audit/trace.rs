//! `accord audit trace`: from an access token to the people behind it.

use std::{fmt::Display, io::Write};

use accord::audit::v1::{
    AppliedAmendment, TraceTokenRequest, TraceTokenResponse, audit_service_client::AuditServiceClient,
};
use prost_types::Timestamp;
use serde_json::json;

use super::access::TokenServiceAccess;
use crate::call::answer;

/// Traces a token, and writes what is known of it, for people or as JSON.
pub async fn run(
    jti: &str,
    access: &TokenServiceAccess,
    as_json: bool,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let mut client = AuditServiceClient::new(access.open()?);
    let request = TraceTokenRequest { jti: jti.to_owned() };
    let traced = answer("TraceToken", client.trace_token(request).await)?;
    match as_json {
        true => writeln!(out, "{}", json_of(&traced))?,
        false => write!(out, "{}", text_of(&traced))?,
    }
    Ok(())
}

fn time(time: Option<Timestamp>) -> String {
    time.map(|time| time.to_string()).unwrap_or_default()
}

fn text_of(traced: &TraceTokenResponse) -> String {
    let event = traced.issue_event.clone().unwrap_or_default();
    let detail = |name: &str| event.detail.get(name).cloned().unwrap_or_default();
    let mut text = String::new();
    let mut line = |name: &str, value: &dyn Display| {
        let value = value.to_string();
        let value = if value.is_empty() {
            "not known any more"
        } else {
            &value
        };
        text.push_str(&format!("{name:<24} {value}\n"));
    };
    line("token", &event.event_id);
    line("issued", &time(event.occur_time));
    line("grant type", &detail("grant_type"));
    line("scope", &detail("scope"));
    line("runs as user", &detail("sub"));
    line("tenant", &event.tenant_id);
    line("grant", &traced.grant_id);
    line("granted by user", &traced.granted_by_user_id);
    line("client", &traced.client_id);
    line("integration request", &traced.integration_request_id);
    line("submitted by operator", &traced.submitted_by_operator_id);
    line("approved by operator", &traced.approved_by_operator_id);
    for amendment in &traced.amendments {
        line("amended by request", &amendment.integration_request_id);
        line("  applied", &time(amendment.apply_time));
        line("  submitted by operator", &amendment.submitted_by_operator_id);
        line("  approved by operator", &amendment.approved_by_operator_id);
    }
    text
}

fn json_of(traced: &TraceTokenResponse) -> serde_json::Value {
    let event = traced.issue_event.clone().unwrap_or_default();
    let amendment = |amendment: &AppliedAmendment| {
        json!({
            "integration_request_id": amendment.integration_request_id,
            "submitted_by_operator_id": amendment.submitted_by_operator_id,
            "approved_by_operator_id": amendment.approved_by_operator_id,
            "apply_time": time(amendment.apply_time),
        })
    };
    json!({
        "jti": event.event_id,
        "time": time(event.occur_time),
        "tenant_id": event.tenant_id,
        "detail": event.detail,
        "grant_id": traced.grant_id,
        "granted_by_user_id": traced.granted_by_user_id,
        "client_id": traced.client_id,
        "integration_request_id": traced.integration_request_id,
        "submitted_by_operator_id": traced.submitted_by_operator_id,
        "approved_by_operator_id": traced.approved_by_operator_id,
        "amendments": traced.amendments.iter().map(amendment).collect::<Vec<_>>(),
    })
}
