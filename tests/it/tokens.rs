//! What is counted of a request, by the row it leaves: the cases in which gateways are known to have counted wrong.
//!
//! | case | shown by |
//! |---|---|
//! | 1 a client leaves before usage is told | `what_was_delivered_is_counted_whatever_is_told_of_it`, `a_broken_off_stream_is_not_billed_by_its_placeholder`, `vllm_continuous_reports_are_summed_over_choices` |
//! | 2 zero is a report | `zero_is_a_report_and_absence_is_none` |
//! | 3 a stream without `include_usage` | `streams_are_made_to_report_usage`, `the_usage_event_nobody_asked_for_is_taken_out_and_nothing_else`, `usage_is_asked_for_always_and_shown_only_to_who_asked` |
//! | 4 `usage: null` on ordinary chunks | `openai_reports_in_an_event_of_its_own`, `null_after_a_report_takes_nothing_back` |
//! | 5 cumulative reports | `vllm_continuous_reports_are_summed_over_choices`, `the_later_of_two_reports_counts_field_by_field` |
//! | 6 usage elsewhere than on the last chunk | `usage_beside_content_is_counted_and_stays`, `a_report_beside_an_empty_delta_after_the_finish_counts_without_done`, `what_was_delivered_is_counted_whatever_is_told_of_it` |
//! | 7 several choices and prompts | `the_larger_limit_counts_for_every_choice`, `what_cannot_be_metered_is_refused` |
//! | 8 both limits of the output, or neither | `the_larger_limit_counts_for_every_choice`, `the_mean_output_is_learned_per_tenant_and_model` |
//! | 9 calls of tools, reasoning, refusals | `calls_of_tools_and_reasoning_and_refusals_are_output`, `a_body_that_reports_nothing_is_counted_by_its_text`, `text_is_weighed_as_utf8_and_media_by_estimate` |
//! | 10 images, audio, base64 | `text_is_weighed_as_utf8_and_media_by_estimate`, `media_streams_report_at_their_end` |
//! | 11 cached tokens, in the two conventions | `bodies_report_in_every_spelling`, `cached_input_has_its_own_price_or_the_input_price` |
//! | 12 Anthropic's start and delta | `anthropic_reports_first_the_input_then_the_output` |
//! | 13 the ends of the Responses API | `responses_report_at_any_of_their_ends`, `an_event_too_large_to_hold_passes_and_is_metered` |
//! | 14 embeddings and rerank | `bodies_report_in_every_spelling` |
//! | 15 audio by time | `audio_may_be_counted_by_time`, `media_streams_report_at_their_end` |
//! | 16 repeated attempts | `what_a_retry_could_lawfully_hide_no_client_sees_and_nothing_runs_twice`, `who_meets_a_refusing_endpoint_is_served_by_another_and_the_ledger_says_so` |
//! | 17 events cut anywhere | `a_stream_is_the_same_however_it_is_cut`, and `check` in all of the tap's tests |
//! | 18 LF, CRLF, CR, cut between | `a_stream_is_the_same_however_it_is_cut`, and `check` in all of the tap's tests |
//! | 19 no space, comments, many lines, no end | `data_may_stand_on_many_lines_and_without_a_space`, `vllm_leaves_usage_away_until_the_end`, `a_report_beside_an_empty_delta_after_the_finish_counts_without_done` |
//! | 20 a line without an end | `an_event_too_large_to_hold_passes_and_is_metered`, `a_report_too_large_is_given_up` |
//! | 21 compressed answers | `what_was_delivered_is_counted_whatever_is_told_of_it`, `a_body_cut_anywhere_is_decoded_to_the_same_text`, `only_the_allow_list_goes_up_and_only_the_allow_list_comes_back` |
//! | 22 200, and then an error | `an_error_after_a_good_status_is_noticed`, `responses_report_at_any_of_their_ends` |
//! | 23 usage in errors, none in answers | `an_error_costs_nothing_whatever_it_reports`, `what_was_delivered_is_counted_whatever_is_told_of_it` |
//! | 24 a client leaves before the only piece | `what_was_delivered_is_counted_whatever_is_told_of_it` |
//! | 25 limits after the fact | `an_estimate_is_settled_to_what_was_used_and_a_refusal_takes_nothing`, `debt_is_at_most_one_bucket` |
//! | 26 scheduler's fields from clients | `scheduler_fields_go_with_one_comma_each`, `owners_go_before_borrowers_in_the_engines_direction_and_clients_have_no_say` |
//! | 27 the gateway's own cache | `a_hit_costs_nothing_and_tells_what_it_spared` |
//! | 28 settled once on every way out | `through_a_network_that_breaks_at_random_each_request_has_one_row_and_nothing_is_held`, `a_panic_in_any_phase_costs_one_request_and_no_slot`, `what_is_settled_is_what_is_missing_whoever_goes_first` |

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{Gateway, Upstream, eventually};

async fn house(url: &str, cache: bool) -> (Gateway, String) {
    let gateway = Gateway::start().await;
    let model = json!({ "model_name": "llama", "api_base": url, "engine": "vllm", "max_retries": 0, "cache_enabled": cache,
        "input_cost_per_token": "0.001", "output_cost_per_token": "0.01" });
    gateway.create("models", model).await;
    let key = gateway.tenant_key(json!({ "name": "acme" })).await;
    (gateway, key)
}

fn chat(stream: bool, extra: &Value) -> Value {
    let mut body = json!({ "model": "llama", "stream": stream, "messages": [{ "role": "user", "content": "please go on" }] });
    for (name, value) in extra.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

/// The row of the request with this id of the client's.
async fn row(gateway: &Gateway, id: &str) -> Value {
    let find = async || {
        let rows = gateway.list("usage/requests?limit=100").await;
        rows.into_iter().find(|row| row["client_request_id"] == id)
    };
    eventually("its row", Duration::from_secs(20), || async { find().await.is_some() }).await;
    find().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_delivered_is_counted_whatever_is_told_of_it() {
    let upstream = Upstream::start(&["--output-tokens", "8"]).await;
    let (gateway, key) = house(&upstream.url(), false).await;
    for (fault, stream, source) in [
        ("gzip", false, "reported"),
        ("gzip", true, "reported"),
        ("usage-twice", true, "reported"),
        ("no-usage", true, "estimated"),
        ("no-usage", false, "estimated"),
        ("gzip,no-usage", true, "estimated"),
        ("gzip,no-usage", false, "estimated"),
    ] {
        let id = format!("{}-{stream}", fault.replace(',', "-"));
        let request = gateway.post("/v1/chat/completions", &key, &chat(stream, &json!({ "sim_fault": fault })));
        let response = request.header("x-request-id", &id).send().await.unwrap();
        assert_eq!(response.status(), 200, "{id}");
        response.bytes().await.unwrap();
        let row = row(&gateway, &id).await;
        assert_eq!(
            (&row["usage_source"], &row["outcome"]),
            (&json!(source), &json!("ok")),
            "{id}: {row}"
        );
        let output = row["output_tokens"].as_u64().unwrap();
        // A word of the simulated text is a token; a body's are guessed by their length.
        let expected = if source == "reported" || stream { 8..=8 } else { 4..=16 };
        assert!(expected.contains(&output), "{id}: {row}");
        assert!(row["input_tokens"].as_u64().unwrap() > 0, "{id}: {row}");
    }
    for stream in [true, false] {
        let id = format!("left-{stream}");
        let aborted = upstream.stats().await["aborted"].as_u64().unwrap();
        let slow = json!({ "sim_ms_per_token": 20, "sim_output_tokens": 100_000 });
        let request = gateway.post("/v1/chat/completions", &key, &chat(stream, &slow));
        let request = request.header("x-request-id", &id).header("connection", "close");
        if stream {
            let mut response = request.send().await.unwrap();
            response.chunk().await.unwrap();
        } else {
            let running = tokio::spawn(request.send());
            eventually("it runs", Duration::from_secs(20), || async {
                upstream.stats().await["running"] == 1
            })
            .await;
            running.abort();
        }
        eventually("the upstream stops", Duration::from_secs(20), || async {
            upstream.stats().await["aborted"].as_u64() > Some(aborted)
        })
        .await;
        let row = row(&gateway, &id).await;
        assert_eq!(
            (&row["usage_source"], &row["outcome"]),
            (&json!("estimated"), &json!("cancelled")),
            "{row}"
        );
        assert!(row["input_tokens"].as_u64().unwrap() > 0, "{row}");
        assert_eq!(row["output_tokens"].as_u64().unwrap() > 0, stream, "{row}");
    }
    gateway.idle().await;
}

/// An upstream that answers each POST with this.
async fn upstream_that_says(status: &'static str, body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = Vec::new();
                // The body ends as JSON does; what asks without one is a check.
                while !(request.ends_with(b"}") || request.starts_with(b"GET") && request.ends_with(b"\r\n\r\n")) {
                    let Ok(byte) = stream.read_u8().await else { return };
                    request.push(byte);
                }
                let answer = format!(
                    "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                // The gateway may have gone.
                drop(stream.write_all(answer.as_bytes()).await);
            });
        }
    });
    format!("http://{addr}")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_costs_nothing_whatever_it_reports() {
    let url = upstream_that_says(
        "400 Bad Request",
        r#"{"error":{"message":"too long","type":"x","param":null,"code":400},"usage":{"prompt_tokens":70,"completion_tokens":7}}"#,
    )
    .await;
    let (gateway, key) = house(&url, false).await;
    let request = gateway.post("/v1/chat/completions", &key, &chat(false, &json!({})));
    let response = request.header("x-request-id", "error").send().await.unwrap();
    assert_eq!(response.status(), 400);
    let row = row(&gateway, "error").await;
    assert_eq!(
        (&row["outcome"], &row["usage_source"], &row["input_tokens"], &row["output_tokens"]),
        (&json!("error"), &json!("none"), &json!(0), &json!(0)),
        "{row}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hit_costs_nothing_and_tells_what_it_spared() {
    let upstream = Upstream::start(&["--output-tokens", "8"]).await;
    let (gateway, key) = house(&upstream.url(), true).await;
    for id in ["first", "again"] {
        let request = gateway.post("/v1/chat/completions", &key, &chat(false, &json!({})));
        let response = request.header("x-request-id", id).send().await.unwrap();
        response.bytes().await.unwrap();
    }
    let (first, again) = (row(&gateway, "first").await, row(&gateway, "again").await);
    assert_eq!((&first["cache"], &again["cache"]), (&json!("miss"), &json!("hit")));
    let number = |row: &Value, name: &str| row[name].as_f64().unwrap();
    assert!(number(&first, "cost_usd") > 0.0 && number(&again, "cost_usd") == 0.0, "{again}");
    let saved = &gateway.get("usage/cache").await;
    assert_eq!(number(saved, "cost_saved_usd"), number(&first, "cost_usd"), "{saved}");
    assert_eq!(
        number(saved, "tokens_saved"),
        number(&first, "input_tokens") + number(&first, "output_tokens"),
        "{saved}"
    );
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_case_is_shown_by_tests_that_there_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    sources(&root.join("src"), &mut paths);
    sources(&root.join("tests"), &mut paths);
    let all: String = paths.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let map = std::fs::read_to_string(root.join("tests/it/tokens.rs")).unwrap();
    let mut cases = BTreeSet::new();
    for line in map.lines().filter_map(|line| line.strip_prefix("//! | ")) {
        let Some((case, tests)) = line.split_once(" | ") else { continue };
        let Some(number) = case.split(' ').next().and_then(|number| number.parse::<u32>().ok()) else {
            continue;
        };
        assert!(cases.insert(number), "case {number} twice");
        let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "case {number} is shown by nothing");
        for name in names {
            assert!(
                all.contains(&format!("fn {name}(")),
                "there is no {name}, which case {number} names"
            );
        }
    }
    assert_eq!(cases, (1..=28).collect());
}
