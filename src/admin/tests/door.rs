//! Who comes in, and what every answer has.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Version};
use axum::routing::{get, post};
use axum::{Router, middleware};
use serde_json::json;
use tower::ServiceExt;

use super::harness::{House, TOKEN};
use crate::admin::auth::Peer;
use crate::admin::envelope;
use crate::admin::problem::Problem;
use crate::admin::sent::Sent;

fn bare(path: &str) -> axum::http::request::Builder {
    Request::builder().uri(path).header("host", "127.0.0.1:9090")
}

#[tokio::test]
async fn only_the_bearer_of_the_token_comes_in() {
    let house = House::new();
    for scheme in ["Bearer", "bearer", "BEARER", "Bearer "] {
        let request = bare("/api/v1/health").header("authorization", format!("{scheme} {TOKEN}"));
        house.send(request.body(Body::empty()).unwrap()).await.expect(200);
    }
    let longer = format!("Bearer {TOKEN}x");
    let cut = format!("Bearer {}", &TOKEN[..TOKEN.len() - 1]);
    let basic = format!("Basic {TOKEN}");
    let glued = format!("Bearer{TOKEN}");
    for wrong in [
        "",
        "Bearer",
        "Bearer ",
        "Bearer x",
        &longer,
        &cut,
        &basic,
        &glued,
        TOKEN,
        "Bearer \u{e4}",
    ] {
        let request = bare("/api/v1/health").header("authorization", wrong.as_bytes());
        let answer = house.send(request.body(Body::empty()).unwrap()).await;
        answer.problem(401, "unauthorized");
        assert_eq!(answer.header("www-authenticate"), "Bearer", "{wrong}");
    }
    house
        .send(bare("/api/v1/health").body(Body::empty()).unwrap())
        .await
        .problem(401, "unauthorized");
    let twice = bare("/api/v1/health")
        .header("authorization", format!("Bearer {TOKEN}"))
        .header("authorization", "Bearer x");
    house.send(twice.body(Body::empty()).unwrap()).await.problem(401, "unauthorized");
    // In a query string it would end in logs; there it is nothing.
    let query = bare(&format!("/api/v1/health?access_token={TOKEN}"));
    house.send(query.body(Body::empty()).unwrap()).await.problem(401, "unauthorized");
    // Also where there is nothing to see.
    house
        .send(bare("/api/v1/nothing").body(Body::empty()).unwrap())
        .await
        .problem(401, "unauthorized");
}

#[tokio::test]
async fn guessers_are_damped_and_the_right_token_never() {
    let house = House::new();
    let send = |token: &str, peer: &str| {
        let mut request = bare("/api/v1/health")
            .header("authorization", format!("Bearer {token}"))
            .body(Body::empty())
            .unwrap();
        request.extensions_mut().insert(Peer(peer.parse().unwrap()));
        house.send(request)
    };
    let mut statuses = Vec::new();
    for _ in 0..1100 {
        statuses.push(send("guess", "192.0.2.1:1000").await.status.as_u16());
    }
    assert_eq!((statuses[0], *statuses.last().unwrap()), (401, 429));
    let damped = send("guess", "192.0.2.1:1001").await;
    damped.problem(429, "too_many_failures");
    assert_eq!(damped.header("retry-after"), "10");
    send(TOKEN, "192.0.2.1:1002").await.expect(200);
    send("guess", "192.0.2.2:1000").await.problem(401, "unauthorized");
}

#[tokio::test]
async fn requests_meant_for_another_name_are_refused() {
    let house = House::new();
    let send = |host: &str, origin: Option<&str>| {
        let mut request = Request::builder()
            .uri("/api/v1/health")
            .header("host", host)
            .header("authorization", format!("Bearer {TOKEN}"));
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        house.send(request.body(Body::empty()).unwrap())
    };
    for host in [
        "localhost",
        "LOCALHOST:9090",
        "127.0.0.1:9090",
        "127.9.9.9",
        "[::1]:9090",
        "app.localhost",
        "gateway.internal:9090",
        "localhost.",
    ] {
        send(host, None).await.expect(200);
        send("localhost", Some(&format!("http://{host}"))).await.expect(200);
    }
    for host in [
        "evil.example",
        "evil.example:9090",
        "192.168.1.1:9090",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "",
        "a b",
        "[::2]",
    ] {
        send(host, None).await.problem(403, "forbidden_host");
    }
    for origin in ["https://evil.example", "null", "file://", "http://192.168.1.1"] {
        send("localhost", Some(origin)).await.problem(403, "forbidden_host");
    }
    // The check is on every route of the port.
    for path in ["/livez", "/readyz", "/docs/", "/nothing"] {
        let request = Request::builder().uri(path).header("host", "evil.example");
        house
            .send(request.body(Body::empty()).unwrap())
            .await
            .problem(403, "forbidden_host");
    }
    let no_host = || Request::builder().uri("/livez");
    house.send(no_host().body(Body::empty()).unwrap()).await.problem(400, "bad_request");
    house
        .send(no_host().version(Version::HTTP_10).body(Body::empty()).unwrap())
        .await
        .expect(200);
}

#[tokio::test]
async fn on_every_interface_addresses_pass_and_names_do_not() {
    let house = House::with(|doors| doors.listen = Some("0.0.0.0:9090".parse().unwrap()));
    let send = |host: &str| house.send(Request::builder().uri("/livez").header("host", host).body(Body::empty()).unwrap());
    send("192.168.1.1:9090").await.expect(200);
    send("[2001:db8::1]:9090").await.expect(200);
    send("evil.example").await.problem(403, "forbidden_host");
}

#[tokio::test]
async fn every_answer_has_an_id_and_stays_out_of_caches() {
    let house = House::new();
    for (path, token) in [
        ("/api/v1/health", true),
        ("/api/v1/health", false),
        ("/livez", false),
        ("/nothing", false),
    ] {
        let mut request = bare(path).header("x-request-id", "req.1_2-3");
        if token {
            request = request.header("authorization", format!("Bearer {TOKEN}"));
        }
        let answer = house.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(
            (answer.header("x-request-id"), answer.header("cache-control")),
            ("req.1_2-3".to_owned(), "no-store".to_owned())
        );
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert!(
            !answer.headers.keys().any(|name| name.as_str().starts_with("access-control")),
            "{answer:?}"
        );
    }
    for odd in ["", "a b", "x\u{e4}", &"x".repeat(129)] {
        let request = bare("/livez").header("x-request-id", odd.as_bytes());
        let id = house.send(request.body(Body::empty()).unwrap()).await.header("x-request-id");
        assert_eq!(id.len(), 36, "{odd}: a UUID of ours");
    }
}

#[tokio::test]
async fn figures_are_for_this_machine_and_for_the_bearer_of_the_token() {
    let house = House::new();
    let ask = |peer: Option<&str>, token: Option<&str>| {
        let mut request = bare("/metrics");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let mut request = request.body(Body::empty()).unwrap();
        if let Some(peer) = peer {
            request.extensions_mut().insert(Peer(peer.parse().unwrap()));
        }
        request
    };
    for local in ["127.0.0.1:1000", "[::1]:1000", "[::ffff:127.0.0.1]:1000"] {
        assert_eq!(house.send(ask(Some(local), None)).await.expect(200).text, "# EOF\n");
    }
    for far in [Some("192.0.2.1:1000"), None] {
        house.send(ask(far, None)).await.problem(401, "unauthorized");
        house.send(ask(far, Some("guess"))).await.problem(401, "unauthorized");
        house.send(ask(far, Some(TOKEN))).await.expect(200);
    }
    let open = House::with(|doors| doors.metrics_open = true);
    open.send(ask(Some("192.0.2.1:1000"), None)).await.expect(200);
}

#[tokio::test]
async fn the_probes_need_no_token() {
    let house = House::new();
    let probe = async |path: &str| house.send(bare(path).body(Body::empty()).unwrap()).await;
    assert_eq!(probe("/livez").await.expect(200).json(), json!({"status": "ok"}));
    assert_eq!(probe("/readyz").await.expect(200).json(), json!({"status": "ok"}));
    let checks = |data_plane: bool| json!([{"name": "data_plane", "ok": data_plane}, {"name": "store", "ok": true}]);
    assert_eq!(probe("/readyz?verbose").await.expect(200).json()["checks"], checks(true));
    house.readiness.set(false);
    let drained = probe("/readyz").await.expect(503).json();
    assert_eq!(
        (&drained["status"], drained["reasons"].as_array().unwrap().len()),
        (&json!("not ready"), 1)
    );
    let verbose = probe("/readyz?verbose=1").await.expect(503).json();
    assert_eq!(
        (&verbose["reasons"], &verbose["checks"]),
        (&json!(["starting or shutting down"]), &checks(false))
    );
    probe("/livez").await.expect(200);
    assert_eq!(house.get("/health").await.expect(200).json(), json!({"status": "ok"}));
}

#[tokio::test]
async fn unknown_routes_and_methods_are_problems() {
    let house = House::new();
    house.get("/nothing").await.problem(404, "not_found");
    house.call("GET", "/", &[], None).await.problem(404, "not_found");
    house.call("GET", "/api/v1", &[], None).await.problem(404, "not_found");
    house.call("GET", "/api/v1/tenants/", &[], None).await.problem(404, "not_found");
    let answer = house.call("PATCH", "/api/v1/tenants", &[], Some("{}")).await;
    answer.problem(405, "method_not_allowed");
    let mut allowed: Vec<String> = answer.header("allow").split(',').map(|method| method.trim().to_owned()).collect();
    allowed.sort();
    assert_eq!(allowed, ["GET", "HEAD", "POST"]);
    for odd in ["TRACE", "CONNECT", "BREW", "OPTIONS"] {
        house
            .call(odd, "/api/v1/tenants", &[], None)
            .await
            .problem(405, "method_not_allowed");
    }
    house.call("POST", "/livez", &[], None).await.problem(405, "method_not_allowed");
    for id in ["x", "%FF", "01890000-0000-7000-8000-000000000000", "..%2f"] {
        house.get(&format!("/tenants/{id}")).await.problem(404, "not_found");
    }
}

#[tokio::test]
async fn bodies_are_json_whatever_the_content_type_says() {
    let house = House::new();
    let send = |kind: Option<&'static str>, body: &'static str| {
        let headers: Vec<(&str, &str)> = kind.map(|kind| ("content-type", kind)).into_iter().collect();
        let house = &house;
        async move { house.call("POST", "/api/v1/tenants", &headers, Some(body)).await }
    };
    send(None, r#"{"name":"a"}"#).await.expect(201);
    send(Some("application/x-www-form-urlencoded"), r#"{"name":"b"}"#).await.expect(201);
    send(Some("text/plain"), " \n{\"name\":\"c\"}\n").await.expect(201);
    for broken in [
        "",
        "{",
        "{\"name\":}",
        "name=acme",
        "{'name':'x'}",
        "{\"name\":\"a\"} x",
        "\u{feff}{}",
        "{\"name\":NaN}",
    ] {
        send(Some("application/json"), broken).await.problem(400, "invalid_json");
    }
    // Nobody follows a nest to its bottom.
    let deep = format!("{{\"name\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(
        house
            .call("POST", "/api/v1/tenants", &[], Some(&deep))
            .await
            .problem(422, "invalid"),
        ["name"]
    );
    let deep = format!(
        "{{\"name\":\"x\",\"allowed_models\":{}{}}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    assert_eq!(
        house
            .call("POST", "/api/v1/tenants", &[], Some(&deep))
            .await
            .problem(422, "invalid"),
        ["allowed_models[0]"]
    );
    for other in ["[]", "null", "\"x\"", "7"] {
        assert_eq!(send(None, other).await.problem(422, "invalid"), [""], "{other}");
    }
    assert_eq!(send(None, "{\"name\":\"\\ud800\"}").await.problem(422, "invalid"), ["name"]);
    let coded = house
        .call("POST", "/api/v1/tenants", &[("content-encoding", "gzip")], Some("x"))
        .await;
    coded.problem(415, "unsupported_encoding");
}

#[tokio::test]
async fn bodies_over_a_mebibyte_are_refused_and_those_of_one_are_not() {
    let house = House::new();
    let body = |bytes: usize| {
        let frame = r#"{"name":"acme","descriptoin":""}"#;
        frame.replace(r#""""#, &format!("\"{}\"", "x".repeat(bytes - frame.len())))
    };
    // Read, and refused for what is in it.
    assert_eq!(
        house
            .call("POST", "/api/v1/tenants", &[], Some(&body(1024 * 1024)))
            .await
            .problem(422, "invalid"),
        ["descriptoin"]
    );
    house
        .call("POST", "/api/v1/tenants", &[], Some(&body(1024 * 1024 + 1)))
        .await
        .problem(413, "body_too_large");
    house
        .call("POST", "/api/v1/tenants", &[], Some(&body(8 * 1024 * 1024)))
        .await
        .problem(413, "body_too_large");
}

#[tokio::test]
async fn a_panic_is_answered_without_its_words() {
    async fn boom() -> &'static str {
        panic!("secret inside")
    }
    let router = Router::new().route("/boom", get(boom)).layer(middleware::from_fn(envelope::wrap));
    let response = router.oneshot(bare("/boom").body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 500);
    let body = axum::body::to_bytes(response.into_body(), 4096).await.unwrap();
    let body = String::from_utf8(body.to_vec()).unwrap();
    assert!(body.contains("\"code\":\"internal\"") && !body.contains("secret"), "{body}");
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_hangs_and_a_body_that_stays_away_are_answered() {
    async fn read(State(()): State<()>, _sent: Sent) -> Result<(), Problem> {
        Ok(())
    }
    let hang = || async {
        tokio::time::sleep(Duration::from_secs(3600)).await;
    };
    let router = Router::new().route("/hang", get(hang)).route("/read", post(read)).with_state(());
    let router = router.layer(middleware::from_fn(envelope::wrap));
    let hung = router.clone().oneshot(bare("/hang").body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(
        (hung.status().as_u16(), hung.headers()["retry-after"].to_str().unwrap()),
        (503, "1")
    );
    let stays_away = Body::from_stream(futures_util::stream::pending::<Result<&[u8], std::io::Error>>());
    let waited = router
        .oneshot(bare("/read").method("POST").body(stays_away).unwrap())
        .await
        .unwrap();
    assert_eq!(
        (waited.status().as_u16(), waited.headers()["connection"].to_str().unwrap()),
        (408, "close")
    );
}

#[tokio::test]
async fn the_author_of_a_change_can_be_named() {
    let house = House::new();
    let send = |actor: &'static str, name: &'static str| {
        let house = &house;
        let body = json!({"name": name}).to_string();
        async move {
            house
                .call("POST", "/api/v1/tenants", &[("x-obleth-audit-actor", actor)], Some(&body))
                .await
        }
    };
    send("Zoë of operations", "a").await.expect(201);
    assert_eq!(house.audit().await[0].actor, "Zoë of operations");
    house.tenant("b").await;
    assert_eq!(house.audit().await[0].actor, "admin");
    let long = "x".repeat(257);
    for odd in ["", "  ", "a\tb", &long] {
        let refused = house
            .call("POST", "/api/v1/tenants", &[("x-obleth-audit-actor", odd)], Some(r#"{"name":"c"}"#))
            .await;
        assert_eq!(refused.problem(422, "invalid"), ["x-obleth-audit-actor"], "{odd}");
    }
}
