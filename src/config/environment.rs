//! What the file may refer to: environment variables and other files.

use std::io::{self, Read};
use std::sync::Arc;

/// The largest file that `${file:…}` reads: it is for secrets and certificates.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Where `${env:NAME}`, `${file:PATH}`, `env:NAME` and `file:PATH` look.
pub trait Environment {
    /// A variable; `None` if it is not set or not UTF-8.
    fn var(&self, name: &str) -> Option<String>;

    /// A file's text. Relative paths start at the working directory.
    ///
    /// # Errors
    /// Whatever the file system says; `InvalidData` for what is not UTF-8 or larger than 1 MiB.
    fn file(&self, path: &str) -> io::Result<String>;
}

/// The process's own environment and file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct Process;

impl Environment for Process {
    fn var(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn file(&self, path: &str) -> io::Result<String> {
        let mut text = String::new();
        let mut file = std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1);
        file.read_to_string(&mut text)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "larger than 1 MiB"));
        }
        Ok(text)
    }
}

/// What a credential's reference (`env:NAME` or `file:PATH`) stands for now; `None` when it stands for nothing.
#[must_use]
pub fn resolve(environment: &dyn Environment, reference: &str) -> Option<Arc<str>> {
    let secret = match reference.split_once(':')? {
        ("env", name) => environment.var(name)?,
        ("file", path) => trimmed(environment.file(path).ok()?),
        _ => return None,
    };
    (!secret.is_empty()).then(|| Arc::from(secret))
}

/// A text after expansion.
pub(super) struct Expanded {
    pub(super) text: String,
    /// Whether anything was put in.
    pub(super) changed: bool,
}

/// Puts in what `${env:NAME}` and `${file:PATH}` stand for. `$${` is a literal `${`. What was put in is not expanded again.
///
/// # Errors
/// A sentence for the operator, without a value.
pub(super) fn expand(environment: &dyn Environment, text: &str) -> Result<Expanded, String> {
    let mut out = String::with_capacity(text.len());
    let mut changed = false;
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, after) = (&rest[..at], &rest[at + 2..]);
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = after;
            continue;
        }
        out.push_str(before);
        let (inside, after) = after.split_once('}').ok_or("has a ${ without its }; a literal ${ is written $${")?;
        out.push_str(&look_up(environment, inside)?);
        changed = true;
        rest = after;
    }
    out.push_str(rest);
    Ok(Expanded { text: out, changed })
}

/// A text that [`expand`] gives back as it was.
pub(super) fn escape(text: &str) -> String {
    text.replace("${", "$${")
}

/// The reference that a text is if it is nothing but one expansion: `${env:NAME}` is `env:NAME`.
pub(super) fn sole_reference(text: &str) -> Option<&str> {
    let inside = text.strip_prefix("${")?.strip_suffix('}')?;
    (!inside.contains('}') && (inside.starts_with("env:") || inside.starts_with("file:"))).then_some(inside)
}

fn look_up(environment: &dyn Environment, inside: &str) -> Result<String, String> {
    match inside.split_once(':') {
        Some(("env", name)) => environment
            .var(name)
            .ok_or_else(|| format!("refers to the environment variable {name}, which is not set")),
        Some(("file", path)) => environment
            .file(path)
            .map(trimmed)
            .map_err(|error| format!("refers to the file {path}, which cannot be read: {error}")),
        Some(_) | None => Err("has a ${…} that is neither ${env:NAME} nor ${file:PATH}; a literal ${ is written $${".to_owned()),
    }
}

/// Without the line end that editors and `echo` put after a secret.
fn trimmed(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Known;

    impl Environment for Known {
        fn var(&self, name: &str) -> Option<String> {
            (name == "A").then(|| "${env:B}".to_owned())
        }

        fn file(&self, path: &str) -> io::Result<String> {
            if path == "/f" {
                Ok("word\r\n".to_owned())
            } else {
                Err(io::ErrorKind::NotFound.into())
            }
        }
    }

    #[test]
    fn expansion_happens_once_and_escapes_are_undone() {
        let cases = [
            ("plain $ {", Ok("plain $ {")),
            ("<${env:A}>", Ok("<${env:B}>")),
            ("${file:/f}${file:/f}", Ok("wordword")),
            ("$${env:A}", Ok("${env:A}")),
            ("$$${env:A}", Ok("$${env:A}")),
            ("${env:B}", Err("the environment variable B")),
            ("${file:/g}", Err("the file /g, which cannot be read")),
            ("${env:A", Err("without its }")),
            ("${ENV:A}", Err("neither ${env:NAME} nor ${file:PATH}")),
        ];
        for (text, expected) in cases {
            match (expand(&Known, text), expected) {
                (Ok(expanded), Ok(expected)) => assert_eq!(expanded.text, expected),
                (Err(fault), Err(part)) => assert!(fault.contains(part), "{fault}"),
                (got, _) => panic!("{text}: {:?}", got.map(|expanded| expanded.text)),
            }
        }
    }

    #[test]
    fn escaped_texts_expand_to_themselves() {
        for text in ["${env:A}", "$${", "a $ b", "$$$${x}"] {
            assert_eq!(
                expand(&Known, &escape(text)).ok().map(|expanded| expanded.text).as_deref(),
                Some(text)
            );
        }
    }

    #[test]
    fn references_resolve_or_stand_for_nothing() {
        assert_eq!(resolve(&Known, "file:/f").as_deref(), Some("word"));
        for nothing in ["env:B", "file:/g", "vault:x", "A"] {
            assert_eq!(resolve(&Known, nothing), None, "{nothing}");
        }
        assert_eq!(sole_reference("${env:A}"), Some("env:A"));
        for other in ["x${env:A}", "${env:A}${env:A}", "$${env:A}", "env:A", "${x:A}"] {
            assert_eq!(sole_reference(other), None, "{other}");
        }
    }
}
