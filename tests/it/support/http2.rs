//! A client that speaks HTTP/2 over one connection of its own: any number of chats beside each other.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;

/// A connection. It closes when it is dropped, whatever runs on it.
pub(crate) struct Http2 {
    send: SendRequest<Full<Bytes>>,
    drives: JoinHandle<()>,
}

impl Http2 {
    /// Over a transport on which the other side expects HTTP/2.
    pub(crate) async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (send, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
        let drives = tokio::spawn(async move {
            // How it ended is seen by the requests on it.
            let _ = connection.await;
        });
        Self { send, drives }
    }

    /// Asks the model `llama` for a stream; the answer's head, its body to be read.
    pub(crate) async fn chat(&self, key: &str, extra: &Value) -> hyper::Result<Response<Incoming>> {
        let mut body = json!({ "model": "llama", "stream": true, "messages": [{ "role": "user", "content": "hello" }] });
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let request = Request::post("http://gateway.test/v1/chat/completions")
            .header("authorization", format!("Bearer {key}"))
            .header("content-type", "application/json")
            .body(Full::from(body.to_string()))
            .unwrap();
        self.send.clone().send_request(request).await
    }
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.drives.abort();
    }
}

/// The whole body of an answer as text.
pub(crate) async fn text(answer: Response<Incoming>) -> hyper::Result<String> {
    let whole = answer.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8(whole.to_vec()).unwrap())
}
