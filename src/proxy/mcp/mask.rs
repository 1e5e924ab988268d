//! Blots a server's credential out of what the server answers, should it echo it: an error page does, and so does a tool that
//! shows the headers it was called with. The blots are as long as what they cover, and nothing is held back but the end of
//! a piece that might be the beginning of the secret.

use bytes::Bytes;
use memchr::memmem;

/// A shorter secret is found in anything, and protects nothing.
const SECRET_MIN: usize = 8;

/// The state between two pieces.
#[derive(Debug)]
pub(super) struct Mask {
    secret: Box<[u8]>,
    held: Vec<u8>,
}

impl Mask {
    /// For a header's whole value: what is after the scheme is the secret. `None` where there is nothing to hide.
    pub(super) fn of(value: Option<&str>) -> Option<Self> {
        let value = value?.trim();
        let secret = value.split_once(' ').map_or(value, |(_, secret)| secret.trim());
        (secret.len() >= SECRET_MIN).then(|| Self {
            secret: secret.as_bytes().into(),
            held: Vec::new(),
        })
    }

    /// Whether a text has the secret in it.
    pub(super) fn finds(&self, text: &[u8]) -> bool {
        memmem::find(text, &self.secret).is_some()
    }

    /// Takes the next piece and gives back what may go on. `end` says that none follows.
    pub(super) fn feed(&mut self, piece: Bytes, end: bool) -> Bytes {
        let piece = if self.held.is_empty() {
            piece
        } else {
            let mut joined = std::mem::take(&mut self.held);
            joined.extend_from_slice(&piece);
            joined.into()
        };
        let piece = if self.finds(&piece) { self.blotted(&piece) } else { piece };
        let keep = if end { 0 } else { self.begun(&piece) };
        let (out, rest) = (piece.slice(..piece.len() - keep), piece.slice(piece.len() - keep..));
        self.held.extend_from_slice(&rest);
        out
    }

    fn blotted(&self, piece: &[u8]) -> Bytes {
        let mut out = piece.to_vec();
        for at in memmem::find_iter(piece, &self.secret) {
            if let Some(echo) = out.get_mut(at..at + self.secret.len()) {
                echo.fill(b'*');
            }
        }
        out.into()
    }

    /// How many bytes at the end may be the secret's beginning.
    fn begun(&self, piece: &[u8]) -> usize {
        let longest = (self.secret.len() - 1).min(piece.len());
        (1..=longest)
            .rev()
            .find(|length| self.secret.starts_with(piece.get(piece.len() - length..).unwrap_or_default()))
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_secret_is_blotted_wherever_the_answer_is_cut(text in "[ab]{0,12}", cuts in prop::collection::vec(0_usize..64, 0..6)) {
            let answer = format!("{text}aababaab{text}aababaab");
            let expected = answer.replace("aababaab", "********");
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(answer.len())).collect();
            cuts.extend([0, answer.len()]);
            cuts.sort_unstable();
            let mut mask = Mask::of(Some("Bearer aababaab")).unwrap();
            let mut out = Vec::new();
            for pair in cuts.windows(2) {
                out.extend_from_slice(&mask.feed(Bytes::copy_from_slice(&answer.as_bytes()[pair[0]..pair[1]]), false));
            }
            out.extend_from_slice(&mask.feed(Bytes::new(), true));
            prop_assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn an_event_that_ends_as_no_secret_begins_is_passed_on_at_once() {
        let mut mask = Mask::of(Some("Bearer s3cr3t-t0k3n")).unwrap();
        let event = Bytes::from_static(b"data: {}\n\n");
        assert_eq!(mask.feed(event.clone(), false), event);
        assert!(Mask::of(Some("x")).is_none() && Mask::of(None).is_none());
    }
}
