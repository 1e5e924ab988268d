//! Traces on the wire: what a collector is sent of each kind of request, what upstreams are told of the trace, and that no
//! collector, dead or slow, is waited for.

mod collector;

use std::time::Duration;

use collector::{CLIENT, Collector, SERVER, Span};
use serde_json::{Value, json};

use crate::support::mcp_server::{McpServer, Seen, Step, answer, chunk, json_answer, last_chunk, stream_head};
use crate::support::{Gateway, eventually};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";
const PROMPT: &str = "a prompt of secret things";
const COLLECTORS_TOKEN: &str = "the-collectors-token";

/// Answers like an inference server, and like an MCP server.
fn engine(seen: &Seen) -> Vec<Step> {
    let body = seen.json();
    if seen.line().starts_with("GET") {
        return answer(200, &[], "");
    }
    if body["method"] == "tools/call" {
        return json_answer(&json!({ "jsonrpc": "2.0", "id": body["id"], "result": { "content": [] } }));
    }
    let usage = json!({ "prompt_tokens": 11, "completion_tokens": 3, "prompt_tokens_details": { "cached_tokens": 5 } });
    if body["stream"] != true {
        return json_answer(&json!({ "choices": [{ "message": { "content": "the answer" } }], "usage": usage }));
    }
    vec![
        stream_head(&[]),
        chunk("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"the answer\"}}]}\n\n"),
        chunk(&format!("data: {}\n\n", json!({ "choices": [], "usage": usage }))),
        chunk("data: [DONE]\n\n"),
        last_chunk(),
    ]
}

/// Dies of every request that does work.
fn mortal(seen: &Seen) -> Vec<Step> {
    if seen.line().starts_with("GET") {
        answer(200, &[], "")
    } else {
        vec![Step::Close]
    }
}

fn chat(model: &str, stream: bool) -> Value {
    json!({ "model": model, "stream": stream, "max_tokens": 9, "messages": [{ "role": "user", "content": PROMPT }] })
}

/// A gateway that traces, an engine, an endpoint that dies, and a key.
struct House {
    gateway: Gateway,
    collector: Collector,
    engine: McpServer,
    mortal: McpServer,
    key: String,
}

impl House {
    async fn new(settings: &str) -> Self {
        Self::with(Collector::start().await, settings).await
    }

    async fn with(collector: Collector, settings: &str) -> Self {
        let (engine, mortal) = (McpServer::start(engine).await, McpServer::start(mortal).await);
        let gateway = Gateway::start_configured_with(
            &format!(
                "traces: {{ endpoint: \"{}\", headers: env:TRACE_HEADERS {settings} }}\ngroups: [ {{ name: research }} ]\ntenants: [ {{ name: acme, \
                 fairshare_group: research }} ]\nmodels:\n- {{ model_name: llama, engine: other, cache_enabled: true, api_base: \"http://{}\" }}\n- {{ \
                 model_name: pair, engine: other, retry_after_dispatch: true, max_retries: 1, endpoints: [ {{ url: \"http://{}\" }}, {{ url: \
                 \"http://{}\", priority: 1 }} ] }}\nmcp_servers: [ {{ name: files, upstream_url: \"{}\" }} ]\n",
                collector.url(),
                engine.addr,
                mortal.addr,
                engine.addr,
                engine.url(),
            ),
            &[("TRACE_HEADERS", &format!("authorization=Bearer%20{COLLECTORS_TOKEN}"))],
        );
        let acme = gateway.get("tenants").await[0]["id"].as_str().unwrap().to_owned();
        let key = gateway.key(&acme, json!({ "name": "k" })).await;
        Self {
            gateway,
            collector,
            engine,
            mortal,
            key,
        }
    }

    /// Sends it with further headers, and reads the answer to its end; the status.
    async fn send(&self, path: &str, key: &str, body: &Value, headers: &[(&str, &str)]) -> u16 {
        let mut request = self.gateway.post(path, key, body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        answer.bytes().await.unwrap();
        status
    }

    async fn chat(&self, model: &str, stream: bool, headers: &[(&str, &str)]) -> u16 {
        self.send("/v1/chat/completions", &self.key, &chat(model, stream), headers).await
    }

    /// What the engine was told of the trace by the last request that did work.
    fn told(&self) -> (Option<String>, Option<String>) {
        let seen = self
            .engine
            .seen()
            .into_iter()
            .rfind(|seen| seen.line().starts_with("POST"))
            .unwrap();
        let header = |name| seen.header(name).map(str::to_owned);
        (header("traceparent"), header("tracestate"))
    }
}

fn parent(flags: &str) -> String {
    format!("00-{TRACE}-{PARENT}-{flags}")
}

fn names(spans: &[Span]) -> Vec<&str> {
    spans.iter().map(|span| span.name.as_str()).collect()
}

/// A span's attributes are these and those that `further` names.
fn says(span: &Span, expected: &Value, further: &[&str]) {
    let mut said = span.attributes.clone();
    for name in further {
        assert!(said.remove(*name).is_some(), "{name}: {span:?}");
    }
    assert_eq!(&json!(said), expected, "{}", span.name);
}

/// Whatever is below lies in the trace and in the time of what is above.
fn nests((own, below): &(Span, Vec<Span>)) {
    assert!(own.from <= own.to);
    for span in below {
        assert_eq!((&span.trace, &span.state), (&own.trace, &own.state));
        assert!(
            own.from <= span.from && span.from <= span.to && span.to <= own.to,
            "{own:?} {span:?}"
        );
    }
    // Steps and attempts follow one another.
    for pair in below.windows(2) {
        assert!(pair[0].to <= pair[1].from, "{pair:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_chat_goes_on_with_the_clients_trace_and_a_hit_begins_its_own() {
    let house = House::new("").await;
    let state = ("tracestate", "vendor=1, other=2");
    assert_eq!(house.chat("llama", true, &[("traceparent", &parent("01")), state]).await, 200);
    let told = house.told();
    let request = house.collector.request("chat llama").await;
    nests(&request);
    let (own, below) = &request;
    assert_eq!((own.trace.as_str(), own.parent.as_str(), own.kind), (TRACE, PARENT, SERVER));
    assert_eq!((own.state.as_str(), own.failed), ("vendor=1,other=2", false));
    let endpoint = house.engine.addr;
    says(
        own,
        &json!({
            "http.request.method": "POST", "http.route": "/v1/chat/completions", "http.response.status_code": 200,
            "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "llama",
            "gen_ai.request.stream": true, "gen_ai.request.max_tokens": 9, "gen_ai.usage.input_tokens": 11,
            "gen_ai.usage.output_tokens": 3, "gen_ai.usage.cache_read.input_tokens": 5, "obleth.tenant": "acme",
            "obleth.fairshare_group": "research", "obleth.cache.result": "miss", "obleth.outcome": "ok", "obleth.attempts": 1,
            "obleth.endpoint": endpoint.to_string(), "obleth.cost_usd": 0.0,
        }),
        &["obleth.request_id", "gen_ai.response.time_to_first_chunk"],
    );
    assert_eq!(names(below), ["auth", "cache", "queue", "upstream"]);
    says(&below[0], &json!({}), &[]);
    says(&below[1], &json!({ "obleth.cache.result": "miss" }), &[]);
    says(
        &below[2],
        &json!({ "obleth.tenant": "acme", "obleth.fairshare_group": "research" }),
        &[],
    );
    says(
        &below[3],
        &json!({
            "http.request.method": "POST", "http.response.status_code": 200, "server.address": "127.0.0.1", "server.port": endpoint.port(),
            "network.peer.address": "127.0.0.1", "network.peer.port": endpoint.port(),
        }),
        &[],
    );
    assert_eq!((below[3].kind, below.iter().any(|span| span.failed)), (CLIENT, false));
    // The endpoint hears of the span that calls it.
    assert_eq!(
        told,
        (Some(format!("00-{TRACE}-{}-01", below[3].id)), Some("vendor=1,other=2".to_owned()))
    );
    let resource = house.collector.resource();
    assert_eq!(resource["service.name"], "obleth");
    assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
    assert!(resource.contains_key("service.instance.id"));

    // The same again is a hit. Its span is told from the first by its trace.
    assert_eq!(house.chat("llama", true, &[]).await, 200);
    let hit = house.collector.find("the hit", |own| own.trace != TRACE).await;
    nests(&hit);
    assert_eq!((hit.0.parent.as_str(), hit.0.state.as_str()), ("", ""));
    assert_eq!(hit.0.attributes["obleth.cache.result"], "hit");
    assert!(!hit.0.attributes.contains_key("gen_ai.usage.output_tokens"), "nothing was used");
    assert_eq!(names(&hit.1), ["auth", "cache"]);
    says(&hit.1[1], &json!({ "obleth.cache.result": "hit" }), &[]);
    eventually("both are counted", Duration::from_secs(30), || async {
        house.gateway.metrics().await.contains("obleth_traces_exported_total 2.0\n")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_attempt_has_a_span_and_so_has_a_call_of_a_tool() {
    let house = House::new("").await;
    assert_eq!(house.chat("pair", false, &[("traceparent", &parent("01"))]).await, 200);
    let dead = house
        .mortal
        .seen()
        .into_iter()
        .rfind(|seen| seen.line().starts_with("POST"))
        .unwrap();
    let first = dead.header("traceparent").unwrap();
    let (second, _) = house.told();
    let request = house.collector.request("chat pair").await;
    nests(&request);
    let (own, below) = request;
    assert_eq!(names(&below), ["auth", "queue", "upstream", "upstream"]);
    let (died, went) = (&below[2], &below[3]);
    assert!(died.failed && !went.failed && !own.failed);
    assert!(died.attributes.contains_key("error.type"), "{died:?}");
    assert_eq!(died.attributes["server.port"], house.mortal.addr.port());
    assert_eq!(went.attributes["server.port"], house.engine.addr.port());
    assert_eq!(went.attributes["http.request.resend_count"], 1);
    assert_eq!((own.attributes["obleth.attempts"].clone(), own.failed), (json!(2), false));
    assert_eq!(first, format!("00-{TRACE}-{}-01", died.id));
    assert_eq!(second.unwrap(), format!("00-{TRACE}-{}-01", went.id));

    let call =
        json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": { "name": "read_file", "arguments": { "path": PROMPT } } });
    // The client's key goes nowhere, not in the state of a trace either.
    let tells = format!("vendor={}", house.key);
    let headers = [
        ("traceparent", &*parent("01")),
        ("tracestate", &*tells),
        ("accept", "application/json, text/event-stream"),
    ];
    assert_eq!(house.send("/mcp/files", &house.key, &call, &headers).await, 200);
    let told = house.told();
    let request = house.collector.request("tools/call read_file").await;
    nests(&request);
    let (own, below) = request;
    says(
        &own,
        &json!({
            "http.request.method": "POST", "http.route": "/mcp/{server}", "http.response.status_code": 200,
            "mcp.method.name": "tools/call", "gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "read_file",
            "obleth.mcp.server": "files", "obleth.tenant": "acme", "obleth.fairshare_group": "research", "obleth.outcome": "ok",
            "obleth.attempts": 1, "obleth.endpoint": house.engine.addr.to_string(),
        }),
        &["obleth.request_id"],
    );
    assert_eq!(names(&below), ["auth", "queue", "upstream"]);
    assert_eq!((own.trace.as_str(), own.parent.as_str()), (TRACE, PARENT));
    assert_eq!(told, (Some(format!("00-{TRACE}-{}-01", below[2].id)), None));
    says_no_secret(&house);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_traced_and_what_the_client_left_out_is_not() {
    let house = House::new("").await;
    // What the client does not record is not recorded; the endpoint is told so.
    assert_eq!(house.chat("llama", false, &[("traceparent", &parent("00"))]).await, 200);
    let (unsampled, _) = house.told();
    let unsampled = unsampled.unwrap();
    assert!(
        unsampled.starts_with(&format!("00-{TRACE}-")) && unsampled.ends_with("-00"),
        "{unsampled}"
    );
    assert!(!unsampled.contains(PARENT));
    // What is not well-formed is not passed on, and its state neither.
    let bad = parent("01").to_uppercase();
    assert_eq!(house.chat("pair", true, &[("traceparent", &bad), ("tracestate", "a=1")]).await, 200);
    let (begun, state) = house.told();
    let (own, below) = house.collector.request("chat pair").await;
    assert_ne!(own.trace, TRACE);
    assert_eq!((own.parent.as_str(), state), ("", None));
    assert_eq!(begun.unwrap(), format!("00-{}-{}-01", own.trace, below.last().unwrap().id));
    // Who is nobody, what is not there, and what leads nowhere.
    let guess = format!("sk_{}", "0".repeat(64));
    assert_eq!(house.send("/v1/embeddings", &guess, &chat("llama", false), &[]).await, 401);
    assert_eq!(
        house
            .send("/v1/completions", &house.key, &chat("a-name-of-the-clients", false), &[])
            .await,
        404
    );
    assert_eq!(house.send("/v1/a-path-of-the-clients", &house.key, &json!({}), &[]).await, 404);
    let (nobody, below) = house.collector.request("POST").await;
    says(
        &nobody,
        &json!({ "http.request.method": "POST", "http.response.status_code": 404, "error.type": "not_found" }),
        &["obleth.request_id"],
    );
    assert!(below.is_empty());
    let (unknown, below) = house.collector.request("embeddings").await;
    assert_eq!(names(&below), ["auth"]);
    assert_eq!(
        (&unknown.attributes["error.type"], unknown.failed),
        (&json!("invalid_api_key"), false),
        "the client's failure"
    );
    says(&below[0], &json!({ "error.type": "invalid_api_key" }), &[]);
    assert!(below[0].failed);
    let (missing, below) = house.collector.request("text_completion").await;
    assert_eq!(names(&below), ["auth"]);
    assert_eq!(missing.attributes["error.type"], "model_not_found");
    assert!(!missing.attributes.contains_key("gen_ai.request.model"), "{missing:?}");
    let all = house.collector.spans();
    assert!(all.iter().all(|span| span.trace != TRACE), "the client had left it out");
    says_no_secret(&house);
}

/// Nothing that the collector was sent tells a prompt, an answer, a key, or what clients chose to write.
fn says_no_secret(house: &House) {
    for said in [PROMPT, "the answer", &*house.key, &house.key[3..], "sk_", "-of-the-clients"] {
        assert!(!house.collector.server.got(said), "{said}");
    }
    assert!(house.collector.server.got(COLLECTORS_TOKEN), "the collector asks for it");
    let head = house.collector.server.last().head;
    assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n") && !house.engine.got(COLLECTORS_TOKEN));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_never_answers_is_not_waited_for_and_what_is_dropped_is_counted() {
    let silent = Collector::that(|_| vec![Step::UntilGone]).await;
    let mut house = House::with(silent, ", max_queued: 1, timeout_ms: 60000").await;
    assert_eq!(house.chat("pair", false, &[]).await, 200);
    house.collector.server.until_seen(1).await;
    // The sender waits for its answer; one more may wait behind.
    for _ in 0..4 {
        assert_eq!(house.chat("pair", false, &[]).await, 200);
    }
    // Each is told of a moment after its client has the answer.
    eventually("three are dropped", Duration::from_secs(30), || async {
        let metrics = house.gateway.metrics().await;
        metrics.contains("obleth_traces_dropped_total{reason=\"queue_full\"} 3.0\n")
    })
    .await;
    house.gateway.terminate();
    // Its own deadline is a minute.
    assert!(house.gateway.ended(Duration::from_secs(30)).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_spans_are_sent_before_the_end_and_tenants_are_called_as_the_operator_wants() {
    // The end waits half a second for a collector; one that the machine holds up for longer proves nothing.
    for _ in 0..10 {
        let mut house = House::new("}\nmetrics: { tenant_label: \"off\"").await;
        assert_eq!(house.chat("llama", false, &[]).await, 200);
        house.gateway.terminate();
        assert!(house.gateway.ended(Duration::from_secs(30)).await.success());
        if house.collector.spans().is_empty() {
            continue;
        }
        let (own, below) = house.collector.request("chat llama").await;
        assert_eq!(names(&below), ["auth", "cache", "queue", "upstream"]);
        assert!(!own.attributes.contains_key("obleth.tenant"));
        assert!(!house.collector.server.got("acme") && !house.collector.server.got("research"));
        return;
    }
    panic!("no collector ever got the last spans");
}
