//! A client's connection as Pingora reads and writes it: buffered writes, a look ahead for HTTP/2, and a deadline for heads.

use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::SslDigest;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufWriter, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::Stage;

/// Bytes gathered before a write: a head and a short body, or a chunk with its frame. Paid per open stream.
const WRITE_BUFFER: usize = 2 * 1024;

/// Bytes read at a time while looking ahead; most requests fit.
const LOOK_AHEAD: usize = 4 * 1024;

/// A connection over a transport: TCP, or TLS on it.
#[derive(Debug)]
pub(super) struct Connection<S> {
    io: BufWriter<S>,
    /// What has been read by looking ahead, and not yet been taken.
    ahead: BytesMut,
    stage: Arc<Stage>,
    accepted: Instant,
    head_within: Duration,
    /// The deadline of the stage it was set for.
    timer: Option<(u8, Pin<Box<Sleep>>)>,
    socket: Arc<SocketDigest>,
    fd: i32,
    secured: Option<Secured>,
}

/// What a TLS handshake has agreed on.
#[derive(Debug)]
struct Secured {
    digest: Arc<SslDigest>,
    protocol: Option<ALPN>,
}

/// What bytes come and go by.
pub(super) trait Transport: AsyncRead + AsyncWrite + AsRawFd + Unpin + Debug + Send + Sync + 'static {
    /// Version, cipher and ALPN's protocol of TLS; `None` where there is none.
    fn secured(&self) -> Option<(&'static str, String, bool)> {
        None
    }
}

impl Transport for TcpStream {}

#[cfg(feature = "tls")]
impl Transport for tokio_rustls::server::TlsStream<TcpStream> {
    fn secured(&self) -> Option<(&'static str, String, bool)> {
        let (_, session) = self.get_ref();
        let version = session.protocol_version().and_then(|version| version.as_str()).unwrap_or("TLS");
        let cipher = session.negotiated_cipher_suite().map(|suite| format!("{:?}", suite.suite()));
        Some((version, cipher.unwrap_or_default(), session.alpn_protocol() == Some(b"h2")))
    }
}

impl<S: Transport> Connection<S> {
    /// For a connection that was accepted just now.
    pub(super) fn new(stream: S, peer: SocketAddr, stage: Arc<Stage>, head_within: Duration) -> Self {
        let fd = stream.as_raw_fd();
        let secured = stream.secured().map(|(version, cipher, is_http2)| Secured {
            digest: Arc::new(SslDigest::new(cipher, version.to_owned(), None, None, Vec::new())),
            protocol: is_http2.then_some(ALPN::H2),
        });
        let socket = SocketDigest::from_raw_fd(fd);
        // It is new, so nobody has set it before.
        let _ = socket.peer_addr.set(Some(peer.into()));
        Self {
            io: BufWriter::with_capacity(WRITE_BUFFER, stream),
            ahead: BytesMut::new(),
            stage,
            accepted: Instant::now(),
            head_within,
            timer: None,
            socket: Arc::new(socket),
            fd,
            secured,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Reads from the transport, under the deadline of the stage.
    fn poll_transport(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        let stage = self.stage.get();
        if stage == Stage::BUSY {
            return read;
        }
        if read.is_ready() {
            if stage == Stage::IDLE && buf.filled().len() > before {
                self.stage.set(Stage::HEAD);
                // Its deadline is its own, not that of a head before it.
                self.timer = None;
            }
            return read;
        }
        let until = match stage {
            Stage::FIRST => self.accepted + self.head_within,
            Stage::HEAD => Instant::now() + self.head_within,
            // Pingora's keep-alive timeout.
            _ => return Poll::Pending,
        };
        match &mut self.timer {
            Some((of, _)) if *of == stage => {}
            Some((of, timer)) => {
                timer.as_mut().reset(until);
                *of = stage;
            }
            none => *none = Some((stage, Box::pin(tokio::time::sleep_until(until)))),
        }
        let Some((_, timer)) = &mut self.timer else { return Poll::Pending };
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Connection<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let count = self.ahead.len().min(buf.remaining());
            buf.put_slice(&self.ahead[..count]);
            self.ahead.advance(count);
            if self.ahead.is_empty() {
                self.ahead = BytesMut::new();
            }
            return Poll::Ready(Ok(()));
        }
        self.poll_transport(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[async_trait]
impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Peek for Connection<S> {
    /// Looks at what comes first, until `buf` is full or is known not to be HTTP/2's preface, which is what Pingora peeks for:
    /// a short request must not wait for bytes that never come.
    async fn try_peek(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        loop {
            let known = self.ahead.len().min(buf.len());
            buf[..known].copy_from_slice(&self.ahead[..known]);
            if known == buf.len() || !PREFACE.starts_with(&self.ahead[..known]) {
                return Ok(true);
            }
            let mut piece = [0; LOOK_AHEAD];
            let mut read = ReadBuf::new(&mut piece);
            std::future::poll_fn(|cx| self.poll_transport(cx, &mut read)).await?;
            match read.filled() {
                [] if self.ahead.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
                // What there is may be a broken request, which is answered.
                [] => return Ok(true),
                more => self.ahead.extend_from_slice(more),
            }
        }
    }
}

#[async_trait]
impl<S: AsyncWrite + Unpin + Send + Sync> Shutdown for Connection<S> {
    async fn shutdown(&mut self) {
        // It is over, well or not.
        let _ = self.io.shutdown().await;
    }
}

impl<S> UniqueID for Connection<S> {
    fn id(&self) -> i32 {
        self.fd
    }
}

impl<S> Ssl for Connection<S> {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.secured.as_ref().map(|secured| Arc::clone(&secured.digest))
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.secured.as_ref()?.protocol.clone()
    }
}

impl<S> GetTimingDigest for Connection<S> {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl<S> GetProxyDigest for Connection<S> {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl<S> GetSocketDigest for Connection<S> {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(Arc::clone(&self.socket))
    }
}
