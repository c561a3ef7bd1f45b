//! The pages that people see, without JavaScript. Each has a strict policy of what a browser may load and where it may
//! be shown.
//!
//! A Tenant Admin's pages are under the tenant's path; [`context`] holds the tenant, the cookies and the
//! registry's facts of one request.

use std::sync::Arc;

use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, StatusCode, Uri, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};

use self::{context::form, error::PageError, view::STYLESHEET};
use super::{HttpState, error::HttpError};

mod approval_form;
mod authorize;
mod context;
mod cookies;
mod dates;
mod error;
mod integrations;
mod links;
mod networks;
mod operator_actions;
mod setups;
mod sign_in;
mod view;

/// Loads nothing but our stylesheet, sends forms to us alone, and forbids frames.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self' data:; \
                                       form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The headers of every page.
const HEADERS: [(&str, &str); 7] = [
    ("content-security-policy", CONTENT_SECURITY_POLICY),
    ("cache-control", "no-store"),
    ("referrer-policy", "no-referrer"),
    ("x-frame-options", "DENY"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    (
        "permissions-policy",
        "camera=(), geolocation=(), microphone=(), payment=()",
    ),
];

/// The routes of the pages.
pub(super) fn routes(http: &Arc<HttpState>) -> Router<Arc<HttpState>> {
    Router::new()
        .route("/{tenant}/oauth2/authorize", get(authorize::authorize))
        .route("/{tenant}/setups/{setup}", get(setups::show))
        .route(
            "/{tenant}/setups/{setup}/sign-in",
            form(setups::sign_in, setups::again),
        )
        .route(
            "/{tenant}/setups/{setup}/approve",
            form(setups::approve, setups::again),
        )
        .route("/{tenant}/setups/{setup}/deny", form(setups::deny, setups::again))
        .route(
            "/{tenant}/sign-in",
            form(integrations::sign_in, integrations::sign_in_stale).get(sign_in::show),
        )
        .route(
            "/{tenant}/sign-out",
            form(sign_in::sign_out, sign_in::sign_out_again),
        )
        .route("/{tenant}/operator-actions", get(operator_actions::list))
        .route("/{tenant}/integrations", get(integrations::list))
        .route("/{tenant}/integrations/{grant}", get(integrations::show))
        .route(
            "/{tenant}/integrations/{grant}/receipt",
            get(integrations::receipt),
        )
        .route(
            "/{tenant}/integrations/{grant}/designated-user",
            form(integrations::change_user, integrations::again),
        )
        .route(
            "/{tenant}/integrations/{grant}/networks",
            form(integrations::change_networks, integrations::again),
        )
        .route(
            "/{tenant}/integrations/{grant}/revoke",
            form(integrations::revoke, integrations::again),
        )
        .route(
            "/{tenant}/enrol/{token}",
            form(links::enrol, links::enrol_again).get(links::enrolment),
        )
        .route("/claim/{token}", get(links::claim).post(links::open_claim))
        .fallback(async || PageError::NOT_FOUND)
        .layer(middleware::from_fn_with_state(http.clone(), finish))
        .route("/accord.css", get(stylesheet))
}

async fn stylesheet(uri: Uri) -> Response {
    // While replicas of two versions serve, a page of one may load the stylesheet of the other. No cache may keep that.
    let cache_control = match uri.path_and_query() {
        Some(url) if url == view::STYLESHEET_URL.as_str() => "public, max-age=31536000, immutable",
        _ => "no-store",
    };
    let headers = [
        (header::CONTENT_TYPE, "text/css; charset=utf-8"),
        (header::CACHE_CONTROL, cache_control),
    ];
    (headers, STYLESHEET).into_response()
}

/// Renders a [`PageError`], adds the headers of every page, and rejects forms that another site sends.
async fn finish(State(http): State<Arc<HttpState>>, request: Request, next: Next) -> Response {
    let (matched, path) = (
        request.extensions().get::<MatchedPath>().cloned(),
        request.uri().path().to_owned(),
    );
    let mut response = if is_cross_site_post(&request) {
        PageError::FOREIGN_FORM.into_response()
    } else {
        next.run(request).await
    };
    // A browser reloads the address that a form was posted to.
    let is_reload = response.status() == StatusCode::METHOD_NOT_ALLOWED;
    let allow = response.headers_mut().remove(header::ALLOW);
    let extensions = response.extensions_mut();
    // The form extractor fails with an endpoint's error.
    let unreadable = extensions.remove::<HttpError>().map(PageError::from);
    let error = extensions.remove::<PageError>().or(unreadable);
    if let Some(error) = error.or(is_reload.then_some(PageError::NOTHING_TO_SHOW)) {
        let next_page = matched.and_then(|matched| next_page(matched.as_str(), &path, is_reload));
        response = error.page(&http.product_name, next_page);
    }
    let headers = response.headers_mut();
    headers.extend(allow.map(|allow| (header::ALLOW, allow)));
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Returns where a person can go on from an error on a tenant's page: to the page of the form whose address was
/// reloaded, otherwise to the list of integrations.
fn next_page(matched: &str, path: &str, is_reload: bool) -> Option<String> {
    let rest = matched.strip_prefix("/{tenant}/")?;
    let parent = path.rsplit_once('/').map(|(parent, _)| parent.to_owned());
    match rest.split('/').count() {
        3 if is_reload => parent,
        _ if rest.starts_with("oauth2/") => None,
        _ => Some(format!("/{}/integrations", path.split('/').nth(1)?)),
    }
}

/// Returns whether the browser's Fetch Metadata say that another site's page sent the form. A browser that sends none
/// still needs its CSRF token.
fn is_cross_site_post(request: &Request) -> bool {
    let site = request.headers().get("sec-fetch-site");
    request.method() == http::Method::POST && site.is_some_and(|site| site != "same-origin" && site != "none")
}
