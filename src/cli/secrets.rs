//! Secrets of the process: from the environment or from files, never from flags, which every user of the machine can read.

use std::{env, fs};

use super::BadSetUp;
use crate::credential::KeyHasher;

/// A shorter admin token is refused: it is the only lock on everything.
const ADMIN_TOKEN_LENGTH_MIN: usize = 16;

const PEPPER: &str = "OBLETH_API_KEY_PEPPER";

/// What `serve` needs to know and must not tell.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secrets {
    /// What operators show.
    pub(super) admin_token: String,
    /// What digests of keys are made with.
    pub(super) key_pepper: Option<String>,
    /// What stored credentials of upstreams are sealed with.
    pub(super) encryption_key: Option<[u8; 32]>,
}

impl Secrets {
    /// Reads them from the environment.
    ///
    /// # Errors
    /// What is missing or malformed, and what to do about it.
    pub(super) fn from_environment() -> Result<Self, BadSetUp> {
        Self::read(|name| env::var(name).ok())
    }

    /// What `serve` wants to be shown, for those who show it.
    ///
    /// # Errors
    /// As [`from_environment`](Self::from_environment).
    pub(super) fn admin_token_from_environment() -> Result<String, BadSetUp> {
        admin_token(|name| env::var(name).ok())
    }

    /// How secrets become digests here.
    ///
    /// # Errors
    /// As [`from_environment`](Self::from_environment).
    pub(super) fn hasher_from_environment() -> Result<KeyHasher, BadSetUp> {
        let pepper = secret(|name| env::var(name).ok(), PEPPER)?;
        Ok(KeyHasher::new(pepper.as_deref().map(str::as_bytes)))
    }

    fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, BadSetUp> {
        let secret = |name| secret(&variable, name);
        let admin_token = admin_token(&variable)?;
        let encryption_key = secret("OBLETH_ENCRYPTION_KEY")?.map(|text| {
            key(&text).ok_or_else(|| {
                BadSetUp(
                    "OBLETH_ENCRYPTION_KEY must be 64 hexadecimal digits (for instance the output of `openssl rand -hex 32`)".to_owned(),
                )
            })
        });
        Ok(Self {
            admin_token,
            key_pepper: secret(PEPPER)?,
            encryption_key: encryption_key.transpose()?,
        })
    }
}

/// What operators show, if it is fit for that.
fn admin_token(variable: impl Fn(&str) -> Option<String>) -> Result<String, BadSetUp> {
    let admin_token = secret(variable, "OBLETH_ADMIN_TOKEN")?.ok_or_else(|| {
        BadSetUp(
            "no admin token: set OBLETH_ADMIN_TOKEN (for instance to the output of `openssl rand -hex 32`) or \
             OBLETH_ADMIN_TOKEN_FILE"
                .to_owned(),
        )
    })?;
    if admin_token.len() < ADMIN_TOKEN_LENGTH_MIN {
        return Err(BadSetUp(format!(
            "OBLETH_ADMIN_TOKEN is too short: it must have at least {ADMIN_TOKEN_LENGTH_MIN} characters"
        )));
    }
    if !admin_token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(BadSetUp(
            "OBLETH_ADMIN_TOKEN must consist of visible ASCII characters: it is sent in a header".to_owned(),
        ));
    }
    Ok(admin_token)
}

/// The variable `name`, or the content of the file that `name_FILE` names; an empty one counts as absent.
fn secret(variable: impl Fn(&str) -> Option<String>, name: &str) -> Result<Option<String>, BadSetUp> {
    let file_name = format!("{name}_FILE");
    let value = variable(name).filter(|value| !value.is_empty());
    let file = variable(&file_name).filter(|path| !path.is_empty());
    match (value, file) {
        (Some(_), Some(_)) => Err(BadSetUp(format!("both {name} and {file_name} are set: unset one of them"))),
        (Some(value), None) => Ok(Some(value)),
        (None, None) => Ok(None),
        (None, Some(path)) => {
            let text = fs::read_to_string(&path).map_err(|wrong| BadSetUp(format!("{file_name}: cannot read {path}: {wrong}")))?;
            match text.trim_end_matches(['\r', '\n']) {
                "" => Err(BadSetUp(format!("{file_name}: {path} is empty"))),
                text => Ok(Some(text.to_owned())),
            }
        }
    }
}

/// 32 bytes from 64 hexadecimal digits.
fn key(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut key = [0; 32];
    for (byte, at) in key.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Secrets, String> {
        let find = |name: &str| {
            variables
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| (*value).to_owned())
        };
        Secrets::read(find).map_err(|wrong| wrong.to_string())
    }

    const TOKEN: (&str, &str) = ("OBLETH_ADMIN_TOKEN", "0123456789abcdef");

    #[test]
    fn a_missing_or_weak_token_is_refused_with_what_to_do() {
        for (variables, says) in [
            (&[][..], "openssl rand -hex 32"),
            (&[("OBLETH_ADMIN_TOKEN", "")][..], "set OBLETH_ADMIN_TOKEN"),
            (&[("OBLETH_ADMIN_TOKEN", "0123456789abcde")][..], "at least 16 characters"),
            (&[("OBLETH_ADMIN_TOKEN", "0123456789 abcdef")][..], "visible ASCII"),
            (&[TOKEN, ("OBLETH_ADMIN_TOKEN_FILE", "/x")][..], "unset one of them"),
            (
                &[("OBLETH_ADMIN_TOKEN_FILE", "/nonexistent/token")][..],
                "cannot read /nonexistent/token",
            ),
            (&[TOKEN, ("OBLETH_ENCRYPTION_KEY", "abc")][..], "64 hexadecimal digits"),
        ] {
            let Err(message) = read(variables) else {
                panic!("{variables:?} were accepted")
            };
            assert!(message.contains(says) && !message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn a_file_counts_without_its_line_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "0123456789abcdef\n").unwrap();
        let secrets = read(&[("OBLETH_ADMIN_TOKEN_FILE", file.path().to_str().unwrap())]).unwrap_or_else(|wrong| panic!("{wrong}"));
        assert_eq!(secrets.admin_token, TOKEN.1);
    }

    #[test]
    fn a_key_is_read_digit_by_digit() {
        let digits = "00ff".repeat(16);
        let secrets = read(&[TOKEN, ("OBLETH_ENCRYPTION_KEY", &digits)]).unwrap_or_else(|wrong| panic!("{wrong}"));
        assert_eq!(secrets.encryption_key.unwrap()[..4], [0, 255, 0, 255]);
        assert!(key(&"é".repeat(32)).is_none());
    }
}
