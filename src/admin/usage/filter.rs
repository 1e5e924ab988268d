//! The filters that every usage route takes, and its answer.

use std::time::SystemTime;

use axum::http::HeaderMap;
use axum::response::Response;
use serde::Serialize;
use utoipa::IntoParams;

use super::super::desk::Desk;
use super::super::page::{Page, Query};
use super::super::problem::Problem;
use super::super::shown;
use super::table;
use crate::store::usage::{Filter, GroupBy};
use crate::units::UnixMs;

/// How far back usage is shown unless asked otherwise.
const SINCE_MS: i64 = 24 * 3_600_000;

/// Year 9999: later times are no times.
const MS_MAX: i64 = 253_402_300_799_999;

/// The filters, for the description of the API; what all lists take is added there.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only described; `Asked::read` reads")]
pub(in crate::admin) struct Parameters {
    /// Only this tenant's.
    #[param(format = Uuid)]
    tenant_id: Option<String>,
    /// Only with this key.
    #[param(format = Uuid)]
    key_id: Option<String>,
    /// Only to this model, by its name or an alias.
    model: Option<String>,
    /// Only requests that began at or after, in Unix milliseconds; by default 24 hours ago.
    #[param(minimum = 0, maximum = 253_402_300_799_999_i64)]
    since_ms: Option<i64>,
    /// Only requests that began before; by default now.
    #[param(minimum = 0, maximum = 253_402_300_799_999_i64)]
    until_ms: Option<i64>,
}

/// What is asked, and which page of it.
pub(in crate::admin) struct Asked {
    pub(in crate::admin) filter: Filter,
    pub(in crate::admin) now: UnixMs,
    pub(super) page: Page,
}

impl Asked {
    /// Takes the filters and ends the reading of the query.
    ///
    /// # Errors
    /// 422 with everything that was wrong.
    pub(in crate::admin) fn read(desk: &Desk, query: Query) -> Result<Self, Problem> {
        // No row but what is asked for is left out of a sum: without `limit`, everything is told.
        Self::read_page(desk, query, usize::MAX)
    }

    pub(super) fn read_page(desk: &Desk, mut query: Query, limit: usize) -> Result<Self, Problem> {
        let now = now();
        let tenant = query.parsed("tenant_id", "a UUID", |text| text.parse().ok());
        let key = query.parsed("key_id", "a UUID", |text| text.parse().ok());
        let model = query.text("model");
        let moment = |text: &str| text.parse().ok().filter(|ms| (0..=MS_MAX).contains(ms));
        let since = query.parsed("since_ms", "a time in Unix milliseconds", moment);
        let until = query.parsed("until_ms", "a time in Unix milliseconds", moment);
        let page = query.page(limit)?;
        let until = until.unwrap_or(now.0);
        let since = since.unwrap_or_else(|| now.0.min(until) - SINCE_MS);
        if since > until {
            return Err(Problem::invalid_at("until_ms", "must not be before `since_ms`"));
        }
        let catalog = desk.live.load();
        let registered = |name: String| catalog.model_named(&name).map_or(name, |model| model.name.clone());
        Ok(Self {
            filter: Filter {
                tenant,
                key,
                model: model.map(registered),
                since: UnixMs(since),
                until: UnixMs(until),
            },
            now,
            page,
        })
    }

    /// Answers with a page of rows, in the form that the client asked for. The cursor is how many rows came before.
    pub(in crate::admin) fn answer<R: Serialize>(&self, headers: &HeaderMap, rows: impl Iterator<Item = R>) -> Response {
        let skipped = self.page.after.as_deref().and_then(|after| after.parse().ok()).unwrap_or(0_usize);
        let mut rest = rows.skip(skipped).map(|row| shown::json(&row)).peekable();
        let shown: Vec<String> = rest.by_ref().take(self.page.limit).collect();
        let next = rest.peek().map(|_| (skipped + shown.len()).to_string());
        table::page(&self.page, headers, shown, next)
    }
}

/// Takes `group_by`.
pub(in crate::admin) fn group_by(query: &mut Query) -> Option<GroupBy> {
    query.parsed("group_by", "`tenant`, `key` or `model`", |text| match text {
        "tenant" => Some(GroupBy::Tenant),
        "key" => Some(GroupBy::Key),
        "model" => Some(GroupBy::Model),
        _ => None,
    })
}

fn now() -> UnixMs {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    UnixMs(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
