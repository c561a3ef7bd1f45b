//! Requests of HTTP, byte for byte as they are given, and their answers.

use std::net::SocketAddr;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use url::form_urlencoded;

use crate::world::TestClient;

/// Parameters, as they go into a query or a body.
pub type Parameters<'a> = [(&'a str, &'a str)];

/// A request to be sent.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: &'static str,
    pub target: String,
    headers: Vec<(&'static str, String)>,
    body: String,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

pub fn encoded(parameters: &Parameters) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(parameters)
        .finish()
}

impl Request {
    pub fn new(method: &'static str, target: impl Into<String>) -> Self {
        Self {
            method,
            target: target.into(),
            headers: Vec::new(),
            body: String::new(),
        }
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Authenticates the client by HTTP Basic.
    pub fn basic(self, client: &TestClient) -> Self {
        let pair = [&*client.client_id, &*client.client_secret]
            .map(|part| form_urlencoded::byte_serialize(part.as_bytes()).collect::<String>());
        self.header(
            "authorization",
            format!("Basic {}", STANDARD.encode(pair.join(":"))),
        )
    }

    pub fn form(mut self, parameters: &Parameters) -> Self {
        self.body = encoded(parameters);
        self.header("content-type", "application/x-www-form-urlencoded")
    }

    /// Sends the request over a connection of its own.
    pub async fn send(&self, address: SocketAddr) -> Answer {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut head = format!(
            "{} {} HTTP/1.1\r\nhost: accord.test\r\n",
            self.method, self.target
        );
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("content-length: {}\r\n\r\n", self.body.len()));
        stream.write_all(head.as_bytes()).await.unwrap();
        // A server that refuses the head may have closed already.
        let _ = stream.write_all(self.body.as_bytes()).await;
        let mut read = Vec::new();
        loop {
            if let Some(answer) = Answer::parse(&read, self.method) {
                return answer;
            }
            assert_ne!(
                stream.read_buf(&mut read).await.unwrap(),
                0,
                "the answer ends early"
            );
        }
    }
}

impl Answer {
    /// The answer, as soon as all of it was read.
    fn parse(read: &[u8], method: &str) -> Option<Self> {
        let end = read.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&read[..end]).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().unwrap();
        let headers: HeaderMap = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| {
                (
                    name.parse::<HeaderName>().unwrap(),
                    HeaderValue::from_str(value).unwrap(),
                )
            })
            .collect();
        let length = match (method, headers.get("content-length")) {
            ("HEAD", _) => 0,
            (_, Some(length)) => length.to_str().unwrap().parse().unwrap(),
            (_, None) => panic!("an answer without a length: {head}"),
        };
        let body = read.get(end + 4..end + 4 + length)?;
        Some(Self {
            status,
            headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        })
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next().map(|value| value.to_str().unwrap());
        assert!(values.next().is_none(), "{name} is repeated");
        value
    }

    /// The media type of the body, without parameters.
    pub fn media_type(&self) -> Option<&str> {
        self.header("content-type")?.split(';').next()
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// Status and error code.
    pub fn error(&self) -> (u16, String) {
        (
            self.status,
            self.json()["error"].as_str().unwrap_or_default().to_owned(),
        )
    }
}
