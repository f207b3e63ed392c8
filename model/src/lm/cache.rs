//! Keys and values of one sequence.

use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use std::sync::Arc;

/// Positions that a tail has room for at least. Where it gets too small, it grows by a quarter.
const MIN_CAPACITY: usize = 64;

/// More frozen segments than this are joined, so that attention has few pieces to walk.
const MAX_SEGMENTS: usize = 6;

/// What a model's caches have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheShape {
    pub layers: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub dtype: DType,
}

impl CacheShape {
    /// Bytes of keys and values for one position over all layers.
    pub fn bytes_per_position(&self) -> usize {
        2 * self.layers * self.kv_heads * self.head_dim * self.dtype.size_in_bytes()
    }

    /// Upper bound for a cache that holds so many positions, however it has grown.
    pub fn bytes_for(&self, positions: usize) -> usize {
        (positions + positions / 4 + MIN_CAPACITY) * self.bytes_per_position()
    }
}

/// Keys and values `[kv_heads, capacity, head_dim]` of one layer.
#[derive(Debug, Clone)]
struct Pair {
    k: Tensor,
    v: Tensor,
}

impl Pair {
    fn zeros(shape: &CacheShape, capacity: usize, device: &Device) -> Result<Self> {
        let dims = (shape.kv_heads, capacity, shape.head_dim);
        let k = Tensor::zeros(dims, shape.dtype, device)?;
        Ok(Self {
            v: k.zeros_like()?,
            k,
        })
    }

    fn narrow(&self, len: usize) -> Result<(Tensor, Tensor)> {
        Ok((self.k.narrow(1, 0, len)?, self.v.narrow(1, 0, len)?))
    }

    fn copy(&self, len: usize) -> Result<Self> {
        let (k, v) = self.narrow(len)?;
        let (k, v) = (k.force_contiguous()?, v.force_contiguous()?);
        Ok(Self { k, v })
    }

    fn write(&self, k: &Tensor, v: &Tensor, at: usize) -> Result<()> {
        self.k.slice_set(&k.contiguous()?, 1, at)?;
        Ok(self.v.slice_set(&v.contiguous()?, 1, at)?)
    }
}

/// Frozen positions that several sequences may share; never written again.
#[derive(Debug)]
struct Segment {
    layers: Vec<Pair>,
    bytes: usize,
}

/// The first `len` positions of a frozen segment.
#[derive(Debug, Clone)]
struct Shared {
    segment: Arc<Segment>,
    len: usize,
}

/// The cache of one sequence: frozen segments that may be shared with others, then a tail of its own.
///
/// Forking freezes the tail without copying it. Truncating drops or shortens segments. The sum of
/// both is the position of the next token.
#[derive(Debug)]
pub struct KvCache {
    shape: CacheShape,
    device: Device,
    shared: Vec<Shared>,
    tail: Vec<Pair>,
    tail_len: usize,
    capacity: usize,
}

impl KvCache {
    pub fn new(shape: CacheShape, device: &Device) -> Self {
        Self {
            shape,
            device: device.clone(),
            shared: Vec::new(),
            tail: Vec::new(),
            tail_len: 0,
            capacity: 0,
        }
    }

    /// Positions held, which is also the position of the next token.
    pub fn len(&self) -> usize {
        self.shared_len() + self.tail_len
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that only this cache holds.
    pub fn own_bytes(&self) -> usize {
        self.capacity * self.shape.bytes_per_position()
    }

    /// The segments shared with other caches, and the bytes of each: equal addresses are the same memory.
    pub fn segments(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let segments = self.shared.iter().map(|shared| &shared.segment);
        segments.map(|segment| (Arc::as_ptr(segment).addr(), segment.bytes))
    }

    fn shared_len(&self) -> usize {
        self.shared.iter().map(|s| s.len).sum()
    }

    /// Makes room for `more` positions, so that a step does not stop half-way for lack of memory.
    pub fn reserve(&mut self, more: usize) -> Result<()> {
        let Some(capacity) = self.capacity_for(more) else {
            return Ok(());
        };
        // Layer by layer, so that there is never a second copy of all.
        for layer in 0..self.shape.layers {
            let pair = Pair::zeros(&self.shape, capacity, &self.device)?;
            match self.tail.get_mut(layer) {
                Some(old) => {
                    let (k, v) = old.narrow(self.tail_len)?;
                    if self.tail_len > 0 {
                        pair.write(&k, &v, 0)?;
                    }
                    *old = pair;
                }
                None => self.tail.push(pair),
            }
        }
        self.capacity = capacity;
        Ok(())
    }

    /// Bytes that [`Self::reserve`] would take.
    pub fn growth_bytes(&self, more: usize) -> usize {
        let grown = self.capacity_for(more).unwrap_or(self.capacity);
        (grown - self.capacity) * self.shape.bytes_per_position()
    }

    /// What the tail has to grow to; `None`: it has room.
    fn capacity_for(&self, more: usize) -> Option<usize> {
        let needed = self.tail_len + more;
        let grown = needed.max(self.capacity + self.capacity / 4);
        (needed > self.capacity).then(|| grown.max(MIN_CAPACITY))
    }

    /// Writes one layer's new keys and values `[kv_heads, new, head_dim]` behind everything held and
    /// gives all pieces of that layer, oldest first. They count only after [`Self::advance`].
    pub fn append(&self, layer: usize, k: &Tensor, v: &Tensor) -> Result<Vec<(Tensor, Tensor)>> {
        let new = k.dim(1)?;
        let tail = self
            .tail
            .get(layer)
            .filter(|_| self.tail_len + new <= self.capacity);
        let tail = tail.ok_or_else(|| Error::Input("the KV cache was not grown first".into()))?;
        tail.write(k, v, self.tail_len)?;
        let shared = self
            .shared
            .iter()
            .map(|s| s.segment.layers[layer].narrow(s.len));
        shared.chain([tail.narrow(self.tail_len + new)]).collect()
    }

    /// Counts positions that all layers have written.
    pub fn advance(&mut self, new: usize) {
        self.tail_len += new;
    }

    /// Forgets everything from position `len` on.
    pub fn truncate(&mut self, len: usize) {
        let shared = self.shared_len();
        self.tail_len = self.tail_len.min(len.saturating_sub(shared));
        let mut left = len;
        self.shared.retain_mut(|segment| {
            segment.len = segment.len.min(left);
            left -= segment.len;
            segment.len > 0
        });
    }

    /// A second cache with the same content. The content becomes common property and is not copied;
    /// what either appends from here on is its own.
    pub fn fork(&mut self) -> Result<Self> {
        self.freeze();
        if self.shared.len() > MAX_SEGMENTS {
            self.join()?;
        }
        Ok(Self {
            shared: self.shared.clone(),
            device: self.device.clone(),
            tail: Vec::new(),
            ..*self
        })
    }

    /// A second cache with the first `len` positions. What would keep much more memory alive than it uses is copied.
    pub fn fork_at(&mut self, len: usize) -> Result<Self> {
        let mut fork = self.fork()?;
        fork.truncate(len);
        for shared in &mut fork.shared {
            let used = shared.len * fork.shape.bytes_per_position();
            if shared.segment.bytes > used + used / 4 {
                let layers = shared.segment.layers.iter();
                let copies = layers.map(|pair| pair.copy(shared.len));
                let layers = copies.collect::<Result<_>>()?;
                let bytes = used;
                shared.segment = Arc::new(Segment { layers, bytes });
            }
        }
        Ok(fork)
    }

    fn freeze(&mut self) {
        let layers = std::mem::take(&mut self.tail);
        let bytes = self.own_bytes();
        if self.tail_len > 0 {
            self.shared.push(Shared {
                segment: Arc::new(Segment { layers, bytes }),
                len: self.tail_len,
            });
        }
        self.tail_len = 0;
        self.capacity = 0;
    }

    fn join(&mut self) -> Result<()> {
        let len = self.shared_len();
        let layers = (0..self.shape.layers)
            .map(|layer| {
                let joined = Pair::zeros(&self.shape, len, &self.device)?;
                let mut at = 0;
                for shared in &self.shared {
                    let (k, v) = shared.segment.layers[layer].narrow(shared.len)?;
                    joined.write(&k, &v, at)?;
                    at += shared.len;
                }
                Ok(joined)
            })
            .collect::<Result<_>>()?;
        self.shared = vec![Shared {
            segment: Arc::new(Segment {
                layers,
                bytes: len * self.shape.bytes_per_position(),
            }),
            len,
        }];
        Ok(())
    }
}
