//! HTTP/2 frame by frame (RFC 9113 §6), for sequences that no library sends.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const CANCEL: u32 = 8;
/// `:method: POST`, `:scheme: http`, `:path: /` in HPACK's static table (RFC 7541, appendix A).
const POST: [u8; 3] = [0x83, 0x86, 0x84];

/// Sends `times` calls on one connection, and cancels each before the server can handle it. Then sends one more call and
/// waits for the response. Blocks.
///
/// # Panics
/// If the server ends the connection, or does not respond for ten seconds.
pub fn hang_up(server: SocketAddr, times: u32) {
    let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    sent.extend(frame(SETTINGS, 0, 0, &[]));
    let last = 2 * times + 1;
    for stream in (1..last).step_by(2) {
        sent.extend(frame(HEADERS, END_HEADERS, stream, &POST));
        sent.extend(frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()));
    }
    sent.extend(frame(HEADERS, END_HEADERS | END_STREAM, last, &POST));
    let mut connection = TcpStream::connect(server).unwrap();
    connection
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    connection.write_all(&sent).unwrap();
    loop {
        let mut head = [0; 9];
        connection.read_exact(&mut head).unwrap();
        let [_, high, low, kind, _flags, stream @ ..] = head;
        let mut payload = vec![0; usize::from(u16::from_be_bytes([high, low]))];
        connection.read_exact(&mut payload).unwrap();
        assert_ne!(kind, GOAWAY, "{}", String::from_utf8_lossy(&payload));
        if (kind, u32::from_be_bytes(stream)) == (HEADERS, last) {
            return;
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}
