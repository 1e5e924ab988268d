//! What is read of JSON requests, and what is refused.

use proptest::prelude::*;

use super::*;

fn parse(route: Route, body: &str) -> Result<Parsed, BodyFault> {
    read(route, Some("application/json"), &Bytes::copy_from_slice(body.as_bytes()))
}

fn chat(body: &str) -> Parsed {
    parse(Route::ChatCompletions, body).unwrap()
}

#[track_caller]
fn refused(body: &[u8], code: &str, param: Option<&str>) {
    let fault = read(Route::ChatCompletions, None, &Bytes::copy_from_slice(body)).unwrap_err();
    assert_eq!((fault.code(), fault.param()), (code, param), "{fault:?}");
    assert!(!fault.is_unsupported_media_type());
}

#[test]
fn a_chat_request_is_understood() {
    let body = r#"{"model":"llama","stream":true,"max_tokens":10,"n":3,"temperature":0,"seed":7,"user":"u1",
        "metadata":{"a":"b","user_id":"s-9"},"prompt_cache_key":"k","messages":[{"role":"user","content":"hello"}]}"#;
    let parsed = chat(body);
    assert_eq!(
        (parsed.model.as_str(), parsed.stream, parsed.max_tokens, parsed.choices),
        ("llama", true, Some(30), 3)
    );
    assert_eq!(parsed.text_bytes, 9);
    let Members {
        temperature,
        seed,
        user,
        prompt_cache_key,
        user_id,
        system,
        prompt,
    } = parsed.members;
    let text = |span: Option<Span>| span.map(|span| &body[span]);
    assert_eq!(text(temperature), Some("0"));
    assert_eq!(text(seed), Some("7"));
    assert_eq!(text(user), Some(r#""u1""#));
    assert_eq!(text(prompt_cache_key), Some(r#""k""#));
    assert_eq!(text(user_id), Some(r#""s-9""#));
    assert_eq!(text(system), None);
    assert_eq!(text(prompt), Some(r#"[{"role":"user","content":"hello"}]"#));
}

#[test]
fn an_escaped_key_is_the_same_key() {
    assert_eq!(chat(r#"{"mod\u0065l":"a\u0062"}"#).model, "ab");
    refused(br#"{"model":"a","mod\u0065l":"b"}"#, "duplicate_key", Some("model"));
    refused(br#"{"a":1,"model":"m","\u0061":2}"#, "duplicate_key", Some("a"));
}

#[test]
fn nested_keys_may_repeat() {
    assert_eq!(chat(r#"{"model":"m","messages":[{"role":"a","role":"b","model":"x"}]}"#).model, "m");
}

#[test]
fn what_is_no_json_object_is_refused() {
    let bad: [&[u8]; 26] = [
        b"",
        b" ",
        b"{",
        b"[]",
        b"\"model\"",
        b"null",
        b"\xef\xbb\xbf{\"model\":\"m\"}",
        b"{\"model\":\"m\"} x",
        b"{\"model\":\"m\"}{}",
        b"{\"model\":\"m\",}",
        b"{,\"model\":\"m\"}",
        b"{'model':'m'}",
        b"{model:\"m\"}",
        b"{\"model\":\"m\",\"n\":01}",
        b"{\"model\":\"m\",\"n\":+1}",
        b"{\"model\":\"m\",\"n\":.5}",
        b"{\"model\":\"m\",\"n\":1.}",
        b"{\"model\":\"m\",\"n\":NaN}",
        b"{\"model\":\"m\",\"n\":0x1}",
        b"{\"model\":\"m\",\"a\":\"\n\"}",
        b"{\"model\":\"m\",\"a\":\"\\x\"}",
        b"{\"model\":\"m\",\"a\":\"\\u12g4\"}",
        b"{\"model\":\"m\" /* c */}",
        b"{\"model\":\"\xff\"}",
        b"{\"model\" \"m\"}",
        b"{\"model\":\"m\",\"a\":[1 2]}",
    ];
    for body in bad {
        refused(body, "invalid_json", None);
    }
    refused(br#"{"model":"m","\ud800":1}"#, "invalid_json", None);
}

#[test]
fn nesting_is_bounded_at_64() {
    let nested = |levels: usize| format!(r#"{{"model":"m","x":{}1{}}}"#, "[".repeat(levels), "]".repeat(levels));
    assert!(parse(Route::ChatCompletions, &nested(63)).is_ok(), "the object is level 1");
    refused(nested(64).as_bytes(), "invalid_json", None);
    refused(nested(1_000_000).as_bytes(), "invalid_json", None);
    let objects = format!(r#"{{"model":"m","x":{}1{}}}"#, r#"{"a":"#.repeat(64), "}".repeat(64));
    refused(objects.as_bytes(), "invalid_json", None);
}

#[test]
fn members_are_bounded() {
    let members = |count: usize| (1..count).fold(r#"{"model":"m""#.to_owned(), |body, at| body + &format!(r#","{at}":0"#)) + "}";
    assert!(parse(Route::ChatCompletions, &members(MEMBERS_MAX)).is_ok());
    refused(members(MEMBERS_MAX + 1).as_bytes(), "invalid_json", None);
}

#[test]
fn a_model_must_be_named() {
    for body in [
        "{}",
        r#"{"model":null}"#,
        r#"{"model":""}"#,
        r#"{"model":7}"#,
        r#"{"model":["m"]}"#,
        r#"{"model":"\ud800"}"#,
    ] {
        refused(body.as_bytes(), "missing_model", Some("model"));
    }
    refused(
        format!(r#"{{"model":"{}"}}"#, "m".repeat(513)).as_bytes(),
        "invalid_value",
        Some("model"),
    );
}

#[test]
fn what_cannot_be_metered_is_refused() {
    for value in [r#""true""#, "1", "{}"] {
        refused(
            format!(r#"{{"model":"m","stream":{value}}}"#).as_bytes(),
            "invalid_value",
            Some("stream"),
        );
    }
    for value in [r#""5""#, "-1", "1.5", "[]"] {
        refused(format!(r#"{{"model":"m","n":{value}}}"#).as_bytes(), "invalid_value", Some("n"));
    }
    let null = chat(r#"{"model":"m","stream":null,"n":null,"max_tokens":null}"#);
    assert_eq!((null.stream, null.choices, null.max_tokens), (false, 1, None));
}

#[test]
fn the_larger_limit_counts_for_every_choice() {
    let limit = |route, body: &str| parse(route, body).unwrap().max_tokens;
    assert_eq!(
        limit(
            Route::ChatCompletions,
            r#"{"model":"m","max_tokens":1,"max_completion_tokens":500}"#
        ),
        Some(500)
    );
    assert_eq!(limit(Route::Responses, r#"{"model":"m","max_output_tokens":9}"#), Some(9));
    assert_eq!(
        limit(
            Route::Completions,
            r#"{"model":"m","max_tokens":10,"n":2,"best_of":4,"prompt":["a","b","c"]}"#
        ),
        Some(120)
    );
    assert_eq!(
        limit(Route::Completions, r#"{"model":"m","max_tokens":10,"prompt":[1,2,3]}"#),
        Some(10)
    );
    assert_eq!(
        limit(Route::Completions, r#"{"model":"m","max_tokens":10,"prompt":[[1,2],[3]]}"#),
        Some(20)
    );
    assert_eq!(
        limit(Route::ChatCompletions, r#"{"model":"m","max_tokens":18446744073709551615,"n":2}"#),
        Some(u64::MAX)
    );
}

#[test]
fn text_is_weighed_as_utf8_and_media_by_estimate() {
    let weight = |body: &str| chat(body).text_bytes;
    // Escaped or not, a text is as long as its UTF-8: 1 + 2 + 3 + 4 bytes.
    assert_eq!(weight(r#"{"model":"m","prompt":"aé中😀"}"#), 10);
    assert_eq!(weight(r#"{"model":"m","prompt":"\u0061\u00e9\u4e2D\ud83d\uDE00"}"#), 10);
    assert_eq!(weight(r#"{"model":"m","prompt":"\n\"\\"}"#), 3);
    assert_eq!(weight(r#"{"model":"m","input":[1,2,3]}"#), 12, "tokens");
    assert_eq!(weight(r#"{"model":"m","tools":[{"name":"ab"}]}"#), 6, "schemas with their keys");
    assert_eq!(weight(r#"{"model":"m","logit_bias":{"50256":-100},"stop":["abc"]}"#), 0);
    let image = |url: &str| format!(r#"{{"model":"m","messages":[{{"content":[{{"image_url":{{"url":"{url}"}}}}]}}]}}"#);
    assert_eq!(weight(&image(&format!("data:image/png;base64,{}", "A".repeat(1_000_000)))), 6400);
    assert_eq!(weight(&image("https://example.org/cat.png")), 3060);
    let document = r#"{"model":"m","messages":[{"content":[{"source":{"data":"plain words, however many"}}]}]}"#;
    assert_eq!(weight(document), 25, "text under a media key is text");
}

#[test]
fn json_routes_take_any_media_type_but_multipart() {
    let body = Bytes::from_static(br#"{"model":"m"}"#);
    for kind in [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
        Some("multipart"),
    ] {
        assert!(read(Route::Embeddings, kind, &body).is_ok(), "{kind:?}");
    }
    for kind in ["multipart/form-data; boundary=x", " Multipart/Mixed"] {
        assert!(
            read(Route::Embeddings, Some(kind), &body).unwrap_err().is_unsupported_media_type(),
            "{kind}"
        );
    }
}

/// JSON-like text: near enough to the grammar to be accepted often, and to be refused for small reasons.
fn nearly_json() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"a\"",
        "\"b\\n\"",
        "\"\\u00e9\"",
        "\"\\ud800\"",
        "\"\u{7f}\"",
        "\"\t\"",
        "0",
        "-",
        "1",
        "12",
        "1.5",
        "1e5",
        "-0.0E-7",
        "01",
        "true",
        "false",
        "null",
        "nul",
        " ",
        "\n",
        "\"",
        "\\",
        ".",
        "e",
    ]);
    prop_oneof![
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat()),
        super::super::rewrite::tests::any_json().prop_map(|value| value.to_string()),
        (
            super::super::rewrite::tests::any_json(),
            any::<prop::sample::Index>(),
            any::<char>()
        )
            .prop_map(|(value, at, other)| {
                let mut text: Vec<char> = value.to_string().chars().collect();
                let at = at.index(text.len());
                text[at] = other;
                text.into_iter().collect()
            }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// The grammar is serde_json's, value for value.
    #[test]
    fn the_reader_accepts_what_serde_json_accepts(text in nearly_json()) {
        let mut reader = Reader::new(text.as_bytes(), 0);
        let ours = reader.value(0, Weigh::Schema).and_then(|_| reader.end()).is_ok();
        let theirs = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
        prop_assert_eq!(ours, theirs, "{}", text);
    }

    #[test]
    fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let body = Bytes::from(body);
        for route in Route::ALL {
            let _ = read(*route, Some("multipart/form-data; boundary=\"a b\""), &body);
            let _ = read(*route, None, &body);
        }
    }
}
