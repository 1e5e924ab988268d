//! What those who listen to a flight hear: pieces, and how it ended.

use std::sync::Arc;

use bytes::Bytes;

use super::stored::{Head, Saved};

/// Why an answer did not come, in what is fit to be told to everybody who waited for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// No endpoint can be used; why.
    NoEndpoint(Arc<str>),
    /// No connection to any endpoint.
    Unreachable,
    /// The endpoint's answer is none; why.
    Broken(&'static str),
    /// The endpoint took too long.
    Late,
    /// The endpoint broke off.
    Interrupted,
    /// A fault of the gateway's own.
    Internal,
}

/// How a flight ended, for a follower.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The answer is complete.
    Complete(Saved),
    /// It is not. Should a body have begun, the second is what closes the event that was being sent.
    Failed(Failure, &'static [u8]),
    /// The follower fell too far behind.
    LeftBehind,
}

/// What a follower gets at once.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The head, once.
    pub head: Option<Arc<Head>>,
    /// The pieces that came since the last step.
    pub pieces: Vec<Bytes>,
    /// The end, once; nothing follows.
    pub end: Option<Ended>,
}
