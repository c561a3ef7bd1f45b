//! Tokens that are bound to a key, through the gateway: to the certificate of the partner's connection with it (RFC 8705), and to
//! the key of proofs (RFC 9449). All of a conformance plan's lines hold in `token-service/tests/rpc/http/conformance`; here are
//! those for which a gateway could make a difference.

pub mod mutual_tls;
pub mod proofs;

use accord::{testing::certificates::Authority, token::v1::IntrospectTokenResponse};
use reqwest::StatusCode;
use serde_json::Value;
use tempfile::TempDir;
use url::Url;

use super::json;
use crate::{
    harness::{
        envoy::{Gateway, Place},
        partner::World,
        secured::Secured,
    },
    oauth_clients::{
        Way,
        admin::{Admin, Decision},
    },
};

const CREDENTIALS: (&str, &str) = ("grant_type", "client_credentials");

/// The names and values of a form.
type Fields<'a> = Vec<(&'a str, &'a str)>;

/// Services that require nonces behind a gateway with a listener for partners' certificates.
struct Stage {
    services: Secured,
    gateway: Gateway,
    world: World,
    /// Signs the authority that signs partners.
    root: Authority,
    /// The authority's metadata, as a partner reads it.
    metadata: Value,
    _partners: Place,
    _directory: TempDir,
}

impl Stage {
    async fn start() -> Self {
        let [place, partners] = [(); 2].map(|()| Place::reserve());
        let directory = tempfile::tempdir().unwrap();
        let root = Authority::new("partners");
        let partner_ca = root.write(directory.path(), "partners.pem");
        let services = Secured::start_at(&place.url(), |mut serve| {
            serve
                .env("ACCORD_TOKEN_CLIENT_CERTIFICATE_HEADER", "xfcc")
                .env("ACCORD_TOKEN_PARTNER_CA", partner_ca)
                .env("ACCORD_TOKEN_MTLS_BASE_URL", partners.url())
                .env("ACCORD_TOKEN_DPOP_NONCE", "required");
            serve
        })
        .await;
        let world = services.world().await;
        let (upstreams, certs) = (services.upstreams(), services.certs());
        let gateway = Gateway::start_with_partners(place, &partners, upstreams, &certs);
        let path = ".well-known/oauth-authorization-server";
        let url = format!("{}/{path}", world.target.tenant_authority_url);
        let (status, metadata) = json(gateway.client().get(url)).await;
        assert_eq!(status, StatusCode::OK, "{metadata}");
        Self {
            services,
            gateway,
            world,
            root,
            metadata,
            _partners: partners,
            _directory: directory,
        }
    }

    /// The URL of an endpoint.
    fn url(&self, endpoint: &str) -> String {
        self.metadata[endpoint].as_str().unwrap().to_owned()
    }

    /// Where a browser opens a pushed request.
    fn authorization_url(&self, client_id: &str, request_uri: &str) -> String {
        let mut url = Url::parse(&self.url("authorization_endpoint")).unwrap();
        let parameters = [("client_id", client_id), ("request_uri", request_uri)];
        url.query_pairs_mut().extend_pairs(parameters);
        url.into()
    }

    /// Opens a page, and returns its status.
    async fn open(&self, url: &str) -> StatusCode {
        self.gateway.client().get(url).send().await.unwrap().status()
    }

    /// Lets the Tenant Admin decide with a new browser. Returns where it is sent.
    async fn decide(&self, url: &str, decision: Decision<'_>) -> Url {
        let target = &self.world.target;
        let way = Way::through_gateway(target, self.gateway.client());
        Admin::by(way, target).decide(url, decision).await
    }

    async fn introspect(&self, answer: &Value) -> IntrospectTokenResponse {
        self.world
            .introspect(answer["access_token"].as_str().unwrap())
            .await
    }
}

fn verifier() -> String {
    "v".repeat(43)
}

#[track_caller]
fn assert_rejected(line: &str, answer: &(StatusCode, Value), status: u16, error: &str) {
    let rejected = (answer.0.as_u16(), answer.1["error"].as_str());
    assert_eq!(rejected, (status, Some(error)), "{line}: {}", answer.1);
}
