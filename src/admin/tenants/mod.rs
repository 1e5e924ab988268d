//! `/tenants`: who is billed, and who shares.

mod draft;
mod show;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde_json::{Value as Json, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) use draft::WeightDraft;
use draft::{GroupChoice, QuotaDraft, TenantDraft};

use super::Room;
use super::desk::{Desk, Noun};
use super::draft::{Draft, Mode};
use super::fault::Faults;
use super::of::Of;
use super::page::Query;
use super::problem::Problem;
use super::provenance;
use super::sent::Sent;
use crate::catalog::{Budget, Conflict, DEFAULT_GROUP, Provenance, Tenant, TenantStatus};
use crate::id::TenantId;
use crate::units::Weight;

pub(super) fn routes() -> OpenApiRouter<Room> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show, update, delete))
        .routes(routes!(set_weight))
        .routes(routes!(set_quota))
        .routes(routes!(set_group))
}

/// Lists all tenants, oldest first.
#[utoipa::path(get, path = "/tenants", operation_id = "list_tenants", tag = "tenants",
    params(
        ("name" = Option<String>, Query, description = "Only the tenant with this name."),
        ("group" = Option<String>, Query, description = "Only tenants of this fair-share group."),
    ),
    responses((status = 200, description = "The tenants.", body = ref("#/components/schemas/TenantList"))))]
async fn list(State(desk): State<Desk>, mut query: Query) -> Result<Response, Problem> {
    let (name, group) = (query.text("name"), query.text("group"));
    let page = query.page(1000)?;
    let catalog = desk.live.load();
    let wanted = |tenant: &&Arc<Tenant>| {
        name.as_ref().is_none_or(|name| tenant.name == *name) && group.as_deref().is_none_or(|group| &*tenant.group == group)
    };
    let rows = catalog.tenants().values().filter(wanted).collect();
    Ok(page.cut(rows, |tenant| tenant.id.to_string(), |tenant| tenant.json(&desk, &catalog)))
}

/// Creates a tenant.
#[utoipa::path(post, path = "/tenants", operation_id = "create_tenant", tag = "tenants",
    request_body(content = ref("#/components/schemas/NewTenant"), example = json!({"name": "acme", "weight": 200, "tokens_per_minute": 100_000})),
    responses((status = 201, description = "The tenant.", body = ref("#/components/schemas/Tenant"))))]
async fn create(State(desk): State<Desk>, sent: Sent) -> Result<Response, Problem> {
    let (draft, mut faults) = sent.draft::<TenantDraft>(Mode::Create)?;
    check_group(&desk, draft.group(), &mut faults);
    faults.check()?;
    desk.create(sent.author, "create_tenant", move |_| {
        let mut tenant = blank();
        draft.apply(&mut tenant);
        Ok(tenant)
    })
    .await
}

/// Shows a tenant.
#[utoipa::path(get, path = "/tenants/{id}", operation_id = "get_tenant", tag = "tenants",
    responses((status = 200, description = "The tenant.", body = ref("#/components/schemas/Tenant"))))]
async fn show(State(desk): State<Desk>, Of(id): Of<Tenant>) -> Result<Response, Problem> {
    desk.show::<Tenant>(&id)
}

/// Changes a tenant; what is left out stays.
#[utoipa::path(put, path = "/tenants/{id}", operation_id = "update_tenant", tag = "tenants",
    request_body(content = ref("#/components/schemas/TenantEdit"), example = json!({"description": "the coyote's supplier", "status": "suspended"})),
    responses((status = 200, description = "The tenant.", body = ref("#/components/schemas/Tenant"))))]
async fn update(State(desk): State<Desk>, Of(id): Of<Tenant>, sent: Sent) -> Result<Response, Problem> {
    let (draft, mut faults) = sent.draft::<TenantDraft>(Mode::Edit)?;
    check_group(&desk, draft.group(), &mut faults);
    faults.check()?;
    desk.update(sent, id, "update_tenant", |tenant: &mut Tenant| {
        draft.apply(tenant);
        Ok(())
    })
    .await
}

/// Deletes a tenant and its keys. What it used and what was done to it stays on record; running requests finish.
#[utoipa::path(delete, path = "/tenants/{id}", operation_id = "delete_tenant", tag = "tenants",
    responses((status = 204, description = "It is gone.")))]
async fn delete(State(desk): State<Desk>, Of(id): Of<Tenant>, sent: Sent) -> Result<Response, Problem> {
    desk.delete::<Tenant>(sent, id, "delete_tenant").await
}

/// Changes a tenant's weight. The next scheduling decision uses it.
#[utoipa::path(patch, path = "/tenants/{id}/weight", operation_id = "set_tenant_weight", tag = "tenants",
    request_body(content = ref("#/components/schemas/WeightChange"), example = json!({"weight": 500})),
    responses((status = 200, description = "The tenant.", body = ref("#/components/schemas/Tenant"))))]
async fn set_weight(State(desk): State<Desk>, Of(id): Of<Tenant>, sent: Sent) -> Result<Response, Problem> {
    let draft: WeightDraft = sent.checked(Mode::Part)?;
    desk.update(sent, id, "update_weight", |tenant: &mut Tenant| {
        draft.weight.settle(&mut tenant.weight, Weight::default);
        Ok(())
    })
    .await
}

/// Changes a tenant's quota. A bucket holds one minute's quota and refills evenly.
#[utoipa::path(put, path = "/tenants/{id}/quota", operation_id = "set_tenant_quota", tag = "tenants",
    request_body(content = ref("#/components/schemas/QuotaChange"), example = json!({"tokens_per_minute": 200_000, "max_in_flight": null})),
    responses((status = 200, description = "The tenant.", body = ref("#/components/schemas/Tenant"))))]
async fn set_quota(State(desk): State<Desk>, Of(id): Of<Tenant>, sent: Sent) -> Result<Response, Problem> {
    let draft: QuotaDraft = sent.checked(Mode::Part)?;
    desk.update(sent, id, "update_quota", |tenant: &mut Tenant| {
        draft.tokens_per_minute.settle(&mut tenant.tokens_per_minute, || 0);
        draft.requests_per_minute.settle(&mut tenant.requests_per_minute, || 0);
        draft.max_in_flight.settle_option(&mut tenant.max_in_flight);
        Ok(())
    })
    .await
}

/// Moves a tenant to a fair-share group. Its queued requests move with it.
#[utoipa::path(patch, path = "/tenants/{id}/group", operation_id = "set_tenant_group", tag = "tenants",
    request_body(content = ref("#/components/schemas/GroupChange"), example = json!({"fairshare_group": "default"})),
    responses((status = 200, description = "The tenant.", body = ref("#/components/schemas/Tenant"))))]
async fn set_group(State(desk): State<Desk>, Of(id): Of<Tenant>, sent: Sent) -> Result<Response, Problem> {
    let draft: GroupChoice = sent.checked(Mode::Part)?;
    desk.update(sent, id, "update_tenant_group", |tenant: &mut Tenant| {
        let mut group = tenant.group.to_string();
        draft.fairshare_group.settle(&mut group, || DEFAULT_GROUP.to_owned());
        tenant.group = group.into();
        Ok(())
    })
    .await
}

/// Tells early what the catalog would refuse anyway, so that it stands among the other faults of the body.
fn check_group(desk: &Desk, group: Option<&str>, faults: &mut Faults) {
    if let Some(group) = group
        && desk.live.load().groups().get(group).is_none()
    {
        faults.add("fairshare_group", Conflict::UnknownGroup(group.to_owned()).to_string());
    }
}

/// A tenant with the defaults and no name.
fn blank() -> Tenant {
    Tenant {
        id: TenantId::mint(),
        name: String::new(),
        description: String::new(),
        group: DEFAULT_GROUP.into(),
        weight: Weight::default(),
        tokens_per_minute: 0,
        requests_per_minute: 0,
        max_in_flight: None,
        max_queued: None,
        status: TenantStatus::default(),
        allowed_models: None,
        budget: Budget::default(),
        metadata: BTreeMap::new(),
        provenance: Provenance::default(),
    }
}

/// The schemas that the routes above name.
pub(super) fn schemas() -> Vec<(&'static str, Json)> {
    vec![
        ("Tenant", TenantDraft::shown(&provenance::schema(json!({"id": provenance::id()})))),
        ("NewTenant", TenantDraft::schema(Mode::Create)),
        ("TenantEdit", TenantDraft::schema(Mode::Edit)),
        ("WeightChange", WeightDraft::schema(Mode::Part)),
        ("QuotaChange", QuotaDraft::schema(Mode::Part)),
        ("GroupChange", GroupChoice::schema(Mode::Part)),
    ]
}
