//! Session ids that are of use only to who was given them, without a table of who that was.
//!
//! What a server calls a session is sealed (AES-256-GCM, NIST SP 800-38D, random nonce) together with the address that knows
//! it; server, tenant and key are the additional data. So an id that another key presents, or at another server, or that was
//! changed, does not open, and every gateway under the same sealing key opens the same ids.
//!
//! Server and tenant go by name and the key by its secret's digest, not by ids: gateways that share a configuration file
//! mint ids of their own. A tenant that is renamed, or a key that is rotated, begins new sessions.

use std::fmt;
use std::net::SocketAddr;

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{Aead, Generate, Key, KeyInit, Nonce, Payload};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// The longest id of a server's that is sealed, in bytes.
pub const SESSION_ID_MAX: usize = 2048;
/// No sealed id is longer, in bytes: base64 of nonce, tag, address and id.
const SEALED_MAX: usize = (SESSION_ID_MAX + 128) / 3 * 4;
/// Bytes of a nonce.
const NONCE: usize = 12;
/// What the sealing key is made for; another purpose makes another key.
const PURPOSE: &[u8] = b"obleth MCP session ids, 1";

/// Who a session belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Holder<'a> {
    /// The server's name.
    pub server: &'a str,
    /// The tenant's.
    pub tenant: &'a str,
    /// The digest of the key's secret.
    pub key: &'a [u8; 32],
}

/// A session as the server knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Which address knows it.
    pub addr: SocketAddr,
    /// Its id there.
    pub id: String,
}

/// Seals and opens.
pub struct Sealer {
    cipher: Aes256Gcm,
}

impl Sealer {
    /// Under the operator's key; without one, under a key of this process alone, and its sessions end with it.
    #[must_use]
    pub fn new(key: Option<&[u8; 32]>) -> Self {
        let derived = key.and_then(|key| Hmac::<Sha256>::new_from_slice(key).ok()).map(|mac| {
            let bytes: [u8; 32] = mac.chain_update(PURPOSE).finalize().into_bytes().into();
            Aes256Gcm::new(&bytes.into())
        });
        Self {
            cipher: derived.unwrap_or_else(|| Aes256Gcm::new(&Key::<Aes256Gcm>::generate())),
        }
    }

    /// What the client is given in the place of a server's id. `None` for an id that is none (visible ASCII of at most
    /// [`SESSION_ID_MAX`] bytes).
    #[must_use]
    pub fn seal(&self, holder: &Holder<'_>, session: &Opened) -> Option<String> {
        let id = session.id.as_bytes();
        if id.is_empty() || id.len() > SESSION_ID_MAX || !id.iter().all(u8::is_ascii_graphic) {
            return None;
        }
        let nonce = Nonce::<Aes256Gcm>::generate();
        let text = format!("{} {}", session.addr, session.id);
        let payload = Payload {
            msg: text.as_bytes(),
            aad: &holder.additional_data(),
        };
        let sealed = self.cipher.encrypt(&nonce, payload).ok()?;
        Some(URL_SAFE_NO_PAD.encode([&nonce[..], &sealed].concat()))
    }

    /// What was sealed for the holder; `None` for anything else.
    #[must_use]
    pub fn open(&self, holder: &Holder<'_>, sealed: &[u8]) -> Option<Opened> {
        if sealed.len() > SEALED_MAX {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE)?;
        let nonce = Nonce::<Aes256Gcm>::try_from(nonce).ok()?;
        let payload = Payload {
            msg: sealed,
            aad: &holder.additional_data(),
        };
        let text = String::from_utf8(self.cipher.decrypt(&nonce, payload).ok()?).ok()?;
        let (addr, id) = text.split_once(' ')?;
        Some(Opened {
            addr: addr.parse().ok()?,
            id: id.to_owned(),
        })
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer(hidden)")
    }
}

impl Holder<'_> {
    /// Lengths before texts, so that no two holders have the same.
    fn additional_data(&self) -> Vec<u8> {
        let mut data = Vec::new();
        for part in [self.server.as_bytes(), self.tenant.as_bytes(), self.key] {
            data.extend_from_slice(&(part.len() as u64).to_le_bytes());
            data.extend_from_slice(part);
        }
        data
    }
}
