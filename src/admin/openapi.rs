//! `/openapi.json`: the API described as OpenAPI 3.1, and a reader for it at `/docs`.
//!
//! Paths come from the handlers' own attributes, schemas from the [drafts](super::draft) that read the bodies. What is the
//! same for every route (errors, headers, conditions) is added here, so that no route can forget it.

use std::sync::OnceLock;

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value as Json, json};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::problem::Document;
use super::{BASE, Room, answer, capacity, fairshare, keys, mcp_servers, models, tenants};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "obleth management API",
        description = "Tenants, keys, models, fair-share groups and MCP servers of a gateway that shares inference servers by weighted fair \
            queueing. Every change is one transaction with its audit row, durable and in force when the answer arrives.",
    ),
    servers((url = "/", description = "This gateway.")),
    components(schemas(Document)),
    tags(
        (name = "tenants", description = "Who is billed, and who shares."),
        (name = "keys", description = "API keys of tenants. Secrets are shown once."),
        (name = "models", description = "What is served, where, and at what price."),
        (name = "fairshare", description = "Groups, and the scheduler at work."),
        (name = "mcp-servers", description = "Registered MCP servers."),
        (name = "capacity", description = "How many requests may be upstream at once, and how many are."),
        (name = "audit", description = "Who changed what."),
        (name = "config", description = "The configuration file."),
        (name = "meta", description = "Health, and this document."),
    ),
)]
struct Base;

/// Schemas that lists are made of.
const LISTED: [&str; 5] = ["Tenant", "ApiKey", "Model", "Group", "McpServer"];

pub(super) fn routes() -> OpenApiRouter<Room> {
    OpenApiRouter::new().routes(routes!(openapi))
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", operation_id = "get_openapi", tag = "meta",
    responses((status = 200, description = "OpenAPI 3.1.", body = Object)))]
async fn openapi() -> Response {
    static BODY: OnceLock<String> = OnceLock::new();
    answer::json(BODY.get_or_init(|| document().to_string()).as_str()).into_response()
}

/// The reader. Its copy of the document needs no token: it says nothing about this gateway.
pub(super) fn reader() -> Router {
    let config = Config::new(["/docs/openapi.json"])
        .persist_authorization(false)
        .try_it_out_enabled(true);
    let reader = SwaggerUi::new("/docs")
        .external_url_unchecked("/docs/openapi.json", document())
        .config(config);
    Router::from(reader).layer(middleware::from_fn(fence))
}

/// Keeps the reader's scripts at home, and other pages from framing it.
async fn fence(request: axum::extract::Request, next: Next) -> Response {
    const POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'";
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    response
}

/// The whole document.
#[must_use]
pub fn document() -> Json {
    let (_, api) = OpenApiRouter::with_openapi(Base::openapi())
        .nest(BASE, super::api())
        .split_for_parts();
    // Made of text, numbers and lists: serde_json cannot fail on it.
    let mut document = serde_json::to_value(&api).unwrap_or_default();
    let own = [
        tenants::schemas(),
        keys::schemas(),
        models::schemas(),
        fairshare::schemas(),
        mcp_servers::schemas(),
        capacity::schemas(),
    ];
    for (name, mut schema) in own.into_iter().flatten() {
        schema["title"] = json!(name);
        document["components"]["schemas"][name] = schema;
    }
    for name in LISTED {
        let list = json!({"type": "array", "items": {"$ref": format!("#/components/schemas/{name}")}});
        document["components"]["schemas"][format!("{name}List")] = list;
    }
    document["components"]["responses"] = refusals()
        .into_iter()
        .map(|refusal| (refusal.name.to_owned(), refusal.response()))
        .collect::<Map<_, _>>()
        .into();
    document["components"]["headers"] = headers();
    document["components"]["securitySchemes"] =
        json!({"admin_token": {"type": "http", "scheme": "bearer", "description": "OBLETH_ADMIN_TOKEN"}});
    document["security"] = json!([{"admin_token": []}]);
    if let Some(paths) = document["paths"].as_object_mut() {
        for (path, item) in paths {
            for (method, operation) in item.as_object_mut().into_iter().flatten() {
                complete(path, method, operation);
            }
        }
    }
    document
}

/// An error that several routes share.
struct Refusal {
    name: &'static str,
    status: &'static str,
    about: &'static str,
    headers: &'static [&'static str],
}

impl Refusal {
    fn response(&self) -> Json {
        let mut response = json!({
            "description": self.about,
            "headers": all_answers(),
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
        });
        for header in self.headers {
            response["headers"][*header] = json!({"$ref": format!("#/components/headers/{header}")});
        }
        response
    }
}

fn refusals() -> [Refusal; 15] {
    let of = |name, status, about, headers| Refusal {
        name,
        status,
        about,
        headers,
    };
    [
        of("BadRequest", "400", "The body is not JSON, or the request is malformed.", &[]),
        of(
            "Unauthorized",
            "401",
            "There is no admin token, or not the right one.",
            &["WWW-Authenticate"],
        ),
        of(
            "ForbiddenHost",
            "403",
            "The `Host` or `Origin` is not this server's: a defence against DNS rebinding.",
            &[],
        ),
        of("NotFound", "404", "There is no such object.", &[]),
        of("MethodNotAllowed", "405", "The route does not have this method.", &["Allow"]),
        of("RequestTimeout", "408", "The body did not arrive in time.", &[]),
        of("Conflict", "409", "The name is taken, or the object is still in use.", &[]),
        of(
            "PreconditionFailed",
            "412",
            "The object is not at the version that `If-Match` names.",
            &[],
        ),
        of("BodyTooLarge", "413", "The body is larger than 1 MiB.", &[]),
        of("UnsupportedEncoding", "415", "The body has a `Content-Encoding`.", &[]),
        of("Invalid", "422", "What was sent is not acceptable; `errors` names each field.", &[]),
        of(
            "TooManyFailures",
            "429",
            "Too many failed authentications from this address. The right token is never refused.",
            &["Retry-After"],
        ),
        of("HeadTooLarge", "431", "The request's head is too large.", &[]),
        of("Internal", "500", "A fault of the gateway.", &[]),
        of(
            "Unavailable",
            "503",
            "The store cannot be reached now; nothing has changed unless the request took too long.",
            &["Retry-After"],
        ),
    ]
}

fn headers() -> Json {
    json!({
        "x-request-id": {"description": "The request's id: the client's own if it has the form, else a new one.",
            "required": true, "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"}},
        "Cache-Control": {"description": "Answers are not to be kept.", "required": true, "schema": {"type": "string", "const": "no-store"}},
        "ETag": {"description": "The object's version, for `If-Match`.", "required": true, "schema": {"type": "string", "pattern": "^\"v[0-9]+\"$"}},
        "Location": {"description": "Where the new object is.", "required": true, "schema": {"type": "string"}},
        "Link": {"description": "The next page (RFC 8288); absent on the last one.", "schema": {"type": "string"}},
        "Idempotency-Replayed": {"description": "`true` if this is the first answer again.", "schema": {"type": "string", "const": "true"}},
        "Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}},
        "WWW-Authenticate": {"description": "How to authenticate.", "schema": {"type": "string", "const": "Bearer"}},
        "Allow": {"description": "The methods that the route has.", "schema": {"type": "string"}},
    })
}

fn all_answers() -> Json {
    json!({
        "x-request-id": {"$ref": "#/components/headers/x-request-id"},
        "Cache-Control": {"$ref": "#/components/headers/Cache-Control"},
    })
}

/// Adds to an operation what follows from its path and method.
fn complete(path: &str, method: &str, operation: &mut Json) {
    let has_body = operation.get("requestBody").is_some();
    let answer = &operation["responses"]["200"]["content"]["application/json"]["schema"];
    let lists = answer["type"] == "array" || answer["$ref"].as_str().is_some_and(|schema| schema.ends_with("List"));
    let changes = matches!(method, "post" | "put" | "patch" | "delete");
    // Objects have versions; the capacity, lists and counts have none.
    let on_object = path.contains('{') && !lists;
    let creates = operation["responses"].get("201").is_some();

    let mut parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
    parameters.retain(|parameter| parameter["in"] != "path");
    parameters.extend(path_parameters(path));
    if lists {
        parameters.extend(paging(path));
    }
    if changes {
        parameters.push(
            json!({"name": "x-obleth-audit-actor", "in": "header", "description": "Who is named in the audit log.",
            "schema": {"type": "string", "minLength": 1, "maxLength": 256, "pattern": "^[!-~\\u00a1-\\ud7ff]([ -~\\u00a1-\\ud7ff]*[!-~\\u00a1-\\ud7ff])?$", "default": "admin"}}),
        );
    }
    if changes && on_object && !creates {
        parameters.push(
            json!({"name": "If-Match", "in": "header", "description": "Refuse unless the object is at this version.",
            "schema": {"type": "string", "pattern": "^(\\*|(W/)?\"[!#-+\\--~]*\"(, ?(W/)?\"[!#-+\\--~]*\")*)$"}}),
        );
    }
    let asks = parameters.iter().any(|parameter| parameter["in"] == "query");
    operation["parameters"] = Json::Array(parameters);
    if counts(path) {
        operation["responses"]["200"]["content"]["text/csv"] = json!({"schema": {"type": "string"}});
    }
    if has_body {
        operation["requestBody"]["required"] = json!(!path.ends_with("/rotate"));
    }

    for (status, response) in operation["responses"].as_object_mut().into_iter().flatten() {
        response["headers"] = all_answers();
        let mut add = |header: &str| response["headers"][header] = json!({"$ref": format!("#/components/headers/{header}")});
        match &**status {
            "201" => ["Location", "ETag", "Idempotency-Replayed"].into_iter().for_each(add),
            "200" if lists => add("Link"),
            "200" if on_object => add("ETag"),
            _ => {}
        }
    }
    for refusal in refusals() {
        let applies = match refusal.status {
            "408" | "413" | "415" => has_body,
            "404" => path.contains('{'),
            "409" => {
                changes
                    && !matches!(
                        path.rsplit('/').next(),
                        Some("weight" | "quota" | "disabled" | "cache" | "capacity" | "group")
                    )
            }
            "412" => changes && on_object && !creates,
            "422" => changes || asks,
            _ => true,
        };
        if applies && operation["responses"].get(refusal.status).is_none() {
            operation["responses"][refusal.status] = json!({"$ref": format!("#/components/responses/{}", refusal.name)});
        }
    }
}

fn path_parameters(path: &str) -> Vec<Json> {
    let names = path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
    let parameter = |name: &str| match name {
        "id" => json!({"name": "id", "in": "path", "required": true, "description": "The object's id.",
            "schema": {"type": "string", "format": "uuid"}}),
        other => json!({"name": other, "in": "path", "required": true, "description": "The object's name.",
            "schema": {"type": "string", "minLength": 1, "maxLength": 128}}),
    };
    names.map(parameter).collect()
}

/// Whether a route tells what was used: as CSV, too, and without `limit` to the last row.
fn counts(path: &str) -> bool {
    path.contains("/usage") || path.ends_with("/costs")
}

fn paging(path: &str) -> [Json; 2] {
    let mut limit = json!({"type": "integer", "minimum": 1, "maximum": 1000});
    let audit = path.ends_with("/audit");
    if audit || path.ends_with("/usage/requests") {
        limit["default"] = json!(100);
    } else if !counts(path) {
        limit["default"] = json!(1000);
    }
    let cursor = if audit { "^(3[0-9]){1,18}$" } else { "^([0-9a-f]{2})+$" };
    [
        json!({"name": "limit", "in": "query", "description": "How many rows at most.", "schema": limit}),
        json!({"name": "cursor", "in": "query", "description": "Where to go on: taken from the `Link` header.",
            "schema": {"type": "string", "pattern": cursor}}),
    ]
}
