//! Tests of the management API: the router in process, on a real store in a scratch directory.

mod audit;
mod conditions;
mod config;
mod door;
mod fairshare;
pub(in crate::admin) mod harness;
mod keys;
mod mcp_servers;
mod models;
mod openapi;
mod page;
mod serve;
mod stateful;
mod tenants;
mod usage;
