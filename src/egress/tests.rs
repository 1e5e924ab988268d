//! The egress rules as a table: what is typed, what is said.
use super::*;

const OWN: [&str; 3] = ["127.0.0.1:8080", "0.0.0.0:9090", "10.1.2.3:7000"];

fn own() -> Vec<SocketAddr> {
    OWN.iter().map(|listener| listener.parse().unwrap()).collect()
}

fn check(url: &str, lan: Result<(), Refusal>, public: Result<(), Refusal>) {
    let parsed = Url::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
    assert_eq!(check_url(Policy::Lan, &parsed, &own()), lan, "{url} under lan");
    assert_eq!(check_url(Policy::PublicOnly, &parsed, &own()), public, "{url} under public_only");
}

fn refused(url: &str, refusal: Refusal) {
    check(url, Err(refusal), Err(refusal));
}

#[test]
fn inference_servers_on_loopback_and_private_networks_pass_under_lan_only() {
    for url in [
        "http://127.0.0.1:8000/v1",
        "http://localhost:8000",
        "http://vllm.localhost:8000",
        "http://[::1]:8000",
        "http://10.0.0.7:8000",
        "http://172.16.0.1",
        "http://172.31.255.255",
        "http://192.168.1.10:11434",
        "http://100.64.0.1:8000",
        "http://[fd12:3456::1]:8000",
        "http://[fec0::1]:8000",
        "http://2130706433:8000",
        "http://0x7f.1:8000",
        "http://[::ffff:10.0.0.7]:8000",
        "http://[64:ff9b::a00:7]:8000",
        "http://198.18.0.1",
    ] {
        check(url, Ok(()), Err(Refusal::NotPublic));
    }
}

#[test]
fn public_addresses_and_names_pass_under_both() {
    for url in [
        "https://api.openai.com/v1",
        "http://8.8.8.8",
        "http://172.32.0.1",
        "http://100.128.0.1",
        "http://[2606:4700::1111]:443",
        "http://[2002:808:808::1]",
        "http://vllm:8000",
        "https://mymetadata.example.com",
    ] {
        check(url, Ok(()), Ok(()));
    }
}

#[test]
fn what_is_never_an_upstream_is_refused_under_both() {
    use Refusal::{Broadcast, Fragment, LinkLocal, Metadata, Multicast, Port, Query, Scheme, Unspecified, UserInfo};
    for (url, refusal) in [
        ("ftp://10.0.0.7", Scheme),
        ("file:///etc/passwd", Scheme),
        ("unix:/run/x.sock", Scheme),
        ("http://user@10.0.0.7", UserInfo),
        ("http://:pw@10.0.0.7", UserInfo),
        ("http://10.0.0.7/#x", Fragment),
        ("http://10.0.0.7/#", Fragment),
        ("http://10.0.0.7/?a=b", Query),
        ("http://10.0.0.7:0", Port),
        ("http://169.254.169.254/latest", LinkLocal),
        ("http://169.254.1.1", LinkLocal),
        ("http://0xa9fea9fe", LinkLocal),
        ("http://[fe80::1]", LinkLocal),
        ("http://[febf::1]", LinkLocal),
        ("http://[::ffff:169.254.169.254]", LinkLocal),
        ("http://[::169.254.169.254]", LinkLocal),
        ("http://[::ffff:0:169.254.169.254]", LinkLocal),
        ("http://[64:ff9b::a9fe:a9fe]", LinkLocal),
        ("http://[64:ff9b:1::a9fe:a9fe]", LinkLocal),
        ("http://[2002:a9fe:a9fe::1]", LinkLocal),
        ("http://[2001:0:1:2:3:4:5601:5601]", LinkLocal),
        ("http://168.63.129.16", Metadata),
        ("http://100.100.100.200", Metadata),
        ("http://192.0.0.192", Metadata),
        ("http://[fd00:ec2::254]", Metadata),
        ("http://[fd20:ce::254]", Metadata),
        ("http://metadata", Metadata),
        ("http://Metadata.Google.Internal./x", Metadata),
        ("http://metadata.internal", Metadata),
        ("http://instance-data.ec2.internal", Metadata),
        ("http://0.0.0.0:8000", Unspecified),
        ("http://0.1.2.3", Unspecified),
        ("http://[::]", Unspecified),
        ("http://[::ffff:0.0.0.0]", Unspecified),
        ("http://224.0.0.1", Multicast),
        ("http://[ff02::1]", Multicast),
        ("http://255.255.255.255", Broadcast),
        ("http://240.0.0.1", Broadcast),
    ] {
        refused(url, refusal);
    }
}

#[test]
fn the_gateways_own_listeners_are_refused_however_they_are_written() {
    for url in [
        "http://127.0.0.1:8080",
        "http://localhost:8080/v1",
        "http://[::ffff:127.0.0.1]:8080",
        "http://2130706433:8080",
        "http://127.0.0.1:9090",
        "http://127.9.9.9:9090",
        "http://[::1]:9090",
        "http://10.1.2.3:7000",
    ] {
        refused(url, Refusal::OwnListener);
    }
    check("http://127.0.0.1:8081", Ok(()), Err(Refusal::NotPublic));
    check("http://10.1.2.3:7001", Ok(()), Err(Refusal::NotPublic));
    check("http://127.0.0.2:8080", Ok(()), Err(Refusal::NotPublic));
}

#[test]
fn an_address_with_a_zone_or_port_zero_is_judged_like_any_other() {
    let scoped: SocketAddr = "[fe80::1%3]:80".parse().unwrap();
    assert_eq!(check_addr(Policy::Lan, scoped, &[]), Err(Refusal::LinkLocal));
    assert_eq!(check_addr(Policy::Lan, "127.0.0.1:0".parse().unwrap(), &[]), Err(Refusal::Port));
}
