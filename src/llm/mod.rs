//! The languages of inference servers, as bytes: what a request asks, what an answer used.
