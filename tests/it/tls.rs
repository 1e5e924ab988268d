//! TLS to upstreams: who is asked for, who is believed, what is shown, and which HTTP is spoken inside. Feature `tls`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use pingora::tls::{RootCertStore, ServerConfig, TlsAcceptor, WebPkiClientVerifier, load_certs_and_key_files};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::{Gateway, eventually};

fn file(name: &str) -> String {
    format!("{}/src/upstreams/tls/certificates/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// What a request came with.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    server_name: Option<String>,
    client: Option<Vec<u8>>,
    version: String,
}

/// An upstream for `vllm.test` that asks clients for a certificate of its own authority, and refuses those without.
struct Upstream {
    addr: SocketAddr,
    /// Of requests that do work; checks are left out.
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Upstream {
    async fn start() -> Self {
        pingora::tls::install_default_crypto_provider();
        let certificates = |cert: &str, key: &str| load_certs_and_key_files(&file(cert), &file(key)).unwrap().unwrap();
        let mut roots = RootCertStore::empty();
        let (authority, _) = certificates("client-ca.pem", "client.key");
        roots.add(authority[0].clone()).unwrap();
        let clients = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
        let (chain, key) = certificates("server.pem", "server.key");
        let mut config = ServerConfig::builder()
            .with_client_cert_verifier(clients)
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let told = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, told) = (acceptor.clone(), Arc::clone(&told));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let (_, session) = stream.get_ref();
                    let server_name = session.server_name().map(str::to_owned);
                    let client = session.peer_certificates().map(|chain| chain[0].to_vec());
                    let service = service_fn(move |request| answer(request, server_name.clone(), client.clone(), Arc::clone(&told)));
                    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { addr, seen }
    }
}

async fn answer(
    request: Request<Incoming>,
    server_name: Option<String>,
    client: Option<Vec<u8>>,
    told: Arc<Mutex<Vec<Seen>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() == hyper::Method::POST {
        told.lock().push(Seen {
            server_name,
            client,
            version: format!("{:?}", request.version()),
        });
    }
    let _whole = request.into_body().collect().await;
    let body = json!({ "id": "x", "object": "chat.completion", "choices": [], "usage": { "prompt_tokens": 1, "completion_tokens": 1 } });
    Ok(Response::new(Full::new(Bytes::from(body.to_string()))))
}

/// Sends one request to a model with these terms; its status, its error code, and what the endpoint's last error was.
async fn ask(upstream: &Upstream, terms: Value) -> (u16, Value, Value) {
    let gateway = Gateway::start().await;
    let mut model = json!({ "model_name": "llama", "engine": "other", "api_base": format!("https://{}", upstream.addr) });
    model.as_object_mut().unwrap().extend(terms.as_object().unwrap().clone());
    gateway.create("models", model).await;
    let key = gateway.tenant_key(json!({ "name": "acme" })).await;
    eventually("checked", Duration::from_secs(10), || async {
        gateway.get("models").await[0]["health"][0]["status"] != "unknown"
    })
    .await;
    let body = json!({ "model": "llama", "messages": [{ "role": "user", "content": "go" }] });
    let response = gateway.post("/v1/chat/completions", &key, &body).send().await.unwrap();
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    let models = gateway.get("models").await;
    (status, body["error"]["code"].clone(), models[0]["health"][0]["last_error"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_asks_for_a_certificate_is_shown_one_over_http_1_and_2() {
    let upstream = Upstream::start().await;
    let (shown, _) = load_certs_and_key_files(&file("client.pem"), &file("client.key")).unwrap().unwrap();
    let mut terms = json!({
        "tls_ca_file": file("ca.pem"), "tls_server_name": "vllm.test",
        "tls_client_cert_file": file("client.pem"), "tls_client_key_file": file("client.key"),
    });
    for (http2, version) in [(false, "HTTP/1.1"), (true, "HTTP/2.0")] {
        terms["http2"] = json!(http2);
        assert_eq!(ask(&upstream, terms.clone()).await, (200, Value::Null, Value::Null), "{version}");
        let seen = std::mem::take(&mut *upstream.seen.lock());
        let expected = Seen {
            server_name: Some("vllm.test".to_owned()),
            client: Some(shown[0].to_vec()),
            version: version.to_owned(),
        };
        assert_eq!(seen, [expected]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_certificate_the_authority_or_the_name_nothing_is_sent() {
    let upstream = Upstream::start().await;
    let whole = json!({
        "tls_ca_file": file("ca.pem"), "tls_server_name": "vllm.test",
        "tls_client_cert_file": file("client.pem"), "tls_client_key_file": file("client.key"),
    });
    let cases = [
        json!({ "tls_client_cert_file": null, "tls_client_key_file": null }),
        // A certificate of another authority than the upstream's.
        json!({ "tls_client_cert_file": file("server.pem"), "tls_client_key_file": file("server.key") }),
        json!({ "tls_ca_file": file("client-ca.pem") }),
        json!({ "tls_ca_file": null }),
        json!({ "tls_server_name": "other.test" }),
        json!({ "tls_client_key_file": "/nowhere/client.key" }),
    ];
    for case in cases {
        let mut terms = whole.clone();
        terms.as_object_mut().unwrap().extend(case.as_object().unwrap().clone());
        let (status, code, last_error) = ask(&upstream, terms).await;
        assert!([502, 503].contains(&status), "{case}: {status} {code}");
        assert!(last_error.is_string(), "{case}: no reason is shown");
        assert!(upstream.seen.lock().is_empty(), "{case}: a request went up");
    }
}
