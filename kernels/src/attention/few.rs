//! Few query rows, as in decoding: every key and value is read once, where it lies.

use super::Attention;
use crate::buffer::Aligned;
use crate::math;
use crate::simd::Simd;
use crate::threads::{Disjoint, share};
use std::cell::RefCell;

struct Scratch {
    q: Aligned<f32>,
    /// Per query row the scores of all keys.
    scores: Aligned<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> =
        const { RefCell::new(Scratch { q: Aligned::new(), scores: Aligned::new() }) };
}

/// The vector version for few query rows.
pub(super) fn attend<S: Simd>(s: S, a: &Attention, out: &mut [f32]) {
    let out = Disjoint::new(out);
    share(a.batch * a.kv_heads, |task| {
        let (batch, kv_head) = (task / a.kv_heads, task % a.kv_heads);
        SCRATCH.with_borrow_mut(|scratch| {
            s.enter(
                #[inline(always)]
                || head(s, a, (batch, kv_head), scratch, &out),
            );
        });
    });
}

/// One key-value head. Its query rows are ordered by query, then by head of the group.
#[inline(always)]
fn head<S: Simd>(
    s: S,
    a: &Attention,
    (batch, kv_head): (usize, usize),
    Scratch { q, scores }: &mut Scratch,
    out: &Disjoint<f32>,
) {
    let (rows, depth) = (a.queries * a.group(), a.q.width);
    let stride = a.keys().next_multiple_of(S::LANES);
    q.grow(rows * depth);
    scores.grow(rows * stride);
    let place = |row: usize| (row / a.group(), kv_head * a.group() + row % a.group());
    let scale = a.scale * std::f32::consts::LOG2_E;
    for (row, to) in q.chunks_exact_mut(depth.max(1)).take(rows).enumerate() {
        let (query, q_head) = place(row);
        let from = a.q.row(batch, q_head, query);
        to.iter_mut()
            .zip(from)
            .for_each(|(to, from)| *to = from * scale);
    }
    let bias = a.bias(batch, kv_head);
    let mut first = 0;
    for piece in a.pieces {
        for key in 0..piece.keys {
            let k = piece.k.row(batch, kv_head, key);
            for (row, q) in q.chunks_exact(depth.max(1)).take(rows).enumerate() {
                scores[row * stride + first + key] = dot(s, q, k);
            }
        }
        first += piece.keys;
    }
    if let Some(bias) = bias {
        for scores in scores.chunks_exact_mut(stride.max(1)).take(rows) {
            let biased = scores.iter_mut().zip(bias);
            biased.for_each(|(score, bias)| *score += bias * std::f32::consts::LOG2_E);
        }
    }
    for row in 0..rows {
        let (query, q_head) = place(row);
        let seen = a.seen(query);
        let scores = &mut scores[row * stride..(row + 1) * stride];
        scores[seen..].fill(f32::NEG_INFINITY);
        let sum = weigh(s, scores);
        let at = ((batch * a.queries + query) * a.heads + q_head) * a.width();
        #[allow(unsafe_code)]
        // SAFETY: each task has heads of its own, and a row one place.
        let out = unsafe { out.part(at, a.width()) };
        // A row from which every key is hidden has no weights, and is zero.
        if sum == 0.0 {
            out.fill(0.0);
            continue;
        }
        let scale = 1.0 / sum;
        let width = out.len();
        let mut column = 0;
        while column < width {
            let to = &mut out[column..width.min(column + 4 * S::LANES)];
            if to.len() == 4 * S::LANES {
                mix::<S, 4>(s, a, (batch, kv_head, column), &scores[..seen], scale, to);
                column += 4 * S::LANES;
            } else {
                let to = &mut to[..S::LANES.min(width - column)];
                mix::<S, 1>(s, a, (batch, kv_head, column), &scores[..seen], scale, to);
                column += to.len();
            }
        }
    }
}

/// Turns scores (times log₂e) into weights relative to the largest; gives their sum, 0 if all are hidden.
#[inline(always)]
fn weigh<S: Simd>(s: S, scores: &mut [f32]) -> f32 {
    let mut top = s.splat(f32::NEG_INFINITY);
    for v in scores.chunks_exact(S::LANES) {
        top = s.max(top, s.load(v));
    }
    let top = s.largest(top);
    if top == f32::NEG_INFINITY {
        return 0.0;
    }
    let mut sum = s.zero();
    for v in scores.chunks_exact_mut(S::LANES) {
        let weight = math::exp2(s, s.sub(s.load(v), s.splat(top)));
        sum = s.add(sum, weight);
        s.store(v, weight);
    }
    s.sum(sum)
}

#[inline(always)]
fn dot<S: Simd>(s: S, a: &[f32], b: &[f32]) -> f32 {
    let (n, lanes) = (a.len().min(b.len()), S::LANES);
    let (mut even, mut odd) = (s.zero(), s.zero());
    let mut i = 0;
    while i + 2 * lanes <= n {
        even = s.fma(s.load(&a[i..]), s.load(&b[i..]), even);
        odd = s.fma(s.load(&a[i + lanes..]), s.load(&b[i + lanes..]), odd);
        i += 2 * lanes;
    }
    while i < n {
        let end = n.min(i + lanes);
        even = s.fma(s.load_part(&a[i..end]), s.load_part(&b[i..end]), even);
        i = end;
    }
    s.sum(s.add(even, odd))
}

/// `to = scale · Σ weight · value` over the columns from `column`, which stay in `N` registers
/// meanwhile. `to` is `N` vectors wide, or shorter than one.
#[inline(always)]
fn mix<S: Simd, const N: usize>(
    s: S,
    a: &Attention,
    (batch, kv_head, column): (usize, usize, usize),
    weights: &[f32],
    scale: f32,
    to: &mut [f32],
) {
    let part = to.len().min(S::LANES);
    let mut sums = [s.zero(); N];
    let mut weights = weights.iter();
    for piece in a.pieces {
        for (key, &weight) in (0..piece.keys).zip(weights.by_ref()) {
            let v = &piece.v.row(batch, kv_head, key)[column..];
            let weight = s.splat(weight);
            for n in 0..N {
                let v = match N {
                    1 => s.load_part(&v[..part]),
                    _ => s.load(&v[n * S::LANES..]),
                };
                sums[n] = s.fma(v, weight, sums[n]);
            }
        }
    }
    for (n, sum) in sums.into_iter().enumerate() {
        s.store_part(
            &mut to[n * part..(n + 1) * part],
            s.mul(sum, s.splat(scale)),
        );
    }
}
