//! How much to reserve before anybody knows what a request will use.

/// The output of a tenant's first request to a model, before anything was learned.
pub const FIRST_OUTPUT_TOKENS: u64 = 256;

/// Bytes of text per token, roughly, over the usual tokenisers and languages.
pub const BYTES_PER_TOKEN: u64 = 4;

/// The input alone is larger than a whole minute's quota: the request can never pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the input alone is larger than the quota of a whole minute")]
pub struct ExceedsQuota;

/// Input tokens of so many bytes of text.
#[must_use]
pub const fn input_tokens(text_bytes: u64) -> u64 {
    text_bytes.div_ceil(BYTES_PER_TOKEN)
}

/// Output tokens to expect: what was learned, but not more than the client allows.
#[must_use]
pub fn output_tokens(max_tokens: Option<u64>, learned: u64) -> u64 {
    max_tokens.map_or(learned, |max| max.min(learned))
}

/// What to take from a bucket of `limit`: input and output, but never more than the bucket holds, so that a guess about
/// the output makes no request impossible.
///
/// # Errors
/// [`ExceedsQuota`] when the input alone is larger than the bucket.
pub fn reservation(input: u64, output: u64, limit: u64) -> Result<u64, ExceedsQuota> {
    if input > limit {
        return Err(ExceedsQuota);
    }
    Ok(input.saturating_add(output).min(limit))
}

/// A running mean of outputs that forgets: each new one weighs an eighth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeanOutput {
    /// In 1/256 tokens.
    scaled: u64,
}

impl Default for MeanOutput {
    fn default() -> Self {
        Self {
            scaled: FIRST_OUTPUT_TOKENS << Self::SHIFT,
        }
    }
}

impl MeanOutput {
    const SHIFT: u32 = 8;
    /// Larger outputs count as this; keeps the sum inside a `u64`.
    const OUTPUT_MAX: u64 = 1 << 40;

    /// The mean in whole tokens, rounded up.
    #[must_use]
    pub const fn tokens(self) -> u64 {
        self.scaled.div_ceil(1 << Self::SHIFT)
    }

    /// The mean after one more output.
    #[must_use]
    pub fn with(self, output_tokens: u64) -> Self {
        let sample = output_tokens.min(Self::OUTPUT_MAX) << Self::SHIFT;
        Self {
            scaled: self.scaled - self.scaled / 8 + sample / 8,
        }
    }
}
