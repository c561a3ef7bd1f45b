//! Puts a [`Checker`] in front of an HTTP service (RFC 6750).

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response, header::AUTHORIZATION, request::Parts};
use tower::{Layer, Service};

use super::{
    AccessTokenClaims, Checker, Tenant,
    bearer::{self, Refusal},
};

/// Says which tenant a request is for; `None` if there is no such tenant.
pub type TenantOf = Arc<dyn Fn(&Parts) -> Option<Arc<Tenant>> + Send + Sync>;

/// A layer that lets requests with a good bearer token through, with its
/// [`AccessTokenClaims`](super::AccessTokenClaims) in the request's extensions, and answers all others:
///
/// | status | when |
/// |---|---|
/// | 401 | no bearer token |
/// | 401 `invalid_token` | it does not count, for whatever reason |
/// | 403 `insufficient_scope` | it lacks a required scope |
/// | 400 `invalid_request` | the `Authorization` header is malformed or repeated |
/// | 503 | whether it counts can't be known now; `Retry-After` says when to come again |
///
/// The first four bring a `WWW-Authenticate` challenge, all `Cache-Control: no-store` and no body.
#[derive(Clone)]
pub struct Protect(Arc<Rules>);

#[derive(Clone)]
struct Rules {
    checker: Checker,
    tenant_of: TenantOf,
    /// What a token must allow, separated by spaces.
    scopes: String,
    realm: String,
}

impl fmt::Debug for Protect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Protect")
            .field("scopes", &self.0.scopes)
            .field("realm", &self.0.realm)
            .finish_non_exhaustive()
    }
}

impl Protect {
    /// Protects what belongs to one tenant.
    pub fn tenant(checker: Checker, tenant: Tenant) -> Self {
        let realm = tenant.audience.clone();
        let tenant = Arc::new(tenant);
        Self::tenants(checker, move |_| Some(tenant.clone())).realm(realm)
    }

    /// Protects what belongs to several tenants: `tenant_of` finds a request's, by its path for example.
    /// A token for a tenant that is unknown is refused like one for another tenant. Handlers should take
    /// the tenant from the claims, so that there is one answer to whose data it is.
    pub fn tenants<F>(checker: Checker, tenant_of: F) -> Self
    where
        F: Fn(&Parts) -> Option<Arc<Tenant>> + Send + Sync + 'static,
    {
        Self(Arc::new(Rules {
            checker,
            tenant_of: Arc::new(tenant_of),
            scopes: String::new(),
            realm: "Cloud API".to_owned(),
        }))
    }

    /// Requires a scope of every token; called again, another one as well.
    #[must_use]
    pub fn require_scope(mut self, scope: &str) -> Self {
        let scopes = &mut Arc::make_mut(&mut self.0).scopes;
        if !scopes.is_empty() {
            scopes.push(' ');
        }
        scopes.push_str(scope);
        self
    }

    /// Names what is protected in challenges (RFC 9110 §11.5). By default the tenant's Cloud API URL, or
    /// `Cloud API` with several tenants.
    #[must_use]
    pub fn realm(mut self, realm: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.0).realm = realm.into();
        self
    }
}

impl Rules {
    async fn authorize(&self, parts: &Parts) -> Result<AccessTokenClaims, Refusal<'_>> {
        let token = bearer::token(&parts.headers)?;
        let tenant = (self.tenant_of)(parts).ok_or(Refusal::InvalidToken)?;
        let claims = self.checker.check(token, &tenant.expected()).await?;
        let mut required = self.scopes.split(' ').filter(|scope| !scope.is_empty());
        if required.all(|scope| claims.has_scope(scope)) {
            Ok(claims)
        } else {
            Err(Refusal::InsufficientScope(&self.scopes))
        }
    }
}

impl<S> Layer<S> for Protect {
    type Service = Protected<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Protected {
            inner,
            rules: self.0.clone(),
        }
    }
}

/// A service behind [`Protect`]. Its refusals have the inner service's type of body, empty.
#[derive(Clone)]
pub struct Protected<S> {
    inner: S,
    rules: Arc<Rules>,
}

impl<S: fmt::Debug> fmt::Debug for Protected<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Protected")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl<S, B, R> Service<Request<B>> for Protected<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The one that was polled ready is the one to call.
        let ready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, ready);
        let rules = self.rules.clone();
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            match rules.authorize(&parts).await {
                Ok(claims) => {
                    // Whoever prints the headers does not print the token.
                    if let Some(value) = parts.headers.get_mut(AUTHORIZATION) {
                        value.set_sensitive(true);
                    }
                    parts.extensions.insert(claims);
                    inner.call(Request::from_parts(parts, body)).await
                }
                Err(refusal) => Ok(refusal.response(&rules.realm)),
            }
        })
    }
}

#[cfg(test)]
#[path = "tests/layer.rs"]
mod tests;
