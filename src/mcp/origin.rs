//! The defence against pages in somebody's browser: which `Origin` and which `Host` a request may carry.
//!
//! The protocol asks servers to refuse an unknown `Origin` with 403. A page that makes a name of its own point at a loopback
//! port (DNS rebinding) cannot make the browser send another `Host` than that name; so while the gateway listens on loopback
//! only, `Host` must be a loopback name, or one that an allowed origin has.

use http::header::ORIGIN;
use http::{HeaderMap, HeaderValue};
use url::{Host, Url};

/// The request comes from where it may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the origin is not allowed")]
pub struct Forbidden;

/// Checks where a request comes from. `host` is its `Host` header or authority; `loopback` says that the gateway listens
/// on loopback only. Returns the origin to be named in CORS headers; programs that are no browsers have none.
///
/// # Errors
/// [`Forbidden`].
pub fn check<'a>(
    headers: &'a HeaderMap,
    host: Option<&str>,
    allowed: &[String],
    loopback: bool,
) -> Result<Option<&'a HeaderValue>, Forbidden> {
    if loopback && !host.is_none_or(|host| is_known(host, allowed)) {
        return Err(Forbidden);
    }
    let mut origins = headers.get_all(ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (None, _) => Ok(None),
        (Some(origin), None) if origin.to_str().is_ok_and(|origin| is_allowed(origin, allowed, loopback)) => Ok(Some(origin)),
        (Some(_), _) => Err(Forbidden),
    }
}

/// `null`, an opaque origin, is on no list and is no URL.
fn is_allowed(origin: &str, allowed: &[String], loopback: bool) -> bool {
    allowed.iter().any(|allowed| allowed == origin)
        || loopback
            && Url::parse(origin).is_ok_and(|url| {
                matches!(url.scheme(), "http" | "https") && url.origin().ascii_serialization() == origin && is_loopback(&url)
            })
}

fn is_known(host: &str, allowed: &[String]) -> bool {
    let Ok(url) = Url::parse(&format!("http://{host}/")) else {
        return false;
    };
    let plain = url.path() == "/" && url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    let same_host = |origin: &String| Url::parse(origin).is_ok_and(|origin| origin.host() == url.host());
    plain && (is_loopback(&url) || allowed.iter().any(same_host))
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}
