//! What every HTTP request passes through: a request id, a deadline, a log line, safe headers.

use std::convert::Infallible;

use accord::rpc::{
    context::{self, CallContext},
    middleware::{MAX_CALL_TIME, REQUEST_ID, SLOW, request_id},
};
use axum::{
    extract::Request,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use tokio::time::Instant;

use super::error::HttpError;

/// Answers a request within its bounds. The log names method and path, never the query.
pub(super) async fn bounded<F>(
    request: Request,
    answer: impl FnOnce(Request) -> F,
) -> Result<Response, Infallible>
where
    F: Future<Output = Result<Response, Infallible>>,
{
    let started = Instant::now();
    let request_id = request_id(request.headers());
    let context = CallContext {
        request_id: request_id.clone(),
        deadline: started + MAX_CALL_TIME,
    };
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let work = async {
        let mut response = match tokio::time::timeout(MAX_CALL_TIME, answer(request)).await {
            Ok(answered) => answered?,
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
        let (status, elapsed) = (response.status(), started.elapsed());
        let (path, status_code) = (shown_path(uri.path()), status.as_u16());
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        if status.is_client_error() || status.is_server_error() || elapsed >= SLOW {
            tracing::info!(%method, path, status = status_code, elapsed_ms, "served");
        } else {
            tracing::debug!(%method, path, status = status_code, elapsed_ms, "served");
        }
        Ok(response)
    };
    context::scope(context, work).await
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
