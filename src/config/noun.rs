//! The nouns of the file: what each object is called, how it is made, and its table of fields.

mod credential;
mod key;
mod mcp_server;
mod model;
mod tenant;

pub(super) use credential::{credential_digest, hex, unhex};

use super::field::{Field, field};
use super::kind::Kind;
use crate::catalog::{Group, ManagedBy, Provenance};

/// The most requests that any cap may allow.
pub(super) const SLOTS_MAX: u64 = 1_000_000;
/// The highest quota per minute.
const RATE_MAX: u64 = 1_000_000_000_000;
/// The highest budget in tokens.
const TOKENS_MAX: u64 = 1_000_000_000_000_000_000;
/// The longest time in seconds that something may be waited for.
const WAIT_SECS_MAX: u64 = 86_400;

/// A noun of the catalog that the file can define.
pub(super) trait Noun: Clone + PartialEq + 'static {
    /// `group`, `tenant`, `key`, `model` or `mcp_server`.
    const NOUN: &'static str;
    /// The same for sentences.
    const A_NOUN: &'static str;
    /// The list it stands in.
    const LIST: &'static str;
    /// The field that names it.
    const NAME: &'static str;
    /// What its name may be.
    const NAME_KIND: Kind;
    /// Audit actions: made, changed, deleted.
    const ACTIONS: [&'static str; 3];

    /// Its fields, in the order they are written, without the name.
    fn fields() -> &'static [Field<Self>];
    /// A new one with every field at its default.
    fn blank(name: &str) -> Self;
    /// Its id as text; a group's name.
    fn id(&self) -> String;
    /// Its name.
    fn name(&self) -> &str;
    /// Gives it another name. Only keys are known by something else, so only they can get one from the file.
    fn rename(&mut self, _name: &str) {}
    /// Who made it.
    fn provenance(&self) -> &Provenance;
    /// The same, to be changed.
    fn provenance_mut(&mut self) -> &mut Provenance;
}

/// Who makes what the file makes. The store sets version and times.
pub(super) fn by_file() -> Provenance {
    Provenance {
        managed_by: ManagedBy::File,
        ..Provenance::default()
    }
}

impl Noun for Group {
    const NOUN: &'static str = "group";
    const A_NOUN: &'static str = "a group";
    const LIST: &'static str = "groups";
    const NAME: &'static str = "name";
    const NAME_KIND: Kind = Kind::Line(1, 128);
    const ACTIONS: [&'static str; 3] = ["create_fairshare_group", "update_fairshare_group_weight", "delete_fairshare_group"];

    fn fields() -> &'static [Field<Self>] {
        static FIELDS: &[Field<Group>] = &[field!("weight": Kind::Whole(1, 1_000_000) => weight)];
        FIELDS
    }

    fn blank(name: &str) -> Self {
        Self {
            provenance: by_file(),
            ..Self::new(name)
        }
    }

    fn id(&self) -> String {
        self.name.to_string()
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    fn provenance_mut(&mut self) -> &mut Provenance {
        &mut self.provenance
    }
}
