//! Response-cache store and single-flight. Filled in by the cache issue.
