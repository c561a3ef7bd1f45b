//! Decides for Envoy which requests reach a service in any language (`ext_authz`):
//!
//! ```sh
//! cargo run --example ext_authz -- 127.0.0.1:9191 http://127.0.0.1:50052 workload-token acme \
//!     https://auth.example/acme https://api.example/acme
//! envoy -c examples/ext_authz.yaml
//! ```
//!
//! The arguments are the address to listen on, token-service, a file with the token of a workload of kind internal-service, and
//! the tenant with its Tenant Authority URL and its Cloud API URL. Only Envoy may reach the address. A request passes with a valid
//! access token, and with proof of the token's key if it is bound to one. The service finds in headers who calls.

use std::{error::Error, fs, io};

use accord::verify::{AccessTokenClaims, Checker, Protect, Tenant};
use axum::{Extension, Router, http::HeaderName, response::IntoResponse};
use tokio::net::TcpListener;

/// Answers Envoy's questions, which come as the requests that they are about, without their bodies.
pub async fn serve(listener: TcpListener, checker: Checker, tenant: Tenant) -> io::Result<()> {
    checker.ready().await;
    let app = Router::new()
        .fallback(passes)
        .layer(Protect::tenant(checker, tenant));
    axum::serve(listener, app).await
}

/// Lets a request pass, with headers that say who calls.
async fn passes(Extension(claims): Extension<AccessTokenClaims>) -> impl IntoResponse {
    [
        (HeaderName::from_static("x-accord-tenant-id"), claims.tenant_id),
        (HeaderName::from_static("x-accord-client-id"), claims.client_id),
        (HeaderName::from_static("x-accord-sub"), claims.sub),
        (HeaderName::from_static("x-accord-scope"), claims.scope),
    ]
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [listen, token_service, token_file, tenant_id, issuer, audience] = &arguments[..] else {
        return Err("usage: ext_authz LISTEN TOKEN_SERVICE TOKEN_FILE TENANT ISSUER CLOUD_API_URL".into());
    };
    let token = fs::read_to_string(token_file)?;
    let checker = Checker::connect(token_service, token.trim_end())?;
    let tenant = Tenant {
        tenant_id: tenant_id.clone(),
        issuer: issuer.clone(),
        audience: audience.clone(),
    };
    Ok(serve(TcpListener::bind(listen).await?, checker, tenant).await?)
}
