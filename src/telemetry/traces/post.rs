//! How spans reach the collector: a POST over HTTP/1.1, a connection each, from the exporter's own thread. Plain sockets,
//! because every step of it has a deadline, and nothing of it is worth a client library.
//!
//! `https` takes a build with the feature `tls`, and trusts whom the system trusts.

#[cfg(feature = "tls")]
mod secure;

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;
use url::Url;

/// Headers beside our own.
const HEADERS_MAX: usize = 32;
/// As much of an answer's head as is read.
const ANSWER_MAX: usize = 16 * 1024;
/// How much is written at a time, between two looks at the clock.
const PIECE: usize = 64 * 1024;
/// Header fields of an answer that are looked at.
const FIELDS_MAX: usize = 64;

/// Why traces cannot be sent as they are to be. A sentence for the operator that tells no header's value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unusable(pub String);

/// Where spans go, and with which headers.
#[derive(Clone)]
pub struct Collector {
    host: String,
    port: u16,
    #[cfg(feature = "tls")]
    tls: Option<secure::Client>,
    /// The request's head up to its length.
    head: String,
}

impl fmt::Debug for Collector {
    /// Without the headers: they hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector")
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// What the collector said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
}

impl Collector {
    /// `url` is the whole address; `headers` are pairs `name=value`, split by commas, percent-encoded, as
    /// `OTEL_EXPORTER_OTLP_HEADERS` has them.
    ///
    /// # Errors
    /// [`Unusable`]
    pub fn new(url: &Url, headers: &str) -> Result<Self, Unusable> {
        let unusable = |why: &str| Unusable(format!("the traces' endpoint {why}"));
        let host = url.host_str().ok_or_else(|| unusable("names no host"))?;
        let port = url.port_or_known_default().ok_or_else(|| unusable("names no port"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(unusable("holds a credential, which belongs into traces.headers"));
        }
        match url.scheme() {
            "http" => {}
            "https" if cfg!(feature = "tls") => {}
            "https" => return Err(unusable("is https, which needs a build with the feature `tls`")),
            _ => return Err(unusable("must be an http or https URL")),
        }
        let mut head = format!(
            "POST {} HTTP/1.1\r\nhost: {}\r\nuser-agent: obleth/{}\r\ncontent-type: application/x-protobuf\r\nconnection: close\r\n",
            &url[url::Position::BeforePath..url::Position::AfterQuery],
            &url[url::Position::BeforeHost..url::Position::AfterPort],
            env!("CARGO_PKG_VERSION"),
        );
        for (name, value) in pairs(headers).ok_or_else(|| Unusable(MALFORMED.to_owned()))? {
            let fits = name.parse::<HeaderName>().is_ok() && HeaderValue::try_from(&value).is_ok();
            if !fits {
                return Err(Unusable(MALFORMED.to_owned()));
            }
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        Ok(Self {
            #[cfg(feature = "tls")]
            tls: if url.scheme() == "https" {
                Some(secure::Client::new(host)?)
            } else {
                None
            },
            // An IPv6 address stands in brackets.
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            head,
        })
    }

    /// Sends a body, and waits for the answer's head, all within `limit`.
    pub(super) fn post(&self, body: &[u8], limit: Duration) -> io::Result<Answer> {
        let deadline = Instant::now() + limit;
        let mut stream = self.connect(deadline)?;
        let head = format!("{}content-length: {}\r\n\r\n", self.head, body.len());
        stream.send(head.as_bytes(), deadline)?;
        stream.send(body, deadline)?;
        stream.flush()?;
        let mut answer = Vec::new();
        let mut piece = [0; 1024];
        loop {
            stream.limit(deadline)?;
            let count = match stream.read(&mut piece) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            answer.extend_from_slice(piece.get(..count).unwrap_or_default());
            if let Some(answer) = read_answer(&answer)? {
                return Ok(answer);
            }
            if count == 0 || answer.len() > ANSWER_MAX {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn connect(&self, deadline: Instant) -> io::Result<Stream> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for address in (&*self.host, self.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, left(deadline)?) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return self.stream(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    #[cfg(not(feature = "tls"))]
    #[expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "with TLS it can fail")]
    fn stream(&self, stream: TcpStream) -> io::Result<Stream> {
        Ok(Stream::Plain(stream))
    }

    #[cfg(feature = "tls")]
    fn stream(&self, stream: TcpStream) -> io::Result<Stream> {
        Ok(match &self.tls {
            Some(client) => Stream::Secure(client.over(stream)?),
            None => Stream::Plain(stream),
        })
    }
}

/// What the operator reads of headers that are none; not which, since a value may stand in a name's place.
const MALFORMED: &str = "the traces' headers must be at most 32 pairs name=value, split by commas, percent-encoded";

/// Reads `name=value,name=value`, percent-encoded values, as the OpenTelemetry variables have them. `None` if it is not that.
pub(super) fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let members = text.split(',').map(str::trim).filter(|member| !member.is_empty());
    let pairs: Option<Vec<_>> = members
        .map(|member| {
            let (name, value) = member.split_once('=')?;
            let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
            let name = name.trim();
            (!name.is_empty()).then(|| (name.to_owned(), value.into_owned()))
        })
        .collect();
    pairs.filter(|pairs| pairs.len() <= HEADERS_MAX)
}

/// The time that is left.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    // Zero would stand for no timeout at all.
    if left.is_zero() {
        Err(io::ErrorKind::TimedOut.into())
    } else {
        Ok(left)
    }
}

/// The status, once the head is whole.
fn read_answer(bytes: &[u8]) -> io::Result<Option<Answer>> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(bytes) {
        Ok(httparse::Status::Partial) => Ok(None),
        Ok(httparse::Status::Complete(_)) => {
            let field = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case("retry-after"));
            let seconds = field.and_then(|field| std::str::from_utf8(field.value).ok()?.trim().parse().ok());
            Ok(response.code.map(|status| Answer {
                status,
                retry_after: seconds.map(Duration::from_secs),
            }))
        }
        Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
    }
}

/// A connection.
enum Stream {
    Plain(TcpStream),
    #[cfg(feature = "tls")]
    Secure(Box<secure::Connection>),
}

impl Stream {
    /// Sends all of it, a piece at a time with the clock looked at before each.
    fn send(&mut self, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
        while !bytes.is_empty() {
            self.limit(deadline)?;
            let piece = bytes.get(..PIECE).unwrap_or(bytes);
            match self.write(piece) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The next step may take the time that is left. Both ways: TLS reads to write.
    fn limit(&self, deadline: Instant) -> io::Result<()> {
        let left = left(deadline)?;
        self.socket().set_write_timeout(Some(left))?;
        self.socket().set_read_timeout(Some(left))
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            #[cfg(feature = "tls")]
            Self::Secure(connection) => &connection.sock,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(into),
            #[cfg(feature = "tls")]
            Self::Secure(connection) => connection.read(into),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            #[cfg(feature = "tls")]
            Self::Secure(connection) => connection.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            #[cfg(feature = "tls")]
            Self::Secure(connection) => connection.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collector(url: &str, headers: &str) -> Result<Collector, Unusable> {
        Collector::new(&Url::parse(url).unwrap(), headers)
    }

    #[test]
    fn the_head_names_the_place_and_the_headers() {
        let collector = collector("http://[::1]:4318/v1/traces?a=b", "authorization=Bearer%20x%2Cy, x-tenant = 7 ,").unwrap();
        assert_eq!((&*collector.host, collector.port), ("::1", 4318));
        let head = collector.head;
        assert!(head.starts_with("POST /v1/traces?a=b HTTP/1.1\r\nhost: [::1]:4318\r\n"), "{head}");
        assert!(head.ends_with("authorization: Bearer x,y\r\nx-tenant: 7\r\n"), "{head}");
    }

    #[test]
    fn what_cannot_be_used_is_told_without_its_secrets() {
        let cases = [
            ("http://user:secret@h/", "", "credential"),
            ("ftp://h:1/", "", "http or https"),
            ("http://h/", "secret", "pairs"),
            ("http://h/", "a b=secret", "pairs"),
            ("http://h/", "a=secret%0d%0ahost: b", "pairs"),
            ("http://h/", "a=%ff", "pairs"),
        ];
        for (url, headers, part) in cases {
            let why = collector(url, headers).unwrap_err().to_string();
            assert!(why.contains(part) && !why.contains("secret"), "{why}");
        }
        assert!(!format!("{:?}", collector("http://h/", "a=secret")).contains("secret"));
        assert_eq!(collector("https://h/", "").is_ok(), cfg!(feature = "tls"));
    }

    #[test]
    fn an_answer_is_its_status_once_its_head_is_whole() {
        let whole = b"HTTP/1.1 503 Later\r\nRetry-After: 7\r\n\r\nbody";
        assert_eq!(read_answer(&whole[..30]).unwrap(), None);
        let answer = read_answer(whole).unwrap().unwrap();
        assert_eq!((answer.status, answer.retry_after), (503, Some(Duration::from_secs(7))));
        assert!(read_answer(b"SMTP 1\r\n\r\n").is_err());
    }
}
