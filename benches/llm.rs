//! What reading costs: a request read and rewritten beside a round trip through `serde_json::Value`, a stream followed
//! beside one whose every event is parsed.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use obleth::llm::{self, Extras, Route, Tap};
use serde_json::{Value, json};

/// A conversation of about so many bytes.
fn request(size: usize) -> Bytes {
    let text = "The quick brown fox jumps over the lazy dog; \"pack my box\"\nwith five dozen liquor jugs. ";
    let turn = |at: usize| json!({ "role": if at.is_multiple_of(2) { "user" } else { "assistant" }, "content": text.repeat(8) });
    let turns = (size / (text.len() * 8 + 60)).max(1);
    let messages: Vec<Value> = (0..turns).map(turn).collect();
    let body = json!({ "model": "llama", "temperature": 0.7, "max_tokens": 512, "stream": true, "messages": messages });
    Bytes::from(body.to_string())
}

fn requests(c: &mut Criterion) {
    let mut group = c.benchmark_group("request");
    for size in [1 << 10, 64 << 10, 1 << 20] {
        let body = request(size);
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_with_input(BenchmarkId::new("spliced", size), &body, |b, body| {
            b.iter(|| {
                let parsed = llm::read(Route::ChatCompletions, None, black_box(body)).expect("a good request");
                llm::rewrite(body, &parsed, "meta-llama/Llama-3.1-8B", &Extras::default())
            });
        });
        group.bench_with_input(BenchmarkId::new("naive", size), &body, |b, body| {
            b.iter(|| {
                let mut value: Value = serde_json::from_slice(black_box(body)).expect("a good request");
                value["model"] = "meta-llama/Llama-3.1-8B".into();
                value["stream_options"] = json!({ "include_usage": true });
                serde_json::to_vec(&value).expect("a value")
            });
        });
    }
    group.finish();
}

fn stream(c: &mut Criterion) {
    const EVENT: &[u8] = b"data: {\"id\":\"chatcmpl-9f1c2ab07d5e4c33\",\"object\":\"chat.completion.chunk\",\"created\":1764000000,\"model\":\"llama\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" jumps\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n";
    let event = Bytes::from_static(EVENT);
    let mut group = c.benchmark_group("stream");
    group.throughput(Throughput::Bytes(event.len() as u64));
    group.bench_function("tapped", |b| {
        let mut tap = Tap::new(Route::ChatCompletions, true, true);
        b.iter(|| tap.feed(black_box(event.clone()), false));
    });
    group.bench_function("tapped in two pieces", |b| {
        let mut tap = Tap::new(Route::ChatCompletions, true, true);
        let (head, tail) = (event.slice(..90), event.slice(90..));
        b.iter(|| (tap.feed(black_box(head.clone()), false), tap.feed(black_box(tail.clone()), false)));
    });
    group.bench_function("naive", |b| {
        let mut tokens = 0;
        b.iter(|| {
            let data = black_box(&event).strip_prefix(b"data: ").expect("an event");
            let value: Value = serde_json::from_slice(data).expect("JSON");
            tokens += u64::from(value["choices"][0]["delta"]["content"].is_string());
            value["usage"]["completion_tokens"].as_u64()
        });
        black_box(tokens);
    });
    group.finish();
}

fn bodies(c: &mut Criterion) {
    let numbers: Vec<f64> = (0..4096).map(|at| f64::from(at).sin()).collect();
    let body =
        json!({ "object": "list", "data": [{ "embedding": numbers, "index": 0 }], "usage": { "prompt_tokens": 8, "total_tokens": 8 } });
    let body = Bytes::from(body.to_string());
    let mut group = c.benchmark_group("embedding");
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("tapped", |b| {
        b.iter(|| {
            let mut tap = Tap::new(Route::Embeddings, false, false);
            tap.feed(black_box(body.clone()), true);
            tap.usage()
        });
    });
    group.bench_function("naive", |b| {
        b.iter(|| {
            let value: Value = serde_json::from_slice(black_box(&body)).expect("JSON");
            value["usage"]["prompt_tokens"].as_u64()
        });
    });
    group.finish();
}

criterion_group!(benches, requests, stream, bodies);
criterion_main!(benches);
