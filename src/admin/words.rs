//! Enumerations in answers: as their words.

use serde::{Serialize, Serializer};

use crate::catalog::Word;

/// Writes an enumeration as its word.
pub(super) fn spell<W: Word, S: Serializer>(value: &W, serializer: S) -> Result<S::Ok, S::Error> {
    value.word().serialize(serializer)
}
