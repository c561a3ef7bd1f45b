//! What every HTTP request passes through: a request id, a deadline, a log line, safe headers.

use accord::{
    context::{self, CallContext},
    gate::{MAX_CALL_TIME, REQUEST_ID, request_id},
};
use axum::{
    http::{HeaderValue, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::time::Instant;
use tracing::Instrument;

use super::{HttpRequest, error::HttpError};

/// Runs a request within its bounds. The log names method and path, never the query.
pub(super) async fn bounded(request: HttpRequest, next: Next) -> Response {
    let started = Instant::now();
    let request_id = request_id(request.headers());
    let context = CallContext {
        request_id: request_id.clone(),
        deadline: started + MAX_CALL_TIME,
    };
    let span = tracing::info_span!("request", method = %request.method(), path = shown_path(request.uri().path()), request_id);
    let work = async {
        let work = context::scope(context, next.run(request));
        let mut response = match tokio::time::timeout(MAX_CALL_TIME, work).await {
            Ok(response) => response,
            Err(_elapsed) => HttpError::timed_out().into_response(),
        };
        let headers = response.headers_mut();
        if let Ok(value) = HeaderValue::from_str(&request_id) {
            headers.insert(REQUEST_ID, value);
        }
        headers.insert(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
        let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(status = response.status().as_u16(), elapsed_ms, "served");
        response
    };
    work.instrument(span).await
}

/// The path as it may be logged: one-time links carry their token in it.
fn shown_path(path: &str) -> &str {
    let secret = ["/claim/", "/enrol/"]
        .iter()
        .find_map(|part| path.find(part).map(|at| at + part.len()));
    match secret {
        Some(end) => path.get(..end).unwrap_or_default(),
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_in_paths_are_not_logged() {
        assert_eq!(shown_path("/claim/acl_x"), "/claim/");
        assert_eq!(shown_path("/firm/enrol/ace_x"), "/firm/enrol/");
        assert_eq!(shown_path("/firm/jwks.json"), "/firm/jwks.json");
    }
}
