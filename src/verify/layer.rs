//! Puts a [`Checker`] in front of an HTTP service (RFC 6750).

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response, Uri, header::AUTHORIZATION, request::Parts};
use tower::{Layer, Service};

use super::{
    AccessTokenClaims, Checker, Presented, Scheme, Tenant,
    bearer::{self, Rejection},
    metadata,
};
use crate::dpop;

/// The certificate that the client of a request presented on its connection, in DER. A server that ends TLS puts it into the
/// extensions of its requests, for tokens that are bound to a certificate (RFC 8705 §3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate(pub Arc<[u8]>);

/// Returns the tenant of a request; `None` if there is no such tenant. A request for a resource's metadata is passed
/// with the path of the resource.
pub type TenantOf = Arc<dyn Fn(&Parts) -> Option<Arc<Tenant>> + Send + Sync>;

/// A layer that forwards requests with a valid access token, with its [`AccessTokenClaims`] in the request's
/// extensions, and rejects all others:
///
/// | status | when |
/// |---|---|
/// | 401 | no access token |
/// | 401 `invalid_token` | the token is invalid, for whatever reason, or bound to a key and sent as bearer |
/// | 401 `invalid_dpop_proof` | the proof of the token's key is missing, wrong, or was used before |
/// | 403 `insufficient_scope` | the token lacks a required scope |
/// | 400 `invalid_request` | the `Authorization` header is malformed or repeated |
/// | 503 | the token can't be checked now; `Retry-After` says when to try again |
///
/// A token comes under the scheme `Bearer`, or, with a proof in the header `DPoP`, under `DPoP` (RFC 9449 §7.1).
///
/// All but the last have a `WWW-Authenticate` challenge, with the URL of the resource's metadata if the tenant is known.
/// All have `Cache-Control: no-store` and no body.
///
/// Serves the metadata (RFC 9728) at `/.well-known/oauth-protected-resource`, and at that path followed by the path of
/// the Cloud API URL. Neither needs a token. So put the layer around the whole application, not around nested routes.
#[derive(Clone)]
pub struct Protect(Arc<Rules>);

#[derive(Clone)]
struct Rules {
    checker: Checker,
    tenant_of: TenantOf,
    /// The required scopes, separated by spaces.
    scopes: String,
    realm: String,
    /// What the URLs of requests begin with; `None` for the origin of the tenant's Cloud API URL.
    base_url: Option<String>,
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
    /// Protects the resources of one tenant.
    pub fn tenant(checker: Checker, tenant: Tenant) -> Self {
        let realm = tenant.audience.clone();
        let tenant = Arc::new(tenant);
        Self::tenants(checker, move |_| Some(tenant.clone())).realm(realm)
    }

    /// Protects the resources of several tenants. `tenant_of` returns the tenant of a request, for example by its path.
    /// A request for an unknown tenant is rejected like a token of another tenant. Handlers should take the tenant from
    /// the claims, so that they act for no other tenant.
    pub fn tenants<F>(checker: Checker, tenant_of: F) -> Self
    where
        F: Fn(&Parts) -> Option<Arc<Tenant>> + Send + Sync + 'static,
    {
        Self(Arc::new(Rules {
            checker,
            tenant_of: Arc::new(tenant_of),
            scopes: String::new(),
            realm: "Cloud API".to_owned(),
            base_url: None,
        }))
    }

    /// Sets what the URLs of requests begin with where their senders are, such as `https://api.example`: scheme and host, and a
    /// path if a proxy removes one. By default it is the origin of the tenant's Cloud API URL. The URL in a DPoP proof must be
    /// this with the path of the request (RFC 9449 §4.3). No header of the request decides about it.
    #[must_use]
    pub fn base_url(mut self, url: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.0).base_url = Some(url.into());
        self
    }

    /// Requires a scope, in addition to those of earlier calls.
    #[must_use]
    pub fn require_scope(mut self, scope: &str) -> Self {
        let scopes = &mut Arc::make_mut(&mut self.0).scopes;
        if !scopes.is_empty() {
            scopes.push(' ');
        }
        scopes.push_str(scope);
        self
    }

    /// Sets the realm of challenges (RFC 9110 §11.5). By default it is the tenant's Cloud API URL, or `Cloud API` with
    /// several tenants.
    #[must_use]
    pub fn realm(mut self, realm: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.0).realm = realm.into();
        self
    }
}

impl Rules {
    async fn authorize(
        &self,
        parts: &Parts,
        tenant: Option<&Tenant>,
    ) -> Result<AccessTokenClaims, Rejection<'_>> {
        let (scheme, token) = bearer::presented(&parts.headers)?;
        let tenant = tenant.ok_or(Rejection::InvalidToken)?;
        let dpop_proof = match scheme {
            Scheme::Bearer => None,
            Scheme::Dpop => {
                let proof = dpop::from_headers(&parts.headers);
                proof.map_err(|error| Rejection::InvalidProof(error.name()))?
            }
        };
        let base_url = match &self.base_url {
            Some(url) => url.trim_end_matches('/'),
            None => metadata::origin(&tenant.audience),
        };
        let certificate = parts.extensions.get::<ClientCertificate>();
        let presented = Presented {
            scheme,
            token,
            method: parts.method.as_str(),
            url: &format!("{base_url}{}", parts.uri.path()),
            dpop_proof,
            client_certificate: certificate.map(|ClientCertificate(der)| &**der),
        };
        let claims = self.checker.check_request(&presented, tenant).await?;
        let mut required = self.scopes.split(' ').filter(|scope| !scope.is_empty());
        let is_sufficient = required.all(|scope| claims.has_scope(scope));
        is_sufficient
            .then_some(claims)
            .ok_or(Rejection::InsufficientScope(&self.scopes))
    }

    /// Answers a request for metadata; returns `None` for all others. Sets the URI's path to that of the resource, for
    /// `tenant_of`.
    fn metadata<B: Default + From<String>>(&self, parts: &mut Parts) -> Option<Response<B>> {
        let requested = parts.uri.path().to_owned();
        let path = metadata::resource_path(&requested)?;
        let resource = if path.is_empty() { "/" } else { path };
        let mut uri = parts.uri.clone().into_parts();
        uri.path_and_query = resource.parse().ok();
        parts.uri = Uri::from_parts(uri).ok()?;
        let tenant = (self.tenant_of)(parts);
        Some(metadata::response(
            &parts.method,
            path,
            tenant.as_deref(),
            &self.scopes,
        ))
    }
}

impl<S> Layer<S> for Protect {
    type Service = Protected<S>;

    fn layer(&self, inner: S) -> Self::Service {
        let protect = self.clone();
        Protected { inner, protect }
    }
}

/// A service behind [`Protect`]. Its own responses have bodies of the inner service's type.
#[derive(Clone, Debug)]
pub struct Protected<S> {
    inner: S,
    protect: Protect,
}

impl<S, B, R> Service<Request<B>> for Protected<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    R: Default + From<String>,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // Only the instance that `poll_ready` polled is ready, so that one takes the call.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let Protect(rules) = self.protect.clone();
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            if let Some(document) = rules.metadata(&mut parts) {
                return Ok(document);
            }
            let tenant = (rules.tenant_of)(&parts);
            match rules.authorize(&parts, tenant.as_deref()).await {
                Ok(claims) => {
                    // Hides the token in the `Debug` output of the headers.
                    if let Some(value) = parts.headers.get_mut(AUTHORIZATION) {
                        value.set_sensitive(true);
                    }
                    parts.extensions.insert(claims);
                    inner.call(Request::from_parts(parts, body)).await
                }
                Err(rejection) => {
                    let scheme = bearer::presented(&parts.headers).ok().map(|(scheme, _)| scheme);
                    let metadata = tenant.map(|tenant| metadata::url(&tenant.audience));
                    Ok(rejection.response(scheme, &rules.realm, metadata.as_deref()))
                }
            }
        })
    }
}

#[cfg(test)]
#[path = "tests/layer.rs"]
mod tests;

#[cfg(test)]
#[path = "tests/bound.rs"]
mod bound;
