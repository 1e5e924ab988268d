//! Why a request's body cannot be used, in words for the client who sent it.

/// What is wrong with a body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BodyFault {
    code: &'static str,
    param: Option<String>,
    message: String,
}

const UNSUPPORTED_MEDIA_TYPE: &str = "unsupported_media_type";

/// Bytes of a member's name that an error shows.
const KEY_SHOWN_MAX: usize = 64;

impl BodyFault {
    /// The body is of a kind that the route does not take.
    #[must_use]
    pub fn unsupported_media_type(message: &str) -> Self {
        Self::new(UNSUPPORTED_MEDIA_TYPE, None, message)
    }

    /// Whether the fault is the body's kind rather than its content: 415 rather than 400.
    #[must_use]
    pub fn is_unsupported_media_type(&self) -> bool {
        self.code == UNSUPPORTED_MEDIA_TYPE
    }

    /// The stable word for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        self.code
    }

    /// The field at fault, if one is.
    #[must_use]
    pub fn param(&self) -> Option<&str> {
        self.param.as_deref()
    }

    /// The sentence for people.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    pub(super) fn invalid_json(at: usize, what: &str) -> Self {
        Self::new(
            "invalid_json",
            None,
            &format!("The request's body is not valid JSON: {what} at byte {at}."),
        )
    }

    pub(super) fn not_an_object() -> Self {
        Self::new("invalid_json", None, "The request's body must be a JSON object.")
    }

    pub(super) fn too_deep(max: u32) -> Self {
        Self::new(
            "invalid_json",
            None,
            &format!("The request's body is nested more than {max} levels deep."),
        )
    }

    pub(super) fn duplicate_key(key: &str) -> Self {
        // As much of it as helps to find it: the client chose its length.
        let key = key.get(..key.floor_char_boundary(KEY_SHOWN_MAX)).unwrap_or(key);
        Self::new(
            "duplicate_key",
            Some(key),
            &format!("The request's body has \"{key}\" more than once."),
        )
    }

    pub(super) fn missing_model() -> Self {
        Self::new(
            "missing_model",
            Some("model"),
            "The request must name a model: \"model\" must be a non-empty string.",
        )
    }

    pub(super) fn invalid_value(param: &str, must: &str) -> Self {
        Self::new("invalid_value", Some(param), &format!("\"{param}\" must be {must}."))
    }

    pub(super) fn invalid_multipart(what: &str) -> Self {
        Self::new(
            "invalid_multipart",
            None,
            &format!("The request's multipart body cannot be read: {what}."),
        )
    }

    fn new(code: &'static str, param: Option<&str>, message: &str) -> Self {
        Self {
            code,
            param: param.map(str::to_owned),
            message: message.to_owned(),
        }
    }
}
