//! `/keys`: API keys. A secret is shown once, when it is made, and kept nowhere.

mod draft;
mod show;

use axum::extract::State;
use axum::response::Response;
use serde_json::{Value as Json, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use draft::{DisabledDraft, KeyDraft, RotationDraft};

use super::desk::{Desk, Noun, current, entry};
use super::draft::{Draft, Mode};
use super::of::Of;
use super::page::Query;
use super::problem::Problem;
use super::sent::Sent;
use super::{Room, answer, face, provenance};
use crate::catalog::{ApiKey, Budget, Catalog, Provenance, Retired, Tenant};
use crate::credential::{KeyHasher, Secret};
use crate::id::{KeyId, TenantId};
use crate::store::{Change, Done, StoredAnswer};
use crate::units::UnixMs;

pub(super) fn routes() -> OpenApiRouter<Room> {
    OpenApiRouter::new()
        .routes(routes!(create))
        .routes(routes!(list))
        .routes(routes!(show, update, delete))
        .routes(routes!(set_disabled))
        .routes(routes!(rotate))
}

/// Creates a key for a tenant. The answer has its secret, which is never shown again.
#[utoipa::path(post, path = "/tenants/{id}/keys", operation_id = "create_key", tag = "keys",
    request_body(content = ref("#/components/schemas/NewKey"), example = json!({"name": "prod-key"})),
    responses((status = 201, description = "The key and its secret. A repetition under the same Idempotency-Key has no secret.",
        body = ref("#/components/schemas/KeyWithSecret"))))]
async fn create(
    State(desk): State<Desk>,
    State(hasher): State<KeyHasher>,
    Of(tenant): Of<Tenant>,
    sent: Sent,
) -> Result<Response, Problem> {
    let (draft, faults) = sent.draft::<KeyDraft>(Mode::Create)?;
    faults.check()?;
    let (secret, digest) = mint(&hasher)?;
    let mut key = blank(tenant, &secret, digest);
    draft.apply(&mut key);
    let (id, path) = (key.id, key.path());
    let kept = keep(201, Some(path.clone()), id, &desk);
    let done = desk.store.change(sent.author, move |catalog, _now| {
        let entry = entry("create_key", &key, None, Some(&key.face()));
        key.put(catalog).map_err(Problem::from)?;
        Ok::<_, Problem>(Change::new(()).audited(entry).answering(kept))
    });
    match done.await? {
        Done::Replayed(stored) => Ok(answer::replayed(stored)),
        Done::Committed { catalog, .. } => {
            let (version, body) = with_secret(&desk, &catalog, id, Some(&secret))?;
            Ok(answer::created(&path, version, body))
        }
    }
}

/// Lists all keys, oldest first, without their secrets.
#[utoipa::path(get, path = "/keys", operation_id = "list_keys", tag = "keys",
    params(("tenant_id" = Option<uuid::Uuid>, Query, description = "Only keys of this tenant.")),
    responses((status = 200, description = "The keys.", body = ref("#/components/schemas/ApiKeyList"))))]
async fn list(State(desk): State<Desk>, mut query: Query) -> Result<Response, Problem> {
    let tenant: Option<TenantId> = query.parsed("tenant_id", "a UUID", |text| text.parse().ok());
    let page = query.page(1000)?;
    let catalog = desk.live.load();
    let rows = catalog
        .keys()
        .values()
        .filter(|key| tenant.is_none_or(|tenant| key.tenant_id == tenant))
        .collect();
    Ok(page.cut(rows, |key| key.id.to_string(), |key| key.json(&desk, &catalog)))
}

/// Shows a key, without its secret.
#[utoipa::path(get, path = "/keys/{id}", operation_id = "get_key", tag = "keys",
    responses((status = 200, description = "The key.", body = ref("#/components/schemas/ApiKey"))))]
async fn show(State(desk): State<Desk>, Of(id): Of<ApiKey>) -> Result<Response, Problem> {
    desk.show::<ApiKey>(&id)
}

/// Changes a key; what is left out stays.
#[utoipa::path(put, path = "/keys/{id}", operation_id = "update_key", tag = "keys",
    request_body(content = ref("#/components/schemas/KeyEdit"), example = json!({"expires_at": "2027-01-31T12:00:00Z"})),
    responses((status = 200, description = "The key.", body = ref("#/components/schemas/ApiKey"))))]
async fn update(State(desk): State<Desk>, Of(id): Of<ApiKey>, sent: Sent) -> Result<Response, Problem> {
    let (draft, faults) = sent.draft::<KeyDraft>(Mode::Edit)?;
    faults.check()?;
    desk.update(sent, id, "update_key", |key: &mut ApiKey| {
        draft.apply(key);
        Ok(())
    })
    .await
}

/// Deletes a key. It is refused from the next request on.
#[utoipa::path(delete, path = "/keys/{id}", operation_id = "delete_key", tag = "keys",
    responses((status = 204, description = "It is gone.")))]
async fn delete(State(desk): State<Desk>, Of(id): Of<ApiKey>, sent: Sent) -> Result<Response, Problem> {
    desk.delete::<ApiKey>(sent, id, "delete_key").await
}

/// Disables or re-enables a key.
#[utoipa::path(put, path = "/keys/{id}/disabled", operation_id = "set_key_disabled", tag = "keys",
    request_body(content = ref("#/components/schemas/DisabledChange"), example = json!({"disabled": true})),
    responses((status = 200, description = "The key.", body = ref("#/components/schemas/ApiKey"))))]
async fn set_disabled(State(desk): State<Desk>, Of(id): Of<ApiKey>, sent: Sent) -> Result<Response, Problem> {
    let draft: DisabledDraft = sent.checked(Mode::Part)?;
    desk.update_as(sent, id, |key: &mut ApiKey| {
        draft.disabled.settle(&mut key.disabled, || false);
        Ok(if key.disabled { "disable_key" } else { "enable_key" })
    })
    .await
}

/// Gives a key a new secret. The old one is accepted for the grace time; a secret that was retired before is not.
#[utoipa::path(post, path = "/keys/{id}/rotate", operation_id = "rotate_key", tag = "keys",
    request_body(content = ref("#/components/schemas/Rotation"), example = json!({"grace_secs": 3600})),
    responses((status = 200, description = "The key and its new secret. A repetition under the same Idempotency-Key has no secret.",
        body = ref("#/components/schemas/KeyWithSecret"))))]
async fn rotate(State(desk): State<Desk>, State(hasher): State<KeyHasher>, Of(id): Of<ApiKey>, sent: Sent) -> Result<Response, Problem> {
    let (draft, faults) = sent.optional_draft::<RotationDraft>()?;
    faults.check()?;
    let mut grace_secs = 0;
    draft.grace_secs.settle(&mut grace_secs, || 0);
    let (secret, digest) = mint(&hasher)?;
    let prefix = secret.prefix().to_owned();
    let kept = keep(200, None, id, &desk);
    let Sent { author, if_match, .. } = sent;
    let done = desk.store.change(author, move |catalog, now| {
        let mut key = current::<ApiKey>(catalog, &id, &if_match)?;
        let before = key.face();
        let until = UnixMs(now.0.saturating_add(i64::from(grace_secs) * 1000));
        key.retired = (grace_secs > 0).then_some(Retired { digest: key.digest, until });
        (key.digest, key.prefix) = (digest, prefix);
        let mut entry = entry("rotate_key", &key, Some(&before), Some(&key.face()));
        entry.detail["after"]["grace_secs"] = json!(grace_secs);
        face::mark(&mut key.provenance, &["secret".to_owned()]);
        key.put(catalog).map_err(Problem::from)?;
        Ok(Change::new(()).audited(entry).answering(kept))
    });
    match done.await? {
        Done::Replayed(stored) => Ok(answer::replayed(stored)),
        Done::Committed { catalog, .. } => {
            let (version, body) = with_secret(&desk, &catalog, id, Some(&secret))?;
            Ok(answer::object(version, body))
        }
    }
}

fn mint(hasher: &KeyHasher) -> Result<(Secret, [u8; 32]), Problem> {
    let secret = Secret::mint();
    // A minted secret has the form of one.
    let digest = hasher.digest(secret.expose().as_bytes()).ok_or_else(Problem::internal)?;
    Ok((secret, digest))
}

/// The answer for repetitions: the key as it was made, and no secret.
fn keep(status: u16, location: Option<String>, id: KeyId, desk: &Desk) -> impl FnOnce(&Catalog) -> StoredAnswer + Send + 'static {
    let desk = desk.clone();
    move |catalog| StoredAnswer {
        status,
        location,
        body: with_secret(&desk, catalog, id, None).map(|(_, body)| body).unwrap_or_default(),
    }
}

fn with_secret(desk: &Desk, catalog: &Catalog, id: KeyId, secret: Option<&Secret>) -> Result<(u64, String), Problem> {
    let key = catalog.keys().get(&id).ok_or_else(Problem::internal)?;
    let shown = key.json(desk, catalog);
    let body = match secret {
        // `sk_` and hexadecimal digits need no escaping.
        Some(secret) => format!("{{\"key\":{shown},\"secret\":\"{}\"}}", secret.expose()),
        None => format!("{{\"key\":{shown}}}"),
    };
    Ok((key.provenance.version, body))
}

/// A key with the defaults and no name.
fn blank(tenant_id: TenantId, secret: &Secret, digest: [u8; 32]) -> ApiKey {
    ApiKey {
        id: KeyId::mint(),
        tenant_id,
        name: String::new(),
        description: String::new(),
        prefix: secret.prefix().to_owned(),
        digest,
        retired: None,
        disabled: false,
        expires_at: None,
        allowed_models: None,
        tokens_per_minute: 0,
        requests_per_minute: 0,
        max_in_flight: None,
        budget: Budget::default(),
        provenance: Provenance::default(),
    }
}

/// The schemas that the routes above name.
pub(super) fn schemas() -> Vec<(&'static str, Json)> {
    let read_only = provenance::schema(json!({
        "id": provenance::id(),
        "tenant_id": {"type": "string", "format": "uuid", "description": "Whose it is."},
        "key_prefix": {"type": "string", "description": "The first 18 characters of its secret, by which people recognise it."},
        "last_used_at": {"type": ["string", "null"], "format": "date-time", "description": "When it was last used, to the minute."},
    }));
    let with_secret = json!({
        "type": "object", "required": ["key"], "additionalProperties": false,
        "properties": {
            "key": {"$ref": "#/components/schemas/ApiKey"},
            "secret": {"type": "string", "pattern": "^sk_[0-9a-f]{64}$", "description": "Shown this once."},
        },
    });
    vec![
        ("ApiKey", KeyDraft::shown(&read_only)),
        ("NewKey", KeyDraft::schema(Mode::Create)),
        ("KeyEdit", KeyDraft::schema(Mode::Edit)),
        ("KeyWithSecret", with_secret),
        ("DisabledChange", DisabledDraft::schema(Mode::Part)),
        ("Rotation", RotationDraft::schema(Mode::Create)),
    ]
}
