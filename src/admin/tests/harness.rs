//! A management API to talk to.

use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tower::ServiceExt;

use crate::admin::{
    AdminToken, CacheSize, ConfigChange, ConfigFault, ConfigOutcome, ConfigStatus, Configuration, Doors, Readiness, ReloadError, router,
};
use crate::admission::{self, Admission};
use crate::catalog::{Catalog, Live};
use crate::credential::KeyHasher;
use crate::egress;
use crate::limits::Failures;
use crate::store::{AuditQuery, AuditRow, Options, Store};
use crate::units::UnixMs;
use crate::upstreams::{self, Upstreams};

pub(in crate::admin) const TOKEN: &str = "a-token-of-the-tests-0123456789abcdef";

/// One gateway without a data plane.
pub(in crate::admin) struct House {
    pub(in crate::admin) router: Router,
    pub(in crate::admin) store: Arc<Store>,
    pub(in crate::admin) live: Arc<Live>,
    pub(in crate::admin) readiness: Readiness,
    _folder: TempDir,
}

/// A configuration that says what it was told to.
pub(in crate::admin) struct Stated(pub(in crate::admin) Result<ConfigStatus, ReloadError>);

#[async_trait]
impl Configuration for Stated {
    fn status(&self) -> ConfigStatus {
        self.0.clone().unwrap_or_default()
    }

    async fn reload(&self, actor: String, request_id: String) -> Result<ConfigStatus, ReloadError> {
        assert!(!actor.is_empty() && !request_id.is_empty());
        self.0.clone()
    }

    fn export(&self) -> String {
        "{}\n".to_owned()
    }
}

/// A status with something of everything.
fn status() -> ConfigStatus {
    ConfigStatus {
        path: Some("obleth.yaml".to_owned()),
        digest: Some("00".repeat(32)),
        attempted_at: Some(UnixMs(1_000)),
        applied_at: Some(UnixMs(0)),
        outcome: ConfigOutcome::Refused,
        errors: vec![ConfigFault {
            place: "obleth.yaml:2:3".to_owned(),
            path: "groups[0].name".to_owned(),
            message: "is required".to_owned(),
        }],
        restart_required: vec!["server.listen".to_owned()],
        notices: vec!["nothing".to_owned()],
        changes: vec![ConfigChange {
            action: "set_capacity",
            entity_type: "capacity",
            entity_id: "max_in_flight".to_owned(),
            name: "of this process".to_owned(),
            summary: "~ capacity".to_owned(),
        }],
    }
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub(in crate::admin) struct Answer {
    pub(in crate::admin) status: StatusCode,
    pub(in crate::admin) headers: HeaderMap,
    pub(in crate::admin) text: String,
}

impl Answer {
    /// The body as JSON.
    #[track_caller]
    pub(in crate::admin) fn json(&self) -> Json {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Fails unless the status is this.
    #[track_caller]
    pub(in crate::admin) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{self:#?}");
        self
    }

    /// Fails unless it is a complete problem of this status and code; returns the paths of its errors.
    #[track_caller]
    pub(in crate::admin) fn problem(&self, status: u16, code: &str) -> Vec<String> {
        let body = self.json();
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:#?}");
        assert_eq!(
            (self.status.as_u16(), &body["status"], &body["code"]),
            (status, &json!(status), &json!(code)),
            "{self:#?}"
        );
        assert_eq!(body["type"], json!(format!("urn:obleth:problem:{code}")));
        assert_eq!(body["request_id"], json!(self.header("x-request-id")));
        assert!(body["title"].is_string() && body["detail"].is_string(), "{body}");
        let path = |error: &Json| {
            assert!(error["message"].is_string(), "{body}");
            error["path"].as_str().unwrap().to_owned()
        };
        body["errors"].as_array().unwrap().iter().map(path).collect()
    }

    /// A header that must be there.
    #[track_caller]
    pub(in crate::admin) fn header(&self, name: &str) -> String {
        let value = self.headers.get(name).unwrap_or_else(|| panic!("no {name}: {self:#?}"));
        value.to_str().unwrap().to_owned()
    }

    /// The `id` in the body.
    #[track_caller]
    pub(in crate::admin) fn id(&self) -> String {
        self.json()["id"].as_str().unwrap().to_owned()
    }
}

impl House {
    pub(in crate::admin) fn new() -> Self {
        Self::with(|_| {})
    }

    /// A house that differs from the usual one.
    pub(in crate::admin) fn with(change: impl FnOnce(&mut Doors)) -> Self {
        let folder = TempDir::new().unwrap();
        let mut options = Options::new(folder.path().join("obleth.db"));
        options.sealing_key = Some([7; 32]);
        options.resolve = Arc::new(|reference| (reference == "env:UPSTREAM_KEY").then(|| "resolved-secret".into()));
        let (store, catalog) = Store::open(options).unwrap();
        let admission = Admission::new(admission::Settings::default());
        let upstreams = Upstreams::new(upstreams::Settings::default());
        let mut live = Live::new(Arc::new(catalog));
        let (for_admission, for_upstreams) = (Arc::clone(&admission), Arc::clone(&upstreams));
        live.subscribe(move |catalog: &Arc<Catalog>| for_admission.apply(catalog));
        live.subscribe(move |catalog: &Arc<Catalog>| for_upstreams.apply(catalog));
        let live = Arc::new(live);
        store.follow(Arc::clone(&live));
        let readiness = Readiness::default();
        readiness.set(true);
        let mut doors = Doors {
            store,
            live,
            admission,
            upstreams,
            token: AdminToken::new(TOKEN).unwrap(),
            failures: Arc::new(Failures::new("management")),
            hasher: KeyHasher::new(None),
            egress: egress::Policy::Lan,
            own_listeners: vec!["127.0.0.1:8080".parse().unwrap(), "127.0.0.1:9090".parse().unwrap()],
            seals: true,
            listen: Some("127.0.0.1:9090".parse().unwrap()),
            hosts: vec!["gateway.internal".to_owned()],
            readiness,
            last_used: Arc::new(|_| None),
            cache_size: Arc::new(|| CacheSize { entries: 3, bytes: 77 }),
            purge_cache: Arc::new(|_| {}),
            metrics: Arc::new(|| "# EOF\n".to_owned()),
            metrics_open: false,
            configuration: Arc::new(Stated(Ok(status()))),
        };
        change(&mut doors);
        Self {
            store: Arc::clone(&doors.store),
            live: Arc::clone(&doors.live),
            readiness: doors.readiness.clone(),
            router: router(doors),
            _folder: folder,
        }
    }

    /// Sends a request as it is.
    pub(in crate::admin) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8(bytes.to_vec()).unwrap(),
        }
    }

    /// Sends a request with the token, further headers, and a body if there is one.
    pub(in crate::admin) async fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&str>) -> Answer {
        let mut request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(path)
            .header("host", "localhost:9090")
            .header("authorization", format!("Bearer {TOKEN}"));
        for (name, value) in headers {
            request = request.header(*name, value.as_bytes());
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_owned()));
        self.send(request.body(body).unwrap()).await
    }

    pub(in crate::admin) async fn get(&self, path: &str) -> Answer {
        self.call("GET", &format!("/api/v1{path}"), &[], None).await
    }

    pub(in crate::admin) async fn post(&self, path: &str, body: Json) -> Answer {
        self.call("POST", &format!("/api/v1{path}"), &[], Some(&body.to_string())).await
    }

    pub(in crate::admin) async fn put(&self, path: &str, body: Json) -> Answer {
        self.call("PUT", &format!("/api/v1{path}"), &[], Some(&body.to_string())).await
    }

    pub(in crate::admin) async fn patch(&self, path: &str, body: Json) -> Answer {
        self.call("PATCH", &format!("/api/v1{path}"), &[], Some(&body.to_string())).await
    }

    pub(in crate::admin) async fn delete(&self, path: &str) -> Answer {
        self.call("DELETE", &format!("/api/v1{path}"), &[], None).await
    }

    /// Makes a tenant and returns its id.
    pub(in crate::admin) async fn tenant(&self, name: &str) -> String {
        self.post("/tenants", json!({"name": name})).await.expect(201).id()
    }

    /// The audit log, newest first.
    pub(in crate::admin) async fn audit(&self) -> Vec<AuditRow> {
        let all = AuditQuery {
            limit: 1000,
            ..AuditQuery::default()
        };
        self.store.audit(all).await.unwrap()
    }
}
