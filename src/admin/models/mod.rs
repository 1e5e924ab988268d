//! `/models`: what is served, where, and at what price.

mod apply;
mod draft;
mod show;
mod slots;

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde_json::{Value as Json, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use apply::Plan;
use draft::{CacheDraft, EndpointDraft, ModelDraft};
pub(super) use show::address;

use super::desk::{self, Desk, Noun};
use super::draft::{Draft, Given, Mode};
use super::fault::Faults;
use super::of::Of;
use super::page::Query;
use super::problem::Problem;
use super::provenance;
use super::rules::Rules;
use super::sent::Sent;
use super::{Room, answer};
use crate::catalog::{
    CachePolicy, Catalog, Engine, LoadBalancing, Model, ModelCapacity, ModelType, Prices, Protocol, Provenance, Supports, Timeouts, Tls,
};
use crate::id::ModelId;
use crate::store::{Change, Entry, Store};

pub(super) fn routes() -> OpenApiRouter<Room> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show, update, delete))
        .routes(routes!(set_cache, purge_cache))
}

/// Registers a model.
#[utoipa::path(post, path = "/models", operation_id = "create_model", tag = "models",
    request_body(content = ref("#/components/schemas/NewModel"),
        example = json!({"model_name": "llama", "api_base": "http://127.0.0.1:8000", "engine": "vllm", "input_cost_per_token": "0.0000002"})),
    responses((status = 201, description = "The model.", body = ref("#/components/schemas/Model"))))]
async fn create(State(desk): State<Desk>, State(rules): State<Rules>, sent: Sent) -> Result<Response, Problem> {
    let (draft, mut faults) = sent.draft::<ModelDraft>(Mode::Create)?;
    apply::check(&draft, &rules, &mut faults);
    if !matches!(draft.api_base, Given::Is(Some(_)))
        && !matches!(draft.endpoints, Given::Is(Some(_)))
        && !faults.about(&["api_base", "endpoints"])
    {
        faults.add("api_base", "one of api_base and endpoints is required");
    }
    let plan = plan(draft, &desk.store).await?;
    let mut model = blank();
    let named = plan.names_upstream_model();
    plan.apply(&mut model, &mut faults);
    if !named {
        model.upstream_model.clone_from(&model.name);
    }
    faults.check()?;
    desk.create(sent.author, "create_model", move |_| Ok(model)).await
}

/// Lists all models, oldest first.
#[utoipa::path(get, path = "/models", operation_id = "list_models", tag = "models",
    responses((status = 200, description = "The models.", body = ref("#/components/schemas/ModelList"))))]
async fn list(State(desk): State<Desk>, query: Query) -> Result<Response, Problem> {
    let page = query.page(1000)?;
    let catalog = desk.live.load();
    let rows = catalog.models().values().collect();
    Ok(page.cut(
        rows,
        |model: &&Arc<Model>| model.id.to_string(),
        |model| model.json(&desk, &catalog),
    ))
}

/// Shows a model and how its endpoints stand.
#[utoipa::path(get, path = "/models/{id}", operation_id = "get_model", tag = "models",
    responses((status = 200, description = "The model.", body = ref("#/components/schemas/Model"))))]
async fn show(State(desk): State<Desk>, Of(id): Of<Model>) -> Result<Response, Problem> {
    desk.show::<Model>(&id)
}

/// Changes a model; what is left out stays. To change the URL of an endpoint that has a credential, give `api_key` again.
#[utoipa::path(put, path = "/models/{id}", operation_id = "update_model", tag = "models",
    request_body(content = ref("#/components/schemas/ModelEdit"), example = json!({"max_in_flight": "auto", "output_cost_per_token": 0.000_000_6})),
    responses((status = 200, description = "The model.", body = ref("#/components/schemas/Model"))))]
async fn update(State(desk): State<Desk>, State(rules): State<Rules>, Of(id): Of<Model>, sent: Sent) -> Result<Response, Problem> {
    let (draft, mut faults) = sent.draft::<ModelDraft>(Mode::Edit)?;
    apply::check(&draft, &rules, &mut faults);
    let plan = plan(draft, &desk.store).await?;
    // A rehearsal, so that what does not fit the model is told together with what is wrong by itself.
    if let Some(model) = desk.live.load().models().get(&id) {
        plan.clone().apply(&mut (**model).clone(), &mut faults);
    }
    faults.check()?;
    desk.update(sent, id, "update_model", |model: &mut Model| {
        let mut faults = Faults::default();
        plan.apply(model, &mut faults);
        faults.check()
    })
    .await
}

/// Deletes a model. Running requests finish.
#[utoipa::path(delete, path = "/models/{id}", operation_id = "delete_model", tag = "models",
    responses((status = 204, description = "It is gone.")))]
async fn delete(State(desk): State<Desk>, Of(id): Of<Model>, sent: Sent) -> Result<Response, Problem> {
    desk.delete::<Model>(sent, id, "delete_model").await
}

/// Configures a model's response cache. Switching it off or changing its scope empties it.
#[utoipa::path(put, path = "/models/{id}/cache", operation_id = "set_model_cache", tag = "models",
    request_body(content = ref("#/components/schemas/CacheChange"), example = json!({"cache_enabled": true, "cache_ttl_secs": 600})),
    responses((status = 200, description = "The model.", body = ref("#/components/schemas/Model"))))]
async fn set_cache(State(desk): State<Desk>, Of(id): Of<Model>, sent: Sent) -> Result<Response, Problem> {
    let draft: CacheDraft = sent.checked(Mode::Part)?;
    desk.update(sent, id, "set_model_cache", |model: &mut Model| {
        draft.apply(&mut model.cache);
        Ok(())
    })
    .await
}

/// Empties a model's response cache.
#[utoipa::path(delete, path = "/models/{id}/cache", operation_id = "purge_model_cache", tag = "models",
    responses((status = 204, description = "It is empty.")))]
async fn purge_cache(State(desk): State<Desk>, Of(id): Of<Model>, sent: Sent) -> Result<Response, Problem> {
    let Sent { author, if_match, .. } = sent;
    let change = move |catalog: &mut Catalog, _now| {
        let model = desk::current::<Model>(catalog, &id, &if_match)?;
        let entry = Entry {
            action: "purge_model_cache",
            entity_type: Model::NAME,
            entity_id: model.label(),
            detail: json!({"name": model.name}),
        };
        Ok::<_, Problem>(Change::new(()).audited(entry))
    };
    desk.store.change(author, change).await?;
    // After the audit row: what cannot be written down is not done.
    (desk.purge_cache)(&id);
    Ok(answer::gone())
}

/// Looks credentials up where it may block.
async fn plan(draft: ModelDraft, store: &Arc<Store>) -> Result<Plan, Problem> {
    let store = Arc::clone(store);
    tokio::task::spawn_blocking(move || Plan::new(draft, &store))
        .await
        .map_err(|_| Problem::internal())
}

/// A model with the defaults, no name and no endpoints.
fn blank() -> Model {
    Model {
        id: ModelId::mint(),
        name: String::new(),
        aliases: Vec::new(),
        description: String::new(),
        upstream_model: String::new(),
        endpoints: Vec::new(),
        single: true,
        engine: Engine::default(),
        protocol: Protocol::default(),
        model_type: ModelType::default(),
        prices: Prices::default(),
        context_window: 8192,
        admission_weight: 100,
        capacity: ModelCapacity::default(),
        load_balancing: LoadBalancing::default(),
        timeouts: Timeouts::default(),
        max_retries: 1,
        retry_after_dispatch: false,
        engine_priority: false,
        http2: false,
        tls: Tls::default(),
        supports: Supports::default(),
        tags: Vec::new(),
        enabled: true,
        cache: CachePolicy::default(),
        provenance: Provenance::default(),
    }
}

/// The schemas that the routes above name.
pub(super) fn schemas() -> Vec<(&'static str, Json)> {
    let health = json!({
        "type": "array", "description": "How each endpoint stands now, in the order of the endpoints.",
        "items": {
            "type": "object", "required": ["url", "status", "in_flight", "last_error"], "additionalProperties": false,
            "properties": {
                "url": {"type": "string"},
                "status": {"type": "string", "enum": ["healthy", "unhealthy", "unknown"]},
                "in_flight": {"type": "integer", "minimum": 0},
                "last_error": {"type": ["string", "null"]},
            },
        },
    });
    let mut shown = ModelDraft::shown(&provenance::schema(json!({"id": provenance::id(), "health": health})));
    shown["properties"]["endpoints"]["items"] = EndpointDraft::shown(&json!({}));
    let mut new = ModelDraft::schema(Mode::Create);
    let given = |field: &str| json!({"required": [field], "properties": {field: {"not": {"type": "null"}}}});
    new["oneOf"] = json!([given("api_base"), given("endpoints")]);
    vec![
        ("Model", shown),
        ("NewModel", new),
        ("ModelEdit", ModelDraft::schema(Mode::Edit)),
        ("CacheChange", CacheDraft::schema(Mode::Part)),
    ]
}
