//! Active checks, scrapes and ejections against real sockets: what the background work makes of them.

use crate::catalog::Engine;

use super::server::Server;
use super::*;

/// Everything twenty times as often as in production.
fn hurried() -> Settings {
    let mut settings = Settings::default();
    settings.probe.interval = Duration::from_millis(20);
    settings.probe.interval_down = Duration::from_millis(20);
    settings.probe.timeout = Duration::from_millis(200);
    settings.scrape.interval = Duration::from_millis(20);
    settings
}

fn at(server: &Server, engine: Engine) -> Model {
    let mut model = model(vec![endpoint(&format!("http://{}", server.addr))]);
    model.engine = engine;
    model
}

fn started(model: &Model) -> Arc<Upstreams> {
    let upstreams = Upstreams::new(hurried());
    upstreams.apply(&catalog([model.clone()]));
    upstreams.start().unwrap();
    upstreams
}

fn state(upstreams: &Upstreams, model: &Model) -> HealthState {
    upstreams.health(&model.id)[0].state
}

#[tokio::test]
async fn a_server_that_goes_is_found_out_and_found_again() {
    let server = Server::start().await;
    server.answer("/health", 200, "");
    let model = at(&server, Engine::Vllm);
    let upstreams = started(&model);
    eventually("up", || state(&upstreams, &model) == HealthState::Healthy).await;
    let addr = server.stop().await;
    eventually("down", || state(&upstreams, &model) == HealthState::Unhealthy).await;
    let refused = upstreams.choose(&model.id, &Hint::default(), &[]).unwrap_err();
    assert_eq!(
        refused,
        Unavailable::AllDown {
            last_error: "connection refused".into()
        }
    );
    assert_eq!(refused.to_string(), "all endpoints are down: connection refused");
    let server = Server::at(addr).await;
    server.answer("/health", 200, "");
    eventually("up again", || state(&upstreams, &model) == HealthState::Healthy).await;
    assert!(upstreams.choose(&model.id, &Hint::default(), &[]).is_ok());
}

#[tokio::test]
async fn a_model_that_is_loading_is_down_and_the_reason_is_shown() {
    let server = Server::start().await;
    server.answer("/health", 503, r#"{"error":{"message":"Loading model"}}"#);
    let model = at(&server, Engine::LlamaCpp);
    let upstreams = started(&model);
    eventually("down", || state(&upstreams, &model) == HealthState::Unhealthy).await;
    assert_eq!(upstreams.health(&model.id)[0].last_error.as_deref(), Some("loading the model"));
    server.answer("/health", 200, "");
    eventually("loaded", || state(&upstreams, &model) == HealthState::Healthy).await;
}

#[tokio::test]
async fn each_engine_is_asked_below_its_base_path_and_with_its_credential() {
    for (engine, path) in [
        (Engine::Ollama, "/base/api/version"),
        (Engine::Other, "/base/v1/models"),
        (Engine::Sglang, "/base/health"),
    ] {
        let server = Server::start().await;
        let mut model = at(&server, engine);
        model.endpoints[0].url = format!("http://{}/base/v1", server.addr).parse().unwrap();
        model.endpoints[0].credential = Some(catalog::Credential {
            reference: None,
            secret: Some("s3cret".into()),
        });
        let _upstreams = started(&model);
        eventually(path, || {
            server
                .heads()
                .iter()
                .any(|head| head.starts_with(&format!("GET {path} HTTP/1.1\r\n")))
        })
        .await;
        assert!(
            server
                .heads()
                .iter()
                .all(|head| head.to_ascii_lowercase().contains("authorization: bearer s3cret\r\n"))
        );
    }
}

#[tokio::test]
async fn a_server_too_busy_for_its_health_route_is_not_taken_out_while_it_answers_requests() {
    let server = Server::start().await;
    server.answer("/health", 200, "");
    let model = at(&server, Engine::Vllm);
    let upstreams = started(&model);
    eventually("up", || state(&upstreams, &model) == HealthState::Healthy).await;
    server.answer("/health", 0, "");
    let asked = server.heads().len();
    let head = Outcome::HeadReceived {
        status: 200,
        latency: Duration::from_millis(5),
    };
    eventually("eight late checks", || {
        upstreams.choose(&model.id, &Hint::default(), &[]).unwrap().outcome(head);
        server
            .heads()
            .iter()
            .skip(asked)
            .filter(|head| head.starts_with("GET /health"))
            .count()
            >= 8
    })
    .await;
    assert_eq!(state(&upstreams, &model), HealthState::Healthy);
    eventually("down without answers", || state(&upstreams, &model) == HealthState::Unhealthy).await;
    assert_eq!(upstreams.health(&model.id)[0].last_error.as_deref(), Some("health check timed out"));
}

#[tokio::test]
async fn scraped_load_is_shown_and_steers_the_choice_and_goes_stale() {
    let (busy, idle) = (Server::start().await, Server::start().await);
    for (server, running) in [(&busy, 40), (&idle, 0)] {
        server.answer("/health", 200, "");
        server.answer(
            "/metrics",
            200,
            &format!("vllm:num_requests_running {running}\nvllm:num_requests_waiting 0\n"),
        );
    }
    let mut model = at(&busy, Engine::Vllm);
    model.endpoints.push(endpoint(&format!("http://{}", idle.addr)));
    let upstreams = Upstreams::new(Settings {
        scrape: Scrape {
            stale_after: Duration::from_millis(300),
            ..hurried().scrape
        },
        ..hurried()
    });
    upstreams.apply(&catalog([model.clone()]));
    upstreams.start().unwrap();
    let signals = |index: usize| {
        upstreams.health(&model.id)[index]
            .addresses
            .first()
            .and_then(|address| address.signals)
    };
    eventually("scraped", || signals(0).is_some() && signals(1).is_some()).await;
    assert_eq!(signals(0).unwrap().0.running, Some(40.0));
    for _ in 0..50 {
        assert_eq!(upstreams.choose(&model.id, &Hint::default(), &[]).unwrap().addr(), idle.addr);
    }
    busy.answer("/metrics", 500, "");
    eventually("stale", || signals(0).is_none()).await;
    let chosen: BTreeSet<_> = (0..50)
        .map(|_| upstreams.choose(&model.id, &Hint::default(), &[]).unwrap().addr())
        .collect();
    assert_eq!(chosen.len(), 2, "own counts have to do");
}

#[tokio::test]
async fn an_mcp_server_is_only_connected_to() {
    let server = Server::start().await;
    let mcp = McpServer {
        id: McpServerId::mint(),
        name: "files".to_owned(),
        upstream_url: format!("http://{}/mcp", server.addr).parse().unwrap(),
        auth_header: None,
        auth_header_name: "Authorization".to_owned(),
        enabled: true,
        allowed_tools: None,
        denied_tools: Vec::new(),
        allowed_tenants: None,
        allowed_origins: Vec::new(),
        idle_timeout_secs: 300,
        max_in_flight: None,
        provenance: catalog::Provenance::default(),
    };
    let mut catalog = catalog([]);
    catalog.put_mcp_server(mcp.clone()).unwrap();
    let upstreams = Upstreams::new(hurried());
    upstreams.apply(&catalog);
    upstreams.start().unwrap();
    eventually("up", || upstreams.health(&mcp.id)[0].state == HealthState::Healthy).await;
    assert!(server.heads().is_empty(), "nothing was sent");
    assert_eq!(upstreams.choose(&mcp.id, &Hint::default(), &[]).unwrap().path_for(""), "/mcp");
}

#[test]
fn requests_that_keep_failing_eject_an_address_for_a_while_and_it_returns_slowly() {
    let model = model((1..=4).map(|host| endpoint(&format!("http://10.0.0.{host}:8000"))).collect());
    let upstreams = with(&model);
    let bad: SocketAddr = "10.0.0.1:8000".parse().unwrap();
    let health = || upstreams.health(&model.id)[0].addresses[0].clone();
    let mut failures = 0;
    while health().state != HealthState::Unhealthy {
        let chosen = upstreams.choose(&model.id, &Hint::default(), &[]).unwrap();
        if chosen.addr() == bad {
            failures += 1;
            chosen.outcome(Outcome::ConnectFailed(ConnectFailure::Refused));
            chosen.outcome(Outcome::DiedMidway);
        } else {
            chosen.outcome(Outcome::Done {
                latency: Duration::from_millis(5),
                output_tokens: Some(10),
            });
        }
    }
    assert_eq!(failures, 3, "connects count twice, an attempt once");
    assert_eq!(health().last_error.as_deref(), Some("connection refused"));
    for _ in 0..100 {
        assert_ne!(upstreams.choose(&model.id, &Hint::default(), &[]).unwrap().addr(), bad);
    }
    upstreams.tick(Instant::now() + Duration::from_secs(6));
    let back = health();
    assert_eq!((back.state, back.weight_permille), (HealthState::Healthy, 100));
}

#[test]
fn a_server_that_sends_heads_and_then_dies_is_found_out() {
    let model = model((1..=2).map(|host| endpoint(&format!("http://10.0.0.{host}:8000"))).collect());
    let upstreams = with(&model);
    let bad: SocketAddr = "10.0.0.1:8000".parse().unwrap();
    let mut failures = 0;
    while upstreams.health(&model.id)[0].state != HealthState::Unhealthy {
        let chosen = upstreams.choose(&model.id, &Hint::default(), &[]).unwrap();
        chosen.outcome(Outcome::HeadReceived {
            status: 200,
            latency: Duration::from_millis(5),
        });
        if chosen.addr() == bad {
            failures += 1;
            chosen.outcome(Outcome::DiedMidway);
        }
    }
    assert_eq!(failures, 5);
}

#[test]
fn the_only_endpoint_is_never_ejected_and_overload_is_no_failure() {
    let model = model(vec![endpoint("http://10.0.0.1:8000")]);
    let upstreams = with(&model);
    for status in [500, 502, 429] {
        for _ in 0..50 {
            let chosen = upstreams.choose(&model.id, &Hint::default(), &[]).unwrap();
            chosen.outcome(Outcome::HeadReceived {
                status,
                latency: Duration::from_millis(5),
            });
        }
    }
    assert_ne!(state(&upstreams, &model), HealthState::Unhealthy);
}

#[test]
fn an_address_five_times_slower_than_its_peers_is_avoided_and_forgiven() {
    let model = model((1..=4).map(|host| endpoint(&format!("http://10.0.0.{host}:8000"))).collect());
    let upstreams = with(&model);
    let slow: SocketAddr = "10.0.0.1:8000".parse().unwrap();
    let share = |slowness: u32| {
        let mut there = 0;
        for _ in 0..2_000 {
            let chosen = upstreams.choose(&model.id, &Hint::default(), &[]).unwrap();
            let factor = if chosen.addr() == slow { slowness } else { 1 };
            there += u32::from(chosen.addr() == slow);
            chosen.outcome(Outcome::HeadReceived {
                status: 200,
                latency: Duration::from_millis(20) * factor,
            });
            chosen.outcome(Outcome::Done {
                latency: Duration::from_millis(400) * factor,
                output_tokens: Some(50),
            });
        }
        upstreams.tick(Instant::now());
        f64::from(there) / 2_000.0
    };
    share(5);
    assert!(share(5) < 0.05, "nearly left alone");
    for _ in 0..8 {
        share(1);
    }
    assert!(share(1) > 0.2, "forgiven");
}
