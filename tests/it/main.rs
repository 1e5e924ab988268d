//! One binary of tests against real processes: the gateway and its upstreams are children, the wire is the loopback.
//!
//! | module | what it shows |
//! |---|---|
//! | `tidy` | the house: floors, homes of crates, first lines, banned words |
//! | `replay` | the matrix of bodies that must reach the upstream whole |
//! | `refusals` | every way in which the data plane says no |
//! | `streams` | event streams: passed on as they come, ended as they must be |
//! | `fair_share` | tokens by weight, newcomers, cancel storms, caps |
//! | `heads` | what of a head goes up and what comes back |
//! | `command_line` | exit codes, and errors of one line |
//! | `operator` | the verbs that talk to a running gateway: what they do, print and refuse |
//! | `reloads` | a file that is edited as badly as files are, under load |
//! | `readme` | the README's commands do what they should |
//! | `configuration` | the file: merged, followed, refused with its place; check, diff, reload, export |
//! | `answers` | the response cache: hits, crowds, who may share |
//! | `balancer` | endpoints that come and go under load: what a retry may hide is hidden, nothing runs twice |
//! | `attempts` | the ledger's word on each attempt of a request |
//! | `engines` | what engines are told that clients must not tell them |
//! | `placement` | `session` and `prefix` against engines with a prefix cache |
//! | `capacity` | `max_in_flight: auto` against engines of three kinds |
//! | `tls` | TLS to upstreams: names, authorities, client certificates, HTTP/2 (feature `tls`) |
//! | `traces` | what an OpenTelemetry collector is sent, and what upstreams are told of a trace (feature `otel`) |
//! | `liars` | upstreams that lie about lengths, heads, tokens and answers |
//! | `limits` | quotas and budgets |
//! | `clock` | a wall clock that jumps by hours moves no window |
//! | `crowds` | clients that hold connections open and do nothing |
//! | `http2` | HTTP/2 from clients: streams beside each other, and floods of frames |
//! | `secured` | TLS at both doors: HTTP/1.1 and 2, certificates renewed under load, handshakes that do not come (feature `tls`) |
//! | `mcp` | MCP servers: what passes, who is refused, whose sessions, whose slots |
//! | `durability` | what was acknowledged outlives `kill -9`, rows of requests too |
//! | `ledger` | rows, sums, bills and clients agree, whatever goes wrong on the way |
//! | `pace` | how long operators wait while clients keep the gateway busy |
//! | `supervisor` | what systemd is told |
//! | `upgrade` | SIGQUIT: the next process takes over, and no client notices |
//! | `faults` | upstreams that die, panics, shutdown: what was taken is given back |

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "all of this is tests, also what stands outside of a function marked so"
)]

mod answers;
mod attempts;
mod audit_verify;
mod balancer;
mod capacity;
mod clock;
mod command_line;
mod configuration;
mod crowds;
mod durability;
mod engines;
mod fair_share;
mod faults;
mod heads;
mod http2;
mod ledger;
mod liars;
mod limits;
mod mcp;
mod observability;
mod operator;
mod pace;
mod placement;
mod readme;
mod refusals;
mod reloads;
mod replay;
#[cfg(feature = "tls")]
mod secured;
mod streams;
mod supervisor;
mod support;
mod tidy;
#[cfg(feature = "tls")]
mod tls;
mod tokens;
#[cfg(feature = "otel")]
mod traces;
mod upgrade;
