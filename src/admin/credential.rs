//! Credentials of upstreams, as operators give them: a value, a reference, or `""` to clear. They go in and never come out.

use std::sync::Arc;

use serde_json::value::RawValue;
use serde_json::{Value as Json, json};

use super::draft::Given;
use super::fault::Faults;
use super::value::{Value, said, text};
use crate::catalog::Credential;
use crate::store::Store;

/// The gateway's own secrets are in variables with this prefix; an upstream must not be sent them.
const OWN_VARIABLES: &str = "OBLETH_";

/// What was given for a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Handed {
    /// `""`: there is to be none.
    Nothing,
    /// `env:NAME` or `file:PATH`.
    Reference(String),
    /// The secret itself.
    Secret(Arc<str>),
}

impl Handed {
    fn of(sent: String) -> Option<Self> {
        if sent.is_empty() {
            return Some(Self::Nothing);
        }
        if let Some(name) = sent.strip_prefix("env:") {
            let mut bytes = name.bytes();
            let head = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
            let own = name.to_ascii_uppercase().starts_with(OWN_VARIABLES);
            let named = head && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') && !own;
            return named.then_some(Self::Reference(sent));
        }
        if let Some(path) = sent.strip_prefix("file:") {
            return (path.starts_with('/') && path.len() <= 4096 && !path.contains(char::is_control)).then_some(Self::Reference(sent));
        }
        // What a header can carry.
        let fit = sent.len() <= 4096 && sent.trim() == sent && sent.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        fit.then(|| Self::Secret(sent.into()))
    }

    /// Looks a reference up. Blocks on files.
    pub(super) fn resolve(self, store: &Store) -> Option<Credential> {
        match self {
            Self::Nothing => None,
            Self::Reference(reference) => Some(Credential {
                secret: store.resolve(&reference),
                reference: Some(reference),
            }),
            Self::Secret(secret) => Some(Credential {
                reference: None,
                secret: Some(secret),
            }),
        }
    }
}

/// The type of such fields.
pub(super) enum WriteOnly {}

impl Value for WriteOnly {
    type Out = Handed;
    const WRITE_ONLY: bool = true;

    fn read(raw: &RawValue, at: &str, faults: &mut Faults) -> Option<Handed> {
        said(text(raw).and_then(Handed::of), at, faults, || {
            "must be a value of up to 4096 visible ASCII characters, env:NAME (not the gateway's own), file:/PATH, or \"\" for none"
                .to_owned()
        })
    }

    fn schema() -> Json {
        json!({"type": "string", "maxLength": 4096, "pattern": "^([!-~]([ -~]*[!-~])?)?$"})
    }
}

/// Refuses a value where there is no key to seal it with.
pub(super) fn check_seal(handed: &Given<Handed>, seals: bool, at: &str, faults: &mut Faults) {
    if !seals && matches!(handed, Given::Is(Handed::Secret(_))) {
        faults.add_coded(
            at,
            "no_sealing_key",
            "must be a reference (env:NAME or file:/PATH): values are stored only where OBLETH_ENCRYPTION_KEY is set",
        );
    }
}
