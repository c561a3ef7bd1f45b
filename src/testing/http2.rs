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
const CONTINUATION: u8 = 9;
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

/// Sends frames of one kind without an end: `continuations` of one header block, `resets` of calls, or calls with large
/// `headers`. Returns how many bytes the server took before it ended the connection, at most `most`. Blocks.
///
/// # Panics
/// For another kind.
pub fn flood(server: SocketAddr, kind: &str, most: usize) -> usize {
    // A literal header with a name of one byte that is not indexed (RFC 7541 section 6.2.2).
    let large: Vec<u8> = [&[0x00, 1, b'x', 0x7f, 0x81, 0x7c][..], &[b'y'; 16_000]].concat();
    let mut connection = TcpStream::connect(server).unwrap();
    let timeout = Some(Duration::from_secs(10));
    connection.set_write_timeout(timeout).unwrap();
    connection.set_read_timeout(timeout).unwrap();
    // Reads what the server says, so that it never waits for this client.
    let mut reader = connection.try_clone().unwrap();
    let reading = std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
    let mut sent = 0;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    for stream in (1..u32::MAX / 2).step_by(2) {
        match kind {
            "continuations" if stream == 1 => bytes.extend(frame(HEADERS, 0, 1, &POST)),
            "continuations" => bytes.extend(frame(CONTINUATION, 0, 1, &[0x00, 1, b'x', 1, b'y'])),
            "resets" => {
                bytes.extend(frame(HEADERS, END_HEADERS, stream, &POST));
                bytes.extend(frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()));
            }
            "headers" => {
                bytes.extend(frame(HEADERS, 0, stream, &POST));
                for _ in 0..8 {
                    bytes.extend(frame(CONTINUATION, 0, stream, &large));
                }
                bytes.extend(frame(CONTINUATION, END_HEADERS, stream, &large));
            }
            other => panic!("no flood of {other}"),
        }
        if bytes.len() > 16 * 1024 {
            if sent >= most || connection.write_all(&bytes).is_err() {
                break;
            }
            sent += bytes.len();
            bytes.clear();
        }
    }
    let _ = connection.shutdown(std::net::Shutdown::Both);
    let _ = reading.join();
    sent
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}
