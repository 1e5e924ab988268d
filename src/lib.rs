//! obleth: a reverse proxy that shares inference servers among many tenants.
//!
//! Under load it does not reject and does not let the loudest win: it *queues by weighted fair share*, groups first,
//! then tenants, in tokens. What a request took (its place in the queue, its slot, its quota, its upstream connection)
//! is given back exactly once on every way out.
//!
//! # The house
//!
//! Rooms are named for what the gateway does and stand on floors; a room names only the floors below it, never a
//! neighbour on its own floor. `tests/it/tidy.rs` holds the table. Reading order is bottom-up:
//!
//! | floor | rooms | know |
//! |---|---|---|
//! | words | [`id`], [`units`], [`sse`] | nothing |
//! | rules | [`scheduler`], [`quota`], [`cache`], [`pricing`], [`llm`], [`mcp`], [`credential`], [`egress`] | words; pure: `now` is an argument, no async, no locks, no I/O |
//! | picture | [`catalog`] | one immutable view of everything configured, swapped whole |
//! | keepers | [`config`], [`store`], [`telemetry`] | the only rooms that know YAML, SQLite, metric names |
//! | engines | [`admission`], [`limits`], [`answers`], [`upstreams`], [`metering`] | the async shells around the rules |
//! | doors | [`proxy`], [`admin`] | Pingora; axum. They do not know each other |
//! | roof | [`server`], [`cli`] | build the floors bottom-up and take them down again |

// Words.
pub mod id;
pub mod sse;
pub mod units;

// Rules.
pub mod cache;
pub mod credential;
pub mod egress;
pub mod llm;
pub mod mcp;
pub mod pricing;
pub mod quota;
pub mod scheduler;

// Picture.
pub mod catalog;

// Keepers.
pub mod config;
pub mod store;
pub mod telemetry;

// Engines.
pub mod admission;
pub mod answers;
pub mod limits;
pub mod metering;
pub mod upstreams;

// Doors.
pub mod admin;
pub mod proxy;

// Roof.
pub mod cli;
pub mod server;
