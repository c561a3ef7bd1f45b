//! The description of the protocol's endpoints (OpenAPI 3.1), for people and their tools. It is one for
//! all tenants, written by hand, and tested against what the endpoints answer.

use axum::{
    http::header,
    response::{IntoResponse, Response},
};

const DOCUMENT: &str = include_str!("../../openapi.json");

/// `GET /openapi.json`. The type is JSON's: `application/openapi+json` is not registered so far
/// (draft-ietf-httpapi-rest-api-mediatypes), and a browser would save what it does not know.
pub(super) async fn openapi() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "public, max-age=300"),
    ];
    (headers, DOCUMENT).into_response()
}
