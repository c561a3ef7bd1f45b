//! The service kit: everything that both services need to serve calls, from the listener to the status.

pub mod audit_service;
pub mod auth;
pub mod channel;
pub mod codec;
pub mod config;
pub mod context;
pub mod grpc;
pub mod http;
pub mod listener;
pub mod middleware;
pub mod run;
pub mod status;
pub mod telemetry;
pub mod tls;
