//! Asks an endpoint something small: for the checks and the scrapes. Every ask is a connection of its own, so that a check
//! says whether connections come about, and none is left behind in a pool.

use std::net::SocketAddr;

use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, HOST, USER_AGENT};
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;

use super::chosen::ConnectFailure;
use super::endpoint::Endpoint;

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Empty unless it was asked for.
    pub(super) body: Vec<u8>,
}

/// Why there is no answer. `Display` is fit to be shown as an endpoint's last error.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{}", .0.words())]
    Connect(ConnectFailure),
    #[error("no HTTP answer")]
    NoHttp,
    #[error("the answer is too long")]
    TooLong,
}

/// Connects, and speaks TLS where the endpoint asks for it.
pub(super) async fn connect(connector: &Connector, endpoint: &Endpoint, addr: SocketAddr) -> Result<(), Failure> {
    let connected = connector.get_http_session(&endpoint.peer(addr)).await;
    connected.map(drop).map_err(|error| Failure::Connect(ConnectFailure::of(&error)))
}

/// Asks for a path below the endpoint's base path. Reads a body of at most `body_max` bytes; none when that is 0. The caller
/// bounds the time.
pub(super) async fn get(
    connector: &Connector,
    endpoint: &Endpoint,
    addr: SocketAddr,
    path: &str,
    body_max: usize,
) -> Result<Answer, Failure> {
    let peer = endpoint.peer(addr);
    let (mut session, _reused) = connector
        .get_http_session(&peer)
        .await
        .map_err(|error| Failure::Connect(ConnectFailure::of(&error)))?;
    let no_http = |_| Failure::NoHttp;
    let request = request(endpoint, path).map_err(no_http)?;
    session.write_request_header(Box::new(request)).await.map_err(no_http)?;
    session.finish_request_body().await.map_err(no_http)?;
    session.read_response_header().await.map_err(no_http)?;
    let status = session.response_header().ok_or(Failure::NoHttp)?.status.as_u16();
    let mut body = Vec::new();
    if body_max > 0 {
        while let Some(piece) = session.read_response_body().await.map_err(no_http)? {
            if body.len() + piece.len() > body_max {
                return Err(Failure::TooLong);
            }
            body.extend_from_slice(&piece);
        }
    }
    Ok(Answer { status, body })
}

fn request(endpoint: &Endpoint, path: &str) -> pingora::Result<RequestHeader> {
    let path = format!("{}{path}", endpoint.prefix);
    let mut head = RequestHeader::build(http::Method::GET, path.as_bytes(), Some(6))?;
    head.insert_header(HOST, endpoint.host.as_str())?;
    head.insert_header(USER_AGENT, concat!("obleth/", env!("CARGO_PKG_VERSION")))?;
    head.insert_header(ACCEPT, "*/*")?;
    head.insert_header(ACCEPT_ENCODING, "identity")?;
    if let Some(secret) = endpoint.secret() {
        // The same server is shown the same secret with every request.
        head.insert_header(AUTHORIZATION, format!("Bearer {secret}"))?;
    }
    Ok(head)
}
