//! Where an upstream may be: the egress rules on URLs and addresses.
//!
//! An operator types an upstream's address once; a name behind it may point elsewhere tomorrow. So the rules are asked
//! twice: [`check_url`] when the address is registered, [`check_addr`] for the very address each connection goes to.
//! Link-local and cloud metadata services, unspecified, multicast and broadcast addresses and the gateway's own listeners
//! are refused whatever the policy says: no inference server lives there, and credentials do (OWASP SSRF prevention).
//!
//! IPv4 addresses in the wrappings of IPv6 (mapped, compatible, 6to4, NAT64, Teredo) are judged by what they wrap. Odd
//! numerals (`0x7f.1`, `2130706433`) need no care here: `url` reads them as the addresses they are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use url::{Host, Url};

/// How far the gateway may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// Only addresses of the public internet.
    PublicOnly,
    /// Also loopback and private networks, where inference servers live.
    #[default]
    Lan,
}

/// Why an upstream's address is not accepted. `Display` is fit to be shown to the operator who typed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Neither `http` nor `https`.
    #[error("the scheme must be http or https")]
    Scheme,
    /// `user:password@`, which would end in logs; credentials have their own field.
    #[error("the URL must not contain a user or a password")]
    UserInfo,
    /// `#…`, which means nothing to a server.
    #[error("the URL must not have a fragment")]
    Fragment,
    /// `?…`, which the request's path would be appended to.
    #[error("the URL must not have a query")]
    Query,
    /// No host to connect to.
    #[error("the URL has no host")]
    NoHost,
    /// Port 0.
    #[error("the port must be from 1 to 65535")]
    Port,
    /// A cloud's metadata service, by name or address.
    #[error("cloud metadata services are not reachable through the gateway")]
    Metadata,
    /// 169.254.0.0/16 (RFC 3927) or fe80::/10 (RFC 4291).
    #[error("link-local addresses are not reachable through the gateway")]
    LinkLocal,
    /// 0.0.0.0/8 or `::`.
    #[error("the unspecified address is not an upstream")]
    Unspecified,
    /// 224.0.0.0/4 or ff00::/8.
    #[error("multicast addresses are not reachable through the gateway")]
    Multicast,
    /// 255.255.255.255 and the rest of the reserved 240.0.0.0/4.
    #[error("broadcast and reserved addresses are not reachable through the gateway")]
    Broadcast,
    /// One of the gateway's own listeners: requests would go round in a circle.
    #[error("this is the gateway's own listener")]
    OwnListener,
    /// Loopback or a private network under [`Policy::PublicOnly`].
    #[error("the egress policy allows public addresses only")]
    NotPublic,
}

/// Checks what an operator typed. A host name passes here unless it names a metadata service; what it resolves to is
/// [`check_addr`]'s matter.
///
/// # Errors
/// The first [`Refusal`] that applies.
pub fn check_url(policy: Policy, url: &Url, own: &[SocketAddr]) -> Result<(), Refusal> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Refusal::Scheme);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Refusal::UserInfo);
    }
    if url.fragment().is_some() {
        return Err(Refusal::Fragment);
    }
    if url.query().is_some() {
        return Err(Refusal::Query);
    }
    let host = url.host().ok_or(Refusal::NoHost)?;
    let port = url.port_or_known_default().filter(|port| *port != 0).ok_or(Refusal::Port)?;
    match host {
        Host::Ipv4(ip) => check_addr(policy, SocketAddr::new(IpAddr::V4(ip), port), own),
        Host::Ipv6(ip) => check_addr(policy, SocketAddr::new(IpAddr::V6(ip), port), own),
        Host::Domain(name) => check_name(policy, name, port, own),
    }
}

/// Checks an address a connection is about to go to. `own` are the gateway's listeners as bound; one that listens on every
/// interface owns its port on loopback, so a caller that knows the machine's other addresses adds them.
///
/// # Errors
/// The first [`Refusal`] that applies.
pub fn check_addr(policy: Policy, addr: SocketAddr, own: &[SocketAddr]) -> Result<(), Refusal> {
    if addr.port() == 0 {
        return Err(Refusal::Port);
    }
    let ip = unwrap(addr.ip());
    let private = match ip {
        IpAddr::V4(ip) => check_v4(ip)?,
        IpAddr::V6(ip) => check_v6(ip)?,
    };
    if own.iter().any(|listener| listens_at(*listener, ip, addr.port())) {
        return Err(Refusal::OwnListener);
    }
    if private && policy == Policy::PublicOnly {
        return Err(Refusal::NotPublic);
    }
    Ok(())
}

/// Names need no resolver to be judged when everyone knows what they stand for (RFC 6761 for `localhost`).
fn check_name(policy: Policy, name: &str, port: u16, own: &[SocketAddr]) -> Result<(), Refusal> {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    if name.is_empty() {
        return Err(Refusal::NoHost);
    }
    if name.starts_with("metadata") || name == "instance-data" || name.starts_with("instance-data.") {
        return Err(Refusal::Metadata);
    }
    if name == "localhost" || name.ends_with(".localhost") {
        check_addr(policy, SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port), own)?;
        check_addr(policy, SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), port), own)?;
    }
    Ok(())
}

/// The address that packets really go to: IPv4 taken out of its IPv6 wrapping.
fn unwrap(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(v6) => embedded(v6).map_or(ip, IpAddr::V4),
    }
}

/// IPv4-mapped and -compatible (RFC 4291), NAT64 (RFC 6052, RFC 8215), 6to4 (RFC 3056), Teredo (RFC 4380).
fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = ip.segments();
    let v4 = |high: u16, low: u16| Some(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match [a, b, c, d, e, f] {
        [0, 0, 0, 0, 0, 0] if !ip.is_unspecified() && !ip.is_loopback() => v4(g, h),
        [0, 0, 0, 0, 0, 0xffff] | [0, 0, 0, 0, 0xffff, 0] | [0x64, 0xff9b, 0, 0, 0, 0] | [0x64, 0xff9b, 1, ..] => v4(g, h),
        [0x2002, high, low, ..] => v4(high, low),
        [0x2001, 0, ..] => v4(!g, !h),
        _ => None,
    }
}

/// Whether the address is private, or why it is refused.
fn check_v4(ip: Ipv4Addr) -> Result<bool, Refusal> {
    // Azure's wire server, Alibaba's and Oracle's metadata services; the others' are link-local.
    const METADATA: [Ipv4Addr; 3] = [
        Ipv4Addr::new(168, 63, 129, 16),
        Ipv4Addr::new(100, 100, 100, 200),
        Ipv4Addr::new(192, 0, 0, 192),
    ];
    match ip.octets() {
        [0, ..] => Err(Refusal::Unspecified),
        [169, 254, ..] => Err(Refusal::LinkLocal),
        [224..=239, ..] => Err(Refusal::Multicast),
        [240..=255, ..] => Err(Refusal::Broadcast),
        _ if METADATA.contains(&ip) => Err(Refusal::Metadata),
        // Loopback, RFC 1918, shared space (RFC 6598), protocol assignments (RFC 6890), benchmarking (RFC 2544).
        [127 | 10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] | [192, 0, 0, _] | [198, 18..=19, ..] => Ok(true),
        _ => Ok(false),
    }
}

/// Whether the address is private, or why it is refused. `ip` wraps no IPv4 address.
fn check_v6(ip: Ipv6Addr) -> Result<bool, Refusal> {
    match ip.segments() {
        _ if ip.is_unspecified() => Err(Refusal::Unspecified),
        _ if ip.is_loopback() => Ok(true),
        [0xff00..=0xffff, ..] => Err(Refusal::Multicast),
        [0xfe80..=0xfebf, ..] => Err(Refusal::LinkLocal),
        // AWS's instance and task metadata, Google's, Scaleway's.
        [0xfd00, 0xec2, ..] | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254] | [0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42] => Err(Refusal::Metadata),
        // Unique local (RFC 4193), and site-local, which it replaced.
        [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] => Ok(true),
        _ => Ok(false),
    }
}

/// Whether a listener answers at an address. One on every interface is taken to answer on loopback and its own address.
fn listens_at(listener: SocketAddr, ip: IpAddr, port: u16) -> bool {
    let own = unwrap(listener.ip());
    listener.port() == port && (own == ip || (own.is_unspecified() && ip.is_loopback()))
}

#[cfg(test)]
mod tests;
