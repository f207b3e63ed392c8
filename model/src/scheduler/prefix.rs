use std::collections::HashSet;

use super::marks::Mark;
use crate::Result;
use crate::lm::KvCache;

/// What finished sequences remember, for prompts that begin as they did: a system prompt, frames that were encoded
/// before, the conversation so far.
#[derive(Default)]
pub(super) struct PrefixCache {
    /// Least recently used first.
    entries: Vec<Entry>,
}

struct Entry {
    marks: Vec<Mark>,
    cache: KvCache,
}

/// Shorter common prefixes are not worth an entry's look-up.
const MIN_TOKENS: usize = 8;

impl PrefixCache {
    /// A cache for the longest known prefix of `marks`, at most all but the last position: that one has to be run for
    /// its logits.
    pub fn find(&mut self, marks: &[Mark]) -> Result<Option<KvCache>> {
        let usable = &marks[..marks.len().saturating_sub(1)];
        let best = self
            .entries
            .iter()
            .enumerate()
            .map(|(i, entry)| (common(&entry.marks, usable), i))
            .max();
        let Some((len, i)) = best.filter(|(len, _)| *len >= MIN_TOKENS) else {
            return Ok(None);
        };
        let mut entry = self.entries.remove(i);
        let cache = entry.cache.fork_at(len);
        self.entries.push(entry);
        cache.map(Some)
    }

    /// Keeps what a sequence remembers; entries that are prefixes of it are no longer needed.
    pub fn put(&mut self, mut marks: Vec<Mark>, cache: KvCache) {
        marks.truncate(cache.len());
        if marks.len() < MIN_TOKENS {
            return;
        }
        self.entries
            .retain(|entry| !marks.starts_with(&entry.marks));
        self.entries.push(Entry { marks, cache });
    }

    /// Gives up the entry that was not used for longest. `false`: there is none.
    pub fn evict(&mut self) -> bool {
        if self.entries.is_empty() {
            return false;
        }
        self.entries.remove(0);
        true
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn caches(&self) -> impl Iterator<Item = &KvCache> {
        self.entries.iter().map(|entry| &entry.cache)
    }
}

/// Bytes that caches hold together, memory that they share counted once.
pub(super) fn held_bytes<'a>(caches: impl Iterator<Item = &'a KvCache>) -> usize {
    let mut seen = HashSet::new();
    let mut bytes = 0;
    for cache in caches {
        let new = cache
            .segments()
            .filter(|(address, _)| seen.insert(*address));
        bytes += cache.own_bytes() + new.map(|(_, bytes)| bytes).sum::<usize>();
    }
    bytes
}

fn common(a: &[Mark], b: &[Mark]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
