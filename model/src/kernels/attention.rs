//! softmax(Q·Kᵀ + bias)·V without a matrix of scores.
//!
//! A tile of query rows meets the keys block by block; the scores of one block stay in the
//! first-level cache, and the running maximum and sum of each row correct the earlier blocks (online
//! softmax: Milakov & Gimelshein 2018; Dao et al. 2022). Exponentials are powers of two, the factor
//! log₂e is folded into the scale.

use super::buffer::Aligned;
use super::gemm::{LINE, tile, tile_rows, with_tile_rows};
use super::math;
#[cfg(target_arch = "x86_64")]
use super::simd::{Avx2, Avx512};
use super::simd::{Level, Simd};
use super::threads::{Disjoint, share, threads};
use std::cell::RefCell;

/// Keys of a block; a multiple of every panel width.
const KEYS: usize = 256;

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
    pub keys: usize,
    pub q: Heads<'a>,
    pub k: Heads<'a>,
    pub v: Heads<'a>,
    pub scale: f32,
    /// Query `i` sees only keys up to `i + keys - queries`.
    pub causal: bool,
    /// Added to the scaled scores; −∞ hides a key.
    pub key_bias: Option<KeyBias<'a>>,
}

/// A bias for each key, the same for all queries.
#[derive(Clone, Copy)]
pub struct KeyBias<'a> {
    /// `[batch, heads, keys]`
    pub data: &'a [f32],
    /// `kv_heads`, or 1 for the same bias in all heads.
    pub heads: usize,
}

impl Attention<'_> {
    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    fn bias(&self, batch: usize, kv_head: usize) -> Option<&[f32]> {
        let bias = self.key_bias?;
        Some(&bias.data[(batch * bias.heads + kv_head % bias.heads) * self.keys..][..self.keys])
    }

    /// Keys that a query sees.
    fn seen(&self, query: usize) -> usize {
        if self.causal {
            (query + 1 + self.keys)
                .saturating_sub(self.queries)
                .min(self.keys)
        } else {
            self.keys
        }
    }

    fn check(&self, out: &[f32]) {
        assert!(
            self.kv_heads > 0 && self.heads.is_multiple_of(self.kv_heads),
            "heads must be a multiple of the kv heads"
        );
        assert_eq!(self.q.width, self.k.width, "width of queries and keys");
        self.q.check("q", [self.batch, self.heads, self.queries]);
        self.k.check("k", [self.batch, self.kv_heads, self.keys]);
        self.v.check("v", [self.batch, self.kv_heads, self.keys]);
        if let Some(bias) = self.key_bias {
            assert!(
                bias.heads == 1 || bias.heads == self.kv_heads,
                "heads of the key bias"
            );
            assert_eq!(
                bias.data.len(),
                self.batch * bias.heads * self.keys,
                "key bias"
            );
        }
        assert_eq!(
            out.len(),
            self.batch * self.queries * self.heads * self.v.width,
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
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => blocked(Avx512::new().expect("checked by the caller"), a, out),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => blocked(Avx2::new().expect("checked by the caller"), a, out),
        _ => plain(a, out),
    }
}

/// The portable version.
fn plain(a: &Attention, out: &mut [f32]) {
    let width = a.v.width;
    let out = Disjoint::new(out);
    share(a.batch * a.heads, |task| {
        let (batch, head) = (task / a.heads, task % a.heads);
        let kv_head = head / a.group();
        for query in 0..a.queries {
            let (q, bias) = (a.q.row(batch, head, query), a.bias(batch, kv_head));
            let score = |key: usize| {
                let dot: f32 = q
                    .iter()
                    .zip(a.k.row(batch, kv_head, key))
                    .map(|(q, k)| q * k)
                    .sum();
                dot * a.scale + bias.map_or(0.0, |bias| bias[key])
            };
            let mut weights: Vec<f32> = (0..a.seen(query)).map(score).collect();
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
            for (key, w) in weights.iter().enumerate() {
                for (o, v) in out.iter_mut().zip(a.v.row(batch, kv_head, key)) {
                    *o += w / sum * v;
                }
            }
        }
    });
}

struct Scratch {
    k: Aligned<f32>,
    v: Aligned<f32>,
    q: Aligned<f32>,
    scores: Aligned<f32>,
    out: Aligned<f32>,
    bias: Aligned<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = const {
        RefCell::new(Scratch {
            k: Aligned::new(),
            v: Aligned::new(),
            q: Aligned::new(),
            scores: Aligned::new(),
            out: Aligned::new(),
            bias: Aligned::new(),
        })
    };
}

fn blocked<S: Simd>(s: S, a: &Attention, out: &mut [f32]) {
    let out = Disjoint::new(out);
    let rows = a.queries * a.group();
    let tiles = rows.div_ceil(S::TILE_ROWS);
    // A key-value head is packed once by each task on it, so a head is divided only for idle threads.
    let parts = threads().div_ceil(a.batch * a.kv_heads).min(tiles);
    share(a.batch * a.kv_heads * parts, |task| {
        let (pair, part) = (task / parts, task % parts);
        let head = Head {
            s,
            a,
            out: &out,
            batch: pair / a.kv_heads,
            kv_head: pair % a.kv_heads,
        };
        let tiles = part * tiles / parts..(part + 1) * tiles / parts;
        SCRATCH.with_borrow_mut(|scratch| {
            s.enter(
                #[inline(always)]
                || {
                    head.pack_keys(scratch);
                    for tile in tiles {
                        let first = tile * S::TILE_ROWS;
                        let count = S::TILE_ROWS.min(rows - first);
                        with_tile_rows!(S, count, query_tile(&head, scratch, first, count));
                    }
                },
            );
        });
    });
}

/// One key-value head of one batch entry. Its query rows are ordered by query, then by head of the group.
struct Head<'a, S> {
    s: S,
    a: &'a Attention<'a>,
    out: &'a Disjoint<'a, f32>,
    batch: usize,
    kv_head: usize,
}

impl<S: Simd> Head<'_, S> {
    /// Keys as panels of `width` keys, each depth × keys; values as panels of `width` columns, each keys × columns.
    #[inline(always)]
    fn pack_keys(&self, to: &mut Scratch) {
        let (a, width) = (self.a, 2 * S::LANES);
        let padded = a.keys.next_multiple_of(width);
        let depth = a.q.width;
        to.k.resize_zeros(padded * depth);
        for key in 0..a.keys {
            let mut at = key / width * width * depth + key % width;
            for &value in a.k.row(self.batch, self.kv_head, key) {
                to.k[at] = value;
                at += width;
            }
        }
        let columns = a.v.width.next_multiple_of(width);
        to.v.resize_zeros(padded * columns);
        for key in 0..a.keys {
            for (panel, values) in
                a.v.row(self.batch, self.kv_head, key)
                    .chunks(width)
                    .enumerate()
            {
                let at = (panel * padded + key) * width;
                to.v[at..at + values.len()].copy_from_slice(values);
            }
        }
        to.bias.resize_zeros(padded);
        to.bias[a.keys..].fill(f32::NEG_INFINITY);
        if let Some(bias) = a.bias(self.batch, self.kv_head) {
            for (to, bias) in to.bias.iter_mut().zip(bias) {
                *to = bias * std::f32::consts::LOG2_E;
            }
        }
    }
}

/// All of the attention of `count` query rows from `first`.
#[inline(always)]
fn query_tile<S: Simd, const ROWS: usize>(
    head: &Head<'_, S>,
    scratch: &mut Scratch,
    first: usize,
    count: usize,
) {
    let (s, a) = (head.s, head.a);
    debug_assert_eq!(tile_rows::<S>(count), ROWS);
    let width = 2 * S::LANES;
    let Scratch {
        k,
        v,
        q,
        scores,
        out,
        bias,
    } = scratch;
    let (padded, depth) = (bias.len(), a.q.width);
    pack_queries::<S, ROWS>(head, q, first, count);
    let panels = a.v.width.div_ceil(width);
    out.resize_zeros(panels * ROWS * width);
    scores.grow(ROWS * KEYS);
    let mut largest = [f32::NEG_INFINITY; ROWS];
    let mut sums = [0.0f32; ROWS];
    let seen = a.seen((first + count - 1) / a.group());
    for from in (0..seen).step_by(KEYS) {
        let to = (from + KEYS).min(seen).next_multiple_of(width).min(padded);
        for key in (from..to).step_by(width) {
            let mut acc = [[s.zero(); 2]; ROWS];
            tile(s, q, &k[key * depth..(key + width) * depth], &mut acc);
            let add = [s.load(&bias[key..]), s.load(&bias[key + S::LANES..])];
            let line = (key - from) / LINE * ROWS * LINE;
            for (r, acc) in acc.iter().enumerate() {
                s.store(
                    &mut scores[line + place::<S, ROWS>(r, 0)..],
                    s.add(acc[0], add[0]),
                );
                s.store(
                    &mut scores[line + place::<S, ROWS>(r, 1)..],
                    s.add(acc[1], add[1]),
                );
            }
        }
        let lines = (to - from) / LINE;
        if a.causal {
            hide_later::<ROWS>(a, scores, first, from..to);
        }
        for r in 0..ROWS {
            let row = &mut scores[r * LINE..];
            let mut top = s.splat(f32::NEG_INFINITY);
            for line in row.chunks(ROWS * LINE).take(lines) {
                for v in line[..LINE].chunks_exact(S::LANES) {
                    top = s.max(top, s.load(v));
                }
            }
            let new = largest[r].max(s.largest(top));
            // All hidden so far: any finite reference gives weights of zero.
            let reference = if new == f32::NEG_INFINITY { 0.0 } else { new };
            let keep = if largest[r] == f32::NEG_INFINITY {
                0.0
            } else {
                (largest[r] - reference).exp2()
            };
            largest[r] = new;
            let by = s.splat(reference);
            let mut sum = s.zero();
            for line in row.chunks_mut(ROWS * LINE).take(lines) {
                for v in line[..LINE].chunks_exact_mut(S::LANES) {
                    let weight = math::exp2(s, s.sub(s.load(v), by));
                    sum = s.add(sum, weight);
                    s.store(v, weight);
                }
            }
            sums[r] = sums[r] * keep + s.sum(sum);
            if keep != 1.0 && from > 0 {
                for panel in out.chunks_exact_mut(ROWS * width) {
                    for v in panel[r * width..(r + 1) * width].chunks_exact_mut(S::LANES) {
                        let scaled = s.mul(s.load(v), s.splat(keep));
                        s.store(v, scaled);
                    }
                }
            }
        }
        for (panel, out) in out.chunks_exact_mut(ROWS * width).enumerate() {
            let mut acc = [[s.zero(); 2]; ROWS];
            for (r, acc) in acc.iter_mut().enumerate() {
                *acc = [
                    s.load(&out[r * width..]),
                    s.load(&out[r * width + S::LANES..]),
                ];
            }
            let v = &v[(panel * padded + from) * width..(panel * padded + to) * width];
            tile(s, &scores[..lines * ROWS * LINE], v, &mut acc);
            for (r, acc) in acc.iter().enumerate() {
                s.store(&mut out[r * width..], acc[0]);
                s.store(&mut out[r * width + S::LANES..], acc[1]);
            }
        }
    }
    for r in 0..count {
        let (query, member) = ((first + r) / a.group(), (first + r) % a.group());
        let at = ((head.batch * a.queries + query) * a.heads + head.kv_head * a.group() + member)
            * a.v.width;
        #[allow(unsafe_code)]
        // SAFETY: each task has query rows of its own, and a row one place.
        let to = unsafe { head.out.part(at, a.v.width) };
        let factor = if largest[r] > f32::NEG_INFINITY {
            1.0 / sums[r]
        } else {
            0.0
        };
        for (panel, to) in to.chunks_mut(width).enumerate() {
            let from = &out[(panel * ROWS + r) * width..];
            to.iter_mut()
                .zip(from)
                .for_each(|(to, from)| *to = from * factor);
        }
    }
}

/// Where vector `half` (0 or 1) of row `r` of a score tile lies, in lines.
#[inline(always)]
fn place<S: Simd, const ROWS: usize>(r: usize, half: usize) -> usize {
    let at = half * S::LANES;
    at / LINE * ROWS * LINE + r * LINE + at % LINE
}

/// Packs query rows as lines, scaled.
#[inline(always)]
fn pack_queries<S: Simd, const ROWS: usize>(
    head: &Head<'_, S>,
    to: &mut Aligned<f32>,
    first: usize,
    count: usize,
) {
    let a = head.a;
    to.resize_zeros(ROWS * a.q.width.next_multiple_of(LINE));
    let scale = a.scale * std::f32::consts::LOG2_E;
    for r in 0..count {
        let (query, member) = ((first + r) / a.group(), (first + r) % a.group());
        let q_head = head.kv_head * a.group() + member;
        for (i, value) in a.q.row(head.batch, q_head, query).iter().enumerate() {
            to[i / LINE * ROWS * LINE + r * LINE + i % LINE] = value * scale;
        }
    }
}

/// Hides the keys that come after the query of each row.
#[inline(always)]
fn hide_later<const ROWS: usize>(
    a: &Attention,
    scores: &mut [f32],
    first: usize,
    keys: std::ops::Range<usize>,
) {
    for r in 0..ROWS {
        let seen = a.seen(((first + r) / a.group()).min(a.queries - 1));
        for key in seen.max(keys.start)..keys.end {
            let i = key - keys.start;
            scores[i / LINE * ROWS * LINE + r * LINE + i % LINE] = f32::NEG_INFINITY;
        }
    }
}
