//! Many query rows: tiles of queries against packed blocks of keys.

use super::Attention;
use crate::buffer::Aligned;
use crate::gemm::{LINE, tile, tile_rows, with_tile_rows};
use crate::math;
use crate::simd::Simd;
use crate::threads::{Disjoint, share, threads};
use std::cell::RefCell;

/// Keys of a block; a multiple of every panel width.
const KEYS: usize = 256;

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

/// The vector version for many query rows.
pub(super) fn attend<S: Simd>(s: S, a: &Attention, out: &mut [f32]) {
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
        let padded = a.keys().next_multiple_of(width);
        let depth = a.q.width;
        to.k.resize_zeros(padded * depth);
        for (key, row) in a.key_rows(self.batch, self.kv_head).enumerate() {
            let at = key / width * width * depth + key % width;
            for (i, &value) in row.iter().enumerate() {
                to.k[at + i * width] = value;
            }
        }
        let columns = a.width().next_multiple_of(width);
        to.v.resize_zeros(padded * columns);
        for (key, row) in a.value_rows(self.batch, self.kv_head).enumerate() {
            for (panel, values) in row.chunks(width).enumerate() {
                let at = (panel * padded + key) * width;
                to.v[at..at + values.len()].copy_from_slice(values);
            }
        }
        to.bias.resize_zeros(padded);
        to.bias[a.keys()..].fill(f32::NEG_INFINITY);
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
    let panels = a.width().div_ceil(width);
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
            * a.width();
        #[allow(unsafe_code)]
        // SAFETY: each task has query rows of its own, and a row one place.
        let to = unsafe { head.out.part(at, a.width()) };
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
