//! The bytes of a connection whose client has begun to speak, with TLS or without it.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use arrayvec::ArrayVec;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use crate::rpc::tls::{acceptor::Acceptor, handshake, peer::Peer};

/// The first bytes of HTTP/2 (RFC 9113 section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection, from its first byte on: those that were read to learn that it begins come first.
#[derive(Debug)]
pub(super) struct Stream {
    begin: ArrayVec<u8, { PREFACE.len() }>,
    rest: Either<TcpStream, Box<TlsStream<TcpStream>>>,
}

impl Stream {
    /// Shakes hands if the listener speaks TLS, and waits until the client has sent the whole preface of HTTP/2, or bytes
    /// that are not its beginning. Returns whose certificate the client presented, too, if it presented one. Returns `None`
    /// if the client does not begin before the deadline.
    ///
    /// # Errors
    /// The reason for the log, if the client sent something that is wrong.
    pub(super) async fn begin(
        stream: TcpStream,
        tls: Option<Arc<Acceptor>>,
        deadline: Instant,
    ) -> Result<Option<(Self, Option<Peer>)>, &'static str> {
        let mut first = [0];
        // Until there is a byte, the connection costs nothing but its socket.
        let Ok(Ok(1)) = timeout_at(deadline, stream.peek(&mut first)).await else {
            return Ok(None);
        };
        let (rest, peer) = match (tls, first[0] == handshake::FIRST_BYTE) {
            (None, false) => (Either::Left(stream), None),
            (None, true) => return Err("the client speaks TLS, and this listener does not"),
            (Some(_), false) => return Err("the client speaks plaintext, and this listener speaks TLS"),
            (Some(acceptor), true) => {
                // Boxed: a handshake is large, and most of its connection's time it is over.
                let accepted = timeout_at(deadline, Box::pin(handshake::accept(acceptor, stream))).await;
                let (stream, peer) = accepted.map_err(|_| "the handshake took too long")??;
                (Either::Right(stream), peer)
            }
        };
        let mut stream = Self {
            begin: ArrayVec::new(),
            rest,
        };
        let begun = timeout_at(deadline, stream.read_begin()).await;
        Ok(matches!(begun, Ok(Ok(true))).then_some((stream, peer)))
    }

    /// Returns `false` if the connection ends before it has begun.
    async fn read_begin(&mut self) -> io::Result<bool> {
        while PREFACE.starts_with(&self.begin) && !self.begin.is_full() {
            let mut bytes = [0; PREFACE.len()];
            let room = self.begin.remaining_capacity();
            let length = self.rest.read(&mut bytes[..room]).await?;
            if length == 0 {
                return Ok(false);
            }
            self.begin.extend(bytes.into_iter().take(length));
        }
        Ok(true)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.begin.is_empty() {
            let length = self.begin.len().min(buf.remaining());
            buf.put_slice(&self.begin[..length]);
            self.begin.drain(..length);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.rest).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.rest).poll_write(cx, buf)
    }

    fn is_write_vectored(&self) -> bool {
        self.rest.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.rest).poll_write_vectored(cx, slices)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.rest).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.rest).poll_shutdown(cx)
    }
}
