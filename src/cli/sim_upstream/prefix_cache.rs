//! The simulated engine's prefix cache: blocks of prompts it has read before, the least recently used evicted, as vLLM keeps
//! them. A block is named by everything up to its end, so only what a prompt begins with can be found.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::ask::BYTES_PER_TOKEN;

/// Tokens of a block, and its bytes.
const BLOCK_TOKENS: u64 = 16;
const BLOCK_BYTES: usize = 64;
const _: () = assert!(BLOCK_BYTES as u64 == BLOCK_TOKENS * BYTES_PER_TOKEN);

/// What of a request is read as its prompt, as it lies in the body.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Prompt<'a> {
    #[serde(borrow, default)]
    system: Option<&'a RawValue>,
    #[serde(borrow, default)]
    messages: Option<&'a RawValue>,
    #[serde(borrow, default)]
    prompt: Option<&'a RawValue>,
}

/// The blocks, by their names, and when each was last used.
#[derive(Debug)]
pub(super) struct PrefixCache {
    blocks: HashMap<u64, u64>,
    /// Uses in order; those that are not a block's last are void.
    uses: VecDeque<(u64, u64)>,
    blocks_max: usize,
    clock: u64,
}

impl PrefixCache {
    /// Room for so many tokens.
    pub(super) fn new(tokens: u64) -> Self {
        Self {
            blocks: HashMap::new(),
            uses: VecDeque::new(),
            blocks_max: usize::try_from(tokens / BLOCK_TOKENS).unwrap_or(usize::MAX),
            clock: 0,
        }
    }

    /// Reads a prompt. Returns how many tokens at its beginning were there.
    pub(super) fn read(&mut self, prompt: &Prompt<'_>) -> u64 {
        let mut text = Vec::new();
        for part in [prompt.system, prompt.messages, prompt.prompt].into_iter().flatten() {
            text.extend_from_slice(part.get().as_bytes());
        }
        let mut hasher = DefaultHasher::new();
        let mut found = 0;
        let mut all_found = true;
        for block in text.chunks_exact(BLOCK_BYTES) {
            block.hash(&mut hasher);
            let name = hasher.finish();
            self.clock += 1;
            all_found &= self.blocks.insert(name, self.clock).is_some();
            self.uses.push_back((name, self.clock));
            found += u64::from(all_found);
        }
        while self.blocks.len() > self.blocks_max || self.uses.len() > 4 * self.blocks_max + 1024 {
            let Some((name, at)) = self.uses.pop_front() else { break };
            match self.blocks.get(&name) {
                Some(last) if *last != at => {}
                Some(_) if self.blocks.len() > self.blocks_max => _ = self.blocks.remove(&name),
                Some(_) => self.uses.push_back((name, at)),
                None => {}
            }
        }
        found * BLOCK_TOKENS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(cache: &mut PrefixCache, text: &str) -> u64 {
        let body = format!(r#"{{"model":"m","messages":"{text}"}}"#);
        cache.read(&serde_json::from_str(&body).unwrap())
    }

    #[test]
    fn a_prompt_that_grows_finds_its_beginning_and_another_finds_nothing() {
        let mut cache = PrefixCache::new(1 << 20);
        let first = "a".repeat(640);
        assert_eq!(read(&mut cache, &first), 0);
        assert_eq!(read(&mut cache, &format!("{first}{}", "b".repeat(640))), 160);
        assert_eq!(read(&mut cache, &format!("c{first}")), 0);
    }

    #[test]
    fn the_least_recently_used_makes_room() {
        let mut cache = PrefixCache::new(400);
        let [one, two, three] = ["a", "b", "c"].map(|letter| letter.repeat(640));
        read(&mut cache, &one);
        read(&mut cache, &two);
        assert_eq!(read(&mut cache, &one), 160);
        read(&mut cache, &three);
        assert_eq!(read(&mut cache, &one), 160, "used again before the third came");
        assert_eq!(read(&mut cache, &two), 0);
        assert!(cache.blocks.len() <= 25 && cache.uses.len() <= 1124);
    }
}
