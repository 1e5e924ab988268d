//! Lock and wakers around the scheduler: hands out permits.
