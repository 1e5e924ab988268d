//! `/fairshare`: groups, and the scheduler at work.

mod groups;
mod live;

use serde_json::Value as Json;
use utoipa_axum::router::OpenApiRouter;

use super::Room;

pub(super) fn routes() -> OpenApiRouter<Room> {
    OpenApiRouter::new().merge(live::routes()).merge(groups::routes())
}

/// The schemas that the routes name.
pub(super) fn schemas() -> Vec<(&'static str, Json)> {
    groups::schemas()
}
