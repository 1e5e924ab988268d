//! The rules against what clients and servers send.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn denying(denied: &[String]) -> Tools<'_> {
    Tools { allowed: None, denied }
}

fn code_of(body: &str) -> &'static str {
    read(body.as_bytes()).map_or_else(|fault| fault.code, |_| "")
}

/// The refusal of a body by a server that denies `delete`, as status and JSON.
fn refused(body: &str, version: Option<&str>) -> Option<(u16, Value)> {
    let denied = names(&["delete"]);
    match read(body.as_bytes()).unwrap().check(&denying(&denied), version) {
        Ok(()) => None,
        Err(Refusal::Rpc(error)) => Some((error.status, serde_json::from_slice(&error.body).unwrap())),
        Err(Refusal::Unreadable(_)) => Some((400, Value::Null)),
    }
}

#[test]
fn a_denied_tool_does_not_exist_however_it_is_spelt() {
    for body in [
        r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"delete","arguments":{}}}"#,
        r#"{"jsonrpc":"2.0","id":7,"method":"tools\/call","params":{"name":"delet\u0065"}}"#,
        r#"{"params":{"\u006eame":"delete"},"m\u0065thod":"t\u006fols/call","id":7}"#,
        "\n\t {\"id\":7,\r\"method\" : \"tools/call\" , \"params\" : { \"name\" : \"delete\" } }\n",
    ] {
        let (status, answer) = refused(body, None).unwrap();
        assert_eq!(status, 200, "{body}");
        assert_eq!(
            answer,
            json!({ "jsonrpc": "2.0", "id": 7, "error": { "code": -32602, "message": "Unknown tool: delete" } })
        );
    }
    for passes in [
        r#"{"id":7,"method":"tools/call","params":{"name":"read","arguments":{"name":"delete"}}}"#,
        r#"{"id":7,"method":"prompts/get","params":{"name":"delete"}}"#,
        r#"{"id":7,"method":"tools/call","params":{"name":"Delete"}}"#,
        r#"{"id":7,"result":{"name":"delete"}}"#,
    ] {
        assert_eq!(refused(passes, None), None, "{passes}");
    }
}

#[test]
fn ids_come_back_as_they_were_written() {
    for id in ["7", "\"a\\u0062\"", "12345678901234567890123", "1.0", "null"] {
        let body = format!(r#"{{"id":{id},"method":"tools/call","params":{{"name":"delete"}}}}"#);
        let denied = names(&["delete"]);
        let Err(Refusal::Rpc(error)) = read(body.as_bytes()).unwrap().check(&denying(&denied), None) else {
            panic!("{body}")
        };
        let text = std::str::from_utf8(&error.body).unwrap();
        assert!(text.contains(&format!("\"id\":{id},")), "{text}");
    }
}

#[test]
fn a_call_whose_tool_cannot_be_read_is_refused_where_there_is_a_rule() {
    for params in ["{}", "[\"delete\"]", r#"{"name":["delete"]}"#, r#"{"name":null}"#, "\"delete\""] {
        let body = format!(r#"{{"id":1,"method":"tools/call","params":{params}}}"#);
        assert!(refused(&body, None).is_some(), "{body}");
        let free = read(body.as_bytes()).unwrap().check(&denying(&[]), None);
        assert_eq!(free, Ok(()), "{body}");
    }
    assert!(
        refused(r#"{"method":"tools/call","params":{"name":"delete"}}"#, None).is_some(),
        "without an id"
    );
}

#[test]
fn what_two_readers_read_in_two_ways_is_refused() {
    for (body, code) in [
        (r#"{"id":1,"method":"ping","method":"tools/call"}"#, "duplicate_key"),
        (r#"{"id":1,"method":"ping","m\u0065thod":"tools/call"}"#, "duplicate_key"),
        (r#"{"id":1,"id":2,"method":"ping"}"#, "duplicate_key"),
        (
            r#"{"id":1,"method":"tools/call","params":{"name":"a"},"params":{"name":"b"}}"#,
            "duplicate_key",
        ),
        (
            r#"{"id":1,"method":"tools/call","params":{"name":"a","name":"b"}}"#,
            "duplicate_key",
        ),
        (r#"{"id":1,"method":"ping","params":{"_meta":{},"_meta":{}}}"#, "duplicate_key"),
        (
            r#"{"id":1,"method":"p","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"a","io.modelcontextprotocol/protocolVersion":"b"}}}"#,
            "duplicate_key",
        ),
        (r#"{"id":1,"method":"ping","Method":"tools/call"}"#, "ambiguous_key"),
        (
            r#"{"id":1,"method":"tools/call","params":{"name":"a"},"param\u017f":{"name":"b"}}"#,
            "ambiguous_key",
        ),
        (
            r#"{"id":1,"method":"tools/call","params":{"name":"a","NAME":"b"}}"#,
            "ambiguous_key",
        ),
        (r#"{"id":1,"method":7}"#, "invalid_request"),
        (r#"{"id":{},"method":"ping"}"#, "invalid_request"),
        ("[]", "invalid_request"),
        ("", "invalid_json"),
        ("{\"id\":1,\"method\":\"ping\"} x", "invalid_json"),
        ("7", "invalid_json"),
        ("[[]]", "invalid_json"),
        ("{\"id\":1,\"method\":\"\\ud800\"}", "invalid_request"),
        ("{\"id\":NaN,\"method\":\"ping\"}", "invalid_json"),
        ("\u{feff}{\"id\":1,\"method\":\"ping\"}", "invalid_json"),
    ] {
        assert_eq!(code_of(body), code, "{body}");
    }
    assert_eq!(read(b"{\"id\":1,\"method\":\"\xff\"}").unwrap_err().code, "invalid_json");
    let deep = format!("{{\"id\":1,\"method\":\"ping\",\"params\":{}{}}}", "[".repeat(64), "]".repeat(64));
    assert_eq!(code_of(&deep), "invalid_json");
    let quoted = format!("{{\"id\":1,\"method\":\"ping\",\"params\":[\"\\\"{}\"]}}", "[".repeat(100));
    assert_eq!(code_of(&quoted), "", "brackets in texts nest nothing");
    assert_eq!(
        code_of(r#"{"id":1,"method":"custom","params":{"Name":1,"name":2,"x":1,"x":2}}"#),
        "",
        "members of others"
    );
}

#[test]
fn every_message_of_a_batch_is_judged_and_one_that_may_not_stops_all() {
    let batch = r#"[{"id":1,"method":"tools/call","params":{"name":"read"}},
        {"method":"notifications/cancelled"},{"id":"b","method":"tools/call","params":{"name":"delete"}}]"#;
    let (status, answer) = refused(batch, None).unwrap();
    assert_eq!(status, 200);
    assert_eq!(answer[0]["id"], 1);
    assert_eq!(answer[0]["error"]["code"], -32600);
    assert_eq!(answer[1]["error"]["message"], "Unknown tool: delete");
    assert_eq!(answer.as_array().unwrap().len(), 2);
    let good = r#"[{"id":1,"method":"ping"}]"#;
    assert_eq!(refused(good, Some("2025-03-26")), None);
    assert_eq!(refused(good, Some("2025-06-18")), Some((400, Value::Null)));
    assert_eq!(code_of(&format!("[{}]", vec!["{}"; 65].join(","))), "invalid_request");
}

#[test]
fn kinds_and_generations_are_told_apart() {
    let of = |body: &str| read(body.as_bytes()).unwrap();
    assert!(of(r#"{"id":1,"method":"initialize"}"#).is_work());
    assert!(!of(r#"{"method":"notifications/initialized"}"#).is_work());
    assert!(!of(r#"{"id":1,"result":{}}"#).is_work());
    assert!(
        of(r#"{"method":"tools/call","params":{"name":"x"}}"#).is_work(),
        "some servers execute it"
    );
    assert!(!of(r#"[{"id":0,"method":"subscriptions/listen"},{"id":1,"method":"ping"}]"#).listens());
    assert!(of(r#"[{"id":1,"method":"tools/list"}]"#).lists_tools());
    let members = format!("{{{}}}", vec![r#""":0"#; 1025].join(","));
    assert_eq!(code_of(&members), "invalid_json");
    assert!(of(r#"{"id":1,"method":"subscriptions/listen"}"#).listens());
    assert_eq!(of(r#"{"id":1,"method":"tools/call","params":{"name":"x"}}"#).tool(), Some("x"));
    let old = of(r#"{"id":1,"method":"ping"}"#);
    assert!(!old.is_modern(None) && !old.is_modern(Some("2025-11-25")) && old.is_modern(Some("2026-07-28")));
    assert!(!old.is_modern(Some("latest")));
    let new = of(r#"{"id":1,"method":"ping","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#);
    assert!(new.is_modern(None));
}

/// What the headers' check says of a call of `name`.
fn mirrored(name: &str, headers: &[(&'static str, &str)]) -> Option<Value> {
    let body = json!({ "id": 1, "method": "tools/call",
        "params": { "name": name, "_meta": { "io.modelcontextprotocol/protocolVersion": "2026-07-28" } } });
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, HeaderValue::from_str(value).unwrap());
    }
    let asked = read(body.to_string().as_bytes()).unwrap();
    let error = mirror::check(&asked, &map).err()?;
    assert_eq!(error.status, 400);
    Some(serde_json::from_slice::<Value>(&error.body).unwrap()["error"]["code"].clone())
}

#[test]
fn headers_that_differ_from_the_body_are_refused_and_missing_ones_are_not_missed() {
    let good = [
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", "read"),
    ];
    assert_eq!(mirrored("read", &good), None);
    assert_eq!(mirrored("read", &[]), None);
    assert_eq!(mirrored("héllo", &[("mcp-name", "=?base64?aMOpbGxv?=")]), None);
    let mismatch = Some(json!(-32020));
    for (name, headers) in [
        ("delete", &good[..]),
        ("read", &[("mcp-method", "tools/list")]),
        ("read", &[("mcp-protocol-version", "2025-11-25")]),
        ("read", &[("mcp-name", "read"), ("mcp-name", "delete")]),
        ("read", &[("mcp-name", "READ")]),
        ("read", &[("mcp-name", "=?base64?ZGVsZXRl?=")]),
        ("read", &[("mcp-name", "=?base64?!!?=")]),
        ("read", &[("mcp-name", "=?BASE64?cmVhZA==?=")]),
        ("read", &[("mcp-name", "")]),
    ] {
        assert_eq!(mirrored(name, headers), mismatch, "{headers:?}");
    }
    let batch = read(br#"[{"id":1,"method":"ping"}]"#).unwrap();
    let mut map = HeaderMap::new();
    map.insert("mcp-method", HeaderValue::from_static("ping"));
    assert!(mirror::check(&batch, &map).is_err());
}

fn filter_body(body: &str, tools: &Tools<'_>) -> String {
    let mut filter = Filter::new(tools, false);
    assert_eq!(filter.feed(Bytes::copy_from_slice(body.as_bytes()), false).unwrap(), "");
    String::from_utf8(filter.feed(Bytes::new(), true).unwrap().to_vec()).unwrap()
}

#[test]
fn a_list_loses_denied_tools_and_nothing_else() {
    let denied = names(&["b"]);
    let tools = denying(&denied);
    let tool = |name: &str| format!("{{ \"name\" : \"{name}\",\"inputSchema\":{{\"$defs\":{{\"x\":1.0}}}},\"_meta\":{{}} }}");
    let list = |tools: &[&str]| {
        format!(
            "{{\"jsonrpc\":\"2.0\", \"id\":1,\n\"result\":{{\"tools\": [ {} ],\"nextCursor\":\"x\\u0079\"}}}}",
            tools.join(" , ")
        )
    };
    let (a, b, c) = (tool("a"), tool("b"), tool("c"));
    let out = |tools_in: &[&str], tools_out: &[&str]| {
        let parsed: Value = serde_json::from_str(&filter_body(&list(tools_in), &tools)).unwrap();
        assert_eq!(parsed, serde_json::from_str::<Value>(&list(tools_out)).unwrap(), "{tools_in:?}");
    };
    out(&[&a, &b, &c], &[&a, &c]);
    out(&[&b, &a], &[&a]);
    out(&[&a, &b], &[&a]);
    out(&[&b, &b, &a, &b, &c, &b, &b], &[&a, &c]);
    out(&[&b], &[]);
    assert_eq!(filter_body(&list(&[&b, &a]), &tools), list(&[&a]), "byte for byte around the cut");
    for same in [
        list(&[&a, &c]),
        list(&[]),
        "{\"id\":1,\"error\":{\"tools\":[{\"name\":\"b\"}]}}".to_owned(),
        "7".to_owned(),
        String::new(),
    ] {
        assert_eq!(filter_body(&same, &tools), same);
    }
    out(&[&a, "{\"n\\u0061me\":\"\\u0062\"}"], &[&a]);
    out(&[&a, "{\"name\":\"a\",\"name\":\"b\"}", "7"], &[&a]);
}

#[test]
fn hints_of_a_shortened_list_say_that_nobody_else_may_keep_it() {
    let denied = names(&["b"]);
    let tools = denying(&denied);
    let body = r#"{"id":1,"result":{"ttlMs": 60000,"cacheScope":"public","tools":[{"name":"a"},{"name":"b"}]}}"#;
    assert_eq!(
        filter_body(body, &tools),
        r#"{"id":1,"result":{"ttlMs": 0,"cacheScope":"private","tools":[{"name":"a"}]}}"#
    );
    let whole = r#"{"id":1,"result":{"ttlMs": 60000,"cacheScope":"public","tools":[{"name":"a"}]}}"#;
    assert_eq!(filter_body(whole, &tools), whole);
    let batch = r#"[{"id":1,"result":{"ttlMs":5,"tools":[]}},{"id":2,"result":{"tools":[{"name":"b"}],"ttlMs":5}}]"#;
    assert_eq!(
        filter_body(batch, &tools),
        r#"[{"id":1,"result":{"ttlMs":5,"tools":[]}},{"id":2,"result":{"tools":[],"ttlMs":0}}]"#
    );
}

#[test]
fn what_cannot_be_read_is_not_passed_on_as_if_it_were_harmless() {
    let denied = names(&["b"]);
    let tools = denying(&denied);
    for body in [
        "{\"result\":{\"tools\":[{\"name\":\"b\"},NaN]}}",
        "{\"result\":{\"tools\":[",
        "\u{feff}{}",
    ] {
        let fed = Filter::new(&tools, false).feed(Bytes::copy_from_slice(body.as_bytes()), true);
        assert_eq!(fed, Err(Unfilterable), "{body}");
    }
    let event = Bytes::from_static(b"data: {\"result\":{\"tools\":[{\"name\":\"b\"},NaN]}}\n\n");
    assert_eq!(Filter::new(&tools, true).feed(event, true), Err(Unfilterable));
    let words = Bytes::from_static(b"data: still here\n\n");
    assert_eq!(Filter::new(&tools, true).feed(words.clone(), true), Ok(words));
}

/// A stream with comments, a priming event, a notification, and a list whose data is on two lines.
fn stream(line_end: &str, denied: bool) -> String {
    let b = if denied { "{\"name\":\"b\"},\n" } else { "" };
    let mut lines = vec![
        ": hello",
        "id: 1",
        "data:",
        "retry: 100",
        "",
        "event: message",
        "data: {\"method\":\"n/x\"}",
        "",
        "id: 2",
    ];
    let list = format!("{{\"id\":1,\"result\":{{\"tools\":[{b}{{\"name\":\"a\"}}]}}}}");
    let data: Vec<String> = list.split('\n').map(|part| format!("data: {part}")).collect();
    lines.extend(data.iter().map(String::as_str));
    lines.extend(["", ": bye", ""]);
    lines.join(line_end) + line_end
}

proptest! {
    #[test]
    fn events_pass_as_they_came_but_for_the_list_wherever_they_are_cut(cuts in prop::collection::vec(0_usize..200, 0..8), end in 0_usize..3) {
        let line_end = ["\n", "\r\n", "\r"][end];
        let denied = names(&["b"]);
        let text = stream(line_end, true);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let mut filter = Filter::new(&denying(&denied), true);
        let mut out = Vec::new();
        for pair in cuts.windows(2) {
            out.extend_from_slice(&filter.feed(Bytes::copy_from_slice(&text.as_bytes()[pair[0]..pair[1]]), false).unwrap());
        }
        out.extend_from_slice(&filter.feed(Bytes::new(), true).unwrap());
        prop_assert_eq!(String::from_utf8(out).unwrap(), stream(line_end, false));
    }

    #[test]
    fn nothing_that_is_sent_panics_a_reader(body in prop::collection::vec(any::<u8>(), 0..64), text in "[\\[\\]{}\":,a-c0-9 \\\\]{0,40}") {
        let denied = names(&["b"]);
        for body in [body, text.into_bytes()] {
            let _ = read(&body);
            let _ = Filter::new(&denying(&denied), false).feed(Bytes::from(body.clone()), true);
            let _ = Filter::new(&denying(&denied), true).feed(Bytes::from(body), true);
        }
    }

    #[test]
    fn a_filtered_list_is_the_list_without_the_denied(kept in prop::collection::vec(any::<bool>(), 0..12)) {
        let denied = names(&["no"]);
        let tool = |keep: bool| json!({ "name": if keep { "yes" } else { "no" }, "x": [1, { "name": "no" }] });
        let of = |tools: Vec<Value>| json!({ "id": 1, "result": { "tools": tools, "tail": true } });
        let text = of(kept.iter().map(|keep| tool(*keep)).collect()).to_string();
        let out: Value = serde_json::from_str(&filter_body(&text, &denying(&denied))).unwrap();
        prop_assert_eq!(out, of(kept.iter().filter(|keep| **keep).map(|_| tool(true)).collect()));
    }

    #[test]
    fn a_session_opens_for_its_holder_only(flip in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let sealer = Sealer::new(Some(&[7; 32]));
        let holder = Holder { server: "files", tenant: "acme", key: &[1; 32] };
        let session = Opened { addr: "127.0.0.1:7000".parse().unwrap(), id: "s-1".to_owned() };
        let sealed = sealer.seal(&holder, &session).unwrap();
        prop_assert_eq!(Sealer::new(Some(&[7; 32])).open(&holder, sealed.as_bytes()), Some(session.clone()), "another gateway");
        let mut changed = sealed.clone().into_bytes();
        let at = flip.index(changed.len());
        changed[at] ^= 1 << bit;
        prop_assert_eq!(sealer.open(&holder, &changed), None);
        let others = [
            Holder { server: "file", ..holder }, Holder { tenant: "acm", ..holder }, Holder { key: &[2; 32], ..holder },
            Holder { server: "filesa", tenant: "cme", ..holder },
        ];
        for other in others {
            prop_assert_eq!(sealer.open(&other, sealed.as_bytes()), None);
        }
        prop_assert_eq!(Sealer::new(None).open(&holder, sealed.as_bytes()), None);
        prop_assert_eq!(sealer.open(&holder, b"s-1"), None);
        prop_assert!(sealed.bytes().all(|byte| byte.is_ascii_graphic()));
    }
}

#[test]
fn ids_that_are_none_are_not_sealed() {
    let (sealer, addr) = (Sealer::new(None), "[::1]:1".parse().unwrap());
    let holder = Holder {
        server: "s",
        tenant: "t",
        key: &[0; 32],
    };
    let seal = |id: String| sealer.seal(&holder, &Opened { addr, id });
    assert!(seal("x".repeat(SESSION_ID_MAX)).is_some_and(|sealed| sealer.open(&holder, sealed.as_bytes()).is_some()));
    for id in [String::new(), "x".repeat(SESSION_ID_MAX + 1), "a b".to_owned(), "é".to_owned()] {
        assert!(seal(id.clone()).is_none(), "{id}");
    }
}

#[test]
fn origins_and_hosts_are_judged_by_list_and_loopback() {
    let allowed = names(&["https://chat.example.com"]);
    let ask = |origins: &[&'static str], host: Option<&str>, loopback: bool| {
        let mut headers = HeaderMap::new();
        for origin in origins {
            headers.append("origin", HeaderValue::from_static(origin));
        }
        origin::check(&headers, host, &allowed, loopback).map(|origin| origin.map(|origin| origin.to_str().unwrap().to_owned()))
    };
    let here = Some("127.0.0.1:8080");
    assert_eq!(ask(&[], here, true), Ok(None));
    assert_eq!(
        ask(&["https://chat.example.com"], here, true),
        Ok(Some("https://chat.example.com".to_owned()))
    );
    for origin in [
        "http://localhost:5173",
        "http://127.0.0.1:1",
        "http://[::1]:80",
        "https://app.localhost",
    ] {
        let fine = !origin.ends_with(":80");
        assert_eq!(ask(&[origin], here, true).is_ok(), fine, "{origin}");
        assert!(
            ask(&[origin], here, false).is_err(),
            "{origin}: not while others can reach the gateway"
        );
    }
    for origin in [
        "null",
        "http://evil.example.com",
        "http://localhost.evil.com",
        "http://localhost/x",
        "file://localhost",
        "https://chat.example.com:8443",
    ] {
        assert!(ask(&[origin], here, true).is_err(), "{origin}");
    }
    assert!(ask(&["https://chat.example.com", "https://chat.example.com"], here, true).is_err());
    for host in [
        "localhost:1",
        "[::1]:8080",
        "127.8.8.8",
        "chat.example.com",
        "chat.example.com:99",
        "LOCALHOST",
    ] {
        assert!(ask(&[], Some(host), true).is_ok(), "{host}");
    }
    for host in [
        "evil.example.com:8080",
        "10.0.0.1",
        "localhost.evil.com",
        "localhost@evil.com",
        "evil.com/localhost",
        "",
    ] {
        assert!(ask(&[], Some(host), true).is_err(), "{host}");
        assert!(ask(&[], Some(host), false).is_ok(), "{host}: not judged where names are many");
    }
}
