//! One scrape: samples, put together and written as text.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::family::{self, Family, Kind};
use super::histogram::Histogram;

/// What a sample says.
#[derive(Debug, Clone)]
enum Value {
    Number(f64),
    Histogram(Histogram),
}

/// The samples of one scrape. Samples of one family with the same labels add up, unless they are told to raise each other.
#[derive(Debug, Default)]
pub struct Page(BTreeMap<&'static str, BTreeMap<Vec<String>, Value>>);

impl Page {
    /// Adds a sample of a family without labels.
    pub fn put(&mut self, family: &'static Family, value: f64) {
        self.put_of(family, &[], value);
    }

    /// Adds a sample with the values of the family's labels.
    pub fn put_of(&mut self, family: &'static Family, labels: &[&str], value: f64) {
        debug_assert!(family.kind != Kind::Histogram);
        let before = self.at(family, labels, Value::Number(0.0));
        if let Value::Number(before) = before {
            *before += value;
        }
    }

    /// As [`put_of`](Self::put_of), but of samples with the same labels the greatest counts.
    pub fn raise(&mut self, family: &'static Family, labels: &[&str], value: f64) {
        if let Value::Number(before) = self.at(family, labels, Value::Number(value)) {
            *before = before.max(value);
        }
    }

    /// Adds a histogram with the values of the family's labels.
    pub(super) fn put_histogram(&mut self, family: &'static Family, labels: &[&str], histogram: &Histogram) {
        debug_assert!(family.kind == Kind::Histogram);
        let before = self.at(family, labels, Value::Histogram(Histogram::like(histogram)));
        if let Value::Histogram(before) = before {
            before.merge(histogram);
        }
    }

    fn at(&mut self, family: &'static Family, labels: &[&str], empty: Value) -> &mut Value {
        debug_assert_eq!(labels.len(), family.labels.len(), "{}", family.name);
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        self.0.entry(family.name).or_default().entry(labels).or_insert(empty)
    }

    /// As OpenMetrics 1.0 text, which is also what Prometheus' own text format allows.
    #[must_use]
    pub fn into_text(self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
        text
    }
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in family::ALL {
            let Some(samples) = self.0.get(family.name) else { continue };
            let kind = match family.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
            };
            let help = format!("{}.", family.help);
            let mut metric = encoder.encode_descriptor(family.name, &help, None, kind)?;
            for (values, value) in samples {
                if values.is_empty() {
                    write(family.kind, &mut metric, value)?;
                    continue;
                }
                let labels: Vec<(&str, &str)> = family.labels.iter().copied().zip(values.iter().map(String::as_str)).collect();
                write(family.kind, &mut metric.encode_family(&labels)?, value)?;
            }
        }
        Ok(())
    }
}

fn write(kind: Kind, sample: &mut MetricEncoder<'_>, value: &Value) -> fmt::Result {
    match (kind, value) {
        (Kind::Counter, Value::Number(number)) => sample.encode_counter::<NoLabelSet, _, f64>(number, None),
        (_, Value::Number(number)) => sample.encode_gauge(number),
        (_, Value::Histogram(histogram)) => {
            sample.encode_histogram::<NoLabelSet>(histogram.sum(), histogram.count(), &histogram.buckets(), None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_grouped_sorted_and_escaped() {
        let mut page = Page::default();
        page.put_of(&family::IN_FLIGHT, &["zeta"], 2.0);
        page.put(&family::READY, 1.0);
        page.put_of(&family::IN_FLIGHT, &["a \"quoted\"\nname\\"], 3.0);
        page.put_of(&family::IN_FLIGHT, &["zeta"], 1.0);
        page.put_of(&family::TOKENS, &["t", "m", "input"], 1e15 + 1.0);
        let text = page.into_text();
        let expected = "\
# HELP obleth_ready Whether new requests are welcome (1) or the gateway starts, drains or cannot write its store (0).
# TYPE obleth_ready gauge
obleth_ready 1.0
# HELP obleth_tokens Tokens used: input, cached_input (part of input), output, reasoning (part of output).
# TYPE obleth_tokens counter
obleth_tokens_total{tenant=\"t\",model=\"m\",type=\"input\"} 1000000000000001.0
# HELP obleth_inflight Requests upstream.
# TYPE obleth_inflight gauge
obleth_inflight{tenant=\"a \\\"quoted\\\"\\nname\\\\\"} 3.0
obleth_inflight{tenant=\"zeta\"} 3.0
# EOF
";
        assert_eq!(text, expected);
    }
}
