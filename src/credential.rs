//! API keys and the admin token: format, digest, constant-time comparison.
//!
//! A key's secret is `sk_` and 64 lowercase hexadecimal digits: 256 bits of the operating system's generator. With that
//! much entropy a fast digest is enough (there is nothing to guess, so nothing to slow down), and the digest can be an
//! index: a key is looked up by it, in a table that holds no secret. Under a pepper the digest is HMAC-SHA-256 (RFC 2104),
//! so that a stolen store alone does not even let a found key be checked.
//!
//! Nothing here shows a secret but [`Secret::expose`].

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use rand::TryRng;
use rand::rngs::SysRng;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// What every secret begins with.
const SCHEME: &str = "sk_";
/// Random bytes in a secret; each is written as two digits.
const ENTROPY: usize = 32;
/// Length of a secret in bytes.
const LENGTH: usize = SCHEME.len() + 2 * ENTROPY;
/// Length of the part that may be shown: enough to tell keys apart (60 bits), and 196 bits short of the secret.
const PREFIX: usize = 18;

const _: () = assert!(PREFIX > SCHEME.len() && PREFIX < LENGTH / 2);

/// A key's secret, in the one moment when it is known.
pub struct Secret(String);

impl Secret {
    /// Mints a new one.
    ///
    /// # Panics
    /// When the operating system has no randomness to give: a secret that can be guessed must not come into being.
    #[must_use]
    pub fn mint() -> Self {
        let mut entropy = [0; ENTROPY];
        SysRng
            .try_fill_bytes(&mut entropy)
            .expect("the operating system's generator answers once the system is up");
        let mut text = String::with_capacity(LENGTH);
        text.push_str(SCHEME);
        for byte in entropy {
            for digit in [byte >> 4, byte & 15] {
                text.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
            }
        }
        Self(text)
    }

    /// The secret itself, to be shown once.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The first 18 characters, by which people recognise the key.
    #[must_use]
    pub fn prefix(&self) -> &str {
        prefix(&self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// The first 18 characters of a secret that came from elsewhere (the configuration file). Shorter texts are no secrets and
/// show nothing.
#[must_use]
pub fn prefix(secret: &str) -> &str {
    secret.get(..PREFIX).unwrap_or_default()
}

/// Turns secrets into what is stored of them.
#[derive(Clone)]
pub struct KeyHasher {
    /// HMAC with the pepper taken in already; `None` is plain SHA-256.
    peppered: Option<Hmac<Sha256>>,
}

impl KeyHasher {
    /// A hasher under the given pepper. An empty pepper protects nothing; whoever reads the configuration refuses it.
    ///
    /// # Panics
    /// Never: HMAC takes keys of any length.
    #[must_use]
    pub fn new(pepper: Option<&[u8]>) -> Self {
        Self {
            // Falling back to no pepper would quietly store weaker digests.
            peppered: pepper.map(|pepper| Hmac::new_from_slice(pepper).expect("HMAC takes keys of any length")),
        }
    }

    /// The digest of a secret; `None` if it has not the form of one, so that junk costs no hashing.
    #[must_use]
    pub fn digest(&self, secret: &[u8]) -> Option<[u8; 32]> {
        if !well_formed(secret) {
            return None;
        }
        Some(match &self.peppered {
            Some(mac) => mac.clone().chain_update(secret).finalize().into_bytes().into(),
            None => Sha256::digest(secret).into(),
        })
    }
}

impl fmt::Debug for KeyHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyHasher").field("peppered", &self.peppered.is_some()).finish()
    }
}

/// Whether two secrets are equal, in a time that tells nothing of where they differ, nor (their digests are what is
/// compared) of how long either is beyond its number of 64-byte blocks.
#[must_use]
pub fn same(a: &[u8], b: &[u8]) -> bool {
    Sha256::digest(a).ct_eq(&Sha256::digest(b)).into()
}

fn well_formed(secret: &[u8]) -> bool {
    secret.len() == LENGTH
        && secret
            .strip_prefix(SCHEME.as_bytes())
            .is_some_and(|digits| digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[u8] = b"sk_000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn a_minted_secret_has_the_form_and_is_new_each_time() {
        let hasher = KeyHasher::new(None);
        let (one, other) = (Secret::mint(), Secret::mint());
        assert!(hasher.digest(one.expose().as_bytes()).is_some(), "the form of a secret");
        assert_ne!(one.expose(), other.expose());
        assert_eq!(one.prefix(), &one.expose()[..18]);
    }

    // Expected values from `sha256sum` and `openssl dgst -sha256 -hmac pepper`.
    #[test]
    fn digests_are_sha256_and_hmac_sha256() {
        let plain = KeyHasher::new(None).digest(KNOWN).unwrap();
        assert_eq!(hex(&plain), "f976a7b8551e0831cfb0063814258850280a4fd32f023e3378eb1ce67b9c5328");
        let peppered = KeyHasher::new(Some(b"pepper")).digest(KNOWN).unwrap();
        assert_eq!(hex(&peppered), "e5f4249849031f579f2ca8df4ea87cb173a3751bffc902ebef1a8363e6f1f749");
    }

    #[test]
    fn only_the_exact_form_is_hashed() {
        let hasher = KeyHasher::new(None);
        let text = std::str::from_utf8(KNOWN).unwrap();
        let refused = [
            String::new(),
            "sk_".to_owned(),
            text.to_uppercase(),
            text.replace("sk_", "sk-"),
            text.replace('f', "g"),
            format!("{text}0"),
            text[..66].to_owned(),
            format!(" {}", &text[..66]),
        ];
        for secret in refused {
            assert_eq!(hasher.digest(secret.as_bytes()), None, "{secret}");
        }
    }

    #[test]
    fn sameness_is_equality() {
        assert!(same(b"", b"") && same(b"token", b"token"));
        for other in ["", "toke", "tokem", "token\0", "Token"] {
            assert!(!same(b"token", other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn debug_shows_neither_secret_nor_pepper() {
        let secret = Secret::mint();
        let shown = format!("{secret:?} {:?}", KeyHasher::new(Some(b"pepper-of-the-house")));
        assert!(!shown.contains(&secret.expose()[3..11]) && !shown.contains("house"), "{shown}");
    }

    #[test]
    fn texts_too_short_for_a_secret_show_nothing() {
        assert_eq!(prefix("sk_0001"), "");
        assert_eq!(prefix(std::str::from_utf8(KNOWN).unwrap()), "sk_000102030405060");
    }
}
