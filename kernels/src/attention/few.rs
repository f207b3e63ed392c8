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
    for (key, k) in a.key_rows(batch, kv_head).enumerate() {
        let bias = bias.map_or(0.0, |bias| bias[key] * std::f32::consts::LOG2_E);
        for row in 0..rows {
            scores[row * stride + key] = dot(s, &q[row * depth..(row + 1) * depth], k) + bias;
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
        out.fill(0.0);
        // A row from which every key is hidden has no weights, and stays zero.
        if sum > 0.0 {
            for (weight, v) in scores[..seen].iter().zip(a.value_rows(batch, kv_head)) {
                add(s, out, v, weight / sum);
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
    let mut sums = [s.zero(); 2];
    let (mut a, mut b) = (a.chunks_exact(2 * S::LANES), b.chunks_exact(2 * S::LANES));
    for (a, b) in a.by_ref().zip(b.by_ref()) {
        sums[0] = s.fma(s.load(a), s.load(b), sums[0]);
        sums[1] = s.fma(s.load(&a[S::LANES..]), s.load(&b[S::LANES..]), sums[1]);
    }
    let rest: f32 = a
        .remainder()
        .iter()
        .zip(b.remainder())
        .map(|(a, b)| a * b)
        .sum();
    s.sum(s.add(sums[0], sums[1])) + rest
}

/// `to += v · by`.
#[inline(always)]
fn add<S: Simd>(s: S, to: &mut [f32], v: &[f32], by: f32) {
    let factor = s.splat(by);
    let (mut to, mut v) = (to.chunks_exact_mut(S::LANES), v.chunks_exact(S::LANES));
    for (to, v) in to.by_ref().zip(v.by_ref()) {
        let sum = s.fma(s.load(v), factor, s.load(to));
        s.store(to, sum);
    }
    let rest = to.into_remainder().iter_mut().zip(v.remainder());
    rest.for_each(|(to, v)| *to += v * by);
}
