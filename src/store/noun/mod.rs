//! The nouns' rows, one file per noun.

mod group;
mod key;
mod mcp_server;
mod model;
mod tenant;
