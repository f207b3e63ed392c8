use std::collections::HashMap;

use vita_model::prompt::{Media, MediaKind};

/// Encoded media by content, so that what several streams show, or one stream shows again, is encoded once.
///
/// Bounded by bytes; what was not used for longest goes first.
#[derive(Debug)]
pub(super) struct MediaCache {
    entries: HashMap<(MediaKind, u64), Entry>,
    bytes: usize,
    max_bytes: usize,
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    media: Media,
    used: u64,
}

impl MediaCache {
    pub fn new(max_bytes: usize) -> Self {
        Self {
            entries: HashMap::new(),
            bytes: 0,
            max_bytes,
            clock: 0,
        }
    }

    pub fn get(&mut self, kind: MediaKind, key: u64) -> Option<Media> {
        self.clock += 1;
        let entry = self.entries.get_mut(&(kind, key))?;
        entry.used = self.clock;
        Some(entry.media.clone())
    }

    pub fn insert(&mut self, media: Media) {
        self.clock += 1;
        self.bytes += size(&media);
        let entry = Entry {
            used: self.clock,
            media,
        };
        let id = (entry.media.kind, entry.media.key);
        if let Some(replaced) = self.entries.insert(id, entry) {
            self.bytes -= size(&replaced.media);
        }
        self.shrink();
    }

    /// Returns the limit before.
    pub fn set_limit(&mut self, max_bytes: usize) -> usize {
        let before = std::mem::replace(&mut self.max_bytes, max_bytes);
        self.shrink();
        before
    }

    pub fn limit(&self) -> usize {
        self.max_bytes
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn shrink(&mut self) {
        while self.bytes > self.max_bytes {
            let oldest = self
                .entries
                .iter()
                .min_by_key(|(_, entry)| entry.used)
                .map(|(id, _)| *id);
            let Some(entry) = oldest.and_then(|id| self.entries.remove(&id)) else {
                return;
            };
            self.bytes -= size(&entry.media);
        }
    }
}

fn size(media: &Media) -> usize {
    media.vectors.elem_count() * media.vectors.dtype().size_in_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Tensor};

    fn media(key: u64) -> Media {
        Media {
            kind: MediaKind::Image,
            key,
            vectors: Tensor::zeros((2, 8), DType::F32, &Device::Cpu).unwrap(),
            transcript: None,
        }
    }

    #[test]
    fn the_least_recently_used_is_forgotten_first() {
        let mut cache = MediaCache::new(2 * 64);
        cache.insert(media(1));
        cache.insert(media(2));
        assert!(cache.get(MediaKind::Image, 1).is_some());
        cache.insert(media(3));
        let kept = [1, 2, 3].map(|key| cache.get(MediaKind::Image, key).is_some());
        assert_eq!(kept, [true, false, true]);
        assert!(cache.get(MediaKind::Audio, 1).is_none());
        assert_eq!(cache.bytes(), 128);
    }

    #[test]
    fn what_comes_again_takes_no_more_room() {
        let mut cache = MediaCache::new(2 * 64);
        for _ in 0..5 {
            cache.insert(media(1));
        }
        assert_eq!(cache.bytes(), 64);
        assert_eq!(cache.set_limit(10), 128);
        assert_eq!((cache.bytes(), cache.limit()), (0, 10));
        let none_fits = &mut MediaCache::new(10);
        none_fits.insert(media(1));
        assert_eq!(none_fits.bytes(), 0);
    }
}
