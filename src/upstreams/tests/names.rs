//! Names: looked up beside the requests, refused, stale, moved.

use std::io;

use async_trait::async_trait;

use super::*;
use crate::upstreams::endpoint::Endpoint;
use crate::upstreams::site::Site;

type Answer = Result<Vec<SocketAddr>, &'static str>;

/// Always gives one answer.
struct Script(Answer);

#[async_trait]
impl resolver::Resolver for Script {
    async fn resolve(&self, _: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
        self.0.clone().map_err(io::Error::other)
    }
}

/// Never answers.
struct Silence;

#[async_trait]
impl resolver::Resolver for Silence {
    async fn resolve(&self, _: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
        std::future::pending().await
    }
}

fn addresses(hosts: &[&str]) -> Answer {
    Ok(hosts.iter().map(|host| format!("{host}:8000").parse().unwrap()).collect())
}

fn named() -> Model {
    model(vec![endpoint("http://vllm.internal:8000")])
}

fn started(model: &Model, settings: Settings, resolver: impl resolver::Resolver) -> Arc<Upstreams> {
    let upstreams = Upstreams::new(settings);
    upstreams.apply(&catalog([model.clone()]));
    upstreams.start_with(Arc::new(resolver)).unwrap();
    upstreams
}

fn known(upstreams: &Upstreams, model: &Model) -> Vec<String> {
    upstreams.health(&model.id)[0]
        .addresses
        .iter()
        .map(|address| address.addr.ip().to_string())
        .collect()
}

/// A lookup came back, and nothing checks what it found.
fn found(upstreams: &Upstreams, model: &Model, answer: Answer) {
    let pool = upstreams.pool(Owner::Model(model.id)).unwrap();
    let now = Instant::now();
    pool.change(now, |inner| {
        let endpoint = Arc::clone(&inner.sites[0].endpoint);
        inner.resolved(&endpoint, answer.map_err(Into::into), now, &pool.settings);
    });
}

#[test]
fn all_addresses_of_a_name_are_used_and_share_its_weight() {
    let model = named();
    let upstreams = with(&model);
    found(&upstreams, &model, addresses(&["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.2"]));
    let chosen: BTreeSet<_> = (0..100)
        .map(|_| upstreams.choose(&model.id, &Hint::default(), &[]).unwrap().addr())
        .collect();
    assert_eq!(chosen.len(), 3);
    let chosen = upstreams.choose(&model.id, &Hint::default(), &[]).unwrap();
    assert_eq!(chosen.host(), "vllm.internal:8000");
}

#[test]
fn a_name_that_stops_answering_keeps_its_addresses_and_one_that_moves_drains() {
    let model = named();
    let upstreams = with(&model);
    found(&upstreams, &model, addresses(&["192.0.2.1", "192.0.2.2"]));
    let chosen = upstreams.choose(&model.id, &Hint::default(), &[]).unwrap();
    found(&upstreams, &model, Err("no such host"));
    assert_eq!(known(&upstreams, &model), ["192.0.2.1", "192.0.2.2"]);
    assert_eq!(upstreams.health(&model.id)[0].last_error.as_deref(), Some("no such host"));
    found(&upstreams, &model, addresses(&["192.0.2.2", "192.0.2.9"]));
    assert_eq!(known(&upstreams, &model), ["192.0.2.2", "192.0.2.9"]);
    assert_eq!(upstreams.health(&model.id)[0].in_flight, 1, "{chosen:?} finishes where it is");
    drop(chosen);
    assert_eq!(upstreams.health(&model.id)[0].in_flight, 0);
}

#[test]
fn an_address_that_the_egress_rules_forbid_is_not_used_whoever_names_it() {
    let model = named();
    let upstreams = with(&model);
    found(&upstreams, &model, addresses(&["169.254.169.254"]));
    let refused = upstreams.choose(&model.id, &Hint::default(), &[]).unwrap_err();
    let Unavailable::Unresolved { last_error: Some(error) } = refused else {
        panic!("{refused:?}")
    };
    assert!(error.contains("link-local"), "{error}");
    found(&upstreams, &model, addresses(&["169.254.169.254", "192.0.2.1"]));
    assert_eq!(known(&upstreams, &model), ["192.0.2.1"]);
    found(&upstreams, &model, addresses(&["169.254.169.254"]));
    assert_eq!(
        known(&upstreams, &model),
        ["192.0.2.1"],
        "a name that turns bad is a lookup that failed"
    );
}

#[tokio::test]
async fn a_lookup_that_fails_says_why_and_one_that_hangs_is_given_up() {
    let model = named();
    let upstreams = started(&model, Settings::default(), Script(Err("no such host")));
    let refused = upstreams.resolved(&model.id, Duration::from_secs(10)).await.unwrap_err();
    let words = |words: &str| Unavailable::Unresolved {
        last_error: Some(words.into()),
    };
    assert_eq!(refused, words("name not resolved: no such host"));
    let mut settings = Settings::default();
    settings.dns.timeout = Duration::from_millis(10);
    let upstreams = started(&model, settings, Silence);
    let refused = upstreams.resolved(&model.id, Duration::from_secs(10)).await.unwrap_err();
    assert_eq!(refused, words("name not resolved in time"));
}

#[tokio::test]
async fn waiting_for_a_name_ends_with_the_answer_or_with_the_callers_patience() {
    let model = named();
    let upstreams = started(&model, Settings::default(), Silence);
    let refused = upstreams.resolved(&model.id, Duration::from_millis(20)).await.unwrap_err();
    assert_eq!(refused, Unavailable::Unresolved { last_error: None });
    let upstreams = started(&model, Settings::default(), Script(addresses(&["192.0.2.1"])));
    // Whether anybody is there is the checks' business; the name is known.
    let _usable = upstreams.resolved(&model.id, Duration::from_secs(10)).await;
    assert_eq!(known(&upstreams, &model), ["192.0.2.1"]);
}

#[test]
fn stale_addresses_are_kept_for_so_long_and_no_longer() {
    let settings = Settings::default();
    let now = Instant::now();
    let plan = plans_of_model(&named()).remove(0);
    let mut site = Site::new(Endpoint::new(plan, Arc::default(), Arc::default()), now);
    site.resolved(addresses(&["192.0.2.1"]).map_err(Into::into), now, &settings, || 0);
    let failed = |site: &mut Site, after| {
        site.resolved(Err("no such host".into()), now + after, &settings, || 0);
        site.entries.len()
    };
    assert_eq!(failed(&mut site, settings.dns.stale_max - Duration::from_secs(1)), 1);
    assert_eq!(failed(&mut site, settings.dns.stale_max), 0);
}
