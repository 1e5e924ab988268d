//! Where the scan finds a report, and where it does not.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn reports(inside: &'static [u8], pieces: &[&[u8]]) -> Vec<(Place, Value)> {
    let mut scan = Scan::new(inside);
    let mut found = Vec::new();
    for piece in pieces {
        scan.feed(piece, |place, raw| found.push((place, serde_json::from_slice(raw).unwrap())));
    }
    found
}

#[track_caller]
fn check(inside: &'static [u8], body: &str, expected: &[&str]) {
    let expected: Vec<Value> = expected.iter().map(|report| serde_json::from_str(report).unwrap()).collect();
    for cut in 0..=body.len() {
        let (head, tail) = body.as_bytes().split_at(cut);
        let found: Vec<Value> = reports(inside, &[head, tail]).into_iter().map(|(_, report)| report).collect();
        assert_eq!(found, expected, "cut at {cut}: {body}");
    }
    let mut found: Vec<Value> = Vec::new();
    let enough = at_the_end(body.as_bytes(), |report| found.push(serde_json::from_slice(report).unwrap()));
    if enough {
        assert_eq!(found, expected, "the end alone: {body}");
    }
}

#[test]
fn a_report_is_found_at_the_top_wherever_it_stands() {
    check(b"", r#"{"usage":{"a":1}}"#, &[r#"{"a":1}"#]);
    check(
        b"",
        r#" { "x" : [ {"usage":{"a":0}} ] , "usage" : { "a":{"b":"}\"{"}} , "y":"usage"}"#,
        &[r#"{"a":{"b":"}\"{"}}"#],
    );
    check(
        b"",
        r#"{"choices":[{"message":{"content":"\"usage\":{\"a\":9}"}}],"usage":{"a":1}}"#,
        &[r#"{"a":1}"#],
    );
}

#[test]
fn text_and_nested_keys_are_no_reports() {
    for body in [
        r#"{"x":{"usage":{"a":1}}}"#,
        r#"{"x":[{"usage":{"a":1}}]}"#,
        r#"{"x":"{\"usage\":{\"a\":1}}"}"#,
        r#"{"x":"usage","y":{"a":1}}"#,
        r#"{"usage":null,"y":{"a":1}}"#,
        r#"{"usage":3,"y":{"a":1}}"#,
        r#"{"\"usage":{"a":1}}"#,
        r#"{"usages":{"a":1},"usag":{},"a-very-long-key-usage":{}}"#,
        r#"{"response":{"usage":{"a":1}}}"#,
    ] {
        check(b"", body, &[]);
    }
}

#[test]
fn the_named_member_is_looked_into_one_level_deep() {
    check(
        b"response",
        r#"{"type":"x","response":{"output":[{"usage":{"b":1}}],"usage":{"a":1}},"z":{"usage":{}}}"#,
        &[r#"{"a":1}"#],
    );
    check(b"response", r#"{"response":{"x":{"usage":{}}}}"#, &[]);
    check(b"response", r#"{"response":null,"x":{"usage":{}}}"#, &[]);
}

#[test]
fn a_report_too_large_is_given_up() {
    let body = format!(r#"{{"usage":{{"a":"{}"}},"x":1}}"#, "y".repeat(REPORT_MAX));
    assert_eq!(reports(b"", &[body.as_bytes()]), []);
}

#[test]
fn the_end_alone_is_enough_for_the_bodies_that_servers_send() {
    for body in [
        r#"{"usage":{"a":1}}"#,
        "{\"choices\":[{\"text\":\"\\\"usage\\\\\"}],\"usage\" : {\"a\":1} }\n",
        r#"{"usage":{"a":{"b":[1,"}"]}},"timings":{"x":[{}]},"meta":{}}"#,
    ] {
        let mut found = Vec::new();
        assert!(at_the_end(body.as_bytes(), |report| found.extend_from_slice(report)), "{body}");
        assert!(body.contains(std::str::from_utf8(&found).unwrap()), "{body}");
        assert!(found.trim_ascii_start().starts_with(b"{\"a\":") && found.ends_with(b"}"), "{body}");
    }
}

#[test]
fn the_end_alone_is_not_enough_where_the_last_usage_is_another_ones() {
    for body in [
        r#"{"usage":{"a":1},"x":{"usage":{"a":2}}}"#,
        r#"{"usage":{"a":1},"x":[{"usage":{"a":2}}],"y":{}}"#,
        r#"{"usage":{"a":1},"x":"\"usage"}"#,
        r#"{"usage":{"a":1},"x":"usage"}"#,
        r#"{"usage":{"a":1"#,
        r#"{"usage":{"a":1}"#,
    ] {
        assert!(!at_the_end(body.as_bytes(), |_| ()), "{body}");
    }
}

proptest! {
    /// Whatever else a body holds, its own `usage` is found and nothing else, however the body is cut.
    #[test]
    fn the_report_of_any_body_is_its_top_level_usage(
        body in prop::collection::btree_map(".{0,6}|usage|response", super::super::rewrite::tests::any_json(), 0..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let value = Value::Object(body.into_iter().collect());
        let expected: Vec<Value> = value.get("usage").filter(|usage| usage.is_object()).cloned().into_iter().collect();
        let text = value.to_string();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &text.as_bytes()[cut[0]..cut[1]]).collect();
        let found: Vec<Value> = reports(b"", &pieces).into_iter().filter(|(place, _)| *place == Place::Usage).map(|(_, report)| report).collect();
        prop_assert_eq!(&found, &expected, "{}", text);
        let mut at_end: Vec<Value> = Vec::new();
        if at_the_end(text.as_bytes(), |report| at_end.push(serde_json::from_slice(report).unwrap())) {
            prop_assert_eq!(&at_end, &expected, "the end alone: {}", text);
        }
    }
}
