//! Names: looked up beside the requests, refused, stale, moved.

use std::collections::VecDeque;
use std::io;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::*;
use crate::upstreams::endpoint::Endpoint;
use crate::upstreams::site::Site;

/// Gives scripted answers in order, the last one for ever.
struct Script(Mutex<VecDeque<Result<Vec<SocketAddr>, &'static str>>>);

#[async_trait]
impl resolver::Resolver for Script {
    async fn resolve(&self, _: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
        let mut answers = self.0.lock();
        let answer = if answers.len() > 1 {
            answers.pop_front().unwrap()
        } else {
            answers[0].clone()
        };
        answer.map_err(io::Error::other)
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

fn addresses(hosts: &[&str]) -> Result<Vec<SocketAddr>, &'static str> {
    Ok(hosts.iter().map(|host| format!("{host}:8000").parse().unwrap()).collect())
}

fn named() -> Model {
    model(vec![endpoint("http://vllm.internal:8000")])
}

/// Looked up again every moment, checked never.
fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.dns.refresh = Duration::ZERO;
    settings.dns.retry = Duration::ZERO;
    settings.probe.timeout = Duration::from_secs(3600);
    settings
}

fn started(model: &Model, answers: impl IntoIterator<Item = Result<Vec<SocketAddr>, &'static str>>) -> Arc<Upstreams> {
    let upstreams = Upstreams::new(settings());
    upstreams.apply(&catalog([model.clone()]));
    upstreams
        .start_with(Arc::new(Script(Mutex::new(answers.into_iter().collect()))))
        .unwrap();
    upstreams
}

fn known(upstreams: &Upstreams, model: &Model) -> Vec<String> {
    upstreams.health(&model.id)[0]
        .addresses
        .iter()
        .map(|address| address.addr.ip().to_string())
        .collect()
}

#[tokio::test]
async fn all_addresses_of_a_name_are_used_and_share_its_weight() {
    let model = named();
    let upstreams = started(&model, [addresses(&["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.2"])]);
    upstreams.resolved(&model.id, Duration::from_secs(10)).await.unwrap();
    let chosen: BTreeSet<_> = (0..100)
        .map(|_| upstreams.choose(&model.id, &Hint::default(), &[]).unwrap().addr())
        .collect();
    assert_eq!(chosen.len(), 3);
    assert_eq!(
        upstreams.choose(&model.id, &Hint::default(), &[]).unwrap().host(),
        "vllm.internal:8000"
    );
}

#[tokio::test]
async fn a_name_that_stops_answering_keeps_its_addresses_and_one_that_moves_drains() {
    let model = named();
    let first = addresses(&["192.0.2.1", "192.0.2.2"]);
    let upstreams = started(&model, [first, Err("no such host"), addresses(&["192.0.2.2", "192.0.2.9"])]);
    upstreams.resolved(&model.id, Duration::from_secs(10)).await.unwrap();
    let chosen = upstreams.choose(&model.id, &Hint::default(), &[]).unwrap();
    eventually("failed", || {
        assert_eq!(known(&upstreams, &model).len(), 2, "kept while lookups fail");
        upstreams.health(&model.id)[0].last_error.is_some() || known(&upstreams, &model).contains(&"192.0.2.9".to_owned())
    })
    .await;
    eventually("moved", || known(&upstreams, &model) == ["192.0.2.2", "192.0.2.9"]).await;
    assert_eq!(upstreams.health(&model.id)[0].in_flight, 1, "{chosen:?} finishes where it is");
    drop(chosen);
    assert_eq!(upstreams.health(&model.id)[0].in_flight, 0);
}

#[tokio::test]
async fn an_address_that_the_egress_rules_forbid_is_not_used_whoever_names_it() {
    let model = named();
    let upstreams = started(&model, [addresses(&["169.254.169.254"])]);
    let refused = upstreams.resolved(&model.id, Duration::from_secs(10)).await.unwrap_err();
    let Unavailable::Unresolved { last_error: Some(error) } = refused else {
        panic!("{refused:?}")
    };
    assert!(error.contains("link-local"), "{error}");
    let upstreams = started(&model, [addresses(&["169.254.169.254", "192.0.2.1"])]);
    upstreams.resolved(&model.id, Duration::from_secs(10)).await.unwrap();
    assert_eq!(known(&upstreams, &model), ["192.0.2.1"]);
}

#[tokio::test]
async fn a_lookup_that_fails_says_why_and_one_that_hangs_is_given_up() {
    let model = named();
    let upstreams = started(&model, [Err("no such host")]);
    let refused = upstreams.resolved(&model.id, Duration::from_secs(10)).await.unwrap_err();
    assert_eq!(
        refused,
        Unavailable::Unresolved {
            last_error: Some("name not resolved: no such host".into())
        }
    );
    let mut settings = settings();
    settings.dns.timeout = Duration::from_millis(10);
    let upstreams = Upstreams::new(settings);
    upstreams.apply(&catalog([model.clone()]));
    upstreams.start_with(Arc::new(Silence)).unwrap();
    let refused = upstreams.resolved(&model.id, Duration::from_secs(10)).await.unwrap_err();
    assert_eq!(
        refused,
        Unavailable::Unresolved {
            last_error: Some("name not resolved in time".into())
        }
    );
}

#[tokio::test]
async fn waiting_for_a_name_ends_with_the_callers_patience() {
    let model = named();
    let upstreams = Upstreams::new(settings());
    upstreams.apply(&catalog([model.clone()]));
    upstreams.start_with(Arc::new(Silence)).unwrap();
    let refused = upstreams.resolved(&model.id, Duration::from_millis(20)).await.unwrap_err();
    assert_eq!(refused, Unavailable::Unresolved { last_error: None });
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
