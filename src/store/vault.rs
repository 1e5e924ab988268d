//! Credentials of upstreams at rest: references as they are, values sealed.
//!
//! A value is sealed with AES-256-GCM (NIST SP 800-38D) under the operator's key with a random 96-bit nonce. The
//! additional data names noun, object and field, so a sealed value that is moved to another row stays shut.

use std::fmt;
use std::io::Read;
use std::sync::Arc;

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{Aead, Generate, KeyInit, Nonce, Payload};
use serde::{Deserialize, Serialize};

use super::Resolver;
use super::columns::Unstorable;
use crate::catalog::Credential;

/// A secret in a file is at most this long; more is a wrong path.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// A credential as it is stored: exactly one of the two, or neither for a credential without a value.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Safe {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    reference: Option<String>,
    /// Nonce, ciphertext and tag, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    sealed: Option<String>,
}

/// Which field of which object a value is sealed for.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) noun: &'static str,
    pub(super) id: &'a [u8; 16],
    pub(super) field: &'static str,
    /// Where in a list; 0 where there is none.
    pub(super) index: usize,
    /// The object's name, for the sentence when it stays shut. Not part of the seal: objects are renamed.
    pub(super) owner: &'a str,
}

impl Place<'_> {
    fn additional_data(&self) -> Vec<u8> {
        let mut data = format!("obleth|{}|{}|{}|", self.noun, self.field, self.index).into_bytes();
        data.extend_from_slice(self.id);
        data
    }
}

/// Why a sealed value stays shut; the owner is noun and name.
#[derive(Debug)]
pub(super) enum SealError {
    NoKey { owner: String },
    WrongKey { owner: String },
}

/// Seals, opens, resolves.
pub(super) struct Vault {
    cipher: Option<Aes256Gcm>,
    resolve: Resolver,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault")
            .field("has_key", &self.cipher.is_some())
            .finish_non_exhaustive()
    }
}

impl Vault {
    pub(super) fn new(key: Option<&[u8; 32]>, resolve: Resolver) -> Self {
        Self {
            cipher: key.map(|key| Aes256Gcm::new(&(*key).into())),
            resolve,
        }
    }

    pub(super) fn resolve(&self, reference: &str) -> Option<Arc<str>> {
        (self.resolve)(reference)
    }

    /// Makes a credential fit to be stored.
    pub(super) fn lock(&self, credential: &Credential, place: Place<'_>) -> Result<Safe, Unstorable> {
        let Credential { reference, secret } = credential;
        let sealed = match (reference, secret) {
            (Some(_), _) | (None, None) => None,
            (None, Some(secret)) => Some(self.seal(secret, place)?),
        };
        Ok(Safe {
            reference: reference.clone(),
            sealed,
        })
    }

    fn seal(&self, secret: &str, place: Place<'_>) -> Result<String, Unstorable> {
        let cipher = self.cipher.as_ref().ok_or(Unstorable::NoSealingKey)?;
        let nonce = Nonce::<Aes256Gcm>::generate();
        let payload = Payload {
            msg: secret.as_bytes(),
            aad: &place.additional_data(),
        };
        // Fails only above 64 GiB.
        let sealed = cipher.encrypt(&nonce, payload).map_err(|_| Unstorable::TooLarge(place.field))?;
        let mut hex = String::with_capacity(2 * (nonce.len() + sealed.len()));
        for byte in nonce.iter().chain(&sealed) {
            hex.push(nibble(byte >> 4));
            hex.push(nibble(byte & 0xf));
        }
        Ok(hex)
    }

    /// Gives a stored credential its value back.
    pub(super) fn open(&self, safe: &Safe, place: Place<'_>) -> Result<Credential, SealError> {
        let secret = match (&safe.reference, &safe.sealed) {
            (Some(reference), _) => self.resolve(reference),
            (None, Some(sealed)) => Some(self.unseal(sealed, place)?),
            (None, None) => None,
        };
        Ok(Credential {
            reference: safe.reference.clone(),
            secret,
        })
    }

    fn unseal(&self, hex: &str, place: Place<'_>) -> Result<Arc<str>, SealError> {
        let owner = || format!("{} {:?}", place.noun, place.owner);
        let wrong = || SealError::WrongKey { owner: owner() };
        let cipher = self.cipher.as_ref().ok_or_else(|| SealError::NoKey { owner: owner() })?;
        let bytes = unhex(hex).ok_or_else(wrong)?;
        let (nonce, sealed) = bytes.split_at_checked(12).ok_or_else(wrong)?;
        let nonce = Nonce::<Aes256Gcm>::try_from(nonce).map_err(|_| wrong())?;
        let payload = Payload {
            msg: sealed,
            aad: &place.additional_data(),
        };
        let secret = cipher.decrypt(&nonce, payload).map_err(|_| wrong())?;
        String::from_utf8(secret).map(Arc::from).map_err(|_| wrong())
    }
}

fn nibble(value: u8) -> char {
    char::from_digit(u32::from(value), 16).unwrap_or('0')
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pair = |pair: &[u8]| Some(digit(pair[0])? << 4 | digit(pair[1])?);
    text.as_bytes().chunks_exact(2).map(pair).collect()
}

/// The default [`Resolver`]: `env:NAME` and `file:PATH`. Nothing where the variable is unset or empty, or the file cannot
/// be read, is empty, or is larger than 64 KiB. The line end that editors add is taken off a file's text.
pub(super) fn resolve_from_system(reference: &str) -> Option<Arc<str>> {
    let text = match reference.split_once(':')? {
        ("env", name) => std::env::var(name).ok()?,
        ("file", path) => read_secret(path)?,
        _ => return None,
    };
    (!text.is_empty()).then(|| Arc::from(text))
}

fn read_secret(path: &str) -> Option<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path).ok()?;
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).ok()?;
    let fits = u64::try_from(read).is_ok_and(|read| read <= FILE_BYTES_MAX);
    fits.then(|| text.trim_end_matches(['\r', '\n']).to_owned())
}
