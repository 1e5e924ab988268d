//! What the gateway shows of itself to those who watch it: metrics and log lines.

mod seldom;

pub use seldom::Seldom;
