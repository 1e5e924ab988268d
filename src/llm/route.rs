//! The routes that ask a model for something, and the dialect each speaks.

/// Whose conventions a route follows: the shape of errors, the meaning of usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// OpenAI's, and that of every engine which imitates it.
    Openai,
    /// Anthropic's Messages API.
    Anthropic,
}

impl Dialect {
    /// What is spoken under a path, also where it leads nowhere.
    #[must_use]
    pub fn of_path(path: &str) -> Self {
        if path.starts_with("/v1/messages") {
            Self::Anthropic
        } else {
            Self::Openai
        }
    }
}

macro_rules! routes {
    ($($(#[$doc:meta])* $name:ident $path:literal;)*) => {
        /// A route that works for a client: every `POST` that is forwarded, and nothing else is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Route {
            $($(#[$doc])* $name,)*
        }

        impl Route {
            /// Every route, in the order of the API's table.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The route of a path, compared as it came.
            #[must_use]
            pub fn of(path: &str) -> Option<Self> {
                match path {
                    $($path => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// Its path, on our side and the upstream's alike.
            #[must_use]
            pub const fn path(self) -> &'static str {
                match self {
                    $(Self::$name => $path,)*
                }
            }
        }
    };
}

routes! {
    /// Chat.
    ChatCompletions "/v1/chat/completions";
    /// Completions of a raw prompt.
    Completions "/v1/completions";
    /// Embeddings.
    Embeddings "/v1/embeddings";
    /// OpenAI's Responses API.
    Responses "/v1/responses";
    /// Ranking documents by a query.
    Rerank "/v1/rerank";
    /// Moderation.
    Moderations "/v1/moderations";
    /// Images from a prompt.
    ImagesGenerations "/v1/images/generations";
    /// Speech from text.
    AudioSpeech "/v1/audio/speech";
    /// Text from speech.
    AudioTranscriptions "/v1/audio/transcriptions";
    /// English text from speech.
    AudioTranslations "/v1/audio/translations";
    /// Images from images and a prompt.
    ImagesEdits "/v1/images/edits";
    /// Anthropic's Messages API.
    Messages "/v1/messages";
    /// Counting a prompt's tokens. Routed with the model, but nothing is inferred, so nothing is billed.
    CountTokens "/v1/messages/count_tokens";
}

impl Route {
    /// The dialect spoken on it.
    #[must_use]
    pub const fn dialect(self) -> Dialect {
        match self {
            Self::Messages | Self::CountTokens => Dialect::Anthropic,
            Self::ChatCompletions
            | Self::Completions
            | Self::Embeddings
            | Self::Responses
            | Self::Rerank
            | Self::Moderations
            | Self::ImagesGenerations
            | Self::AudioSpeech
            | Self::AudioTranscriptions
            | Self::AudioTranslations
            | Self::ImagesEdits => Dialect::Openai,
        }
    }

    /// Whether its requests are `multipart/form-data`; the others' are JSON.
    #[must_use]
    pub const fn is_multipart(self) -> bool {
        matches!(self, Self::AudioTranscriptions | Self::AudioTranslations | Self::ImagesEdits)
    }

    /// Whether a stream on it reports usage only when `stream_options.include_usage` asks for it.
    pub(super) const fn usage_on_request(self) -> bool {
        matches!(self, Self::ChatCompletions | Self::Completions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_found_by_its_own_path_only() {
        for route in Route::ALL {
            assert_eq!(Route::of(route.path()), Some(*route));
            assert_eq!(Route::of(&format!("{}/", route.path())), None);
        }
        for path in ["", "/", "/v1/models", "/v1/chat", "/V1/messages", "/v1/responses/resp_1"] {
            assert_eq!(Route::of(path), None, "{path}");
        }
    }
}
