//! Answers that an upstream compressed although it was asked not to: read from a decoded copy.
//!
//! The client gets what it can read: the coded bytes as they came if it accepts the coding and nothing in the answer needs
//! changing, else the decoded ones.

use std::io::Write as _;

use bytes::Bytes;
use flate2::write::{MultiGzDecoder, ZlibDecoder};
use http::HeaderMap;
use http::header::ACCEPT_ENCODING;

/// The most that one piece may grow to, in bytes: an answer that grows faster is no answer but an attack on memory.
const PIECE_MAX: usize = 4 << 20;

/// A coding that can be undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    Deflate,
}

impl Coding {
    /// Reads a `Content-Encoding`. `Ok(None)` is none at all.
    ///
    /// # Errors
    /// A coding, or a stack of them, that is not known here.
    pub(super) fn of(value: &[u8]) -> Result<Option<Self>, ()> {
        let value = value.trim_ascii();
        let is = |name: &str| value.eq_ignore_ascii_case(name.as_bytes());
        match () {
            () if value.is_empty() || is("identity") => Ok(None),
            () if is("gzip") || is("x-gzip") => Ok(Some(Self::Gzip)),
            () if is("deflate") => Ok(Some(Self::Deflate)),
            () => Err(()),
        }
    }

    /// Whether a client accepts the coding: by name or by `*`, and not at quality zero (RFC 9110, 12.5.3).
    pub(super) fn is_accepted(self, headers: &HeaderMap) -> bool {
        let name = match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        };
        let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        let mut by_star = false;
        for entry in values.flat_map(|value| value.split(',')) {
            let (coding, quality) = entry.split_once(';').unwrap_or((entry, ""));
            let refused = quality
                .trim()
                .strip_prefix("q=")
                .is_some_and(|q| q.parse::<f32>().is_ok_and(|q| q <= 0.0));
            match coding.trim() {
                coding if coding.eq_ignore_ascii_case(name) => return !refused,
                "*" => by_star = !refused,
                _ => {}
            }
        }
        by_star
    }
}

/// Undoes a coding piece by piece.
pub(super) struct Decoder {
    inner: Inner,
    /// Whether the client gets what was decoded; else it gets the coded bytes.
    pub(super) replaces: bool,
}

enum Inner {
    Gzip(MultiGzDecoder<Vec<u8>>),
    Deflate(ZlibDecoder<Vec<u8>>),
}

impl Decoder {
    pub(super) fn new(coding: Coding, replaces: bool) -> Self {
        let inner = match coding {
            Coding::Gzip => Inner::Gzip(MultiGzDecoder::new(Vec::new())),
            Coding::Deflate => Inner::Deflate(ZlibDecoder::new(Vec::new())),
        };
        Self { inner, replaces }
    }

    /// What a further piece of the coded body holds.
    ///
    /// # Errors
    /// It is not coded as it says, or grows beyond measure.
    pub(super) fn feed(&mut self, piece: &[u8], end: bool) -> Result<Bytes, ()> {
        // In slices, so that a bomb is noticed before it has gone off.
        for slice in piece.chunks(4096) {
            let length = match &mut self.inner {
                Inner::Gzip(decoder) => decoder.write_all(slice).map(|()| decoder.get_ref().len()),
                Inner::Deflate(decoder) => decoder.write_all(slice).map(|()| decoder.get_ref().len()),
            };
            if length.map_err(drop)? > PIECE_MAX {
                return Err(());
            }
        }
        let flushed = match &mut self.inner {
            Inner::Gzip(decoder) if end => decoder.try_finish(),
            Inner::Deflate(decoder) if end => decoder.try_finish(),
            // What the deflate block holds so far: an event must not wait for the next one.
            Inner::Gzip(decoder) => decoder.flush(),
            Inner::Deflate(decoder) => decoder.flush(),
        };
        flushed.map_err(drop)?;
        let decoded = match &mut self.inner {
            Inner::Gzip(decoder) => std::mem::take(decoder.get_mut()),
            Inner::Deflate(decoder) => std::mem::take(decoder.get_mut()),
        };
        Ok(Bytes::from(decoded))
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use http::HeaderValue;

    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_body_cut_anywhere_is_decoded_to_the_same_text() {
        let text = b"data: {\"usage\":{\"completion_tokens\":5}}\n\n".repeat(50);
        let coded = gzip(&text);
        for cut in 0..coded.len() {
            let mut decoder = Decoder::new(Coding::Gzip, true);
            let mut whole = decoder.feed(&coded[..cut], false).unwrap().to_vec();
            whole.extend_from_slice(&decoder.feed(&coded[cut..], true).unwrap());
            assert_eq!(whole, text, "cut at {cut}");
        }
    }

    #[test]
    fn an_event_that_was_flushed_does_not_wait_for_the_next() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(b"data: 1\n\n").unwrap();
        encoder.flush().unwrap();
        let first = std::mem::take(encoder.get_mut());
        assert_eq!(&Decoder::new(Coding::Gzip, true).feed(&first, false).unwrap()[..], b"data: 1\n\n");
    }

    #[test]
    fn what_is_not_coded_and_what_grows_beyond_measure_are_errors() {
        assert!(Decoder::new(Coding::Gzip, true).feed(b"plain text is no gzip", true).is_err());
        let bomb = gzip(&vec![0; PIECE_MAX * 2]);
        assert!(Decoder::new(Coding::Gzip, true).feed(&bomb, false).is_err());
    }

    #[test]
    fn accepted_is_by_name_or_star_and_not_at_quality_zero() {
        for (value, accepted) in [
            ("gzip, br", true),
            ("br", false),
            ("*", true),
            ("gzip;q=0, *", false),
            ("identity", false),
            ("GZIP; q=0.5", true),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(value));
            assert_eq!(Coding::Gzip.is_accepted(&headers), accepted, "{value}");
        }
        assert!(!Coding::Gzip.is_accepted(&HeaderMap::new()));
        assert_eq!(Coding::of(b"br"), Err(()));
        assert_eq!(Coding::of(b" GZip "), Ok(Some(Coding::Gzip)));
    }
}
