//! The verbs of the command line that talk to a running gateway: what they do, print and refuse.

use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Gateway, Upstream, eventually};

/// Runs `obleth` as an operator, away from the threads that serve tests.
fn run(gateway: &Gateway, arguments: &[&str]) -> Output {
    tokio::task::block_in_place(|| gateway.operator(arguments).stdin(Stdio::null()).output().unwrap())
}

/// What it prints, of a command that must succeed.
fn said(gateway: &Gateway, arguments: &[&str]) -> String {
    let output = run(gateway, arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

fn json_of(gateway: &Gateway, arguments: &[&str]) -> Value {
    let text = said(gateway, &[arguments, &["-o", "json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|wrong| panic!("{arguments:?}: {wrong}: {text}"))
}

/// The error of a command that must fail, which prints nothing else.
fn refused(gateway: &Gateway, arguments: &[&str], code: i32) -> String {
    let output = run(gateway, arguments);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_are_made_listed_changed_and_deleted_by_name() {
    let gateway = Gateway::start().await;
    let made = said(&gateway, &["tenants", "create", "acme", "weight=500", "description=the first"]);
    assert!(made.starts_with("created tenant acme ("), "{made}");
    said(&gateway, &["tenants", "set", "acme", "tokens_per_minute=1000", "max_in_flight=3"]);
    let tenant = gateway.get("tenants?name=acme").await[0].clone();
    assert_eq!(
        (
            &tenant["weight"],
            &tenant["tokens_per_minute"],
            &tenant["max_in_flight"],
            &tenant["description"]
        ),
        (&json!(500), &json!(1000), &json!(3), &json!("the first"))
    );
    let table = said(&gateway, &["tenants", "list"]);
    let lines: Vec<&str> = table.lines().collect();
    assert!(
        lines[0].starts_with("NAME  GROUP    WEIGHT") && lines[1].starts_with("acme  default     500"),
        "{table}"
    );
    assert!(!table.contains('\u{1b}'), "not a terminal: {table}");
    assert_eq!(json_of(&gateway, &["tenants", "list"])[0], tenant);
    assert_eq!(json_of(&gateway, &["tenants", "show", tenant["id"].as_str().unwrap()]), tenant);
    assert_eq!(said(&gateway, &["tenants", "delete", "acme"]), "deleted tenant acme\n");
    assert_eq!(json_of(&gateway, &["tenants", "list"]), json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_name_the_field_and_the_next_step() {
    let gateway = Gateway::start().await;
    let error = refused(&gateway, &["tenants", "set", "nobody", "weight=5"], 1);
    assert!(error.contains("there is no tenant \"nobody\"; `obleth tenants list`"), "{error}");
    let error = refused(&gateway, &["tenants", "create", "acme", "weight=0", "wieght=5"], 1);
    assert!(error.contains("\nweight: ") && error.contains("\nwieght: "), "{error}");
    let error = refused(&gateway, &["tenants", "create", "acme", "weight"], 2);
    assert!(error.contains("must be field=value, like weight=200"), "{error}");
    let error = refused(&gateway, &["groups", "delete", "default"], 1);
    assert!(error.contains("default"), "{error}");

    let mut other = gateway.operator(&["tenants", "list"]);
    other.env("OBLETH_ADMIN_TOKEN", "a-token-of-another-gateway");
    let output = tokio::task::block_in_place(|| other.output().unwrap());
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("OBLETH_ADMIN_TOKEN must be the token"), "{error}");

    let mut nobody = gateway.operator(&["status"]);
    nobody.env("OBLETH_ADMIN_URL", "http://127.0.0.1:9");
    let output = tokio::task::block_in_place(|| nobody.output().unwrap());
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("does `obleth serve` run there?"), "{error}");

    let mut tokenless = gateway.operator(&["tenants", "list"]);
    tokenless.env_remove("OBLETH_ADMIN_TOKEN");
    let output = tokio::task::block_in_place(|| tokenless.output().unwrap());
    assert_eq!(output.status.code(), Some(78), "a set-up that must be corrected first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_s_secret_is_printed_once_and_works_until_the_key_is_gone() {
    let upstream = Upstream::start(&["--output-tokens", "3"]).await;
    let gateway = Gateway::start().await;
    said(
        &gateway,
        &["models", "create", "llama", &format!("api_base={}", upstream.url()), "engine=vllm"],
    );
    said(&gateway, &["tenants", "create", "acme"]);
    let output = run(&gateway, &["keys", "create", "acme", "prod", "allowed_models=llama"]);
    let secret = String::from_utf8(output.stdout).unwrap().trim_end().to_owned();
    assert!(
        secret.starts_with("sk_") && secret.len() == 67,
        "standard output is the secret alone: {secret:?}"
    );
    assert!(!String::from_utf8_lossy(&output.stderr).contains(&secret));
    let chat = json!({ "model": "llama", "messages": [{ "role": "user", "content": "hello" }] });
    let status = async |secret: &str| gateway.post("/v1/chat/completions", secret, &chat).send().await.unwrap().status();
    assert_eq!(status(&secret).await, 200);

    let table = said(&gateway, &["keys", "list", "--tenant", "acme"]);
    assert!(table.contains(&secret[..18]) && !table.contains(&secret), "{table}");
    let shown = json_of(&gateway, &["keys", "show", "acme/prod"]);
    assert_eq!(shown["allowed_models"], json!(["llama"]));

    let rotated = said(&gateway, &["keys", "rotate", &secret[..18]]).trim_end().to_owned();
    assert_eq!(
        (status(&secret).await, status(&rotated).await),
        (401.try_into().unwrap(), 200.try_into().unwrap())
    );
    said(&gateway, &["keys", "set", "acme/prod", "disabled=true"]);
    assert_eq!(status(&rotated).await, 403);
    assert!(said(&gateway, &["keys", "list"]).contains("disabled"));
    said(&gateway, &["keys", "delete", "acme/prod"]);
    assert_eq!(status(&rotated).await, 401);
    let error = refused(&gateway, &["keys", "delete", "acme/prod"], 1);
    assert!(error.contains("`obleth keys list`"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_and_tool_servers_are_at_hand_too() {
    let gateway = Gateway::start().await;
    said(&gateway, &["groups", "create", "research", "--weight", "200"]);
    said(&gateway, &["groups", "set", "research", "--weight", "300"]);
    said(&gateway, &["tenants", "create", "lab", "fairshare_group=research"]);
    let table = said(&gateway, &["groups", "list"]);
    assert!(
        table
            .lines()
            .any(|line| line.split_whitespace().collect::<Vec<_>>() == ["research", "300", "1", "api"]),
        "{table}"
    );
    let error = refused(&gateway, &["groups", "delete", "research"], 1);
    assert!(error.contains("obleth tenants set NAME fairshare_group=default"), "{error}");
    said(&gateway, &["tenants", "set", "lab", "fairshare_group=default"]);
    assert_eq!(said(&gateway, &["groups", "delete", "research"]), "deleted group research\n");

    said(
        &gateway,
        &[
            "mcp",
            "create",
            "files",
            "upstream_url=http://127.0.0.1:7000/mcp",
            "denied_tools=rm,mv",
        ],
    );
    said(&gateway, &["mcp", "set", "files", "enabled=false"]);
    let server = json_of(&gateway, &["mcp", "show", "files"]);
    assert_eq!((&server["denied_tools"], &server["enabled"]), (&json!(["rm", "mv"]), &json!(false)));
    assert!(said(&gateway, &["mcp", "list"]).contains("rm,mv"));
    said(&gateway, &["mcp", "delete", "files"]);

    let audit = json_of(&gateway, &["audit", "list", "--entity-type", "mcp_server"]);
    let actions: Vec<&str> = audit
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["action"].as_str().unwrap())
        .collect();
    assert_eq!(actions, ["delete_mcp_server", "update_mcp_server", "create_mcp_server"]);
    assert!(audit[0]["actor"].as_str().unwrap().starts_with("cli"), "{audit}");
    let table = said(&gateway, &["audit", "list", "--limit", "2"]);
    assert_eq!(table.lines().count(), 3, "{table}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_longer_than_a_page_are_whole() {
    let gateway = Gateway::start().await;
    // One page holds 1000.
    let tenants: Vec<String> = (0..1005).map(|number| format!("  - name: t{number:04}\n")).collect();
    let gateway_of_many = Gateway::start_configured(&format!("tenants:\n{}", tenants.concat()));
    drop(gateway);
    let rows = json_of(&gateway_of_many, &["tenants", "list"]);
    assert_eq!(rows.as_array().unwrap().len(), 1005);
    assert_eq!(json_of(&gateway_of_many, &["tenants", "show", "t1004"])["name"], "t1004");
    let audit = json_of(&gateway_of_many, &["audit", "list", "--limit", "1003", "--action", "create_tenant"]);
    assert_eq!(audit.as_array().unwrap().len(), 1003);
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_costs_status_and_top_tell_what_goes_on() {
    let upstream = Upstream::start(&["--ms-per-token", "1", "--output-tokens", "1000000"]).await;
    let gateway = Gateway::start().await;
    let base = format!("api_base={}", upstream.url());
    said(
        &gateway,
        &["models", "create", "llama", &base, "engine=vllm", "cost_per_request=0.000000000001"],
    );
    said(&gateway, &["tenants", "create", "acme"]);
    let secret = said(&gateway, &["keys", "create", "acme", "prod"]);
    let short = json!({ "model": "llama", "max_tokens": 2, "messages": [{ "role": "user", "content": "hello" }] });
    let answer = gateway
        .post("/v1/chat/completions", secret.trim_end(), &short)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    answer.text().await.unwrap();
    eventually("the row", Duration::from_secs(5), || async {
        gateway.get("usage").await[0]["requests"] == 1
    })
    .await;

    let usage = said(&gateway, &["usage"]);
    assert!(
        usage.starts_with("TENANT") && usage.lines().nth(1).unwrap().starts_with("acme"),
        "{usage}"
    );
    let by_key = said(&gateway, &["usage", "--by", "key", "--key", "acme/prod"]);
    assert!(by_key.contains(&secret[..18]), "{by_key}");
    assert!(said(&gateway, &["usage", "--by", "model", "--since", "1h"]).contains("TTFT P50 MS"));
    assert_eq!(json_of(&gateway, &["usage", "--until", "1h", "--since", "2h"]), json!([]));
    let log = json_of(&gateway, &["usage", "--requests", "--limit", "5"]);
    assert_eq!((&log[0]["outcome"], log.as_array().unwrap().len()), (&json!("ok"), 1));
    assert!(said(&gateway, &["usage", "--requests"]).contains("acme    llama  ok"));
    // Digits of money are those of the bill.
    let costs = said(&gateway, &["costs", "-o", "json"]);
    assert!(costs.contains("0.000000000001"), "{costs}");
    assert!(said(&gateway, &["costs", "--by", "tenant"]).contains("acme"));

    let long = json!({ "model": "llama", "stream": true, "messages": [{ "role": "user", "content": "hello" }] });
    let mut stream = gateway.post("/v1/chat/completions", secret.trim_end(), &long).send().await.unwrap();
    stream.chunk().await.unwrap();
    let top = said(&gateway, &["top", "--once", "--interval-ms", "500"]);
    let line = top.lines().find(|line| line.starts_with("acme")).unwrap_or_else(|| panic!("{top}"));
    let cells: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(cells[..5], ["acme", "default", "100", "64.0", "1"], "{top}");
    // What it was expected to take is charged when it begins, and more only once it has outgrown that.
    eventually("its tokens are counted", Duration::from_secs(20), || async {
        let looked = json_of(&gateway, &["top", "--once", "--interval-ms", "500"]);
        assert_eq!((&looked["in_flight"], &looked["tenants"][0]["name"]), (&json!(1), &json!("acme")));
        looked["tenants"][0]["tokens_per_second"].as_f64().unwrap() > 0.0
    })
    .await;

    let status = said(&gateway, &["status"]);
    assert!(
        status.contains("1 of 64 in flight, 0 queued") && status.contains("store      ok"),
        "{status}"
    );
    drop(stream);
    drop(upstream);
    eventually("the endpoint is seen to be gone", Duration::from_secs(30), || async {
        gateway.get("models").await[0]["health"][0]["status"] == "unhealthy"
    })
    .await;
    let sick = run(&gateway, &["status"]);
    assert_eq!(sick.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&sick.stdout).contains("1 unhealthy"));
    assert_eq!(run(&gateway, &["status", "-o", "json"]).status.code(), Some(1));
}
