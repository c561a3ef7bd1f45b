//! The token endpoint over HTTP/1.1: a connection for each caller, which stays open.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, StatusCode,
    body::Bytes,
    client::conn::http1::{SendRequest, handshake},
    header,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpStream, sync::Mutex};

use super::{Calls, Credentials, Failure, grpc::is_token, pick};
use crate::protocol::CALLERS;

const FORM: &[u8] = b"grant_type=client_credentials";

pub struct Form {
    server: String,
    connections: Vec<Mutex<SendRequest<Full<Bytes>>>>,
    credentials: Arc<[Credentials]>,
}

impl Form {
    pub async fn connect(server: &str, credentials: Arc<[Credentials]>) -> Result<Self> {
        let mut connections = Vec::with_capacity(CALLERS);
        for _ in 0..CALLERS {
            let stream = TcpStream::connect(server).await.context("connecting")?;
            stream.set_nodelay(true)?;
            let (sender, connection) = handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            connections.push(Mutex::new(sender));
        }
        Ok(Self {
            server: server.to_owned(),
            connections,
            credentials,
        })
    }

    async fn post(&self, caller: usize) -> Result<()> {
        let client = pick(&self.credentials);
        let basic = STANDARD.encode(format!("{}:{}", client.client_id, client.client_secret));
        let request = Request::post(format!("/{}/oauth2/token", client.tenant_id))
            .header(header::HOST, &self.server)
            .header(header::AUTHORIZATION, format!("Basic {basic}"))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::new(Bytes::from_static(FORM)))?;
        let mut connection = self.connections[caller % CALLERS].lock().await;
        connection.ready().await?;
        let response = connection.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        let issued: Value = serde_json::from_slice(&body)?;
        let has_token = issued["access_token"].as_str().is_some_and(is_token);
        ensure!(status == StatusCode::OK && has_token, "{status}: {issued}");
        Ok(())
    }
}

#[tonic::async_trait]
impl Calls for Form {
    async fn call(&self, caller: usize) -> Result<(), Failure> {
        let posted = self.post(caller).await;
        posted.map_err(|error| Failure::Wrong(format!("{error:#}")))
    }
}
