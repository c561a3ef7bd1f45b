//! OAuth clients that are not made for Accord, against its HTTP endpoints: with the Tenant Authority URL and their
//! credentials they find everything by discovery and need no special case.

pub mod admin;
pub mod algorithms;
pub mod go;
pub mod guide;
pub mod java;
pub mod mcp;
pub mod mutual_tls;
pub mod node;
pub mod oauth2_crate;
pub mod openapi;
mod program;
pub mod python;
pub mod sample;

use accord_cli::dev::Dev;
use accord_cli::dev_file::DevFile;
use reqwest::{Client, redirect::Policy};

use crate::harness::partner::{Partner, World};

/// An HTTP client of a browser or a library. If the environment's public URL is an https URL, the client connects as if
/// a gateway with TLS were in front. It follows no redirects.
#[derive(Clone, Debug)]
pub struct Way {
    http: Client,
    public: String,
    listener: String,
}

impl Way {
    pub fn to(target: &DevFile) -> Self {
        Self {
            http: Client::builder().redirect(Policy::none()).build().unwrap(),
            public: public_base_url(target).to_owned(),
            listener: target.http_url.clone(),
        }
    }

    /// Connects to the gateway that is there, by a client that trusts it.
    pub fn through_gateway(target: &DevFile, http: &Client) -> Self {
        let public = public_base_url(target);
        Self {
            http: http.clone(),
            public: public.to_owned(),
            listener: public.to_owned(),
        }
    }

    /// Returns the URL of the listener behind a public URL.
    pub fn url(&self, public: &str) -> String {
        let path = public.strip_prefix(&self.public);
        format!(
            "{}{}",
            self.listener,
            path.unwrap_or_else(|| panic!("not the authority's: {public}"))
        )
    }

    pub async fn get_json(&self, url: &str) -> serde_json::Value {
        let answer = self.http.get(self.url(url)).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{url}");
        answer.json().await.unwrap()
    }
}

fn public_base_url(target: &DevFile) -> &str {
    let tenant = format!("/{}", target.tenant_id);
    target.tenant_authority_url.strip_suffix(&tenant).unwrap()
}

/// Registers a partner whose only redirect URI is this one.
pub async fn partner_at(world: &World, redirect_uri: &str) -> Partner {
    world.partner_at(&[&world.target.tenant_id], redirect_uri).await
}

/// Ends an environment in good order.
pub async fn stop(dev: Dev) {
    dev.stop().await.unwrap();
}
