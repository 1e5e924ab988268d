//! The data plane: Pingora's phases.
