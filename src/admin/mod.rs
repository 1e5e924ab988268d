//! The management API: one file per noun of the URL.
