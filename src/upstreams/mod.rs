//! Inference servers: resolution, health, in-flight counts, choice.
