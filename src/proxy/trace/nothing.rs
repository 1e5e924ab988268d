//! No traces: this build has none.

use std::time::Instant;

use pingora::http::RequestHeader;
use pingora::{Error, Result};
use pingora_proxy::Session;

use super::super::Gateway;
use super::super::ctx::RequestCtx;
use super::Step;
use crate::upstreams::Chosen;

/// Nothing, of no size.
pub(in crate::proxy) struct Trace;

impl Trace {
    #[inline(always)]
    pub(in crate::proxy) const fn new() -> Self {
        Self
    }

    #[inline(always)]
    pub(in crate::proxy) const fn begin(&mut self, _gateway: &Gateway, _head: &RequestHeader, _born: Instant) {}

    #[inline(always)]
    pub(in crate::proxy) const fn enter(&mut self, _step: Step) {}

    #[inline(always)]
    pub(in crate::proxy) const fn leave(&mut self, _step: Step) {}

    #[inline(always)]
    pub(in crate::proxy) const fn broke_off(&mut self) {}

    #[inline(always)]
    pub(in crate::proxy) const fn attempt(&mut self, _chosen: &Chosen) {}

    /// What the client says goes up as it is.
    #[inline(always)]
    #[expect(clippy::unnecessary_wraps, reason = "with traces it can fail")]
    pub(in crate::proxy) const fn outward(&self, _head: &mut RequestHeader) -> Result<()> {
        Ok(())
    }

    #[inline(always)]
    pub(in crate::proxy) const fn answered(&mut self, _status: u16) {}

    #[inline(always)]
    pub(in crate::proxy) const fn attempt_failed(&mut self, _error: &Error) {}
}

#[inline(always)]
pub(in crate::proxy) const fn tell(_gateway: &Gateway, _session: &Session, _ctx: &mut RequestCtx) {}
