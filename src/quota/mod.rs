//! Sums of token buckets and budgets.
