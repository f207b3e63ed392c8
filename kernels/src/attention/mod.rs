//! softmax(Q·Kᵀ + bias)·V without a matrix of scores.
//!
//! `blocked`: a tile of query rows meets the keys block by block; the scores of one block stay in the
//! first-level cache, and the running maximum and sum of each row correct the earlier blocks (online
//! softmax: Milakov & Gimelshein 2018; Dao et al. 2022). Exponentials are powers of two, the factor
//! log₂e is folded into the scale. `few`: for the one token of a decode step keys and values are read
//! where they lie.

mod blocked;
mod few;

use super::simd::{Level, Simd, at_level};
use super::threads::{Disjoint, share};

/// A tensor `[batch, heads, rows, width]` with any strides but a contiguous last dimension.
#[derive(Clone, Copy)]
pub struct Heads<'a> {
    pub data: &'a [f32],
    pub batch_stride: usize,
    pub head_stride: usize,
    pub row_stride: usize,
    pub width: usize,
}

impl<'a> Heads<'a> {
    #[inline(always)]
    fn row(&self, batch: usize, head: usize, row: usize) -> &'a [f32] {
        let at = batch * self.batch_stride + head * self.head_stride + row * self.row_stride;
        &self.data[at..at + self.width]
    }

    fn check(&self, name: &str, [batch, heads, rows]: [usize; 3]) {
        if batch * heads * rows > 0 {
            let last = (batch - 1) * self.batch_stride
                + (heads - 1) * self.head_stride
                + (rows - 1) * self.row_stride;
            assert!(
                last + self.width <= self.data.len(),
                "{name} is shorter than its shape says"
            );
        }
    }
}

/// What is attended, and how.
#[derive(Clone, Copy)]
pub struct Attention<'a> {
    pub batch: usize,
    pub heads: usize,
    /// Heads of keys and values; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    pub queries: usize,
    pub q: Heads<'a>,
    /// Oldest first; a cache may lie in several.
    pub pieces: &'a [Piece<'a>],
    pub scale: f32,
    /// Query `i` sees only keys up to `i + keys - queries`.
    pub causal: bool,
    /// Added to the scaled scores; −∞ hides a key.
    pub key_bias: Option<KeyBias<'a>>,
}

/// Keys and values of neighbouring positions.
#[derive(Clone, Copy)]
pub struct Piece<'a> {
    pub k: Heads<'a>,
    pub v: Heads<'a>,
    pub keys: usize,
}

/// A bias for each key, the same for all queries.
#[derive(Clone, Copy)]
pub struct KeyBias<'a> {
    /// `[batch, heads, keys]`
    pub data: &'a [f32],
    /// `kv_heads`, or 1 for the same bias in all heads.
    pub heads: usize,
}

impl<'a> Attention<'a> {
    fn keys(&self) -> usize {
        self.pieces.iter().map(|piece| piece.keys).sum()
    }

    /// Width of a value, and of a result.
    fn width(&self) -> usize {
        self.pieces.first().map_or(0, |piece| piece.v.width)
    }

    #[inline(always)]
    fn key_rows(&self, batch: usize, kv_head: usize) -> impl Iterator<Item = &'a [f32]> {
        let row = move |piece: &'a Piece, key| piece.k.row(batch, kv_head, key);
        let pieces = self.pieces.iter();
        pieces.flat_map(move |piece| (0..piece.keys).map(move |key| row(piece, key)))
    }

    #[inline(always)]
    fn value_rows(&self, batch: usize, kv_head: usize) -> impl Iterator<Item = &'a [f32]> {
        let row = move |piece: &'a Piece, key| piece.v.row(batch, kv_head, key);
        let pieces = self.pieces.iter();
        pieces.flat_map(move |piece| (0..piece.keys).map(move |key| row(piece, key)))
    }

    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    fn bias(&self, batch: usize, kv_head: usize) -> Option<&[f32]> {
        let bias = self.key_bias?;
        Some(&bias.data[(batch * bias.heads + kv_head % bias.heads) * self.keys()..][..self.keys()])
    }

    /// Keys that a query sees.
    fn seen(&self, query: usize) -> usize {
        if self.causal {
            (query + 1 + self.keys())
                .saturating_sub(self.queries)
                .min(self.keys())
        } else {
            self.keys()
        }
    }

    fn check(&self, out: &[f32]) {
        assert!(
            self.kv_heads > 0 && self.heads.is_multiple_of(self.kv_heads),
            "heads must be a multiple of the kv heads"
        );
        self.q.check("q", [self.batch, self.heads, self.queries]);
        for Piece { k, v, keys } in self.pieces {
            assert_eq!(self.q.width, k.width, "width of queries and keys");
            assert_eq!(self.width(), v.width, "width of the values");
            k.check("k", [self.batch, self.kv_heads, *keys]);
            v.check("v", [self.batch, self.kv_heads, *keys]);
        }
        if let Some(bias) = self.key_bias {
            assert!(
                bias.heads == 1 || bias.heads == self.kv_heads,
                "heads of the key bias"
            );
            assert_eq!(
                bias.data.len(),
                self.batch * bias.heads * self.keys(),
                "key bias"
            );
        }
        assert_eq!(
            out.len(),
            self.batch * self.queries * self.heads * self.width(),
            "output"
        );
    }
}

/// `out` is `[batch, queries, heads, width of v]`. A query that sees no key gives zeros.
pub fn attention(a: &Attention, out: &mut [f32]) {
    attention_at(Level::detect(), a, out);
}

pub(crate) fn attention_at(level: Level, a: &Attention, out: &mut [f32]) {
    a.check(out);
    if out.is_empty() {
        return;
    }
    at_level!(level, |s| vectors(s, a, out), plain(a, out));
}

/// Fewer query rows for a key-value head than this are not worth packing its keys for.
const WORTH_PACKING: usize = 8;

fn vectors<S: Simd>(s: S, a: &Attention, out: &mut [f32]) {
    if a.queries * a.group() < WORTH_PACKING {
        few::attend(s, a, out);
    } else {
        blocked::attend(s, a, out);
    }
}

/// The portable version.
fn plain(a: &Attention, out: &mut [f32]) {
    let width = a.width();
    let out = Disjoint::new(out);
    share(a.batch * a.heads, |task| {
        let (batch, head) = (task / a.heads, task % a.heads);
        let kv_head = head / a.group();
        for query in 0..a.queries {
            let (q, bias) = (a.q.row(batch, head, query), a.bias(batch, kv_head));
            let score = |(key, k): (usize, &[f32])| {
                let dot: f32 = q.iter().zip(k).map(|(q, k)| q * k).sum();
                dot * a.scale + bias.map_or(0.0, |bias| bias[key])
            };
            let keys = a.key_rows(batch, kv_head).enumerate();
            let mut weights: Vec<f32> = keys.take(a.seen(query)).map(score).collect();
            let largest = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            if largest > f32::NEG_INFINITY {
                weights.iter_mut().for_each(|w| *w = (*w - largest).exp());
            } else {
                weights.clear();
            }
            let sum: f32 = weights.iter().sum();
            #[allow(unsafe_code)]
            // SAFETY: each task has a head of its own.
            let out = unsafe {
                out.part(
                    ((batch * a.queries + query) * a.heads + head) * width,
                    width,
                )
            };
            out.fill(0.0);
            for (w, v) in weights.iter().zip(a.value_rows(batch, kv_head)) {
                for (o, v) in out.iter_mut().zip(v) {
                    *o += w / sum * v;
                }
            }
        }
    });
}
