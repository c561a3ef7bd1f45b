//! The pages that people see: rendered here, without JavaScript, each with a strict policy of what a
//! browser may load and where it may be shown.
//!
//! A Tenant Admin's pages are under the tenant's path; [`visit`] knows the tenant, the cookies and the
//! proof that a form was sent from one of our pages.

use std::sync::{Arc, LazyLock};

use accord::{
    rpc::auth::{Caller, Principal, WorkloadKind},
    store::audit::Origin,
    text::{id::WorkloadId, opaque::sha256},
};
use askama::Template;
use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use self::view::{Frame, MessagePage};
use super::{Gateway, error::HttpError};
use crate::error::Error;

mod integrations;
mod links;
mod setups;
mod sign_in;
mod text;
mod view;
mod visit;

/// The one stylesheet.
const STYLESHEET: &str = include_str!("../../../assets/accord.css");

/// Nothing is loaded but our stylesheet, forms go to us alone, and nobody shows a page in a frame.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self' data:; \
                                       form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// What goes with every page.
const HEADERS: [(HeaderName, &str); 7] = [
    (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    (header::CACHE_CONTROL, "no-store"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(), geolocation=(), microphone=(), payment=()",
    ),
];

/// Where the stylesheet lies; the path changes with the content, so that it may be kept for ever.
static STYLESHEET_URL: LazyLock<String> = LazyLock::new(|| {
    let hash = URL_SAFE_NO_PAD.encode(sha256(STYLESHEET.as_bytes()));
    format!("/accord.css?{}", &hash[..12])
});

/// The principal of what a browser sends: this service's own pages bring it. No such workload is
/// registered, so nobody else can be it.
static BROWSER: LazyLock<Option<Principal>> = LazyLock::new(|| {
    let id = WorkloadId::parse("wkl_00000000000000000000000000").ok()?;
    Some(Principal::Caller(Caller::Workload {
        id,
        kind: WorkloadKind::Gateway,
    }))
});

fn browser() -> &'static Principal {
    BROWSER.as_ref().unwrap_or(&Principal::Anonymous)
}

/// Where an audit event of what a browser sent comes from.
pub(super) fn origin() -> Origin {
    browser().origin()
}

/// The routes of the pages.
pub(super) fn routes(gateway: &Arc<Gateway>) -> Router<Arc<Gateway>> {
    Router::new()
        .route("/{tenant}/oauth2/authorize", get(super::authorize::authorize))
        .route("/{tenant}/setups/{setup}", get(setups::show))
        .route("/{tenant}/setups/{setup}/sign-in", post(setups::sign_in))
        .route("/{tenant}/setups/{setup}/approve", post(setups::approve))
        .route("/{tenant}/setups/{setup}/deny", post(setups::deny))
        .route("/{tenant}/sign-in", get(sign_in::show).post(sign_in::sign_in))
        .route("/{tenant}/sign-out", post(sign_in::sign_out))
        .route("/{tenant}/integrations", get(integrations::list))
        .route("/{tenant}/integrations/{grant}", get(integrations::show))
        .route(
            "/{tenant}/integrations/{grant}/designated-user",
            post(integrations::change_user),
        )
        .route(
            "/{tenant}/integrations/{grant}/revoke",
            post(integrations::revoke),
        )
        .route(
            "/{tenant}/enrol/{token}",
            get(links::enrolment).post(links::enrol),
        )
        .route("/claim/{token}", get(links::claim).post(links::open_claim))
        .layer(middleware::from_fn_with_state(gateway.clone(), finish))
        .route("/accord.css", get(stylesheet))
}

async fn stylesheet() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/css; charset=utf-8"),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
    ];
    (headers, STYLESHEET).into_response()
}

/// Turns a [`PageError`] into a page, gives every page its headers, and refuses what another site sends.
async fn finish(State(gateway): State<Arc<Gateway>>, request: Request, next: Next) -> Response {
    let mut response = if is_cross_site_post(&request) {
        PageError::foreign_form().into_response()
    } else {
        next.run(request).await
    };
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        // Somebody asked for the address of a form's answer, such as by reloading it.
        let allow = response.headers_mut().remove(header::ALLOW);
        response = PageError::nothing_to_show().page(&gateway.product_name);
        if let Some(allow) = allow {
            response.headers_mut().insert(header::ALLOW, allow);
        }
    }
    let extensions = response.extensions_mut();
    // What is wrong with a form itself comes as an endpoint's error.
    let unread = extensions.remove::<HttpError>().map(PageError::from);
    if let Some(error) = extensions.remove::<PageError>().or(unread) {
        response = error.page(&gateway.product_name);
    }
    for (name, value) in HEADERS {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Whether a browser says that a form was sent from another site's page (Fetch Metadata). A browser that
/// says nothing is held to its CSRF token alone.
fn is_cross_site_post(request: &Request) -> bool {
    let site = request.headers().get("sec-fetch-site");
    request.method() == http::Method::POST && site.is_some_and(|site| site != "same-origin" && site != "none")
}

/// A page that can't be shown, and why.
#[derive(Clone, Debug)]
pub(super) struct PageError {
    status: StatusCode,
    title: &'static str,
    text: &'static str,
    detail: Option<String>,
    retry_after: Option<HeaderValue>,
}

impl PageError {
    /// An error that a person is told in these words.
    pub(super) fn told(status: StatusCode, title: &'static str, text: &'static str) -> Self {
        Self {
            status,
            title,
            text,
            detail: None,
            retry_after: None,
        }
    }

    /// A form that was not sent from one of our pages, or too long after.
    fn foreign_form() -> Self {
        Self::told(
            StatusCode::FORBIDDEN,
            "This form has expired",
            "Nothing was changed. Go back, load the page again, and repeat what you wanted to do.",
        )
    }

    fn nothing_to_show() -> Self {
        Self::told(
            StatusCode::METHOD_NOT_ALLOWED,
            "There is nothing to show here",
            "This is where a form was sent to. Go back to the page that you came from, and load it again.",
        )
    }

    fn not_found() -> Self {
        Self::told(
            StatusCode::NOT_FOUND,
            "There is nothing here",
            "The address is not complete, or what it stood for is gone.",
        )
    }

    fn page(self, product_name: &str) -> Response {
        let page = MessagePage {
            frame: frame(product_name, String::new()),
            title: self.title.to_owned(),
            text: self.text.to_owned(),
            detail: self.detail,
            link: None,
        };
        let mut response = html(self.status, &page);
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}

impl From<HttpError> for PageError {
    fn from(error: HttpError) -> Self {
        let (title, text) = match error.status {
            StatusCode::NOT_FOUND => return Self::not_found(),
            StatusCode::BAD_REQUEST => (
                "That did not work",
                "The request could not be understood. Go back, load the page again, and repeat what you \
                 wanted to do.",
            ),
            StatusCode::PAYLOAD_TOO_LARGE => ("That was too much", "What was sent is too large."),
            StatusCode::TOO_MANY_REQUESTS => (
                "Please wait a moment",
                "Too many attempts are under way. Try again in a little while.",
            ),
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => (
                "Please try again in a moment",
                "A part of the service does not answer at the moment. Nothing was changed.",
            ),
            _ => (
                "Something went wrong",
                "This is our mistake, not yours. If it happens again, tell your provider the reference \
                 below.",
            ),
        };
        let status = error.status;
        let detail = (status == StatusCode::INTERNAL_SERVER_ERROR).then(|| error.description.clone());
        let retry_after = error.into_response().headers_mut().remove(header::RETRY_AFTER);
        Self {
            detail,
            retry_after,
            ..Self::told(status, title, text)
        }
    }
}

impl From<Error> for PageError {
    fn from(error: Error) -> Self {
        match error {
            Error::WrongState { resource, state } => Self::wrong_state(resource, state),
            Error::ClientChanged => Self::told(
                StatusCode::CONFLICT,
                "The request has changed",
                "What this integration may ask for was changed after it sent you here. Go back to the \
                 integration and start again, so that you see what it asks for now.",
            ),
            Error::LinkInvalid { .. } => Self::told(
                StatusCode::GONE,
                "This link no longer works",
                "It was used already, or its time is over. Ask whoever sent it to you for a new one.",
            ),
            error => HttpError::from(error).into(),
        }
    }
}

impl PageError {
    fn wrong_state(resource: &str, state: &str) -> Self {
        let (title, text) = match (resource, state) {
            ("setup", "APPROVED") => (
                "This request was approved already",
                "There is nothing more to decide. You find the integration under Connected integrations.",
            ),
            ("setup", "DENIED") => (
                "This request was denied already",
                "There is nothing more to decide. The integration can send you here again.",
            ),
            ("setup", _) => (
                "This request has expired",
                "It was not decided in time. Go back to the integration and start again.",
            ),
            ("tenant", _) => (
                "Access is suspended",
                "Integrations of this organisation are suspended at the moment.",
            ),
            ("client", _) => (
                "This integration is suspended",
                "It can't be given access at the moment.",
            ),
            _ => (
                "That is no longer possible",
                "This access has ended or changed in the meantime. Load the list of integrations again.",
            ),
        };
        Self::told(StatusCode::CONFLICT, title, text)
    }
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// What surrounds a page that nobody is signed in to.
fn frame(product_name: &str, tenant_name: String) -> Frame {
    Frame {
        product_name: product_name.to_owned(),
        tenant_name,
        stylesheet: STYLESHEET_URL.clone(),
        session: None,
    }
}

fn html(status: StatusCode, page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => (status, Html(text)).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page can't be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
