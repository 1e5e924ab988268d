//! The demo's clients: real streamed chat completions through the gateway, their tokens counted as they arrive.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use parking_lot::Mutex;

use serde::Deserialize;
use serde_json::json;

use super::house::{House, MODEL};

/// Tokens of every answer: 0.4 s at the upstream's pace.
const MAX_TOKENS: u32 = 24;
/// Waits that the median is taken over.
const RECENT: usize = 200;
/// A client that got an error does not come back at once.
const AFTER_ERROR: Duration = Duration::from_millis(200);

/// One tenant as a client.
pub(super) struct Client {
    url: String,
    key: String,
    http: reqwest::Client,
    pub(super) seen: Seen,
}

/// What a tenant's clients have seen.
#[derive(Default)]
pub(super) struct Seen {
    tokens: AtomicU64,
    errors: AtomicU64,
    last_error: Mutex<Option<String>>,
    /// From sending to the first token, newest last.
    first_tokens: Mutex<Vec<Duration>>,
    /// What the gateway says the request waited in its queue.
    waits: Mutex<Vec<Duration>>,
}

impl Seen {
    pub(super) fn tokens(&self) -> u64 {
        self.tokens.load(Ordering::Relaxed)
    }

    pub(super) fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    pub(super) fn last_error(&self) -> Option<String> {
        self.last_error.lock().clone()
    }

    /// Median of the latest waits.
    pub(super) fn wait_p50(&self) -> Option<Duration> {
        median(&self.waits.lock())
    }

    /// The first request's time to its first token, and the median of all.
    pub(super) fn first_token(&self) -> Option<(Duration, Duration)> {
        let times = self.first_tokens.lock();
        Some((*times.first()?, median(&times)?))
    }
}

fn median(times: &[Duration]) -> Option<Duration> {
    let mut recent = times[times.len().saturating_sub(RECENT)..].to_vec();
    recent.sort_unstable();
    recent.get(recent.len() / 2).copied()
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    error: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Delta,
}

#[derive(Deserialize, Default)]
struct Delta {
    content: Option<String>,
}

impl Client {
    pub(super) fn new(house: &House, key: String) -> Arc<Self> {
        let url = format!("{}/v1/chat/completions", house.data);
        Arc::new(Self {
            url,
            key,
            http: reqwest::Client::new(),
            seen: Seen::default(),
        })
    }

    /// Keeps `many` requests going until `until`: each client sends its next when its last has ended.
    pub(super) fn flood(self: &Arc<Self>, many: usize, until: Instant) {
        for _ in 0..many {
            let client = Arc::clone(self);
            tokio::spawn(async move {
                while Instant::now() < until {
                    client.once().await;
                }
            });
        }
    }

    /// Sends one request every `every`, from `from` until `until`.
    pub(super) fn trickle(self: &Arc<Self>, every: Duration, from: Instant, until: Instant) {
        let client = Arc::clone(self);
        tokio::spawn(async move {
            let mut next = from;
            while next < until {
                tokio::time::sleep_until(next.into()).await;
                let client = Arc::clone(&client);
                tokio::spawn(async move { client.once().await });
                next += every;
            }
        });
    }

    async fn once(&self) {
        if let Err(error) = self.chat().await {
            self.seen.errors.fetch_add(1, Ordering::Relaxed);
            *self.seen.last_error.lock() = Some(format!("{error:#}"));
            tokio::time::sleep(AFTER_ERROR).await;
        }
    }

    /// One streamed answer.
    async fn chat(&self) -> anyhow::Result<()> {
        let body = json!({
            "model": MODEL,
            "stream": true,
            "max_tokens": MAX_TOKENS,
            "sim_output_tokens": MAX_TOKENS,
            "messages": [{ "role": "user", "content": "Whose turn is it?" }],
        });
        let sent = Instant::now();
        let mut response = self.http.post(&self.url).bearer_auth(&self.key).json(&body).send().await?;
        let status = response.status();
        if !status.is_success() {
            bail!("{status}: {}", response.text().await.unwrap_or_default());
        }
        let waited = response
            .headers()
            .get("x-obleth-queue-ms")
            .and_then(|value| value.to_str().ok()?.parse().ok());
        if let Some(ms) = waited {
            self.seen.waits.lock().push(Duration::from_millis(ms));
        }
        let (mut line, mut begun, mut done) = (Vec::new(), false, false);
        while let Some(bytes) = response.chunk().await? {
            for part in bytes.split_inclusive(|byte| *byte == b'\n') {
                line.extend_from_slice(part);
                if line.ends_with(b"\n") {
                    let tokens = tokens(&line)?;
                    if tokens > 0 && !begun {
                        begun = true;
                        self.seen.first_tokens.lock().push(sent.elapsed());
                    }
                    self.seen.tokens.fetch_add(tokens, Ordering::Relaxed);
                    done |= line.starts_with(b"data: [DONE]");
                    line.clear();
                }
            }
        }
        ensure!(done, "the stream ended without [DONE]");
        Ok(())
    }
}

/// How many tokens a line of the stream brings: one per chunk with content.
fn tokens(line: &[u8]) -> anyhow::Result<u64> {
    let Some(data) = line.strip_prefix(b"data: ").filter(|data| !data.starts_with(b"[DONE]")) else {
        return Ok(0);
    };
    let chunk: Chunk = serde_json::from_slice(data).context("a chunk that is no JSON")?;
    if let Some(error) = chunk.error {
        bail!("an error in the stream: {error}");
    }
    Ok(chunk
        .choices
        .iter()
        .filter(|choice| choice.delta.content.as_deref().is_some_and(|text| !text.is_empty()))
        .count() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_chunks_with_content_are_tokens() {
        for (line, expected) in [
            (r#"data: {"choices":[{"index":0,"delta":{"content":" the"}}]}"#, 1),
            (r#"data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#, 0),
            (r#"data: {"choices":[],"usage":{}}"#, 0),
            ("data: [DONE]", 0),
            (": comment", 0),
            ("", 0),
        ] {
            assert_eq!(tokens(line.as_bytes()).unwrap(), expected, "{line}");
        }
        assert!(tokens(br#"data: {"error":{"code":"upstream_interrupted"}}"#).is_err());
    }

    #[test]
    fn the_median_is_of_the_latest() {
        assert_eq!(median(&[]), None);
        let times: Vec<_> = (0..500).map(Duration::from_millis).collect();
        assert_eq!(median(&times), Some(Duration::from_millis(400)));
    }
}
