//! Every event of every dialect is JSON of the right form, and tells usage only where its protocol does.

use serde_json::Value;

use super::*;

fn answer(dialect: Dialect) -> Answer {
    Answer {
        dialect,
        id: "x-1".into(),
        model: "\"llama\"".into(),
        created: 1,
        choices: 1,
        tokens: 3,
        prompt_tokens: 7,
        cached_tokens: None,
        by_length: false,
        include_usage: false,
        continuous_usage: false,
        fault: UsageFault::None,
    }
}

/// The events of a stream, `[DONE]` left out.
fn events(answer: &Answer) -> Vec<Value> {
    let stream = answer.prologue() + &answer.epilogue();
    let data = stream
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .filter(|data| *data != "[DONE]");
    data.map(|data| serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {data}")))
        .collect()
}

#[test]
fn whole_answers_are_json_with_their_usage() {
    for (dialect, pointer) in [
        (Dialect::Chat, "/usage/completion_tokens"),
        (Dialect::Completions, "/usage/completion_tokens"),
        (Dialect::Responses, "/usage/output_tokens"),
        (Dialect::Messages, "/usage/output_tokens"),
    ] {
        let body: Value = serde_json::from_str(&answer(dialect).whole()).unwrap();
        assert_eq!(body.pointer(pointer), Some(&Value::from(3)), "{dialect:?}");
        let silent = Answer {
            fault: UsageFault::Missing,
            ..answer(dialect)
        };
        let body: Value = serde_json::from_str(&silent.whole()).unwrap();
        assert!(body["usage"].is_null(), "{dialect:?}");
    }
}

#[test]
fn usage_comes_once_and_only_when_asked_for() {
    let said = |events: &[Value]| events.iter().filter(|event| event["usage"].is_object()).count();
    for dialect in [Dialect::Chat, Dialect::Completions] {
        let events_without = events(&answer(dialect));
        assert!(
            events_without.iter().all(|event| event.get("usage").is_none()),
            "the key is absent when not asked for"
        );
        let asked = events(&Answer {
            include_usage: true,
            ..answer(dialect)
        });
        let (last, others) = asked.split_last().unwrap();
        assert_eq!(last["choices"], Value::Array(vec![]));
        assert_eq!(
            (last["usage"]["prompt_tokens"].as_u64(), last["usage"]["total_tokens"].as_u64()),
            (Some(7), Some(10))
        );
        assert!(others.iter().all(|event| event.get("usage") == Some(&Value::Null)));
        assert_eq!(
            said(&events(&Answer {
                include_usage: true,
                fault: UsageFault::Missing,
                ..answer(dialect)
            })),
            0
        );
        let twice = events(&Answer {
            fault: UsageFault::Twice,
            cached_tokens: Some(4),
            ..answer(dialect)
        });
        assert_eq!(said(&twice), 2);
        assert!(twice[twice.len() - 2]["usage"]["prompt_tokens_details"].is_null());
        assert_eq!(twice[twice.len() - 1]["usage"]["prompt_tokens_details"]["cached_tokens"], 4);
    }
}

#[test]
fn named_events_bear_their_name_in_the_data() {
    for dialect in [Dialect::Responses, Dialect::Messages] {
        let answer = answer(dialect);
        let stream = answer.prologue() + &answer.epilogue();
        let names: Vec<_> = stream.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
        let types: Vec<_> = events(&answer)
            .iter()
            .map(|event| event["type"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(names, types);
    }
}

#[test]
fn anthropic_leaves_cached_tokens_out_of_the_input() {
    let all = events(&Answer {
        cached_tokens: Some(5),
        ..answer(Dialect::Messages)
    });
    let start = &all[0]["message"]["usage"];
    assert_eq!(
        (start["input_tokens"].as_u64(), start["cache_read_input_tokens"].as_u64()),
        (Some(2), Some(5))
    );
    assert_eq!(all[all.len() - 2]["usage"]["output_tokens"], 3);
}
