//! An accepted connection of a gRPC server, which combines the responses of concurrent calls into few writes.
//!
//! HTTP/2 sends the responses of all calls of a connection over one byte stream. Calls that waited for the same event
//! respond one after the other. Without this type each response is flushed by itself, and each flush costs a system call,
//! a segment, and a reader that wakes up.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, BufWriter, ReadBuf};
use tonic::transport::server::Connected;

/// The size of the buffer, which is written when it is full.
const BUFFER_BYTES: usize = 64 * 1024;

/// A connection whose flush first lets all tasks run that can run, and then writes their responses too.
#[derive(Debug)]
pub(super) struct Connection<S> {
    stream: BufWriter<S>,
    /// The current flush has let other tasks run.
    has_yielded: bool,
}

impl<S: AsyncWrite> Connection<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream: BufWriter::with_capacity(BUFFER_BYTES, stream),
            has_yielded: false,
        }
    }
}

/// No information: a call's credentials identify its caller, the connection does not.
impl<S> Connected for Connection<S> {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.stream.buffer().is_empty() && !self.has_yielded {
            self.has_yielded = true;
            // A task that is woken while it runs goes to the end of the queue.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.has_yielded = false;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Records writes, of which it accepts `most` bytes.
    struct Recorder {
        writes: Vec<Vec<u8>>,
        most: usize,
    }

    impl AsyncWrite for Recorder {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            let accepted = &buf[..buf.len().min(self.most)];
            self.writes.push(accepted.to_vec());
            Poll::Ready(Ok(accepted.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn writes_before_a_flush_are_combined() {
        let mut connection = Connection::new(Recorder {
            writes: Vec::new(),
            most: usize::MAX,
        });
        for part in ["one ", "two ", "three"] {
            connection.write_all(part.as_bytes()).await.unwrap();
        }
        assert!(
            connection.stream.get_ref().writes.is_empty(),
            "nothing before the flush"
        );
        connection.flush().await.unwrap();
        assert_eq!(connection.stream.get_ref().writes, [b"one two three"]);
        connection.flush().await.unwrap();
        connection.write_all(b"four").await.unwrap();
        connection.shutdown().await.unwrap();
        assert_eq!(
            connection.stream.get_ref().writes,
            [&b"one two three"[..], b"four"]
        );
    }

    #[tokio::test]
    async fn every_byte_arrives_in_order_over_a_slow_stream() {
        let (near, mut far) = tokio::io::duplex(7);
        let sent: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
        let expected = sent.clone();
        let writing = tokio::spawn(async move {
            let mut connection = Connection::new(near);
            for chunk in sent.chunks(1009) {
                connection.write_all(chunk).await.unwrap();
                if chunk[0].is_multiple_of(3) {
                    connection.flush().await.unwrap();
                }
            }
            connection.shutdown().await.unwrap();
        });
        let mut received = Vec::new();
        far.read_to_end(&mut received).await.unwrap();
        writing.await.unwrap();
        assert!(received == expected);
    }

    #[tokio::test]
    async fn the_buffer_is_bounded() {
        let mut connection = Connection::new(Recorder {
            writes: Vec::new(),
            most: 1000,
        });
        for _ in 0..100 {
            connection.write_all(&[0; 16 * 1024]).await.unwrap();
            assert!(connection.stream.buffer().len() <= BUFFER_BYTES);
        }
    }
}
