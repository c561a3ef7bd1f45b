//! The gateway sends no request twice, whatever becomes of it: a code that a lost call has redeemed would end the tokens of
//! whoever redeems it again.
//!
//! A stand-in speaks just enough of HTTP/2 (RFC 9113) to read requests and to fail them.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::harness::envoy::{Gateway, Place, Upstreams};

tests!(a_code_that_a_service_has_received_is_not_sent_again,);

/// The client's preface (RFC 9113 §3.4).
const PREFACE: usize = 24;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
/// `:status: 503`: a literal with the indexed name 8 (RFC 7541 §6.2.2).
const STATUS_503: &[u8] = b"\x08\x03503";

/// What becomes of a request that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The connection is reset.
    Reset,
    /// The connection is closed in good order.
    Close,
    /// The request's stream is reset as one that was not processed, which permits a client to send it again.
    RefusedStream,
    /// The server says that it goes, and that it processed nothing.
    GoAway,
    /// Nothing.
    Silence,
    /// It is answered with status 503.
    Unavailable,
}

const FATES: [Fate; 6] = [
    Fate::Reset,
    Fate::Close,
    Fate::RefusedStream,
    Fate::GoAway,
    Fate::Silence,
    Fate::Unavailable,
];

/// A service that counts the requests it has read whole.
struct StandIn {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
    _connections: JoinSet<()>,
}

impl StandIn {
    async fn start(fate: Fate) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, requests) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let mut accepting = JoinSet::new();
        let counted = requests.clone();
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((connection, _)) = listener.accept().await {
                let counted = counted.clone();
                connections.spawn(async move {
                    let _ = serve(connection, fate, &counted).await;
                });
            }
        });
        Self {
            address,
            requests,
            _connections: accepting,
        }
    }
}

fn frame(kind: u8, flags: u8, stream: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream);
    frame.extend(payload);
    frame
}

async fn serve(mut connection: TcpStream, fate: Fate, requests: &AtomicUsize) -> std::io::Result<()> {
    connection.read_exact(&mut [0; PREFACE]).await?;
    connection.write_all(&frame(SETTINGS, 0, [0; 4], &[])).await?;
    loop {
        let mut head = [0; 9];
        connection.read_exact(&mut head).await?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap()];
        connection.read_exact(&mut payload).await?;
        match kind {
            SETTINGS if flags & ACK == 0 => {
                connection.write_all(&frame(SETTINGS, ACK, [0; 4], &[])).await?;
            }
            PING if flags & ACK == 0 && fate != Fate::Silence => {
                connection.write_all(&frame(PING, ACK, [0; 4], &payload)).await?;
            }
            HEADERS | DATA if flags & END_STREAM != 0 => {
                requests.fetch_add(1, Ordering::SeqCst);
                match fate {
                    Fate::Reset => {
                        connection.set_zero_linger()?;
                        return Ok(());
                    }
                    Fate::Close => return Ok(()),
                    Fate::RefusedStream => {
                        let refused_stream = [0, 0, 0, 7];
                        connection
                            .write_all(&frame(RST_STREAM, 0, stream, &refused_stream))
                            .await?;
                    }
                    Fate::GoAway => {
                        // The last stream that was processed is 0, and there is no error.
                        connection.write_all(&frame(GOAWAY, 0, [0; 4], &[0; 8])).await?;
                    }
                    Fate::Silence => {}
                    Fate::Unavailable => {
                        connection
                            .write_all(&frame(HEADERS, 4 | END_STREAM, stream, STATUS_503))
                            .await?;
                    }
                }
            }
            _ => {}
        }
    }
}

async fn a_code_that_a_service_has_received_is_not_sent_again() {
    for fate in FATES {
        let (place, stand_in) = (Place::reserve(), StandIn::start(fate).await);
        let gateway = Gateway::start_changed(
            place,
            Upstreams {
                registry_grpc: stand_in.address,
                token_grpc: stand_in.address,
                token_http: stand_in.address,
            },
            // A gateway that waits for less long.
            |text| {
                text.replace("timeout: 32s", "timeout: 2s")
                    .replace("interval: 30s, timeout: 5s", "interval: 1s, timeout: 1s")
            },
        )
        .await;
        let form = [
            ("grant_type", "authorization_code"),
            ("code", "acc_code"),
            ("redirect_uri", "https://app.example/callback"),
            ("code_verifier", "v"),
        ];
        let url = format!("{}/firm/oauth2/token", gateway.url());
        let by_form = gateway.client().post(url).form(&form);
        let message = json!({"tenant_id": "firm", "authorization_code": {"code": "acc_code"}});
        let url = format!("{}/accord.token.v1.TokenService/IssueToken", gateway.url());
        let as_json = gateway.client().post(url).json(&message);
        for (number, request) in [by_form, as_json].into_iter().enumerate() {
            let request = request.timeout(Duration::from_secs(20));
            let status = request.send().await.unwrap().status();
            assert!(status.is_server_error(), "{fate:?}: {status}");
            let sent = stand_in.requests.load(Ordering::SeqCst);
            assert_eq!(sent, number + 1, "{fate:?}: {}", gateway.printed());
        }
    }
}
