//! The rules of the response cache: under which key an answer is kept, which requests and answers qualify, for how long.
//!
//! There is no semantic matching: similarity is not identity. Two requests share an answer only if every value in them is
//! equal, and only within the scope that the operator set for the model (a tenant's own by default).

mod canonical;
mod key;
mod policy;
mod whole;

pub use key::{Key, KeyMaker, Scope};
pub use policy::{Directive, Directives};
pub use whole::{events_are_whole, json_is_whole};
