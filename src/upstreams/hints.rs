//! Which conversation a request belongs to, where the client says so and where it does not: pure, at bounded cost.
//!
//! A conversation grows at its end, so what it starts with names it: the system prompt and the messages up to the first of
//! the user's. They are looked at as they lie in the body; nothing is parsed but where that message ends.

use super::choice::Digest;
use crate::id::TenantId;

/// So many bytes of a session's name count.
const NAME_MAX: usize = 512;
/// So many bytes of a system prompt, and of the messages after it, count.
const OPENING_MAX: usize = 64 << 10;

/// The hash of the session a request belongs to, for [`Hint::session`](super::Hint). `None` where nothing tells.
///
/// `named` is the client's own name for it (`x-session-id`, `session_id`, …); an empty one is none. `system` and `messages`
/// are the raw JSON values of those members, empty where a request has none; a prompt that is no array is no conversation.
/// Sessions of different tenants never meet, whatever they are called. Stable across processes.
#[must_use]
pub fn session_of(tenant: TenantId, named: Option<&[u8]>, system: &[u8], messages: &[u8]) -> Option<u64> {
    let mut digest = Digest::new(0);
    digest.add(tenant.as_bytes());
    if let Some(name) = named.filter(|name| !name.is_empty()) {
        digest.add(first(name, NAME_MAX));
        return Some(digest.get());
    }
    let opening = opening(messages)?;
    digest.add(first(system, OPENING_MAX));
    digest.add(opening);
    Some(digest.get())
}

fn first(bytes: &[u8], most: usize) -> &[u8] {
    bytes.get(..most).unwrap_or(bytes)
}

/// What an array of messages starts with, up to the end of the first one whose role is `user`; at most [`OPENING_MAX`]
/// bytes. `None` unless it is an array with something in it.
fn opening(messages: &[u8]) -> Option<&[u8]> {
    let messages = first(messages.trim_ascii_start(), OPENING_MAX);
    let body = messages.strip_prefix(b"[")?;
    if body.trim_ascii_start().first().is_none_or(|byte| *byte == b']') {
        return None;
    }
    let mut scan = Scan::default();
    let mut at = 0;
    while let Some(byte) = body.get(at) {
        at += 1;
        if *byte == b'"' {
            let rest = body.get(at..)?;
            let end = string_end(rest).unwrap_or(rest.len());
            scan.string(rest.get(..end)?);
            at += end + 1;
        } else if scan.punctuation(*byte) {
            return body.get(..at);
        }
    }
    Some(body)
}

/// Where the scan of an array of messages is.
#[derive(Default)]
struct Scan {
    /// 0 between messages, 1 among the members of one.
    depth: u32,
    /// The next string is a member's value.
    value: bool,
    /// The last member's name was `role`.
    role: bool,
    /// This message is the user's.
    user: bool,
}

impl Scan {
    fn string(&mut self, text: &[u8]) {
        if self.depth != 1 {
            return;
        }
        if self.value {
            self.user |= self.role && text == b"user";
        } else {
            self.role = text == b"role";
        }
    }

    /// Returns whether a message of the user's has ended.
    fn punctuation(&mut self, byte: u8) -> bool {
        match byte {
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                if self.depth == 0 {
                    self.value = false;
                    return std::mem::take(&mut self.user);
                }
            }
            b':' if self.depth == 1 => self.value = true,
            b',' if self.depth == 1 => self.value = false,
            _ => {}
        }
        false
    }
}

/// Where a string that has begun ends: the place of its closing quote.
fn string_end(rest: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let found = at + memchr::memchr2(b'"', b'\\', rest.get(at..)?)?;
        if rest.get(found) == Some(&b'"') {
            return Some(found);
        }
        at = found + 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: TenantId = TenantId::from_bytes([7; 16]);
    const OTHER: TenantId = TenantId::from_bytes([8; 16]);

    fn derived(messages: &str) -> Option<u64> {
        session_of(TENANT, None, b"", messages.as_bytes())
    }

    #[test]
    fn a_conversation_keeps_its_session_as_it_grows() {
        let first = r#"[{"role":"system","content":"Be brief."},{"role":"user","content":[{"type":"text","text":"say \"[hi}\""}]}"#;
        let second = format!(r#"{first},{{"role":"assistant","content":"hi"}},{{"role":"user","content":"and now?"}}]"#);
        let first = format!("{first}]");
        assert!(derived(&first).is_some());
        assert_eq!(derived(&first), derived(&second));
        assert_ne!(derived(&first), derived(&first.replace("hi", "ho")));
        assert_ne!(derived(&first), derived(&first.replace("brief", "verbose")));
    }

    #[test]
    fn a_role_inside_the_content_ends_no_message() {
        let turn = |reply: &str| {
            format!(
                r#"[{{"content":[{{"role":"user","x":"role"}},"user"],"role":"system"}},{{"content":"q","role":"user"}},{{"role":"assistant","content":"{reply}"}}]"#
            )
        };
        assert_eq!(derived(&turn("a")), derived(&turn("b")));
        let question = turn("a").replace(r#""q""#, r#""p""#);
        assert_ne!(derived(&turn("a")), derived(&question));
    }

    #[test]
    fn a_name_beats_the_messages_and_belongs_to_its_tenant() {
        let named = |tenant, name: &[u8]| session_of(tenant, Some(name), b"", br#"[{"role":"user","content":"x"}]"#);
        assert_eq!(named(TENANT, b"s1"), session_of(TENANT, Some(b"s1"), b"other", b"\"prompt\""));
        assert_ne!(named(TENANT, b"s1"), named(TENANT, b"s2"));
        assert_ne!(named(TENANT, b"s1"), named(OTHER, b"s1"));
        assert_eq!(
            named(TENANT, b""),
            derived(r#"[{"role":"user","content":"x"}]"#),
            "an empty name is none"
        );
    }

    #[test]
    fn what_is_no_conversation_has_no_session() {
        for prompt in ["", "[]", " [ ] ", "\"Once upon a time\"", "null", "{}"] {
            assert_eq!(derived(prompt), None, "{prompt}");
        }
        assert!(derived("[\"unclosed").is_some(), "cut off is still something to go by");
        assert!(derived("[{\"role\":\"user\\").is_some());
    }

    #[test]
    fn the_system_prompt_counts_and_a_long_opening_is_cut() {
        let with = |system: &[u8]| session_of(TENANT, None, system, br#"[{"role":"user","content":"x"}]"#);
        assert_ne!(with(b"\"a\""), with(b"\"b\""));
        let long = |end: &str| derived(&format!(r#"[{{"role":"user","content":"{}{end}"}}]"#, "x".repeat(OPENING_MAX)));
        assert_eq!(long("a"), long("b"));
    }
}
