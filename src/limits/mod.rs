//! Lock-free buckets around the quota sums: hands out reservations.
