//! The defence against DNS rebinding: a page in the operator's browser can make a name of its own point at the management
//! port, but cannot make the browser send another `Host` or `Origin` than that name.
//!
//! Loopback names and addresses pass, the address that is listened on, and names that the operator configured. Where it
//! listens on every interface each literal address passes: an address needs no resolver, so nobody can rebind it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use url::{Host, Url};

use super::problem::Problem;

/// The names and addresses the API answers to.
#[derive(Debug, Clone)]
pub(super) struct Known {
    listen: Option<IpAddr>,
    names: Arc<[String]>,
}

impl Known {
    pub(super) fn new(listen: Option<SocketAddr>, names: &[String]) -> Self {
        Self {
            listen: listen.map(|listen| listen.ip()),
            names: names.iter().map(|name| name.to_ascii_lowercase()).collect(),
        }
    }

    fn check(&self, headers: &HeaderMap, version: Version) -> Result<(), Problem> {
        let mut hosts = headers.get_all(header::HOST).iter();
        match (hosts.next(), hosts.next()) {
            (Some(host), None) => {
                let host = host.to_str().ok().and_then(|host| Url::parse(&format!("http://{host}/")).ok());
                if !host.is_some_and(|host| self.knows(&host)) {
                    return Err(refused("Host"));
                }
            }
            (None, _) if version <= Version::HTTP_10 => {}
            (None | Some(_), _) => {
                return Err(Problem::new(
                    StatusCode::BAD_REQUEST,
                    "bad_request",
                    "the request needs one Host header",
                ));
            }
        }
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let known = origins.all(|origin| {
            let origin = origin.to_str().ok().and_then(|origin| Url::parse(origin).ok());
            origin.is_some_and(|origin| matches!(origin.scheme(), "http" | "https") && self.knows(&origin))
        });
        if known { Ok(()) } else { Err(refused("Origin")) }
    }

    fn knows(&self, url: &Url) -> bool {
        match url.host() {
            Some(Host::Domain(name)) => {
                let name = name.trim_end_matches('.');
                name == "localhost" || name.ends_with(".localhost") || self.names.iter().any(|known| known == name)
            }
            Some(Host::Ipv4(ip)) => self.knows_address(IpAddr::V4(ip)),
            Some(Host::Ipv6(ip)) => self.knows_address(IpAddr::V6(ip)),
            None => false,
        }
    }

    fn knows_address(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        ip.is_loopback()
            || self
                .listen
                .is_some_and(|listen| listen.is_unspecified() || listen.to_canonical() == ip)
    }
}

fn refused(header: &str) -> Problem {
    let detail = format!("the management API does not answer to this {header}");
    Problem::new(StatusCode::FORBIDDEN, "forbidden_host", detail)
}

/// Lets requests through that were meant for this server.
pub(super) async fn check(State(known): State<Known>, request: Request, next: Next) -> Response {
    match known.check(request.headers(), request.version()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}
