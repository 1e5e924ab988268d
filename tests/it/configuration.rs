//! The configuration file of a running gateway: merged, followed, refused with its place, and what the command line says.

use std::process::{Command, Output};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Gateway, Upstream, eventually};

const SOON: Duration = Duration::from_secs(20);

/// A tenant with these fields, a model, and more.
fn resources(upstream: &str, fields: &str, more: &str) -> String {
    format!(
        "tenants:\n  - name: acme\n    {fields}\n    keys: [ {{ name: prod, secret: {} }} ]\nmodels:\n  - model_name: llama\n    api_base: \
         \"{upstream}\"\n{more}",
        secret()
    )
}

fn secret() -> String {
    format!("sk_{}", "5".repeat(64))
}

const NOWHERE: &str = "http://127.0.0.1:9";

async fn acme(gateway: &Gateway) -> Value {
    gateway.get("tenants?name=acme").await[0].clone()
}

async fn status(gateway: &Gateway) -> Value {
    gateway.get("config/status").await
}

async fn until_acme(gateway: &Gateway, field: &str, value: Value) {
    eventually(&format!("{field} = {value}"), SOON, || async {
        acme(gateway).await[field] == value
    })
    .await;
}

/// The newest `reload_config` row.
async fn last_reload(gateway: &Gateway) -> Value {
    gateway.get("audit?action=reload_config").await[0].clone()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_merged_at_start_and_followed_without_dropping_a_stream() {
    let upstream = Upstream::start(&["--ms-per-token", "40", "--output-tokens", "60"]).await;
    let gateway = Gateway::start_configured(&resources(&upstream.url(), "weight: 5", "capacity: { max_in_flight: 3 }\n"));
    assert_eq!(gateway.get("capacity").await["max_in_flight"], 3);
    let tenant = acme(&gateway).await;
    assert_eq!((&tenant["weight"], &tenant["managed_by"]), (&json!(5), &json!("file")));
    let made = &gateway.get("audit?action=create_tenant").await[0];
    assert_eq!((&made["source"], &made["actor"]), (&json!("file"), &json!("file")));
    assert_eq!(last_reload(&gateway).await["detail"]["trigger"], "start");

    let body = json!({ "model": "llama", "stream": true, "messages": [{ "role": "user", "content": "hello" }] });
    let mut stream = gateway.post("/v1/chat/completions", &secret(), &body).send().await.unwrap();
    let mut text = stream.chunk().await.unwrap().unwrap().to_vec();
    gateway.configure(2, &resources(&upstream.url(), "weight: 500", "capacity: { max_in_flight: 4 }\n"));
    until_acme(&gateway, "weight", json!(500)).await;
    assert_eq!(gateway.get("capacity").await["max_in_flight"], 4);
    let running = gateway.stats().await["in_flight"].clone();
    while let Some(chunk) = stream.chunk().await.unwrap() {
        text.extend_from_slice(&chunk);
    }
    assert_eq!(running, 1, "the file was applied while the stream ran");
    assert!(String::from_utf8(text).unwrap().trim_end().ends_with("data: [DONE]"));
    assert_eq!(last_reload(&gateway).await["detail"]["trigger"], "file_change");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_edit_keeps_the_state_and_says_where() {
    let gateway = Gateway::start_configured(&resources(NOWHERE, "weight: 5", ""));
    assert_eq!(status(&gateway).await["outcome"], "applied");
    gateway.configure(2, &resources(NOWHERE, "weight: none", "groups: 7\n"));
    eventually("the refusal", SOON, || async { status(&gateway).await["outcome"] == "refused" }).await;
    let refused = status(&gateway).await;
    let place = |line: u32, column: u32| format!("{}:{line}:{column}", gateway.file().display());
    let errors = refused["errors"].as_array().unwrap();
    let found: Vec<(&str, &str)> = errors
        .iter()
        .map(|error| (error["place"].as_str().unwrap(), error["path"].as_str().unwrap()))
        .collect();
    assert_eq!(found, [(&*place(7, 13), "tenants[0].weight"), (&*place(12, 9), "groups")]);
    assert!(refused["applied_at"].as_str() < refused["attempted_at"].as_str(), "{refused}");
    assert_eq!(acme(&gateway).await["weight"], 5);

    let (code, problem) = gateway.answer(Method::POST, "config/reload").await;
    assert_eq!(
        (code, &problem["code"], &problem["errors"]),
        (422, &json!("invalid_config"), &refused["errors"])
    );
    let reload = gateway.operator(&["reload"]).output().unwrap();
    let error = String::from_utf8_lossy(&reload.stderr).into_owned();
    assert_eq!(reload.status.code(), Some(1));
    assert!(
        error.contains(&format!("{}: tenants[0].weight: must be an integer", place(7, 13))),
        "{error}"
    );

    gateway.configure(2, &resources(NOWHERE, "weight: 6", ""));
    until_acme(&gateway, "weight", json!(6)).await;
    let status = status(&gateway).await;
    assert_eq!((&status["outcome"], &status["errors"]), (&json!("applied"), &json!([])));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_api_edits_survives_reloads_and_is_listed_as_overridden() {
    let gateway = Gateway::start_configured(&resources(NOWHERE, "weight: 5", ""));
    let id = acme(&gateway).await["id"].as_str().unwrap().to_owned();
    gateway.patch(&format!("tenants/{id}/weight"), json!({ "weight": 7 })).await;
    gateway.hang_up();
    eventually("the signal's reload", SOON, || async {
        last_reload(&gateway).await["detail"]["trigger"] == "signal"
    })
    .await;
    let reload = gateway.operator(&["reload"]).output().unwrap();
    assert!(reload.status.success());
    assert!(
        said(&reload).contains("! tenant acme keeps what was changed through the API: weight"),
        "{reload:?}"
    );
    assert_eq!(last_reload(&gateway).await["detail"]["requested_by"], "admin");

    gateway.configure(2, &resources(NOWHERE, "weight: 5\n    description: new", ""));
    until_acme(&gateway, "description", json!("new")).await;
    let tenant = acme(&gateway).await;
    assert_eq!((&tenant["weight"], &tenant["overridden"]), (&json!(7), &json!(["weight"])));
    // The most recent edit wins.
    gateway.configure(2, &resources(NOWHERE, "weight: 8\n    description: new", ""));
    until_acme(&gateway, "weight", json!(8)).await;
    assert_eq!(acme(&gateway).await["overridden"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_that_changes_wants_a_restart_and_the_rest_is_applied() {
    let gateway = Gateway::start_configured(&resources(NOWHERE, "weight: 5", ""));
    gateway.configure(3, &resources(NOWHERE, "weight: 6", ""));
    until_acme(&gateway, "weight", json!(6)).await;
    eventually("restart required", SOON, || async {
        status(&gateway).await["restart_required"] == json!(["server.threads"])
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_good_and_diff_says_what_differs() {
    let gateway = Gateway::start_configured(&resources(NOWHERE, "weight: 5", ""));
    let file = gateway.file();
    let file = file.to_str().unwrap();
    let diff = || gateway.operator(&["diff", "--config", file]).output().unwrap();
    let same = diff();
    assert_eq!((same.status.code(), said(&same)), (Some(0), String::new()), "{same:?}");

    let export = gateway.operator(&["export"]).output().unwrap();
    let exported = said(&export);
    assert!(exported.contains("secret_hash") && !exported.contains(&secret()), "{exported}");
    std::fs::write(file, exported).unwrap();
    let check = gateway.operator(&["check", "--config", file]).output().unwrap();
    assert_eq!((check.status.code(), check.stderr.is_empty()), (Some(0), true), "{check:?}");
    assert_eq!(diff().status.code(), Some(0));

    let id = acme(&gateway).await["id"].as_str().unwrap().to_owned();
    gateway.patch(&format!("tenants/{id}/weight"), json!({ "weight": 9 })).await;
    gateway.tenant(json!({ "name": "beta" })).await;
    let other = diff();
    assert_eq!(
        (other.status.code(), &*said(&other)),
        (Some(1), "~ tenant acme: weight 9 -> 5\n- tenant beta\n"),
        "{other:?}"
    );
    let nobody = gateway
        .operator(&["diff", "--config", file, "--admin-url", "http://127.0.0.1:9"])
        .output()
        .unwrap();
    assert_eq!(nobody.status.code(), Some(2), "{nobody:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_file_there_is_nothing_to_reload() {
    let gateway = Gateway::start().await;
    assert_eq!(status(&gateway).await["outcome"], "no_file");
    let (code, problem) = gateway.answer(Method::POST, "config/reload").await;
    assert_eq!((code, &problem["code"]), (409, &json!("no_config_file")));
}

#[test]
fn a_file_with_faults_does_not_start_and_does_not_pass_the_check() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("obleth.yaml");
    let run = |verb: &str, text: &str| {
        std::fs::write(&path, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_obleth"));
        command
            .args([verb, "--config"])
            .arg(&path)
            .env("OBLETH_ADMIN_TOKEN", "0123456789abcdef");
        let store = scratch.path().join("obleth.db");
        command
            .env("OBLETH_STORE_PATH", store)
            .env("OBLETH_SERVER_LISTEN", "127.0.0.1:0")
            .env("OBLETH_ADMIN_LISTEN", "127.0.0.1:0");
        command.env("OBLETH_LOG_LEVEL", "error");
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let file = path.display();
    let faulty = "groups: 7\ntenants: [ { name: acme, weight: 0 } ]\n";
    let faults = format!("{file}:1:9: groups: must be a list\n{file}:2:34: tenants[0].weight: must be an integer from 1 to 1000000\n");
    assert_eq!(run("serve", faulty), (Some(78), faults.clone()));
    assert_eq!(run("check", faulty), (Some(1), faults));
    let secure = "server: { tls_cert_file: cert.pem, tls_key_file: key.pem }\n";
    let fault: String = ["cert", "key"]
        .map(|which| format!("{file}: server.tls_{which}_file: needs a build with the feature `tls` (cargo build --features tls)\n"))
        .concat();
    assert_eq!(run("serve", secure), (Some(78), fault.clone()));
    assert_eq!(run("check", secure), (Some(1), fault));
    if !cfg!(feature = "otel") {
        let traced = "traces: { endpoint: \"http://127.0.0.1:4318\", sample_ratio: 0.5 }\n";
        let fault: String = ["endpoint", "sample_ratio"]
            .map(|which| format!("{file}: traces.{which}: needs a build with the feature `otel` (cargo build --features otel)\n"))
            .concat();
        assert_eq!(run("serve", traced), (Some(78), fault.clone()));
        assert_eq!(run("check", traced), (Some(1), fault));
    }
    // Only the store knows whether there is such a group.
    let stray = "tenants: [ { name: acme, fairshare_group: research } ]\n";
    let fault = format!("{file}:1:12: tenants[0].fairshare_group: names a group that does not exist");
    assert_eq!(run("serve", stray), (Some(78), format!("{fault}\n")));
    assert_eq!(run("check", stray), (Some(0), format!("{fault}, unless the store has it\n")));
}
