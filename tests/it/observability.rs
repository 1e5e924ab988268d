//! What watches the gateway: `/metrics` as it is served, the dashboard and the alert rules made for it, the request log.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use obleth::telemetry::{Family, family};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Gateway, Upstream, eventually};

const SECOND: Duration = Duration::from_secs(10);

/// The family that a sample belongs to.
fn family_of(sample: &str) -> Option<&'static Family> {
    family::ALL
        .iter()
        .copied()
        .find(|family| family.samples().iter().any(|name| name == sample))
}

/// The samples of a scrape by their name and labels, as they are written.
fn samples(text: &str) -> BTreeMap<String, f64> {
    assert!(text.ends_with("# EOF\n"));
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series.to_owned(), value.parse().unwrap_or_else(|_| panic!("no number: {line}")))
        })
        .collect()
}

fn name(series: &str) -> &str {
    series.split('{').next().unwrap()
}

fn chat(model: &str, max_tokens: u64) -> Value {
    json!({ "model": model, "stream": true, "max_tokens": max_tokens, "messages": [{ "role": "user", "content": "a prompt of secret things" }] })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_figure_is_served_and_adds_up() {
    let upstream = Upstream::start(&["--ttft-ms", "20"]).await;
    let gateway = Gateway::start_configured(&format!(
        "tenants: [ {{ name: 'ac\"me', tokens_per_minute: 100000 }}, {{ name: idle }} ]\nmodels: [ {{ model_name: llama, api_base: \"{}\", cache_enabled: \
         true, input_cost_per_token: 0.01, output_cost_per_token: 0.02 }} ]\n",
        upstream.url()
    ));
    let acme = gateway.get("tenants").await[0]["id"].as_str().unwrap().to_owned();
    let key = gateway.key(&acme, json!({ "name": "k" })).await;
    for max_tokens in [4, 4, 5] {
        let answer = gateway
            .post("/v1/chat/completions", &key, &chat("llama", max_tokens))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        answer.bytes().await.unwrap();
    }
    let unknown = gateway
        .post("/v1/chat/completions", &key, &chat("nothing", 4))
        .send()
        .await
        .unwrap();
    assert_eq!(unknown.status(), 404);
    let guess = gateway
        .post("/v1/chat/completions", "sk_guess", &chat("llama", 4))
        .send()
        .await
        .unwrap();
    assert_eq!(guess.status(), 401);
    let nowhere = gateway.post("/v1/nowhere", &key, &json!({})).send().await.unwrap();
    assert_eq!(nowhere.status(), 404);
    eventually("four rows are counted", SECOND, || async {
        let now = samples(&gateway.metrics().await);
        now.iter()
            .filter(|(series, _)| name(series) == "obleth_requests_total")
            .map(|(_, count)| count)
            .sum::<f64>()
            >= 4.0
    })
    .await;
    let now = samples(&gateway.metrics().await);
    for (series, value) in [
        (r#"obleth_requests_total{tenant="ac\"me",model="llama",outcome="ok"}"#, 3.0),
        (r#"obleth_requests_total{tenant="ac\"me",model="",outcome="rejected"}"#, 1.0),
        (r#"obleth_rejections_total{tenant="ac\"me",reason="model_not_found"}"#, 1.0),
        (r#"obleth_auth_failures_total{listener="data",reason="invalid_api_key"}"#, 1.0),
        (r#"obleth_refused_total{reason="not_found"}"#, 1.0),
        (r#"obleth_tokens_total{tenant="ac\"me",model="llama",type="output"}"#, 9.0),
        (r#"obleth_cache_requests_total{result="hit"}"#, 1.0),
        (r#"obleth_time_to_first_token_seconds_count{model="llama"}"#, 3.0),
        (r#"obleth_queue_wait_seconds_count{model="llama",outcome="admitted"}"#, 2.0),
        (r#"obleth_config_reloads_total{result="applied"}"#, 1.0),
        ("obleth_ready", 1.0),
        ("obleth_slots_in_use", 0.0),
        ("obleth_ledger_rows_total", 4.0),
    ] {
        // The store has rows a moment after they are counted.
        eventually(series, SECOND, || async {
            let now = samples(&gateway.metrics().await);
            now.get(series) == Some(&value)
        })
        .await;
    }
    let strange: Vec<_> = now.keys().filter(|series| family_of(name(series)).is_none()).collect();
    assert!(strange.is_empty(), "{strange:?} are no figures of ours");
    let served: BTreeSet<_> = now.keys().map(|series| name(series)).collect();
    let missing = family::ALL
        .iter()
        .filter(|family| !family.samples().iter().all(|name| served.contains(name.as_str())));
    let missing: Vec<_> = missing.map(|family| family.name).collect();
    // It takes two tenants that wait for a second and more, and a listener with a certificate.
    assert_eq!(
        missing,
        [
            "obleth_model_inflight",
            "obleth_model_queue_depth",
            "obleth_fairness_index",
            "obleth_certificate_last_reload_successful",
            "obleth_certificate_expiry_timestamp_seconds"
        ]
    );
    // Who is gone has no series.
    gateway.manage(Method::DELETE, &format!("tenants/{acme}"), None).await;
    assert!(!gateway.metrics().await.contains("ac\\\"me"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_figures_speak_prometheus_and_openmetrics() {
    let gateway = Gateway::start().await;
    let url = format!("http://{}/metrics", gateway.management);
    for (accept, kind) in [
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        (
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        ),
    ] {
        let answer = reqwest::Client::new().get(&url).header("accept", accept).send().await.unwrap();
        assert_eq!(answer.headers()["content-type"], kind);
    }
    // Counted before anything happened: an alert needs the zero that a first failure rises from.
    let now = samples(&gateway.metrics().await);
    for series in [
        r#"obleth_auth_failures_total{listener="data",reason="invalid_api_key"}"#,
        r#"obleth_auth_failures_total{listener="management",reason="unauthorized"}"#,
        r#"obleth_ledger_errors_total{operation="spool_sync"}"#,
        "obleth_usage_ledger_dropped_total",
    ] {
        assert_eq!(now.get(series), Some(&0.0), "{series}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_refused_shows_until_one_is_accepted() {
    let gateway = Gateway::start_configured("capacity: { max_in_flight: 3 }\n");
    let shows = async |series: &str, value: f64| {
        eventually(series, SECOND, || async {
            samples(&gateway.metrics().await).get(series) == Some(&value)
        })
        .await;
    };
    shows("obleth_config_last_reload_successful", 1.0).await;
    gateway.configure(2, "capacity: { max_in_flight: many }\n");
    shows("obleth_config_last_reload_successful", 0.0).await;
    shows(r#"obleth_config_reloads_total{result="refused"}"#, 1.0).await;
    shows("obleth_capacity_slots", 3.0).await;
    gateway.configure(3, "capacity: { max_in_flight: 4 }\n");
    shows("obleth_config_last_reload_successful", 1.0).await;
    shows("obleth_capacity_slots", 4.0).await;
    shows("obleth_config_restart_required", 1.0).await;
}

/// The names of series in an expression, each with the labels that it is selected by.
fn selectors(expression: &str) -> Vec<(String, Vec<String>)> {
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(at) = rest.find(|letter: char| is_name(letter)) {
        rest = &rest[at..];
        let end = rest.find(|letter: char| !is_name(letter)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        rest = after;
        if word.starts_with("obleth_") || word.starts_with("process_") {
            let inside = after.strip_prefix('{').and_then(|inside| inside.split_once('}'));
            let labels = inside.map_or(Vec::new(), |(inside, after)| {
                rest = after;
                inside
                    .split(',')
                    .map(|matcher| matcher.split(['=', '!']).next().unwrap().trim().to_owned())
                    .collect()
            });
            found.push((word.to_owned(), labels));
        }
    }
    found
}

/// The labels that an expression groups by.
fn groupings(expression: &str) -> BTreeSet<String> {
    let after_by = expression.split(" by (").skip(1);
    after_by
        .flat_map(|rest| rest.split(')').next().unwrap().split(','))
        .map(|label| label.trim().to_owned())
        .collect()
}

/// Fails unless an expression asks for what is served, by labels that it has. The scraper adds `instance` and `job`.
#[track_caller]
fn is_served(expression: &str) {
    let selectors = selectors(expression);
    assert!(!selectors.is_empty(), "{expression} asks for nothing of ours");
    let mut known: BTreeSet<&str> = ["le", "instance", "job"].into();
    for (name, labels) in &selectors {
        let family = family_of(name).unwrap_or_else(|| panic!("{name} is not served: {expression}"));
        known.extend(family.labels);
        for label in labels {
            let has = family.labels.contains(&&**label) || ["instance", "job"].contains(&&**label);
            assert!(has, "{name} has no {label}: {expression}");
        }
    }
    for label in groupings(expression) {
        assert!(known.contains(&*label), "nothing has {label}: {expression}");
    }
}

#[test]
fn the_dashboard_asks_for_what_is_served() {
    let dashboard: Value = serde_json::from_str(include_str!("../../conf/observability/dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let mut asked = BTreeSet::new();
    for target in targets {
        let expression = target["expr"].as_str().unwrap();
        is_served(expression);
        asked.extend(selectors(expression).into_iter().map(|(name, _)| family_of(&name).unwrap().name));
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        if let Some(definition) = variable["definition"].as_str() {
            let (metric, label) = definition
                .trim_start_matches("label_values(")
                .trim_end_matches(')')
                .split_once(", ")
                .unwrap();
            is_served(&format!("{metric}{{{label}=\"\"}}"));
        }
    }
    let unseen: Vec<_> = family::ALL
        .iter()
        .map(|family| family.name)
        .filter(|name| !asked.contains(name))
        .collect();
    assert!(unseen.is_empty(), "no panel shows {unseen:?}");
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "two panels with one id");
}

#[test]
fn the_alerts_ask_for_what_is_served() {
    let rules: Value = serde_yaml::from_str(include_str!("../../conf/observability/alerts.yaml")).unwrap();
    let groups = rules["groups"].as_array().unwrap();
    let mut names = BTreeSet::new();
    for rule in groups.iter().flat_map(|group| group["rules"].as_array().unwrap()) {
        let alert = rule["alert"].as_str().unwrap();
        assert!(names.insert(alert), "{alert} is there twice");
        is_served(rule["expr"].as_str().unwrap());
        for text in ["summary", "description"] {
            assert!(rule["annotations"][text].is_string(), "{alert} has no {text}");
        }
        assert!(rule["labels"]["severity"].is_string(), "{alert}");
    }
    assert!(names.len() > 10);
}

#[test]
fn the_check_itself_finds_what_is_not_served() {
    let refuses = |expression: &str| std::panic::catch_unwind(|| is_served(expression)).is_err();
    assert!(refuses("rate(obleth_request_total[5m])"));
    assert!(refuses("obleth_requests_total{key=\"x\"}"));
    assert!(refuses("sum by (user) (obleth_ready)"));
    assert!(refuses("vector(1)"));
    is_served("sum by (le, model) (rate(obleth_queue_wait_seconds_bucket{outcome=\"admitted\", model!=\"\"}[5m]))");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_has_a_line_without_secrets_and_prompts() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start_logged(&["--log-requests", "all"]);
    gateway
        .create(
            "models",
            json!({ "model_name": "llama", "api_base": upstream.url(), "output_cost_per_token": 0.5 }),
        )
        .await;
    let key = gateway.tenant_key(json!({ "name": "acme" })).await;
    let answer = gateway
        .post("/v1/chat/completions?api_key=in-the-query", &key, &chat("llama", 3))
        .header("x-request-id", "mine")
        .send()
        .await
        .unwrap();
    let own_id = answer.headers()["x-obleth-request-id"].to_str().unwrap().to_owned();
    answer.bytes().await.unwrap();
    let guess = gateway
        .post("/v1/chat/completions", "sk_guess", &chat("llama", 3))
        .send()
        .await
        .unwrap();
    assert_eq!(guess.status(), 401);
    eventually("two lines", SECOND, || async { gateway.log().len() >= 2 }).await;
    let lines = gateway.log();
    let of = |status: u64| {
        lines
            .iter()
            .find(|line| line["status"] == status)
            .unwrap_or_else(|| panic!("{lines:?}"))
    };
    let served = of(200);
    for (field, value) in [
        ("request_id", json!(own_id)),
        ("client_request_id", json!("mine")),
        ("tenant", json!("acme")),
        ("key_prefix", json!(&key[..18])),
        ("model", json!("llama")),
        ("route", json!("/v1/chat/completions")),
        ("outcome", json!("ok")),
        ("attempts", json!(1)),
        ("output_tokens", json!(3)),
        ("cost_usd", json!(1.5)),
        ("target", json!("obleth::request")),
    ] {
        assert_eq!(served[field], value, "{field}: {served}");
    }
    let refused = of(401);
    assert_eq!(
        (&refused["outcome"], &refused["error_code"], &refused["tenant"]),
        (&json!("rejected"), &json!("invalid_api_key"), &json!(""))
    );
    let text = lines.iter().map(ToString::to_string).collect::<String>();
    for secret in [&*key, "sk_guess", "secret things", "in-the-query"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_can_be_of_failures_only() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start_logged(&["--log-requests", "failed"]);
    gateway
        .create("models", json!({ "model_name": "llama", "api_base": upstream.url() }))
        .await;
    let key = gateway.tenant_key(json!({ "name": "acme" })).await;
    for (model, status) in [("llama", 200), ("nothing", 404)] {
        let answer = gateway.post("/v1/chat/completions", &key, &chat(model, 1)).send().await.unwrap();
        assert_eq!(answer.status(), status);
        answer.bytes().await.unwrap();
    }
    eventually("a line", SECOND, || async { !gateway.log().is_empty() }).await;
    let statuses: Vec<_> = gateway.log().iter().map(|line| line["status"].clone()).collect();
    assert_eq!(statuses, [json!(404)], "rows come in their order, so the other had its turn");
}
