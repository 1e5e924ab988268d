//! Hierarchical start-time fair queueing in token units.
