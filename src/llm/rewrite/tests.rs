//! What a rewritten body says, and that it says nothing else.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::llm::{Route, read};

#[track_caller]
fn check(route: Route, body: &str, model: &str, extras: &Extras, expected: &str) {
    let body = Bytes::copy_from_slice(body.as_bytes());
    let parsed = read(route, None, &body).unwrap();
    let once = rewrite(&body, &parsed, model, extras);
    assert_eq!(std::str::from_utf8(&once).unwrap(), expected);
    let again = read(route, None, &once).unwrap();
    assert_eq!(rewrite(&once, &again, model, extras), expected, "the second time changes nothing");
}

#[track_caller]
fn chat(body: &str, expected: &str) {
    check(Route::ChatCompletions, body, "up", &Extras::default(), expected);
}

#[test]
fn only_the_model_changes() {
    chat(
        r#" { "x" : 1.50e+2 , "model" : "a" , "y":[ ]} "#,
        r#" { "x" : 1.50e+2 , "model" : "up" , "y":[ ]} "#,
    );
    chat(r#"{"mod\u0065l":"long-name-of-a-model"}"#, r#"{"mod\u0065l":"up"}"#);
    check(
        Route::Embeddings,
        r#"{"model":"a","model2":"a"}"#,
        "q\"uote\n",
        &Extras::default(),
        r#"{"model":"q\"uote\n","model2":"a"}"#,
    );
}

#[test]
fn a_body_that_needs_no_change_is_the_same_bytes() {
    let body = Bytes::from_static(br#"{"model":"up","stream":false}"#);
    let parsed = read(Route::ChatCompletions, None, &body).unwrap();
    assert_eq!(rewrite(&body, &parsed, "up", &Extras::default()).as_ptr(), body.as_ptr());
}

#[test]
fn streams_are_made_to_report_usage() {
    let cases = [
        (
            r#"{"model":"up","stream":true}"#,
            r#"{"stream_options":{"include_usage":true},"model":"up","stream":true}"#,
            true,
        ),
        (
            r#"{"stream_options":null,"model":"up","stream":true}"#,
            r#"{"stream_options":{"include_usage":true},"model":"up","stream":true}"#,
            true,
        ),
        (
            r#"{"stream_options":{ },"model":"up","stream":true}"#,
            r#"{"stream_options":{"include_usage":true },"model":"up","stream":true}"#,
            true,
        ),
        (
            r#"{"stream_options":{"x":1.0},"model":"up","stream":true}"#,
            r#"{"stream_options":{"include_usage":true,"x":1.0},"model":"up","stream":true}"#,
            true,
        ),
        (
            r#"{"stream_options":{"include_usage": false,"x":1},"model":"up","stream":true}"#,
            r#"{"stream_options":{"include_usage": true,"x":1},"model":"up","stream":true}"#,
            true,
        ),
        (
            r#"{"stream_options":{"include_usage":true,"include\u005fusage":null},"model":"up","stream":true}"#,
            r#"{"stream_options":{"include_usage":true,"include\u005fusage":true},"model":"up","stream":true}"#,
            true,
        ),
        (
            r#"{"stream_options":{"include_usage":true},"model":"up","stream":true}"#,
            r#"{"stream_options":{"include_usage":true},"model":"up","stream":true}"#,
            false,
        ),
        (
            r#"{"stream_options":[],"model":"up","stream":true}"#,
            r#"{"stream_options":[],"model":"up","stream":true}"#,
            false,
        ),
        (
            r#"{"stream_options":null,"model":"up"}"#,
            r#"{"stream_options":null,"model":"up"}"#,
            false,
        ),
    ];
    for (body, expected, injected) in cases {
        chat(body, expected);
        let parsed = read(Route::Completions, None, &Bytes::from_static(body.as_bytes())).unwrap();
        assert_eq!(parsed.injected_usage(), injected, "{body}");
    }
    // These report unasked, and know no such option.
    for route in [Route::Responses, Route::Messages] {
        check(
            route,
            r#"{"model":"up","stream":true}"#,
            "up",
            &Extras::default(),
            r#"{"model":"up","stream":true}"#,
        );
    }
}

#[test]
fn scheduler_fields_go_with_one_comma_each() {
    chat(r#"{"priority":-9,"model":"up"}"#, r#"{"model":"up"}"#);
    chat(r#"{ "priority" : 1 , "rid":"x", "model":"up"}"#, r#"{ "model":"up"}"#);
    chat(r#"{"model":"up" , "priority":1}"#, r#"{"model":"up"}"#);
    chat(
        r#"{"model":"up","priority":1,"request_id":{"a":[1]},"x":2,"cache_salt":""}"#,
        r#"{"model":"up","x":2}"#,
    );
    chat(
        r#"{"kv_transfer_params":{},"x":1,"prio\u0072ity":2,"model":"a"}"#,
        r#"{"x":1,"model":"up"}"#,
    );
    chat(
        r#"{"bootstrap_room":1,"routed_dp_rank":0,"model":"up","id_slot":3}"#,
        r#"{"model":"up"}"#,
    );
    chat(
        r#"{"model":"up","vllm_xargs":{"x":1,"kv_transfer_param\u0073":"y"}}"#,
        r#"{"model":"up"}"#,
    );
    chat(r#"{"model":"up","vllm_xargs":{"x":1}}"#, r#"{"model":"up","vllm_xargs":{"x":1}}"#);
    chat(
        r#"{"model":"up","metadata":{"priority":1}}"#,
        r#"{"model":"up","metadata":{"priority":1}}"#,
    );
}

#[test]
fn the_gateway_sets_its_own_scheduler_fields() {
    let extras = Extras {
        priority: Some(-3),
        cache_salt: Some("t\"1".to_owned()),
    };
    check(
        Route::ChatCompletions,
        r#"{"cache_salt":"mine","model":"m","stream":true,"priority":99}"#,
        "up",
        &extras,
        r#"{"priority":-3,"cache_salt":"t\"1","stream_options":{"include_usage":true},"model":"up","stream":true}"#,
    );
}

/// Any JSON value, small.
pub(in crate::llm) fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        // Fractions that serde_json reads back as it wrote them, which it does not do with every float.
        any::<i32>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(any_key(), inner, 0..4).prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn any_key() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "priority",
            "rid",
            "stream_options",
            "include_usage",
            "messages",
            "model",
            "bootstrap_x",
            "user",
            "a"
        ])
        .prop_map(str::to_owned),
        any::<String>(),
    ]
}

/// A request with anything else beside its model.
fn any_request() -> impl Strategy<Value = Map<String, Value>> {
    let options = prop_oneof![
        Just(None),
        Just(Some(Value::Null)),
        any::<bool>().prop_map(|include| Some(json!({ "include_usage": include, "x": [1] }))),
        any_json().prop_map(Some),
    ];
    (
        prop::collection::btree_map(any_key(), any_json(), 0..8),
        any::<bool>(),
        options,
        "[a-z]{1,20}",
    )
        .prop_map(|(others, stream, options, model)| {
            let mut request: Map<String, Value> = others.into_iter().collect();
            for key in ["n", "best_of", "stream_options"] {
                request.remove(key);
            }
            request.insert("model".to_owned(), model.into());
            request.insert("stream".to_owned(), stream.into());
            if let Some(options) = options {
                request.insert("stream_options".to_owned(), options);
            }
            request
        })
}

/// What a request says after just the edits that are due.
fn edited(mut request: Map<String, Value>, model: &str) -> Map<String, Value> {
    request.retain(|key, _| !["priority", "rid"].contains(&key.as_str()) && !key.starts_with("bootstrap_"));
    request.insert("model".to_owned(), model.into());
    if request["stream"] == true {
        match request.entry("stream_options").or_insert(Value::Null) {
            options @ Value::Null => *options = json!({ "include_usage": true }),
            Value::Object(options) => {
                options.insert("include_usage".to_owned(), true.into());
            }
            _ => {}
        }
    }
    request
}

proptest! {
    #[test]
    fn a_rewritten_request_says_the_same_but_for_the_edits(
        request in any_request(),
        pretty in any::<bool>(),
        model in "[a-z\"\\\\é]{1,40}",
    ) {
        let body = if pretty { serde_json::to_vec_pretty(&request) } else { serde_json::to_vec(&request) };
        let body = Bytes::from(body.unwrap());
        let parsed = read(Route::ChatCompletions, None, &body).unwrap();
        let out = rewrite(&body, &parsed, &model, &Extras::default());
        let said: Map<String, Value> = serde_json::from_slice(&out).unwrap();
        prop_assert_eq!(&said, &edited(request, &model));
        let again = read(Route::ChatCompletions, None, &out).unwrap();
        prop_assert_eq!(&rewrite(&out, &again, &model, &Extras::default()), &out);
        prop_assert!(!again.injected_usage());
    }
}
