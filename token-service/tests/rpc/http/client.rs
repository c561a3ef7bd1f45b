//! An HTTP/1.1 client that sends exactly what a test gives it, well-formed or not, and follows nothing.

use std::net::SocketAddr;

use accord::testing::certificates::Pair;
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split},
    net::TcpStream,
};
use url::form_urlencoded;

use super::connection::{connect, tls};
use crate::world::{TestClient, World};

/// The host of the authorities.
const HOST: &str = "auth.example";
/// The host at which clients present certificates.
pub const MTLS_HOST: &str = "mtls.auth.example";

/// What a form's body is called.
pub const FORM: &str = "application/x-www-form-urlencoded";

/// Names and values, in their order, repeated ones included.
pub type Fields<'a> = [(&'a str, &'a str)];

/// Fields as a form's body or a query has them.
pub fn encoded(fields: &Fields) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(fields)
        .finish()
}

/// A request, to be sent as it is.
#[derive(Clone, derive_more::Debug)]
pub struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    in_chunks: bool,
    host: &'static str,
    #[debug(skip)]
    certificate: Option<Pair>,
}

impl Request {
    pub fn new(method: &str, target: impl Into<String>) -> Self {
        Self {
            method: method.into(),
            target: target.into(),
            headers: Vec::new(),
            body: Vec::new(),
            in_chunks: false,
            host: HOST,
            certificate: None,
        }
    }

    pub fn get(target: impl Into<String>) -> Self {
        Self::new("GET", target)
    }

    pub fn post(target: impl Into<String>) -> Self {
        Self::new("POST", target)
    }

    /// One more header, beside any other of this name.
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Does not say beforehand how long the body is.
    pub fn in_chunks(mut self) -> Self {
        self.in_chunks = true;
        self
    }

    /// Goes to the host at which clients present certificates.
    pub fn host_of_partners(mut self) -> Self {
        self.host = MTLS_HOST;
        self
    }

    /// Presents this certificate, at the host for that.
    pub fn certificate(self, pair: &Pair) -> Self {
        let mut request = self.host_of_partners();
        request.certificate = Some(pair.clone());
        request
    }

    /// The certificate that it presents.
    pub fn pair(&self) -> Option<&Pair> {
        self.certificate.as_ref()
    }

    pub fn form(self, fields: &Fields) -> Self {
        self.header("content-type", FORM).body(encoded(fields))
    }

    /// `client_secret_basic`, both parts form-encoded.
    pub fn basic(self, client: &TestClient) -> Self {
        self.basic_of(&client.client_id, &client.client_secret)
    }

    pub fn basic_of(self, client_id: &str, secret: &str) -> Self {
        let parts = [client_id, secret]
            .map(|part| form_urlencoded::byte_serialize(part.as_bytes()).collect::<String>());
        self.authorization_basic(&parts.join(":"))
    }

    /// `Authorization: Basic` of a text as it is.
    pub fn authorization_basic(self, pair: &str) -> Self {
        self.header("authorization", format!("Basic {}", STANDARD.encode(pair)))
    }

    /// Sends the request over a connection of its own, with TLS if the world has it.
    pub async fn send(&self, world: &World) -> Answer {
        let Some(authority) = world.harness().authority() else {
            return self.send_to(world.http_address()).await;
        };
        let tls = tls(&authority, self.pair());
        let stream = connect(world.http_address(), self.host, tls).await;
        self.exchange(stream.unwrap()).await
    }

    /// The same without TLS, for requests that race.
    pub async fn send_to(&self, address: SocketAddr) -> Answer {
        self.exchange(TcpStream::connect(address).await.unwrap()).await
    }

    /// Sends the request over this connection.
    pub async fn exchange<S>(&self, stream: S) -> Answer
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (mut reader, mut writer) = split(stream);
        let mut sent = format!(
            "{} {} HTTP/1.1\r\nhost: {}\r\n",
            self.method, self.target, self.host
        );
        for (name, value) in &self.headers {
            sent.push_str(&format!("{name}: {value}\r\n"));
        }
        let sent = match self.in_chunks {
            false => {
                sent.push_str(&format!("content-length: {}\r\n\r\n", self.body.len()));
                [sent.as_bytes(), &self.body].concat()
            }
            true => {
                sent.push_str("transfer-encoding: chunked\r\n\r\n");
                let mut sent = sent.into_bytes();
                for chunk in self.body.chunks(1000) {
                    sent.extend([format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
                }
                [&*sent, b"0\r\n\r\n"].concat()
            }
        };
        // Beside the reading: a server may answer before it has read everything, and close.
        let writing = tokio::spawn(async move {
            let _ = writer.write_all(&sent).await;
            let _ = writer.flush().await;
            writer
        });
        let mut received = Vec::new();
        let answer = loop {
            if let Some(answer) = Answer::parse(&received, self.method == "HEAD") {
                break answer;
            }
            let read = reader.read_buf(&mut received).await.unwrap_or(0);
            assert_ne!(read, 0, "the answer to {self:?} ends early");
        };
        writing.abort();
        answer
    }
}

/// The body in chunks (RFC 9112 §7.1), once all of it was received.
fn chunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n")?;
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        body.extend(rest.get(end + 2..end + 2 + length)?);
        rest = rest.get(end + 4 + length..)?;
        if length == 0 {
            return Some(body);
        }
    }
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    /// The answer, once all of it was received.
    fn parse(received: &[u8], without_body: bool) -> Option<Self> {
        let end = received.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&received[..end]).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().unwrap();
        let headers: HeaderMap = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| {
                let name: HeaderName = name.parse().unwrap();
                (name, HeaderValue::from_str(value).unwrap())
            })
            .collect();
        let rest = &received[end + 4..];
        let body = match headers.get("content-length") {
            _ if without_body || head.starts_with("HTTP/1.1 204") => Vec::new(),
            Some(length) => rest.get(..length.to_str().unwrap().parse().unwrap())?.to_vec(),
            None => chunked(rest)?,
        };
        Some(Self {
            status,
            headers,
            body: String::from_utf8(body).unwrap(),
        })
    }

    /// The value of a header that comes once, if at all.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next().map(|value| value.to_str().unwrap());
        assert!(values.next().is_none(), "{name} is repeated: {self:?}");
        value
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// A member of the JSON body that is a text.
    #[track_caller]
    pub fn text(&self, member: &str) -> String {
        let body = self.json();
        let text = body[member].as_str();
        text.unwrap_or_else(|| panic!("no {member} in {self:?}"))
            .to_owned()
    }
}
