use std::collections::HashMap;

use candle_core::Tensor;

use crate::Result;

/// Encoded media by content key, so that a frame or an utterance is encoded once even when both roles use it.
///
/// Bounded by bytes; what was not used for longest goes first.
#[derive(Debug)]
pub struct MediaCache {
    entries: HashMap<u64, (Tensor, u64)>,
    bytes: usize,
    max_bytes: usize,
    clock: u64,
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

    /// The embeddings under `key`, from `encode` if they are not there yet.
    pub fn get_or_encode(
        &mut self,
        key: u64,
        encode: impl FnOnce() -> Result<Tensor>,
    ) -> Result<Tensor> {
        self.clock += 1;
        if let Some((tensor, used)) = self.entries.get_mut(&key) {
            *used = self.clock;
            return Ok(tensor.clone());
        }
        let tensor = encode()?;
        self.bytes += size(&tensor);
        self.entries.insert(key, (tensor.clone(), self.clock));
        self.shrink();
        Ok(tensor)
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn shrink(&mut self) {
        while self.bytes > self.max_bytes {
            let oldest = self
                .entries
                .iter()
                .min_by_key(|(_, (_, used))| *used)
                .map(|(key, _)| *key);
            let Some((tensor, _)) = oldest.and_then(|key| self.entries.remove(&key)) else {
                return;
            };
            self.bytes -= size(&tensor);
        }
    }
}

fn size(tensor: &Tensor) -> usize {
    tensor.elem_count() * tensor.dtype().size_in_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn encodes_once_and_forgets_the_least_recently_used() {
        let zeros = || Ok(Tensor::zeros((2, 8), DType::F32, &Device::Cpu)?);
        let mut cache = MediaCache::new(2 * 64);
        let mut encoded = Vec::new();
        for key in [1, 2, 1, 3, 1, 2] {
            let tensor = cache.get_or_encode(key, || {
                encoded.push(key);
                zeros()
            });
            assert!(tensor.is_ok());
        }
        assert_eq!(encoded, [1, 2, 3, 2]);
        assert_eq!(cache.bytes(), 128);
    }
}
