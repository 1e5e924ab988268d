//! API keys and the admin token: format, digest, constant-time comparison.
