//! `/audit`: who changed what, newest first. Nothing here changes or deletes a row.

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Room;
use super::desk::Desk;
use super::page::Query;
use super::problem::Problem;
use super::shown::{self, Time, text};
use super::words::spell;
use crate::id::AuditId;
use crate::store::{AuditQuery, AuditRow, Source};

/// Rows of a page unless asked otherwise.
const LIMIT: usize = 100;

pub(super) fn routes() -> OpenApiRouter<Room> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Lists what was changed, newest first.
#[utoipa::path(get, path = "/audit", operation_id = "list_audit", tag = "audit",
    params(
        ("actor" = Option<String>, Query, description = "Only what this person did."),
        ("action" = Option<String>, Query, description = "Only this action, like `update_weight`."),
        ("entity_type" = Option<String>, Query, description = "Only changes of this noun, like `tenant`."),
        ("entity_id" = Option<String>, Query, description = "Only changes of this object."),
    ),
    responses((status = 200, description = "The rows.", body = [Row])))]
async fn list(State(desk): State<Desk>, mut query: Query) -> Result<Response, Problem> {
    let (actor, action) = (query.text("actor"), query.text("action"));
    let (entity_type, entity_id) = (query.text("entity_type"), query.text("entity_id"));
    let page = query.page(LIMIT)?;
    let seq = |after: &String| {
        after
            .parse()
            .map_err(|_| Problem::invalid_at("cursor", "must be the cursor of a Link header"))
    };
    let before = page.after.as_ref().map(seq);
    let wanted = AuditQuery {
        actor,
        action,
        entity_type,
        entity_id,
        before: before.transpose()?,
        // At most 1000, as the page has checked.
        limit: u32::try_from(page.limit).unwrap_or(1000),
    };
    let rows = desk.store.audit(wanted).await?;
    // A full page may be the last one; the next is then empty, which ends a reader's loop all the same.
    let next = rows
        .last()
        .filter(|last| rows.len() == page.limit && last.seq > 1)
        .map(|last| last.seq.to_string());
    Ok(page.answer(rows.iter().map(|row| shown::json(&Row::of(row))), next))
}

/// One change.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditRow)]
struct Row<'a> {
    #[serde(serialize_with = "text")]
    #[schema(value_type = String, format = Uuid)]
    id: AuditId,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    ts: Time,
    /// Who made it.
    #[schema(example = "admin")]
    actor: &'a str,
    /// What it was.
    #[schema(example = "update_weight")]
    action: &'a str,
    /// The noun.
    #[schema(example = "tenant")]
    entity_type: &'a str,
    /// The object.
    entity_id: &'a str,
    /// The changed fields before and after.
    #[schema(value_type = Object)]
    detail: &'a serde_json::Value,
    /// By which way.
    #[serde(serialize_with = "spell")]
    #[schema(value_type = String)]
    source: Source,
    /// The request's id.
    request_id: &'a str,
}

impl<'a> Row<'a> {
    fn of(row: &'a AuditRow) -> Self {
        Self {
            id: row.id,
            ts: Time(row.ts),
            actor: &row.actor,
            action: &row.action,
            entity_type: &row.entity_type,
            entity_id: &row.entity_id,
            detail: &row.detail,
            source: row.source,
            request_id: &row.request_id,
        }
    }
}
