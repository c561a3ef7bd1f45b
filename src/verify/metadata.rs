//! Protected resource metadata (RFC 9728): the document in which a client that knows only the Cloud API finds the
//! tenant's authority.

use http::{
    HeaderValue, Method, Response, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        CACHE_CONTROL, CONTENT_TYPE,
    },
};
use serde_json::json;

use super::Tenant;
use crate::dpop;

const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// Returns the URL of a resource's metadata (RFC 9728 §3.1): inserts the well-known path between host and path.
pub(super) fn url(resource: &str) -> String {
    let (origin, path) = split(resource);
    format!("{origin}{WELL_KNOWN}{path}")
}

/// Returns the path of the resource whose metadata is at `path`; empty for the well-known path itself. Returns `None`
/// for all other paths.
pub(super) fn resource_path(path: &str) -> Option<&str> {
    let rest = path.strip_prefix(WELL_KNOWN)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

/// Answers a request for the metadata of the resource at `path`. `scopes` are separated by spaces, or empty. Scripts of
/// every site may read the response.
pub(super) fn response<B: Default + From<String>>(
    method: &Method,
    path: &str,
    tenant: Option<&Tenant>,
    scopes: &str,
) -> Response<B> {
    // A client must reject a document that names another resource than the one it requested (RFC 9728 §3.3).
    let tenant = tenant.filter(|tenant| path.is_empty() || path == split(&tenant.audience).1);
    let mut response = Response::new(B::default());
    *response.status_mut() = match (method, tenant) {
        (&Method::OPTIONS, _) => StatusCode::NO_CONTENT,
        (&Method::GET | &Method::HEAD, Some(tenant)) => {
            let mut document = json!({
                "resource": tenant.audience,
                "authorization_servers": [tenant.issuer],
                "bearer_methods_supported": ["header"],
                "dpop_signing_alg_values_supported": dpop::ALGORITHMS,
            });
            if !scopes.is_empty() {
                document["scopes_supported"] = scopes.split(' ').collect();
            }
            *response.body_mut() = document.to_string().into();
            StatusCode::OK
        }
        (&Method::GET | &Method::HEAD, None) => StatusCode::NOT_FOUND,
        _ => StatusCode::METHOD_NOT_ALLOWED,
    };
    let is_found = response.status() == StatusCode::OK;
    let cache = if is_found {
        "public, max-age=300"
    } else {
        "no-store"
    };
    let headers = [
        (CACHE_CONTROL, cache),
        (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD"),
        (ACCESS_CONTROL_ALLOW_HEADERS, "*"),
        (CONTENT_TYPE, "application/json"),
    ];
    let headers = headers
        .into_iter()
        .filter(|(name, _)| is_found || name != CONTENT_TYPE);
    let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
    response.headers_mut().extend(headers);
    response
}

/// Returns the origin of a URL.
pub(super) fn origin(url: &str) -> &str {
    split(url).0
}

/// Splits a URL into origin and path. The path `/` counts as empty.
fn split(url: &str) -> (&str, &str) {
    let host_at = url.find("://").map_or(0, |at| at + 3);
    let path_at = url[host_at..].find('/').map_or(url.len(), |at| host_at + at);
    let (origin, path) = url.split_at(path_at);
    (origin, if path == "/" { "" } else { path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_well_known_path_comes_between_host_and_path() {
        for (resource, document) in [
            (
                "https://api.example",
                "https://api.example/.well-known/oauth-protected-resource",
            ),
            (
                "https://api.example/",
                "https://api.example/.well-known/oauth-protected-resource",
            ),
            (
                "http://127.0.0.1:9000/firm/v1",
                "http://127.0.0.1:9000/.well-known/oauth-protected-resource/firm/v1",
            ),
        ] {
            assert_eq!(url(resource), document);
        }
    }

    #[test]
    fn only_paths_below_the_well_known_one_are_documents() {
        assert_eq!(resource_path(WELL_KNOWN), Some(""));
        assert_eq!(resource_path(&format!("{WELL_KNOWN}/v1")), Some("/v1"));
        for other in ["/", "/v1", &format!("{WELL_KNOWN}x"), &format!("/v1{WELL_KNOWN}")] {
            assert_eq!(resource_path(other), None, "{other}");
        }
    }
}
