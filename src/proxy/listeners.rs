//! What it takes that others listen to an answer beside the client that it was made for.

use std::time::Duration;

use pingora::protocols::http::HttpTask;
use pingora::{Error, ErrorType, Result};

use crate::answers::Audience;

/// How long a client that does not read may hold up others who get the same answer. The socket's own buffers hold minutes of
/// a stream, so whoever comes so far does not read at all.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether a task is an answer's last.
pub(super) fn is_end(task: &HttpTask) -> bool {
    match task {
        HttpTask::Header(_, end) | HttpTask::Body(_, end) | HttpTask::UpgradedBody(_, end) => *end,
        HttpTask::Trailer(_) | HttpTask::Done => true,
        HttpTask::Failed(_) => false,
    }
}

/// Resolves when nobody listens any more.
pub(super) async fn nobody_listens(audience: Option<&Audience>) {
    if let Some(audience) = audience {
        audience.gone().await;
    }
}

/// Waits for a write to the client: as long as it takes while nobody else listens, else for [`PATIENCE`] at a time.
pub(super) async fn patiently<T>(audience: Option<&Audience>, write: impl Future<Output = Result<T>>) -> Result<T> {
    let Some(audience) = audience else { return write.await };
    let mut write = std::pin::pin!(write);
    loop {
        match tokio::time::timeout(PATIENCE, write.as_mut()).await {
            Ok(written) => return written,
            Err(_) if audience.is_there() => return Error::e_explain(ErrorType::WriteTimedout, "the client holds up the others"),
            Err(_) => {}
        }
    }
}
