//! The socket under one connection, which can be told to misbehave below HTTP.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

const GARBAGE: &[u8] = b"\x16\x03\x01 this is not HTTP\r\n\r\n";

/// How a connection misbehaves from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Manner {
    /// The next thing written is no HTTP, whatever it was to be.
    Garbage = 1,
    /// Closing sends a reset.
    Reset = 2,
}

/// Changes the manner of a connection from inside its requests; 0 while nobody has pulled it.
#[derive(Debug, Clone, Default)]
pub(super) struct Lever(Arc<AtomicU8>);

impl Lever {
    pub(super) fn pull(&self, manner: Manner) {
        self.0.store(manner as u8, Ordering::Relaxed);
    }

    fn is(&self, manner: Manner) -> bool {
        self.0.load(Ordering::Relaxed) == manner as u8
    }
}

/// A TCP stream with such a lever.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    lever: Lever,
}

impl Wire {
    pub(super) fn new(stream: TcpStream, lever: Lever) -> Self {
        Self { stream, lever }
    }

    /// Writes garbage in place of `proper` bytes and pretends they went out.
    fn garble(&mut self, cx: &mut Context<'_>, proper: usize) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(cx, GARBAGE) {
            Poll::Ready(Ok(_)) => Poll::Ready(Ok(proper)),
            other => other,
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.lever.is(Manner::Reset) {
            // Should the socket be gone already, then so is the client: nothing to tell it.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.lever.is(Manner::Garbage) {
            return self.garble(cx, bytes.len());
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.lever.is(Manner::Garbage) {
            return self.garble(cx, bytes.iter().map(|slice| slice.len()).sum());
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
