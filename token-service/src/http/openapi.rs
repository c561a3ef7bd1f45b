//! The description of the OAuth endpoints (OpenAPI 3.1): one for all tenants, written by hand, tested against the
//! endpoints.

use axum::{
    http::header,
    response::{IntoResponse, Response},
};

const DOCUMENT: &str = include_str!("../../openapi.json");

/// `GET /openapi.json`. Its type is `application/json`: `application/openapi+json` is not registered yet
/// (draft-ietf-httpapi-rest-api-mediatypes), and browsers download unknown types.
pub(super) async fn openapi() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "public, max-age=300"),
    ];
    (headers, DOCUMENT).into_response()
}
