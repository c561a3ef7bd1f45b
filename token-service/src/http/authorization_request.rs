//! The parameters of an authorization request (RFC 6749 §4.1.1, RFC 7636 §4.3), in the query of the authorization endpoint
//! or in the form of the PAR endpoint.

use axum::http::StatusCode;

use super::{
    error::HttpError,
    form::Form,
    token::{resource, scopes},
};
use crate::model::setup::request::Parameters;

/// Reads the parameters, or returns the error for the client. `state` is percent-encoded.
pub(super) fn parameters(form: &Form, state: String) -> Result<Parameters, HttpError> {
    let invalid = |description: &str| Err(HttpError::invalid_request(description));
    let rejected = |code, description: &str| Err(HttpError::new(StatusCode::BAD_REQUEST, code, description));
    if form.get("request").is_some() {
        return rejected("request_not_supported", "request is not supported");
    }
    let parameters = Parameters {
        redirect_uri: form.text("redirect_uri").to_owned(),
        scopes: Vec::new(),
        state_parameter: state,
        code_challenge: form.text("code_challenge").to_owned(),
        resource: String::new(),
        dpop_jkt: form.get("dpop_jkt").map(str::to_owned),
    };
    let broken = |(name, rule)| invalid(&format!("{name} {rule}"));
    let mut rules = parameters.broken_rules().peekable();
    // Before all others, whose errors return `state` to the client.
    if let Some(rule) = rules.next_if(|(name, _)| *name == "state") {
        return broken(rule);
    }
    match form.get("response_type") {
        Some("code") => {}
        Some(_) => return rejected("unsupported_response_type", "response_type must be code"),
        None => return invalid("response_type is missing"),
    }
    if form.get("response_mode").is_some_and(|mode| mode != "query") {
        return invalid("response_mode must be query");
    }
    if form.get("code_challenge_method") != Some("S256") {
        return invalid("code_challenge_method must be S256");
    }
    if let Some(rule) = rules.next() {
        return broken(rule);
    }
    Ok(Parameters {
        scopes: scopes(form.text("scope"))?,
        resource: resource(form)?,
        ..parameters
    })
}
