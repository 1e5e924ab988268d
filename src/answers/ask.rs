//! Which requests have to do with the cache, and under which key.

use std::borrow::Cow;

use memchr::memmem;

use crate::cache::{Directives, Key, KeyMaker, Scope};
use crate::catalog::{CacheMode, CacheScope, Model, Tenant};
use crate::llm::{Parsed, Route, Span};

/// A request as the cache sees it. Its model's cache is on.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Whose it is.
    pub tenant: &'a Tenant,
    /// The model it asks for.
    pub model: &'a Model,
    /// The route it came on.
    pub route: Route,
    /// What was read of it.
    pub parsed: &'a Parsed,
    /// Its body, as the client sent it.
    pub body: &'a [u8],
    /// The header fields that change what the upstream makes of the body, in a fixed order.
    pub dialect: &'a [Option<&'a [u8]>],
    /// What its `Cache-Control` says.
    pub directives: Directives,
}

impl Ask<'_> {
    /// The key under which the answer is kept; `None` if it is of a kind that is not.
    pub(super) fn key(&self, maker: &KeyMaker) -> Option<Key> {
        if !self.is_of_a_kind() {
            return None;
        }
        let scope = match self.model.cache.scope {
            CacheScope::Tenant => Scope::Tenant(self.tenant.id),
            CacheScope::Group => Scope::Group(&self.tenant.group),
            CacheScope::Global => Scope::Global,
        };
        let mut route = Cow::Borrowed(self.route.path());
        for (place, value) in self.dialect.iter().enumerate() {
            if let Some(value) = value {
                // A field's value has no line end in it, so no two lists of fields look alike.
                let value = std::str::from_utf8(value).ok()?;
                route.to_mut().push_str(&format!("\n{place} {value}"));
            }
        }
        maker.key(scope, self.model.id, self.model.provenance.version, &route, self.body)
    }

    fn is_of_a_kind(&self) -> bool {
        let repeats = match self.route {
            Route::Embeddings | Route::Rerank | Route::Moderations => true,
            Route::ChatCompletions | Route::Completions | Route::Messages => self.is_repeatable(),
            // What such a request gets depends on what the server remembers.
            Route::Responses => !self.says(b"\"conversation\"") && !self.says(b"\"background\"") && self.is_repeatable(),
            Route::ImagesGenerations
            | Route::AudioSpeech
            | Route::AudioTranscriptions
            | Route::AudioTranslations
            | Route::ImagesEdits
            | Route::CountTokens => false,
        };
        repeats && self.model.cache.ttl_secs > 0
    }

    /// Whether the model's mode lets a generated answer be kept.
    fn is_repeatable(&self) -> bool {
        let members = &self.parsed.members;
        match self.model.cache.mode {
            CacheMode::All => true,
            CacheMode::Deterministic => {
                let is_zero = |span: &Span| self.text(span).trim().parse::<f64>().is_ok_and(|value| value == 0.0);
                members.temperature.as_ref().is_some_and(is_zero)
                    || members.seed.as_ref().is_some_and(|span| self.text(span).trim() != "null")
            }
        }
    }

    fn text(&self, span: &Span) -> &str {
        let bytes = self.body.get(span.clone()).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    /// Whether a text stands in the body with bare quotes: as a key, or as a whole value.
    fn says(&self, quoted: &[u8]) -> bool {
        memmem::find(self.body, quoted).is_some()
    }
}
