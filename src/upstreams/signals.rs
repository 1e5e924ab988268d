//! What engines tell about their load, read out of their metrics pages: pure.

/// Load signals of one address. What an engine does not tell is unknown, never 0.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Signals {
    /// Requests that wait inside the engine.
    pub waiting: Option<f64>,
    /// Requests it works on.
    pub running: Option<f64>,
    /// Share of its key-value cache in use, 0 to 1.
    pub kv_use: Option<f64>,
}
