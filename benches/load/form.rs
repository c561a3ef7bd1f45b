//! Callers of the token endpoint: HTTP/1.1, each on a connection of its own that stays open.

use std::sync::Arc;

use anyhow::Context;
use base64::{Engine, engine::general_purpose::STANDARD};
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, StatusCode,
    body::Bytes,
    client::conn::http1::{SendRequest, handshake},
    header,
};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;

use super::{
    drive::{Answer, Caller},
    grpc::is_token,
    picks::Picks,
    stock::Person,
};

const FORM: &[u8] = b"grant_type=client_credentials";

#[derive(Deserialize)]
struct Issued {
    access_token: String,
}

/// Posts forms.
pub struct Posting {
    server: String,
    connection: SendRequest<Full<Bytes>>,
    picks: Picks,
}

impl Posting {
    pub async fn callers(server: &str, callers: usize, people: &Arc<[Person]>) -> anyhow::Result<Vec<Self>> {
        let mut posting = Vec::with_capacity(callers);
        for number in 0..callers {
            posting.push(Self {
                server: server.to_owned(),
                connection: connect(server).await.context("connecting")?,
                picks: Picks::new(people, number),
            });
        }
        Ok(posting)
    }

    async fn post(&mut self) -> anyhow::Result<Answer> {
        let person = self.picks.next();
        let credentials = STANDARD.encode(format!("{}:{}", person.client_id, person.client_secret));
        let request = Request::post(format!("/{}/oauth2/token", person.tenant_id))
            .header(header::HOST, &self.server)
            .header(header::AUTHORIZATION, format!("Basic {credentials}"))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::new(Bytes::from_static(FORM)))?;
        self.connection.ready().await?;
        let answer = self.connection.send_request(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        if status != StatusCode::OK {
            return Ok(Answer::Wrong(format!(
                "{status}: {}",
                String::from_utf8_lossy(&body)
            )));
        }
        let issued: Issued = serde_json::from_slice(&body)?;
        if is_token(&issued.access_token) {
            Ok(Answer::Right)
        } else {
            Ok(Answer::Wrong("an answer without an access token".to_owned()))
        }
    }
}

impl Caller for Posting {
    async fn call(&mut self) -> Answer {
        match self.post().await {
            Ok(answer) => answer,
            Err(error) => Answer::Wrong(format!("{error:#}")),
        }
    }
}

async fn connect(server: &str) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}
