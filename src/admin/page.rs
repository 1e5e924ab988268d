//! Query strings and pages of lists: `limit`, an opaque `cursor`, and `Link: <…>; rel="next"` (RFC 8288).

use std::fmt::Write;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use url::form_urlencoded;

use super::fault::Faults;
use super::problem::Problem;
use super::{BASE, answer};

/// The most rows of a page.
const LIMIT_MAX: usize = 1000;

/// A query string. Like bodies: what is not known is refused, and all faults are told at once.
#[derive(Debug)]
pub(super) struct Query {
    path: String,
    pairs: Vec<(String, String)>,
    known: Vec<&'static str>,
    faults: Faults,
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        Ok(Self {
            // The nested router sees the path without the base; links need it.
            path: format!("{BASE}{}", parts.uri.path()),
            pairs: form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
            known: Vec::new(),
            faults: Faults::default(),
        })
    }
}

impl Query {
    /// A parameter's text.
    pub(super) fn text(&mut self, name: &'static str) -> Option<String> {
        self.known.push(name);
        let mut values = self.pairs.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone());
        let value = values.next();
        if values.next().is_some() {
            self.faults.add(name, "is given twice");
        }
        value
    }

    /// A parameter that is read; `must_be` ends the sentence "must be …".
    pub(super) fn parsed<T>(&mut self, name: &'static str, must_be: &str, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let text = self.text(name)?;
        let value = read(&text);
        if value.is_none() {
            self.faults.add(name, format!("must be {must_be}"));
        }
        value
    }

    /// Takes `limit` and `cursor`, and ends the reading: what nobody asked for is refused.
    ///
    /// # Errors
    /// 422 with everything that was wrong.
    pub(super) fn page(mut self, default: usize) -> Result<Page, Problem> {
        let limit = self.parsed("limit", "an integer from 1 to 1000", |text| {
            text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit))
        });
        let after = self.parsed("cursor", "the cursor of a Link header", decode);
        for (name, _) in &self.pairs {
            if !self.known.contains(&name.as_str()) {
                self.faults.add(name, "is no parameter of this route");
            }
        }
        self.faults.check()?;
        self.pairs.retain(|(name, _)| name != "cursor");
        Ok(Page {
            limit: limit.unwrap_or(default),
            after,
            path: self.path,
            pairs: self.pairs,
        })
    }
}

/// Which part of a list is asked for.
#[derive(Debug)]
pub(super) struct Page {
    /// How many rows, 1 to 1000.
    pub(super) limit: usize,
    /// The position of the last row of the page before.
    pub(super) after: Option<String>,
    path: String,
    pairs: Vec<(String, String)>,
}

impl Page {
    /// Cuts the page out of a list: `position` orders it and names each row's place.
    pub(super) fn cut<T>(&self, mut rows: Vec<T>, position: impl Fn(&T) -> String, show: impl Fn(&T) -> String) -> Response {
        rows.sort_by_cached_key(&position);
        if let Some(after) = &self.after {
            let start = rows.partition_point(|row| position(row) <= *after);
            rows.drain(..start);
        }
        let more = rows.len() > self.limit;
        rows.truncate(self.limit);
        let next = rows.last().filter(|_| more).map(&position);
        self.answer(rows.iter().map(show), next)
    }

    /// Answers with rows that are cut already; `next` is the position of the last one if there are more.
    pub(super) fn answer(&self, rows: impl Iterator<Item = String>, next: Option<String>) -> Response {
        let mut body = String::from("[");
        for (index, row) in rows.enumerate() {
            if index > 0 {
                body.push(',');
            }
            body.push_str(&row);
        }
        body.push(']');
        let mut response = answer::json(body).into_response();
        if let Some(link) = next.and_then(|next| HeaderValue::from_str(&self.link(&next)).ok()) {
            response.headers_mut().insert(header::LINK, link);
        }
        response
    }

    fn link(&self, next: &str) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(&self.pairs).append_pair("cursor", &encode(next));
        format!("<{}?{}>; rel=\"next\"", self.path, query.finish())
    }
}

/// Hexadecimal: opaque enough to say "do not build these", and safe in a URL.
fn encode(position: &str) -> String {
    let mut text = String::with_capacity(2 * position.len());
    for byte in position.bytes() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Any bytes are some place in a list; what a place must be beyond that is its list's matter.
fn decode(cursor: &str) -> Option<String> {
    if cursor.is_empty() || !cursor.len().is_multiple_of(2) || !cursor.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let bytes = (0..cursor.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&cursor[at..at + 2], 16).ok());
    Some(String::from_utf8_lossy(&bytes.collect::<Option<Vec<u8>>>()?).into_owned())
}
