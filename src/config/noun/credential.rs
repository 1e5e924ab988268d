//! Credentials and digests as canonical values: a reference, or the digest of a stored secret, never the secret.

use std::fmt::Write;
use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::catalog::Credential;
use crate::config::field::Vault;

/// `{"ref": "env:NAME"}` or `{"digest": "…"}`; null for none.
pub(super) fn credential_shown(credential: Option<&Credential>) -> Value {
    match credential {
        Some(Credential {
            reference: Some(reference),
            ..
        }) => json!({"ref": reference}),
        Some(Credential { secret: Some(secret), .. }) => json!({"digest": credential_digest(secret)}),
        Some(Credential {
            reference: None,
            secret: None,
        })
        | None => Value::Null,
    }
}

/// The credential that a canonical value stands for.
pub(super) fn credential_taken(value: &Value, vault: &Vault) -> Option<Credential> {
    if let Some(reference) = value.get("ref").and_then(Value::as_str) {
        return Some(Credential {
            reference: Some(reference.to_owned()),
            secret: vault.secret(reference),
        });
    }
    let secret: Arc<str> = vault.secret(value.get("digest")?.as_str()?)?;
    Some(Credential {
        reference: None,
        secret: Some(secret),
    })
}

/// What a stored credential is told apart by. Upstreams' keys are long random texts, so a plain digest gives none away; the
/// word before it keeps it from being the digest of anything else.
pub(in crate::config) fn credential_digest(secret: &str) -> String {
    hex(&Sha256::new()
        .chain_update("obleth credential\n")
        .chain_update(secret)
        .finalize()
        .into())
}

pub(in crate::config) fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// 64 lowercase hexadecimal digits.
pub(in crate::config) fn unhex(text: &str) -> Option<[u8; 32]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; 32];
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != bytes.len() || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}
