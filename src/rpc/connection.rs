//! An accepted connection of a gRPC server, which gathers what many calls answer at a time into few writes.
//!
//! HTTP/2 puts the answers of all calls of a connection into one stream of bytes. Calls that waited for
//! the same thing are answered one after the other; without this, the connection would be flushed after
//! each of them, and each flush is a system call, a segment, and a reader that wakes up.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// When so many bytes are gathered they are written, flush or not.
const MOST: usize = 64 * 1024;

/// A connection whose flushes wait for one turn of the tasks that can run, so that what they answer goes
/// along.
#[derive(Debug)]
pub(crate) struct Connection<S> {
    stream: S,
    /// Bytes that were taken and not written yet: from `written` on.
    gathered: Vec<u8>,
    written: usize,
    /// The flush under way had its turn to wait.
    has_waited: bool,
}

impl<S> Connection<S> {
    /// Takes an accepted stream.
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            gathered: Vec::new(),
            written: 0,
            has_waited: false,
        }
    }
}

impl<S: AsyncWrite + Unpin> Connection<S> {
    /// Writes all that was gathered.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.gathered.len() {
            let rest = &self.gathered[self.written..];
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
        }
        self.gathered.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    /// Takes bytes along, once there is room for them.
    fn poll_gather(&mut self, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.gathered.len() >= MOST {
            ready!(self.poll_drain(cx))?;
        }
        for slice in slices {
            self.gathered.extend_from_slice(slice);
        }
        Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
    }
}

impl<S> Connected for Connection<S> {
    /// Nothing: who calls is proven by the call, not by where it comes from.
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
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
        self.poll_gather(cx, &[io::IoSlice::new(buf)])
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_gather(cx, slices)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.gathered.is_empty() && !self.has_waited {
            self.has_waited = true;
            // The task that is woken while it runs goes to the end of its queue: behind those whose
            // answers may come along.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(self.poll_drain(cx))?;
        self.has_waited = false;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Counts what is written below, and takes little at a time.
    struct Counting {
        writes: Vec<Vec<u8>>,
        most: usize,
    }

    impl AsyncWrite for Counting {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            let taken = &buf[..buf.len().min(self.most)];
            self.writes.push(taken.to_vec());
            Poll::Ready(Ok(taken.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn what_is_answered_at_a_time_is_one_write() {
        let mut connection = Connection::new(Counting {
            writes: Vec::new(),
            most: usize::MAX,
        });
        for part in ["one ", "two ", "three"] {
            connection.write_all(part.as_bytes()).await.unwrap();
        }
        assert!(connection.stream.writes.is_empty(), "nothing before the flush");
        connection.flush().await.unwrap();
        assert_eq!(connection.stream.writes, [b"one two three"]);
        connection.flush().await.unwrap();
        connection.write_all(b"four").await.unwrap();
        connection.shutdown().await.unwrap();
        assert_eq!(connection.stream.writes, [&b"one two three"[..], b"four"]);
    }

    #[tokio::test]
    async fn every_byte_arrives_in_order_however_little_is_taken() {
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
    async fn what_is_gathered_has_a_bound() {
        let mut connection = Connection::new(Counting {
            writes: Vec::new(),
            most: 1000,
        });
        for _ in 0..100 {
            connection.write_all(&[0; 16 * 1024]).await.unwrap();
            assert!(connection.gathered.len() <= MOST + 16 * 1024);
        }
    }
}
