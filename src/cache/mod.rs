//! The response cache's rules: what may be kept, under which key, how long. Filled in by the cache issue.
