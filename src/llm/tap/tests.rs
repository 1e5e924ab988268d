//! Streams and bodies as servers send them, cut at every byte and with every line end: the same usage, the same bytes.

use proptest::prelude::*;

use super::*;

/// What a tap made of an answer.
#[derive(Debug, PartialEq, Eq)]
struct Made {
    client: Vec<u8>,
    usage: Option<Usage>,
    so_far: u64,
    failed: bool,
    reported: bool,
}

fn run(route: Route, event_stream: bool, injected: bool, pieces: &[&[u8]]) -> Made {
    let mut tap = Tap::new(route, event_stream, injected);
    let mut client = Vec::new();
    for piece in pieces {
        client.extend_from_slice(&tap.feed(Bytes::copy_from_slice(piece), false));
    }
    client.extend_from_slice(&tap.feed(Bytes::new(), true));
    Made {
        client,
        usage: tap.usage(),
        so_far: tap.output_tokens_so_far(),
        failed: tap.has_failed(),
        reported: tap.is_reported(),
    }
}

/// Feeds a stream whole, cut in two at every byte, and byte by byte, each with LF, CRLF and CR, and asks for the same each
/// time. `taken` is the event that must not reach the client.
#[track_caller]
fn check(route: Route, injected: bool, stream: &str, taken: &str) -> Made {
    let mut first: Option<Made> = None;
    for line_end in ["\n", "\r\n", "\r"] {
        let bytes = stream.replace('\n', line_end).into_bytes();
        let expected = stream.replace(taken, "").replace('\n', line_end);
        let expected = if taken.is_empty() {
            stream.replace('\n', line_end)
        } else {
            expected
        };
        let mut judge = |made: Made, how: &str| {
            assert_eq!(String::from_utf8_lossy(&made.client), expected, "{how}, {line_end:?}");
            let first = first.get_or_insert_with(|| Made {
                client: stream.as_bytes().to_vec(),
                ..run(route, true, injected, &[stream.as_bytes()])
            });
            assert_eq!(
                (made.usage, made.so_far, made.failed),
                (first.usage, first.so_far, first.failed),
                "{how}, {line_end:?}"
            );
        };
        judge(run(route, true, injected, &[&bytes]), "whole");
        for cut in 1..bytes.len() {
            let (head, tail) = bytes.split_at(cut);
            judge(run(route, true, injected, &[head, tail]), &format!("cut at {cut}"));
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        judge(run(route, true, injected, &single), "byte by byte");
    }
    first.unwrap()
}

/// Input, cached input, output, reasoning.
#[track_caller]
fn used(made: &Made, expected: [Option<u64>; 4]) {
    let usage = made.usage.unwrap();
    assert_eq!(
        [usage.total_input(), usage.cached_input(), usage.output(), usage.reasoning()],
        expected
    );
}

const OPENAI_USAGE: &str = "data: {\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"choices\":[],\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":9,\"total_tokens\":21,\"prompt_tokens_details\":{\"cached_tokens\":8,\"audio_tokens\":0},\"completion_tokens_details\":{\"reasoning_tokens\":4}},\"obfuscation\":\"x\"}\n\n";

fn openai() -> String {
    [
        "data: {\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null},\"finish_reason\":null}],\"usage\":null,\"obfuscation\":\"aB3\"}\n\n",
        "data: {\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Grüße 😀 \\\"usage\\\":{}\"},\"finish_reason\":null}],\"usage\":null}\n\n",
        "data: {\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"call_1\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"\"}}]},\"finish_reason\":null}],\"usage\":null}\n\n",
        "data: {\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":null}\n\n",
        OPENAI_USAGE,
        "data: [DONE]\n\n",
    ]
    .concat()
}

#[test]
fn openai_reports_in_an_event_of_its_own() {
    used(
        &check(Route::ChatCompletions, false, &openai(), ""),
        [Some(12), Some(8), Some(9), Some(4)],
    );
}

#[test]
fn the_usage_event_nobody_asked_for_is_taken_out_and_nothing_else() {
    let made = check(Route::ChatCompletions, true, &openai(), OPENAI_USAGE);
    used(&made, [Some(12), Some(8), Some(9), Some(4)]);
    assert!(made.reported && !made.failed);
    // As the last thing, its blank line missing.
    let cut_short = openai().replace("data: [DONE]\n\n", "");
    let cut_short = cut_short.trim_end();
    check(Route::ChatCompletions, true, cut_short, OPENAI_USAGE.trim_end());
}

#[test]
fn vllm_leaves_usage_away_until_the_end() {
    let usage = "data: {\"id\":\"cmpl-1\",\"object\":\"text_completion\",\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"total_tokens\":7,\"completion_tokens\":2}}\n\n";
    let stream = [
        ": keep-alive\n\n",
        "data: {\"id\":\"cmpl-1\",\"choices\":[{\"index\":0,\"text\":\" one\",\"logprobs\":null,\"finish_reason\":null}]}\n\n",
        ":\n",
        "data: {\"id\":\"cmpl-1\",\"choices\":[{\"index\":0,\"text\":\" two\",\"finish_reason\":\"length\"}]}\n\n",
        usage,
        "data: [DONE]\n\n",
    ]
    .concat();
    used(&check(Route::Completions, true, &stream, usage), [Some(5), None, Some(2), None]);
}

#[test]
fn vllm_continuous_reports_are_summed_over_choices() {
    let chunk = |index: u32, output: u32| {
        format!(
            "data: {{\"choices\":[{{\"index\":{index},\"delta\":{{\"content\":\"x\"}}}}],\"usage\":{{\"prompt_tokens\":5,\"total_tokens\":9,\"completion_tokens\":{output}}}}}\n\n"
        )
    };
    let broken_off = [chunk(0, 1), chunk(1, 1), chunk(1, 2), chunk(0, 2), chunk(1, 3)].concat();
    let made = check(Route::ChatCompletions, true, &broken_off, "");
    used(&made, [Some(5), None, Some(5), None]);
    assert_eq!(made.so_far, 5);
    let total = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"total_tokens\":11,\"completion_tokens\":6}}\n\n";
    used(
        &check(Route::ChatCompletions, true, &format!("{broken_off}{total}data: [DONE]\n\n"), total),
        [Some(5), None, Some(6), None],
    );
}

#[test]
fn sglang_reports_reasoning_at_the_top_and_null_details() {
    let usage = "data: {\"id\":\"s\",\"choices\":[],\"usage\":{\"prompt_tokens\":20,\"total_tokens\":50,\"completion_tokens\":30,\"prompt_tokens_details\":null,\"reasoning_tokens\":7}}\n\n";
    let stream = format!(
        "data: {{\"id\":\"s\",\"choices\":[{{\"index\":0,\"delta\":{{\"reasoning_content\":\"Hm\"}}}}]}}\n\n{usage}data: [DONE]\n\n"
    );
    used(
        &check(Route::ChatCompletions, true, &stream, usage),
        [Some(20), None, Some(30), Some(7)],
    );
}

#[test]
fn llama_cpp_reports_beside_its_timings() {
    let usage = "data: {\"choices\":[],\"created\":1,\"usage\":{\"completion_tokens\":8,\"prompt_tokens\":30,\"total_tokens\":38,\"prompt_tokens_details\":{\"cached_tokens\":29}},\"timings\":{\"cache_n\":29,\"prompt_n\":1,\"predicted_ms\":12.5}}\n\n";
    let stream = format!(
        "data: {{\"choices\":[{{\"finish_reason\":null,\"index\":0,\"delta\":{{\"content\":\"Hi\"}}}}]}}\n\n{usage}data: [DONE]\n\n"
    );
    used(
        &check(Route::ChatCompletions, true, &stream, usage),
        [Some(30), Some(29), Some(8), None],
    );
}

#[test]
fn usage_beside_content_is_counted_and_stays() {
    // Ollama's older habit, Gemini's and DeepSeek's: on the chunk that finishes.
    let stream = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2,\"total_tokens\":5}}\n\ndata: [DONE]\n\n";
    used(&check(Route::ChatCompletions, true, stream, ""), [Some(3), None, Some(2), None]);
}

#[test]
fn the_later_of_two_reports_counts_field_by_field() {
    let stream = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\ndata: {\"choices\":[],\"usage\":{\"completion_tokens\":4,\"prompt_tokens\":null,\"prompt_tokens_details\":{\"cached_tokens\":1}}}\n\n";
    used(&check(Route::ChatCompletions, false, stream, ""), [Some(3), Some(1), Some(4), None]);
}

#[test]
fn zero_is_a_report_and_absence_is_none() {
    let zero = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":0,\"completion_tokens\":0}}\n\n";
    used(&check(Route::ChatCompletions, false, zero, ""), [Some(0), None, Some(0), None]);
    let none = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}]}\n\n";
    let made = check(Route::ChatCompletions, true, none, "");
    assert_eq!((made.usage, made.so_far, made.reported), (None, 1, false));
}

#[test]
fn null_after_a_report_takes_nothing_back() {
    let stream = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\ndata: {\"choices\":[],\"usage\":null}\n\ndata: {\"choices\":[],\"usage\": null}\n\n";
    used(&check(Route::ChatCompletions, false, stream, ""), [Some(3), None, Some(2), None]);
}

#[test]
fn a_report_beside_an_empty_delta_after_the_finish_counts_without_done() {
    let stream = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"},\"finish_reason\":null}]}\n\ndata: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: {\"choices\":[{\"index\":0,\"delta\":{}}],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1}}";
    let made = check(Route::ChatCompletions, true, stream, "");
    used(&made, [Some(3), None, Some(1), None]);
    assert!(made.reported);
}

#[test]
fn calls_of_tools_and_reasoning_and_refusals_are_output() {
    let chat = |delta: &str| format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{delta}}}]}}\n\n");
    let openai = [
        chat(r#"{"role":"assistant","content":null}"#),
        chat(r#"{"reasoning_content":"Hm"}"#),
        chat(r#"{"reasoning":"Hm"}"#),
        chat(r#"{"refusal":"No"}"#),
        chat(r#"{"tool_calls":[{"index":0,"id":"call_0123456789abcdef0123","type":"function","function":{"name":"get_weather","arguments":""}}]}"#),
        chat(r#"{"tool_calls":[{"index":0,"function":{"arguments":"{\"city\""}}]}"#),
    ]
    .concat();
    assert_eq!(check(Route::ChatCompletions, true, &openai, "").so_far, 5);
    let event = |data: &str| format!("event: x\ndata: {data}\n\n");
    let anthropic = [
        event(r#"{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":""}}"#),
        event(r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"Hm"}}"#),
        event(r#"{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"EqQBCgIYAhIM1gbcDa9GJwZA2b3hGgxBdjrkzLoky3dl"}}"#),
        event(r#"{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"toolu_0123456789abcdef","name":"get_weather","input":{}}}"#),
        event(r#"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\"city\""}}"#),
        event(r#"{"type":"content_block_stop","index":1}"#),
    ]
    .concat();
    assert_eq!(check(Route::Messages, false, &anthropic, "").so_far, 3);
    let responses = [
        event(r#"{"type":"response.output_item.added","item":{"type":"function_call","id":"fc_0123456789abcdef","call_id":"call_0123456789","name":"get_weather","arguments":"","status":"in_progress"}}"#),
        event(r#"{"type":"response.function_call_arguments.delta","item_id":"fc_0123456789abcdef","delta":"{\"city\""}"#),
        event(r#"{"type":"response.output_item.done","item":{"type":"function_call","id":"fc_0123456789abcdef","call_id":"call_0123456789","name":"get_weather","arguments":"{\"city\":\"Bonn\"}","status":"completed"}}"#),
    ]
    .concat();
    assert_eq!(check(Route::Responses, false, &responses, "").so_far, 2);
}

#[test]
fn media_streams_report_at_their_end() {
    let image = "event: image_generation.partial_image\ndata: {\"type\":\"image_generation.partial_image\",\"b64_json\":\"aGVsbG8=\"}\n\nevent: image_generation.completed\ndata: {\"type\":\"image_generation.completed\",\"b64_json\":\"aGVsbG8=\",\"usage\":{\"input_tokens\":50,\"output_tokens\":4160,\"total_tokens\":4210}}\n\n";
    used(
        &check(Route::ImagesGenerations, false, image, ""),
        [Some(50), None, Some(4160), None],
    );
    let speech = "data: {\"type\":\"speech.audio.delta\",\"audio\":\"aGVsbG8=\"}\n\ndata: {\"type\":\"speech.audio.done\",\"usage\":{\"input_tokens\":14,\"output_tokens\":101,\"total_tokens\":115}}\n\n";
    used(&check(Route::AudioSpeech, false, speech, ""), [Some(14), None, Some(101), None]);
    let transcript = "data: {\"type\":\"transcript.text.delta\",\"delta\":\"hi\"}\n\ndata: {\"type\":\"transcript.text.done\",\"text\":\"hi\",\"usage\":{\"type\":\"tokens\",\"input_tokens\":14,\"input_token_details\":{\"audio_tokens\":14},\"output_tokens\":4,\"total_tokens\":18}}\n\n";
    used(
        &check(Route::AudioTranscriptions, false, transcript, ""),
        [Some(14), None, Some(4), None],
    );
    let by_time = "data: {\"type\":\"transcript.text.done\",\"text\":\"hi\",\"usage\":{\"type\":\"duration\",\"seconds\":7}}\n\n";
    let made = check(Route::AudioTranscriptions, false, by_time, "");
    assert_eq!(
        (made.usage.unwrap().audio(), made.reported),
        (Some(std::time::Duration::from_secs(7)), true)
    );
}

const ANTHROPIC: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"role\":\"assistant\",\"content\":[],\"usage\":{\"input_tokens\":25,\"cache_creation_input_tokens\":3,\"cache_read_input_tokens\":7,\"output_tokens\":1}}}\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\nevent: ping\ndata: {\"type\": \"ping\"}\n\nevent: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hello\"}}\n\nevent: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"!\"}}\n\n";

#[test]
fn anthropic_reports_first_the_input_then_the_output() {
    let end = |usage: &str| {
        format!(
            "{ANTHROPIC}event: message_delta\ndata: {{\"type\":\"message_delta\",\"delta\":{{\"stop_reason\":\"end_turn\",\"stop_sequence\":null}},\"usage\":{usage}}}\n\nevent: message_stop\ndata: {{\"type\":\"message_stop\"}}\n\n"
        )
    };
    let made = check(Route::Messages, false, &end(r#"{"output_tokens":15}"#), "");
    used(&made, [Some(35), Some(7), Some(15), None]);
    assert!(made.reported);
    let replaced = end(r#"{"input_tokens":30,"cache_read_input_tokens":9,"cache_creation_input_tokens":null,"output_tokens":15}"#);
    used(&check(Route::Messages, false, &replaced, ""), [Some(42), Some(9), Some(15), None]);
    used(
        &check(Route::Messages, false, &end(r#"{"input_tokens":0,"output_tokens":15}"#), ""),
        [Some(35), Some(7), Some(15), None],
    );
    let moved = end(r#"{"input_tokens":0,"cache_read_input_tokens":32,"output_tokens":15}"#);
    used(&check(Route::Messages, false, &moved, ""), [Some(35), Some(32), Some(15), None]);
}

#[test]
fn a_broken_off_stream_is_not_billed_by_its_placeholder() {
    let made = check(Route::Messages, false, ANTHROPIC, "");
    used(&made, [Some(35), Some(7), Some(3), None]);
    assert_eq!((made.so_far, made.reported), (3, false));
}

#[test]
fn responses_report_at_any_of_their_ends() {
    for (end, failed) in [("completed", false), ("incomplete", false), ("failed", true)] {
        let stream = format!(
            "event: response.created\ndata: {{\"type\":\"response.created\",\"response\":{{\"id\":\"r\",\"error\":null,\"usage\":null}}}}\n\nevent: response.output_text.delta\ndata: {{\"type\":\"response.output_text.delta\",\"delta\":\"Hi\",\"obfuscation\":\"x\"}}\n\nevent: response.{end}\ndata: {{\"type\":\"response.{end}\",\"response\":{{\"id\":\"r\",\"output\":[{{\"usage\":{{\"input_tokens\":999}}}}],\"usage\":{{\"input_tokens\":10,\"input_tokens_details\":{{\"cached_tokens\":4,\"cache_write_tokens\":0}},\"output_tokens\":6,\"output_tokens_details\":{{\"reasoning_tokens\":5}},\"total_tokens\":16}}}}}}\n\n"
        );
        let made = check(Route::Responses, false, &stream, "");
        used(&made, [Some(10), Some(4), Some(6), Some(5)]);
        assert_eq!(made.failed, failed, "{end}");
    }
    let without = "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"Hi\"}\n\nevent: response.failed\ndata: {\"type\":\"response.failed\",\"response\":{\"error\":{\"code\":\"server_error\"},\"usage\":null}}\n\n";
    let made = check(Route::Responses, false, without, "");
    assert_eq!((made.usage, made.so_far, made.failed), (None, 1, true), "what was delivered counts");
}

#[test]
fn an_error_after_a_good_status_is_noticed() {
    for (route, stream) in [
        (
            Route::ChatCompletions,
            "data: {\"error\":{\"message\":\"boom\",\"code\":500}}\n\ndata: [DONE]\n\n",
        ),
        (
            Route::Messages,
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\n\n",
        ),
    ] {
        let made = check(route, true, stream, "");
        assert!(made.failed && made.usage.is_none(), "{stream}");
    }
    let null = "data: {\"error\":null,\"choices\":[{\"delta\":{}}]}\n\n";
    assert!(!check(Route::ChatCompletions, true, null, "").failed);
}

#[test]
fn data_may_stand_on_many_lines_and_without_a_space() {
    let stream = "id: 1\ndata:{\"choices\":[],\ndata:\"usage\": {\"prompt_tokens\":3,\ndata: \"completion_tokens\":2}}\nretry: 5\n\n";
    used(&check(Route::ChatCompletions, false, stream, ""), [Some(3), None, Some(2), None]);
    check(Route::ChatCompletions, true, stream, stream);
}

#[test]
fn output_is_counted_by_event_and_long_ones_by_length() {
    let count = |delta: &str| {
        run(
            Route::ChatCompletions,
            true,
            false,
            &[format!("data: {{\"choices\": [{{\"delta\": {delta}}}]}}\n\n").as_bytes()],
        )
        .so_far
    };
    assert_eq!(count(r#"{"role":"assistant","content":""}"#), 0);
    assert_eq!(count(r#"{}"#), 0);
    assert_eq!(count(r#"{"content" : " the"}"#), 1);
    assert_eq!(count(r#"{"content":"sixteen bytes !!"}"#), 1);
    assert_eq!(count(r#"{"content":"speculation accepted eight tokens"}"#), 8);
    assert_eq!(count(r#"{"content":"a"}},{"delta":{"content":"b"}"#), 2, "two choices");
    assert_eq!(count(r#"{"content":"\"delta\":\""}"#), 1, "text is not structure");
    assert_eq!(count(r#"{"content":"unfinished"#), 1);
}

#[test]
fn an_ordinary_event_is_passed_on_without_a_copy() {
    let mut tap = Tap::new(Route::ChatCompletions, true, true);
    let event = Bytes::from_static(b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\" the\"}}]}\n\n");
    assert_eq!(tap.feed(event.clone(), false).as_ptr(), event.as_ptr());
}

#[test]
fn half_an_event_is_held_and_a_comment_is_not() {
    let mut tap = Tap::new(Route::ChatCompletions, true, false);
    assert_eq!(tap.feed(Bytes::from_static(b": alive\ndata: {"), false), ": alive\n");
    assert_eq!(tap.feed(Bytes::from_static(b"}\n"), false), "");
    assert_eq!(tap.feed(Bytes::from_static(b"\ndata"), false), "data: {}\n\n");
    assert_eq!(tap.cut(), b"", "the client has whole events only");
}

#[test]
fn an_event_too_large_to_hold_passes_and_is_metered() {
    let text = "x".repeat(3 * HOLD_MAX);
    let event = format!(
        "event: response.completed\ndata: {{\"type\":\"response.completed\",\"response\":{{\"output\":\"{text}\",\"usage\":{{\"input_tokens\":10,\"output_tokens\":6}}}}}}\n\n"
    );
    let mut tap = Tap::new(Route::Responses, true, false);
    let mut client = Vec::new();
    let mut held_most = 0;
    let mut fed = 0;
    for piece in event.as_bytes().chunks(1000) {
        fed += piece.len();
        client.extend_from_slice(&tap.feed(Bytes::copy_from_slice(piece), false));
        held_most = held_most.max(fed - client.len());
    }
    assert!(held_most <= HOLD_MAX, "{held_most}");
    assert!(client == event.as_bytes());
    let usage = tap.usage().unwrap();
    assert_eq!((usage.total_input(), usage.output()), (Some(10), Some(6)));

    let mut broken = Tap::new(Route::Responses, true, false);
    broken.feed(Bytes::copy_from_slice(&event.as_bytes()[..2 * HOLD_MAX]), false);
    assert_eq!(broken.cut(), b"\n\n", "the client has half an event");
}

/// Feeds a JSON body cut in two at every byte; it must pass unchanged.
#[track_caller]
fn body(route: Route, body: &str) -> Made {
    let whole = run(route, false, true, &[body.as_bytes()]);
    for cut in 0..=body.len() {
        let (head, tail) = body.as_bytes().split_at(cut);
        assert_eq!(run(route, false, true, &[head, tail]), whole, "cut at {cut}");
    }
    assert_eq!(whole.client, body.as_bytes());
    whole
}

#[test]
fn bodies_report_in_every_spelling() {
    let chat = r#"{"choices":[{"message":{"content":"{\"usage\":{\"prompt_tokens\":99}}","usage":{"prompt_tokens":98}}}],"usage":{"prompt_tokens":12,"completion_tokens":3,"total_tokens":15}}"#;
    used(&body(Route::ChatCompletions, chat), [Some(12), None, Some(3), None]);
    let embeddings = r#"{"object":"list","data":[{"embedding":[0.1,-0.25,1e-7,0.0000000001,12.5,0.1,0.2,0.3],"index":0}],"usage":{"prompt_tokens":8,"total_tokens":8}}"#;
    used(&body(Route::Embeddings, embeddings), [Some(8), None, Some(0), None]);
    used(
        &body(Route::Rerank, r#"{"results":[],"usage":{"total_tokens":40}}"#),
        [Some(40), None, None, None],
    );
    let cohere = r#"{"results":[],"meta":{"api_version":{"version":"2"},"billed_units":{"search_units":1},"tokens":{"input_tokens":33,"output_tokens":0}}}"#;
    used(&body(Route::Rerank, cohere), [Some(33), None, Some(0), None]);
    let image = r#"{"data":[{"b64_json":"aGVsbG8="}],"usage":{"input_tokens":50,"output_tokens":4160,"total_tokens":4210,"input_tokens_details":{"text_tokens":10,"image_tokens":40}}}"#;
    used(&body(Route::ImagesGenerations, image), [Some(50), None, Some(4160), None]);
    let message = r#"{"type":"message","content":[{"type":"tool_use","input":{"usage":{"input_tokens":99}}}],"usage":{"input_tokens":4,"cache_read_input_tokens":100,"cache_creation_input_tokens":20,"output_tokens":5}}"#;
    used(&body(Route::Messages, message), [Some(124), Some(100), Some(5), None]);
    let both = r#"{"usage":{"prompt_tokens":12,"input_tokens":0,"completion_tokens":3,"output_tokens":0,"cost":"0.1","x":[{}]}}"#;
    used(&body(Route::ChatCompletions, both), [Some(12), None, Some(3), None]);
    assert_eq!(body(Route::Moderations, r#"{"results":[]}"#).usage, None);
}

#[test]
fn a_body_that_reports_nothing_is_counted_by_its_text() {
    for (route, text, tokens) in [
        (
            Route::ChatCompletions,
            r#"{"id":"chatcmpl-0123456789abcdef","object":"chat.completion","model":"a-long-name-of-a-model","choices":[{"index":0,"message":{"role":"assistant","content":"Twenty bytes of \"it\"","tool_calls":[{"id":"call_0123456789abcdef","type":"function","function":{"name":"get_weather","arguments":"{}"}}]},"logprobs":{"content":[{"token":"Twenty","logprob":-0.1,"top_logprobs":[]}]},"finish_reason":"stop"}],"usage":null}"#,
            // 22 bytes as they are written, 11 and 2.
            8,
        ),
        (
            Route::Completions,
            r#"{"usage":{"prompt_tokens":7},"choices":[{"text":"one two three four, ","logprobs":{"tokens":["one"]},"index":0}],"x":"y"}"#,
            5,
        ),
        (
            Route::Messages,
            r#"{"id":"msg_0123456789abcdef","type":"message","role":"assistant","content":[{"type":"text","text":"one two three four, "},{"type":"tool_use","id":"toolu_0123456789","name":"go","input":{"a long key of them":"there"}}],"stop_reason":"end_turn"}"#,
            6,
        ),
        (
            Route::Responses,
            r#"{"id":"resp_0123456789abcdef","output":[{"type":"message","status":"completed","content":[{"type":"output_text","text":"one two three four, "}]}],"instructions":"none of it"}"#,
            5,
        ),
    ] {
        let made = body(route, text);
        assert_eq!((made.so_far, made.reported), (tokens, false), "{text}");
        assert_eq!(made.usage.map(|usage| usage.output()), made.usage.map(|_| Some(tokens)), "{text}");
        // What came of it before it broke off.
        let half = run(route, false, false, &[&text.as_bytes()[..text.find("three").unwrap_or(0)]]);
        assert!(half.so_far <= 2, "{text}");
    }
    let long = format!(r#"{{"choices":[{{"message":{{"content":"{}"#, "word ".repeat(200));
    assert_eq!(
        run(Route::ChatCompletions, false, false, &[long.as_bytes()]).so_far,
        250,
        "broken off"
    );
    // Who reports is believed, wherever the report stands.
    let first = r#"{"usage":{"prompt_tokens":7,"completion_tokens":3},"choices":[{"text":"one two three four, "}]}"#;
    let made = body(Route::Completions, first);
    used(&made, [Some(7), None, Some(3), None]);
    assert!(made.reported);
}

#[test]
fn audio_may_be_counted_by_time() {
    let made = body(
        Route::AudioTranscriptions,
        r#"{"text":"hi","usage":{"type":"duration","seconds":12.5}}"#,
    );
    let usage = made.usage.unwrap();
    assert_eq!(
        (usage.audio(), usage.total_input(), made.reported),
        (Some(std::time::Duration::from_millis(12_500)), None, true)
    );
    assert_eq!(
        body(Route::AudioTranscriptions, "1\n00:00:00,000 --> 00:00:01,000\nhello\n").usage,
        None,
        "subtitles"
    );
}

#[test]
fn counting_tokens_costs_none() {
    used(
        &body(Route::CountTokens, r#"{"input_tokens":2048}"#),
        [Some(0), None, Some(0), None],
    );
}

#[test]
fn only_an_injected_stream_may_shorten() {
    assert!(Tap::new(Route::ChatCompletions, true, true).may_shorten());
    assert!(!Tap::new(Route::ChatCompletions, true, false).may_shorten());
    assert!(!Tap::new(Route::ChatCompletions, false, true).may_shorten());
}

/// Pieces of streams, good and bad, with every mixture of line ends.
fn any_stream() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "\n",
        "\r",
        "\r\n",
        "\n\n",
        ":",
        ": c",
        "data:",
        "data: ",
        "event: x",
        "{",
        "}",
        "[]",
        "\"usage\":",
        "\"choices\":[],",
        "\"delta\":",
        "{\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}",
        "{\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}",
        "[DONE]",
        "é",
        "\u{feff}",
    ]);
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat().into_bytes())
}

fn cut<'a>(stream: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = cuts
        .iter()
        .map(|cut| cut.index(stream.len() + 1))
        .chain([0, stream.len()])
        .collect();
    places.sort_unstable();
    places.windows(2).map(|place| &stream[place[0]..place[1]]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_stream_is_the_same_however_it_is_cut(
        stream in any_stream(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        injected in any::<bool>(),
    ) {
        let whole = run(Route::ChatCompletions, true, injected, &[&stream]);
        let pieces = run(Route::ChatCompletions, true, injected, &cut(&stream, &cuts));
        prop_assert_eq!(&whole, &pieces);
        if !injected {
            prop_assert_eq!(&whole.client, &stream, "nothing is taken out unasked");
        }
    }

    #[test]
    fn no_bytes_make_it_panic(
        answer in prop::collection::vec(any::<u8>(), 0..300),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        event_stream in any::<bool>(),
    ) {
        for route in Route::ALL {
            let made = run(*route, event_stream, false, &cut(&answer, &cuts));
            prop_assert_eq!(&made.client, &answer);
        }
    }
}
