//! `/mcp-servers`: registered MCP servers. Only over HTTP: a command to run would make the admin token a shell.

mod draft;
mod show;

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde_json::{Value as Json, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use draft::McpServerDraft;

use super::Room;
use super::credential::check_seal;
use super::desk::{Desk, Noun};
use super::draft::{Draft, Given, Mode};
use super::fault::Faults;
use super::of::Of;
use super::page::Query;
use super::problem::Problem;
use super::provenance;
use super::rules::Rules;
use super::sent::Sent;
use crate::catalog::{Credential, McpServer, Provenance};
use crate::id::McpServerId;
use crate::store::Store;

/// The header that carries the credential unless another is named.
const AUTH_HEADER_NAME: &str = "Authorization";
const IDLE_TIMEOUT_SECS: u32 = 300;

pub(super) fn routes() -> OpenApiRouter<Room> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show, update, delete))
}

/// Registers an MCP server.
#[utoipa::path(post, path = "/mcp-servers", operation_id = "create_mcp_server", tag = "mcp-servers",
    request_body(content = ref("#/components/schemas/NewMcpServer"), example = json!({"name": "files", "upstream_url": "http://127.0.0.1:7000/mcp"})),
    responses((status = 201, description = "The server.", body = ref("#/components/schemas/McpServer"))))]
async fn create(State(desk): State<Desk>, State(rules): State<Rules>, sent: Sent) -> Result<Response, Problem> {
    let (draft, mut faults) = sent.draft::<McpServerDraft>(Mode::Create)?;
    check(&draft, &rules, &mut faults);
    faults.check()?;
    // `upstream_url` is required, so it is there.
    let Given::Is(upstream_url) = draft.upstream_url.clone() else {
        return Err(Problem::internal());
    };
    let plan = plan(draft, &desk.store).await?;
    desk.create(sent.author, "create_mcp_server", move |_| {
        let mut server = McpServer {
            id: McpServerId::mint(),
            name: String::new(),
            upstream_url,
            auth_header: None,
            auth_header_name: AUTH_HEADER_NAME.to_owned(),
            enabled: true,
            allowed_tools: None,
            denied_tools: Vec::new(),
            allowed_tenants: None,
            allowed_origins: Vec::new(),
            idle_timeout_secs: IDLE_TIMEOUT_SECS,
            max_in_flight: None,
            provenance: Provenance::default(),
        };
        plan.apply(&mut server, &mut Faults::default());
        Ok(server)
    })
    .await
}

/// Lists all MCP servers, oldest first.
#[utoipa::path(get, path = "/mcp-servers", operation_id = "list_mcp_servers", tag = "mcp-servers",
    responses((status = 200, description = "The servers.", body = ref("#/components/schemas/McpServerList"))))]
async fn list(State(desk): State<Desk>, query: Query) -> Result<Response, Problem> {
    let page = query.page(1000)?;
    let catalog = desk.live.load();
    let rows = catalog.mcp_servers().values().collect();
    Ok(page.cut(
        rows,
        |server: &&Arc<McpServer>| server.id.to_string(),
        |server| server.json(&desk, &catalog),
    ))
}

/// Shows an MCP server.
#[utoipa::path(get, path = "/mcp-servers/{id}", operation_id = "get_mcp_server", tag = "mcp-servers",
    responses((status = 200, description = "The server.", body = ref("#/components/schemas/McpServer"))))]
async fn show(State(desk): State<Desk>, Of(id): Of<McpServer>) -> Result<Response, Problem> {
    desk.show::<McpServer>(&id)
}

/// Changes an MCP server; what is left out stays. To change its URL while it has a credential, give `auth_header` again.
#[utoipa::path(put, path = "/mcp-servers/{id}", operation_id = "update_mcp_server", tag = "mcp-servers",
    request_body(content = ref("#/components/schemas/McpServerEdit"), example = json!({"denied_tools": ["delete_file"]})),
    responses((status = 200, description = "The server.", body = ref("#/components/schemas/McpServer"))))]
async fn update(State(desk): State<Desk>, State(rules): State<Rules>, Of(id): Of<McpServer>, sent: Sent) -> Result<Response, Problem> {
    let (draft, mut faults) = sent.draft::<McpServerDraft>(Mode::Edit)?;
    check(&draft, &rules, &mut faults);
    let plan = plan(draft, &desk.store).await?;
    // A rehearsal, as for models.
    if let Some(server) = desk.live.load().mcp_servers().get(&id) {
        plan.clone().apply(&mut (**server).clone(), &mut faults);
    }
    faults.check()?;
    desk.update(sent, id, "update_mcp_server", |server: &mut McpServer| {
        let mut faults = Faults::default();
        plan.apply(server, &mut faults);
        faults.check()
    })
    .await
}

/// Deletes an MCP server.
#[utoipa::path(delete, path = "/mcp-servers/{id}", operation_id = "delete_mcp_server", tag = "mcp-servers",
    responses((status = 204, description = "It is gone.")))]
async fn delete(State(desk): State<Desk>, Of(id): Of<McpServer>, sent: Sent) -> Result<Response, Problem> {
    desk.delete::<McpServer>(sent, id, "delete_mcp_server").await
}

/// A body with its credential looked up.
#[derive(Clone)]
struct Plan {
    draft: McpServerDraft,
    /// `None` keeps it.
    auth_header: Option<Option<Credential>>,
}

impl Plan {
    /// Writes what was given into a server. Its credential never goes to another URL unless the same body gives it again.
    fn apply(self, server: &mut McpServer, faults: &mut Faults) {
        let Self { draft, auth_header } = self;
        let before = server.upstream_url.clone();
        draft.upstream_url.settle(&mut server.upstream_url, || before.clone());
        match auth_header {
            Some(auth_header) => server.auth_header = auth_header,
            None if server.auth_header.is_some() && server.upstream_url != before => {
                let message = "is required when upstream_url changes (\"\" for none)";
                faults.add_coded("auth_header", "auth_header_required", message);
            }
            None => {}
        }
        draft.name.settle(&mut server.name, String::new);
        draft
            .auth_header_name
            .settle(&mut server.auth_header_name, || AUTH_HEADER_NAME.to_owned());
        draft.enabled.settle(&mut server.enabled, || true);
        draft.allowed_tools.settle_option(&mut server.allowed_tools);
        draft.denied_tools.settle(&mut server.denied_tools, Vec::new);
        draft.allowed_tenants.settle_option(&mut server.allowed_tenants);
        draft.allowed_origins.settle(&mut server.allowed_origins, Vec::new);
        draft.idle_timeout_secs.settle(&mut server.idle_timeout_secs, || IDLE_TIMEOUT_SECS);
        draft.max_in_flight.settle_option(&mut server.max_in_flight);
    }
}

fn check(draft: &McpServerDraft, rules: &Rules, faults: &mut Faults) {
    check_seal(&draft.auth_header, rules.seals, "auth_header", faults);
    if let Given::Is(url) = &draft.upstream_url {
        rules.check_url(url, "upstream_url", faults);
    }
}

/// Looks the credential up where it may block.
async fn plan(mut draft: McpServerDraft, store: &Arc<Store>) -> Result<Plan, Problem> {
    let store = Arc::clone(store);
    let handed = std::mem::take(&mut draft.auth_header).value();
    let resolve = move || handed.map(|handed| handed.resolve(&store));
    let auth_header = tokio::task::spawn_blocking(resolve).await.map_err(|_| Problem::internal())?;
    Ok(Plan { draft, auth_header })
}

/// The schemas that the routes above name.
pub(super) fn schemas() -> Vec<(&'static str, Json)> {
    vec![
        (
            "McpServer",
            McpServerDraft::shown(&provenance::schema(json!({"id": provenance::id()}))),
        ),
        ("NewMcpServer", McpServerDraft::schema(Mode::Create)),
        ("McpServerEdit", McpServerDraft::schema(Mode::Edit)),
    ]
}
