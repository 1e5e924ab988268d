//! The phases, one file each, in the order in which a request meets them.

pub(super) mod early_request_filter;
pub(super) mod request_filter;

pub(super) mod upstream_peer;
pub(super) mod upstream_request_filter;

pub(super) mod response_filter;

pub(super) mod response_body_filter;

pub(super) mod retry;

pub(super) mod fail_to_proxy;

pub(super) mod logging;
