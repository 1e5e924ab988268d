//! What a request's `Cache-Control` asks for (RFC 9111 §5.2.1, the part of it that a gateway for inference can honour).

/// One thing a client may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Directive {
    /// Go upstream, and store the answer.
    NoCache,
    /// Go upstream, and store nothing.
    NoStore,
    /// Answer from the cache or not at all.
    OnlyIfCached,
}

/// All a client asks for. Unknown directives are ignored, as the RFC says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Directives {
    no_cache: bool,
    no_store: bool,
    only_if_cached: bool,
}

impl Directives {
    /// Reads the values of all `Cache-Control` headers.
    pub fn read<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut all = Self::default();
        for directive in values.into_iter().flat_map(|value| value.split(|byte| *byte == b',')) {
            match of(directive.trim_ascii()) {
                Some(Directive::NoCache) => all.no_cache = true,
                Some(Directive::NoStore) => all.no_store = true,
                Some(Directive::OnlyIfCached) => all.only_if_cached = true,
                None => {}
            }
        }
        all
    }

    /// Whether a stored answer may be given.
    #[must_use]
    pub const fn may_look(self) -> bool {
        !self.no_cache && !self.no_store
    }

    /// Whether the answer may be stored.
    #[must_use]
    pub const fn may_store(self) -> bool {
        !self.no_store
    }

    /// Whether nothing may go upstream. `no-cache, only-if-cached` can never be satisfied, and is taken at its word.
    #[must_use]
    pub const fn only_if_cached(self) -> bool {
        self.only_if_cached
    }
}

fn of(directive: &[u8]) -> Option<Directive> {
    let name = directive.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
    let is = |text: &str| name.eq_ignore_ascii_case(text.as_bytes());
    if is("no-cache") {
        Some(Directive::NoCache)
    } else if is("no-store") {
        Some(Directive::NoStore)
    } else if is("only-if-cached") {
        Some(Directive::OnlyIfCached)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_are_found_in_any_spelling_and_strangers_are_ignored() {
        let all = Directives::read([b"max-age=0, No-Store".as_slice(), b" only-if-cached".as_slice()]);
        assert!(!all.may_look() && !all.may_store() && all.only_if_cached());
        let all = Directives::read([b"no-cache=\"x\"".as_slice()]);
        assert!(!all.may_look() && all.may_store() && !all.only_if_cached());
        assert_eq!(Directives::read([b"no-cacheable, xno-store".as_slice()]), Directives::default());
    }
}
