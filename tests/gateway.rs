//! The gateway: Envoy with `deploy/envoy.yaml`, as partners, browsers and strangers reach it.
//!
//! A stand-in behind the gateway records what passes and in which form. `end_to_end` runs with the services themselves.

pub mod bound;
pub mod closed;
pub mod end_to_end;
pub mod headers;
pub mod limits;
pub mod mtls;
pub mod once;
mod stand_in;
pub mod transport;

use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::Value;

use crate::harness::{
    envoy::{Gateway, Place},
    process::accord,
};
use stand_in::StandIn;

tests!(the_contract_for_the_gateway_goes_to_standard_output_without_a_file,);

/// A gateway with a stand-in for all three listeners behind it.
async fn with_stand_in() -> (Gateway, StandIn) {
    let place = Place::reserve();
    let stand_in = StandIn::start().await;
    let gateway = Gateway::start(place, stand_in.upstreams()).await;
    (gateway, stand_in)
}

/// Calls a method as JSON through the gateway, by its full name with a slash.
async fn call(gateway: &Gateway, method: &str, message: &Value) -> Response {
    let request = gateway.client().post(format!("{}/{method}", gateway.url()));
    request.json(message).send().await.unwrap()
}

/// Returns status and JSON body of a response.
async fn json(request: RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

async fn the_contract_for_the_gateway_goes_to_standard_output_without_a_file() {
    let output = accord().arg("descriptors").output().unwrap();
    assert!(output.status.success());
    assert_eq!(output.stdout, accord_cli::descriptors::bytes());
}
