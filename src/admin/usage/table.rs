//! Rows as JSON or as CSV (RFC 4180), by `Accept`.

use std::borrow::Cow;

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::super::page::Page;

/// Whether the client asks for CSV.
pub(in crate::admin) fn wants_csv(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|kind| {
        kind.split(';')
            .next()
            .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/csv"))
    })
}

/// Rows (as JSON objects) in the form asked for; `next` is where the next page begins.
pub(in crate::admin) fn page(page: &Page, headers: &HeaderMap, rows: Vec<String>, next: Option<String>) -> Response {
    if !wants_csv(headers) {
        return page.answer(rows.into_iter(), next);
    }
    let mut response = csv(rows.into_iter());
    // The link is the same; only the body is another.
    if let Some(link) = page.answer(std::iter::empty(), next).headers_mut().remove(header::LINK) {
        response.headers_mut().insert(header::LINK, link);
    }
    response
}

/// Rows (as JSON objects of one shape) as CSV: the first line names the columns. No rows are no lines.
pub(in crate::admin) fn csv(rows: impl Iterator<Item = String>) -> Response {
    let mut body = String::new();
    for row in rows {
        let Ok(Cells(cells)) = serde_json::from_str(&row) else { continue };
        if body.is_empty() {
            line(&mut body, cells.iter().map(|(name, _)| Cow::Borrowed(name.as_str())));
        }
        line(&mut body, cells.iter().map(|(_, value)| cell(value)));
    }
    let kind = HeaderValue::from_static("text/csv; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], body).into_response()
}

fn line<'a>(body: &mut String, cells: impl Iterator<Item = Cow<'a, str>>) {
    for (index, text) in cells.enumerate() {
        if index > 0 {
            body.push(',');
        }
        if text.contains(['"', ',', '\r', '\n']) {
            body.push('"');
            body.push_str(&text.replace('"', "\"\""));
            body.push('"');
        } else {
            body.push_str(&text);
        }
    }
    body.push_str("\r\n");
}

/// A JSON value as a cell: numbers as they are, null as nothing. Text comes from clients, and a spreadsheet would run what
/// begins like a formula: an apostrophe before it makes it text again.
fn cell(value: &RawValue) -> Cow<'_, str> {
    let Ok(text) = serde_json::from_str::<Cow<'_, str>>(value.get()) else {
        return Cow::Borrowed(if value.get() == "null" { "" } else { value.get() });
    };
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        return Cow::Owned(format!("'{text}"));
    }
    text
}

/// An object's members in their order.
struct Cells<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Cells<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Cells<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut cells = Vec::new();
                while let Some(cell) = map.next_entry()? {
                    cells.push(cell);
                }
                Ok(Cells(cells))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_where_they_must_be_and_never_formulas() {
        let row = r#"{"plain":"a","quoted":"say \"x\", y","formula":"=1+1","negative":-2,"money":0.000000000001,"none":null,"flag":true}"#;
        let Cells(cells) = serde_json::from_str(row).unwrap();
        let mut out = String::new();
        line(&mut out, cells.iter().map(|(name, _)| Cow::Borrowed(name.as_str())));
        line(&mut out, cells.iter().map(|(_, value)| cell(value)));
        assert_eq!(
            out,
            "plain,quoted,formula,negative,money,none,flag\r\na,\"say \"\"x\"\", y\",'=1+1,-2,0.000000000001,,true\r\n"
        );
    }

    #[test]
    fn csv_is_for_those_who_accept_it() {
        let wants = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            wants_csv(&headers)
        };
        assert!(wants("text/csv"));
        assert!(wants("application/xml, Text/CSV;q=0.9"));
        assert!(!wants("*/*"));
        assert!(!wants("application/json"));
    }
}
