//! Sums by label, what is forgotten, and the bounds.

use super::*;
use crate::catalog::{
    Budget, CachePolicy, DEFAULT_GROUP, Engine, Group, LoadBalancing, McpServer, Model, ModelCapacity, ModelType, Prices, Protocol,
    Provenance, Supports, Tenant, TenantStatus, Timeouts, Tls,
};
use crate::id::{McpServerId, ModelId};
use crate::units::Weight;

fn tenant(name: &str, group: &str) -> Tenant {
    Tenant {
        id: TenantId::mint(),
        name: name.to_owned(),
        description: String::new(),
        group: group.into(),
        weight: Weight::default(),
        tokens_per_minute: 0,
        requests_per_minute: 0,
        max_in_flight: None,
        max_queued: None,
        status: TenantStatus::Active,
        allowed_models: None,
        budget: Budget::default(),
        metadata: std::collections::BTreeMap::new(),
        provenance: Provenance::default(),
    }
}

fn model() -> Model {
    Model {
        id: ModelId::mint(),
        name: "llama".to_owned(),
        aliases: Vec::new(),
        description: String::new(),
        upstream_model: "llama".to_owned(),
        endpoints: Vec::new(),
        single: false,
        engine: Engine::Vllm,
        protocol: Protocol::Openai,
        model_type: ModelType::Chat,
        prices: Prices::default(),
        context_window: 8192,
        admission_weight: 100,
        capacity: ModelCapacity::Uncapped,
        load_balancing: LoadBalancing::LeastRequest,
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

struct House {
    requests: Requests,
    catalog: Catalog,
}

impl House {
    fn new(tenant_label: TenantLabel, tenants_max: usize) -> Self {
        let mut catalog = Catalog::empty(1);
        catalog.put_group(Group::new("research"));
        catalog.put_model(model()).unwrap();
        let house = Self {
            requests: Requests::new(Settings { tenant_label, tenants_max }),
            catalog,
        };
        house.apply();
        house
    }

    fn apply(&self) {
        self.requests.apply(&Arc::new(self.catalog.clone()));
    }

    fn put(&mut self, tenant: Tenant) -> TenantId {
        let id = tenant.id;
        self.catalog.put_tenant(tenant).unwrap();
        self.apply();
        id
    }

    fn count(&self, tenant: TenantId) {
        self.requests.count(&request(tenant), std::iter::empty());
    }

    fn text(&self) -> String {
        let mut page = Page::default();
        self.requests.show(&mut page, &HashSet::from(["gpu:8000".to_owned()]));
        page.into_text()
    }

    #[track_caller]
    fn shows(&self, line: &str) {
        let text = self.text();
        assert!(text.lines().any(|shown| shown == line), "no {line} in\n{text}");
    }
}

fn request(tenant: TenantId) -> Request<'static> {
    Request {
        tenant,
        model: "llama",
        outcome: "ok",
        error_code: None,
        attempts: 2,
        tokens: [10, 4, 21, 0],
        cost: PicoUsd(2_500_000_000),
        queue_ms: 40,
        ttft_ms: Some(500),
        total_ms: 2_500,
        stream: true,
    }
}

#[test]
fn a_row_counts_in_each_of_its_series() {
    let mut house = House::new(TenantLabel::Name, 10);
    let acme = house.put(tenant("acme", DEFAULT_GROUP));
    house
        .requests
        .count(&request(acme), [("gone:8000", "connect_refused"), ("gpu:8000", "ok")].into_iter());
    let rejected = Request {
        outcome: "rejected",
        error_code: Some("queue_timeout"),
        attempts: 0,
        tokens: [0; 4],
        cost: PicoUsd(0),
        ttft_ms: None,
        ..request(acme)
    };
    house.requests.count(&rejected, std::iter::empty());
    for line in [
        "obleth_requests_total{tenant=\"acme\",model=\"llama\",outcome=\"ok\"} 1.0",
        "obleth_requests_total{tenant=\"acme\",model=\"llama\",outcome=\"rejected\"} 1.0",
        "obleth_tokens_total{tenant=\"acme\",model=\"llama\",type=\"cached_input\"} 4.0",
        "obleth_cost_usd_total{tenant=\"acme\",model=\"llama\"} 0.0025",
        "obleth_rejections_total{tenant=\"acme\",reason=\"queue_timeout\"} 1.0",
        "obleth_upstream_attempts_total{model=\"llama\",endpoint=\"gpu:8000\",result=\"ok\"} 1.0",
        "obleth_upstream_retries_total{model=\"llama\"} 1.0",
        "obleth_time_to_first_token_seconds_bucket{le=\"0.5\",model=\"llama\"} 1",
        "obleth_time_per_output_token_seconds_sum{model=\"llama\"} 0.1",
        "obleth_queue_wait_seconds_count{model=\"llama\",outcome=\"admitted\"} 1",
        "obleth_queue_wait_seconds_count{model=\"llama\",outcome=\"timeout\"} 1",
        "obleth_request_duration_seconds_bucket{le=\"2.5\",model=\"llama\",outcome=\"ok\"} 1",
    ] {
        house.shows(line);
    }
    assert!(!house.text().contains("type=\"reasoning\""), "what is zero has no series");
    assert!(!house.text().contains("gone:8000"), "an endpoint that is not there has no series");
}

#[test]
fn attempts_are_counted_by_endpoint_and_outcome_up_to_a_bound() {
    let mut house = House::new(TenantLabel::Name, 10);
    let acme = house.put(tenant("acme", DEFAULT_GROUP));
    for number in 0..ENDPOINTS_MAX + 5 {
        let endpoint = format!("gpu-{number}:1");
        house
            .requests
            .count(&request(acme), [(&*endpoint, "connect_timeout"), ("gpu-0:1", "ok")].into_iter());
    }
    // Those that are known go on being counted by themselves.
    house.requests.count(&request(acme), [("gpu-3:1", "connect_timeout")].into_iter());
    let mut page = Page::default();
    let all = (0..ENDPOINTS_MAX + 5).map(|number| format!("gpu-{number}:1")).collect();
    house.requests.show(&mut page, &all);
    let text = page.into_text();
    let of = |endpoint: &str, result: &str| {
        let series = format!("obleth_upstream_attempts_total{{model=\"llama\",endpoint=\"{endpoint}\",result=\"{result}\"}} ");
        let line = text.lines().find(|line| line.starts_with(&series));
        line.map(|line| line[series.len()..].to_owned())
    };
    assert_eq!(of("gpu-3:1", "connect_timeout").as_deref(), Some("2.0"));
    assert_eq!(of("gpu-0:1", "ok").as_deref(), Some(&*format!("{}.0", ENDPOINTS_MAX + 5)));
    assert_eq!(of("_other", "connect_timeout").as_deref(), Some("5.0"));
    assert_eq!(of(&format!("gpu-{}:1", ENDPOINTS_MAX + 1), "connect_timeout"), None);
}

#[test]
fn who_leaves_is_forgotten_and_a_new_name_goes_on_with_the_old_counts() {
    let mut house = House::new(TenantLabel::Name, 10);
    let (acme, other) = (tenant("acme", DEFAULT_GROUP), tenant("other", DEFAULT_GROUP));
    let (renamed, id) = (
        Tenant {
            name: "apex".to_owned(),
            ..acme.clone()
        },
        house.put(acme),
    );
    let other = house.put(other);
    house.count(id);
    house.count(other);
    house.put(renamed);
    house.shows("obleth_requests_total{tenant=\"apex\",model=\"llama\",outcome=\"ok\"} 1.0");
    assert!(!house.text().contains("acme"));
    house.catalog.remove_tenant(&id);
    house.apply();
    assert!(!house.text().contains("apex"), "{}", house.text());
    // Its last rows may still come.
    house.count(id);
    house.shows("obleth_requests_total{tenant=\"_other\",model=\"llama\",outcome=\"ok\"} 1.0");
    house.shows("obleth_requests_total{tenant=\"other\",model=\"llama\",outcome=\"ok\"} 1.0");
    let llama = house.catalog.model_named("llama").unwrap().id;
    house.catalog.remove_model(&llama);
    house.apply();
    assert!(!house.text().contains("llama"), "{}", house.text());
}

#[test]
fn tenants_beyond_the_bound_are_counted_together() {
    let mut house = House::new(TenantLabel::Name, 2);
    let tenants: Vec<_> = (0..5)
        .map(|number| house.put(tenant(&format!("t{number}"), DEFAULT_GROUP)))
        .collect();
    for tenant in &tenants {
        house.count(*tenant);
    }
    house.shows("obleth_requests_total{tenant=\"t1\",model=\"llama\",outcome=\"ok\"} 1.0");
    house.shows("obleth_requests_total{tenant=\"_other\",model=\"llama\",outcome=\"ok\"} 3.0");
    assert_eq!(house.requests.tenant_label(&tenants[4]), "_other");
    // A place that becomes free goes to the next who comes.
    house.catalog.remove_tenant(&tenants[0]);
    house.apply();
    assert_eq!(house.requests.tenant_label(&tenants[4]), "t4");
}

#[test]
fn tenants_can_be_called_by_their_group_or_not_at_all() {
    let mut house = House::new(TenantLabel::Group, 10);
    let (a, b) = (house.put(tenant("a", "research")), house.put(tenant("b", "research")));
    house.count(a);
    house.count(b);
    house.shows("obleth_requests_total{tenant=\"research\",model=\"llama\",outcome=\"ok\"} 2.0");
    let mut house = House::new(TenantLabel::Off, 10);
    let a = house.put(tenant("a", "research"));
    house.count(a);
    house.shows("obleth_requests_total{tenant=\"\",model=\"llama\",outcome=\"ok\"} 1.0");
}

#[test]
fn names_that_are_not_registered_make_no_series() {
    let mut house = House::new(TenantLabel::Name, 10);
    let acme = house.put(tenant("acme", DEFAULT_GROUP));
    for number in 0..100 {
        let guess = Request {
            model: &format!("guess-{number}"),
            ..request(acme)
        };
        house.requests.count(&guess, [(&*format!("gone-{number}:1"), "ok")].into_iter());
    }
    house.shows("obleth_requests_total{tenant=\"acme\",model=\"_other\",outcome=\"ok\"} 100.0");
    let text = house.text();
    assert!(!text.contains("guess") && !text.contains("gone"), "{text}");
}

#[test]
fn a_servers_tools_have_series_as_models_have_and_lose_them_with_it() {
    let mut house = House::new(TenantLabel::Name, 10);
    let acme = house.put(tenant("acme", DEFAULT_GROUP));
    let server = McpServer {
        id: McpServerId::mint(),
        name: "files".to_owned(),
        upstream_url: "http://127.0.0.1:7000/mcp".parse().unwrap(),
        auth_header: None,
        auth_header_name: "Authorization".to_owned(),
        enabled: true,
        allowed_tools: None,
        denied_tools: Vec::new(),
        allowed_tenants: None,
        allowed_origins: Vec::new(),
        idle_timeout_secs: 300,
        max_in_flight: None,
        provenance: Provenance::default(),
    };
    let id = server.id;
    house.catalog.put_mcp_server(server).unwrap();
    house.apply();
    for model in ["mcp:files", "mcp:files/read", "mcp:other/read"] {
        let to = Request { model, ..request(acme) };
        house.requests.count(&to, [("gpu:8000", "ok")].into_iter());
    }
    for model in ["mcp:files", "mcp:files/read", "_other"] {
        house.shows(&format!(
            "obleth_requests_total{{tenant=\"acme\",model=\"{model}\",outcome=\"ok\"}} 1.0"
        ));
    }
    house.shows("obleth_upstream_attempts_total{model=\"mcp:files\",endpoint=\"gpu:8000\",result=\"ok\"} 2.0");
    house.catalog.remove_mcp_server(&id);
    house.apply();
    assert!(!house.text().contains("mcp:files"));
}
