//! What the gateway shows of itself to those who watch it: metrics and log lines. The only room that knows metric names.
//!
//! Nothing here is on a request's way. What requests add up to is counted from the ledger's rows, on the thread that moves
//! them ([`Requests`]); how things stand is asked of the engines when somebody scrapes, and put on a [`Page`]. Traces are made
//! at a request's end and sent by a thread of their own ([`Traces`], feature `otel`).

pub mod family;
mod histogram;
mod page;
mod request_log;
mod requests;
mod seldom;
mod times;
pub mod traces;

pub use family::{Family, Kind};
pub use page::Page;
pub use request_log::{Line, RequestLog, Which};
pub use requests::{Request, Requests, Settings, TenantLabel, dollars, number};
pub use seldom::Seldom;
pub use traces::Traces;
