//! The other direction: gradients of the element-wise parts, of attention and of norms, on slices.
//!
//! Products have none here: the gradient of `X·Wᵀ` is a product with another packing of W. The loops
//! are plain Rust, compiled once for each level ([`Simd::enter`](super::simd::Simd::enter)); sums run in sixteen lanes, which
//! the compiler turns into vectors.

use super::simd::{Level, at_level};

const LANES: usize = 16;

/// Runs an `#[inline(always)]` function compiled for the CPU's level.
macro_rules! compiled {
    ($call:expr) => {
        at_level!(
            Level::detect(),
            |s| super::simd::Simd::enter(
                s,
                #[inline(always)]
                || $call
            ),
            $call
        )
    };
}

/// `e^x` in plain operations that the compiler can turn into vectors; relative error below 3e-7 on
/// ±87, beyond which it is held.
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// 1.5·2²³: adding it leaves the nearest whole number in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let x = (x * std::f32::consts::LOG2_E).clamp(-126.0, 127.0);
    let shifted = x + ROUND;
    let r = x - (shifted - ROUND);
    let mut p = 0.000_153_375_78f32;
    for c in [
        0.001_339_986,
        0.009_618_52,
        0.055_503_29,
        0.240_226_46,
        std::f32::consts::LN_2,
        1.0,
    ] {
        p = p * r + c;
    }
    p * f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000))
}

#[inline(always)]
fn sum(lanes: [f32; LANES]) -> f32 {
    let mut lanes = lanes;
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// Sum of `f` over pairs, in sixteen lanes.
#[inline(always)]
fn sum_of(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (mut a_lines, mut b_lines) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    for (a, b) in a_lines.by_ref().zip(b_lines.by_ref()) {
        for i in 0..LANES {
            lanes[i] += f(a[i], b[i]);
        }
    }
    let rest = a_lines.remainder().iter().zip(b_lines.remainder());
    sum(lanes) + rest.map(|(&a, &b)| f(a, b)).sum::<f32>()
}

#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    sum_of(
        a,
        b,
        #[inline(always)]
        |a, b| a * b,
    )
}

/// `to += factor · x`
#[inline(always)]
fn add_scaled(to: &mut [f32], factor: f32, x: &[f32]) {
    for (to, x) in to.iter_mut().zip(x) {
        *to += factor * x;
    }
}

/// `silu(gate) ⊙ up` of rows that hold the gate's `inner` values and then up's.
pub fn silu_gate(both: &[f32], inner: usize, out: &mut [f32]) {
    #[inline(always)]
    fn run(both: &[f32], inner: usize, out: &mut [f32]) {
        for (both, out) in both
            .chunks_exact(2 * inner)
            .zip(out.chunks_exact_mut(inner))
        {
            let (gate, up) = both.split_at(inner);
            for ((out, &g), &u) in out.iter_mut().zip(gate).zip(up) {
                *out = g / (1.0 + exp(-g)) * u;
            }
        }
    }
    assert!(
        inner > 0 && both.len() == 2 * out.len(),
        "gate and up of {inner}"
    );
    compiled!(run(both, inner, out));
}

/// Gradient of [`silu_gate`]: `both` becomes its own gradient, given that of the result.
pub fn silu_gate_backward(both: &mut [f32], inner: usize, grad: &[f32]) {
    #[inline(always)]
    fn run(both: &mut [f32], inner: usize, grad: &[f32]) {
        let rows = both.chunks_exact_mut(2 * inner);
        for (both, grad) in rows.zip(grad.chunks_exact(inner)) {
            let (gate, up) = both.split_at_mut(inner);
            for ((g, u), &d) in gate.iter_mut().zip(up).zip(grad) {
                let sigmoid = 1.0 / (1.0 + exp(-*g));
                let silu = *g * sigmoid;
                *g = d * *u * (sigmoid + silu * (1.0 - sigmoid));
                *u = d * silu;
            }
        }
    }
    assert!(
        inner > 0 && both.len() == 2 * grad.len(),
        "gate and up of {inner}"
    );
    compiled!(run(both, inner, grad));
}

/// Gradient of RMSNorm with regard to its input: rows as wide as the weight.
pub fn rms_norm_backward(x: &[f32], weight: &[f32], eps: f32, grad: &[f32], out: &mut [f32]) {
    #[inline(always)]
    fn run(x: &[f32], weight: &[f32], eps: f32, grad: &[f32], out: &mut [f32]) {
        let width = weight.len();
        let rows = x.chunks_exact(width).zip(grad.chunks_exact(width));
        for ((x, grad), out) in rows.zip(out.chunks_exact_mut(width)) {
            let r = 1.0 / (dot(x, x) / width as f32 + eps).sqrt();
            for ((out, &d), &w) in out.iter_mut().zip(grad).zip(weight) {
                *out = d * w;
            }
            let along = dot(out, x) * r * r / width as f32;
            for (out, &x) in out.iter_mut().zip(x) {
                *out = r * (*out - along * x);
            }
        }
    }
    assert!(
        !weight.is_empty() && x.len() == grad.len() && x.len() == out.len(),
        "rows of {}",
        weight.len()
    );
    compiled!(run(x, weight, eps, grad, out));
}

/// Rotates pairs (i, i + dim/2) of `[tokens, heads, dim]` in place; backwards is the inverse, which
/// is also the gradient. `cos` and `sin` are `[tokens, dim/2]`.
pub fn rotate(xs: &mut [f32], heads: usize, cos: &[f32], sin: &[f32], dim: usize, backwards: bool) {
    #[inline(always)]
    fn run(xs: &mut [f32], heads: usize, cos: &[f32], sin: &[f32], dim: usize, sign: f32) {
        let half = dim / 2;
        let angles = cos.chunks_exact(half).zip(sin.chunks_exact(half));
        for (token, (cos, sin)) in xs.chunks_exact_mut(heads * dim).zip(angles) {
            for head in token.chunks_exact_mut(dim) {
                let (a, b) = head.split_at_mut(half);
                for (((a, b), &c), &s) in a.iter_mut().zip(b).zip(cos).zip(sin) {
                    let s = s * sign;
                    (*a, *b) = (*a * c - *b * s, *b * c + *a * s);
                }
            }
        }
    }
    assert!(
        dim > 1
            && dim.is_multiple_of(2)
            && cos.len() == sin.len()
            && xs.len() == 2 * heads * cos.len(),
        "{} values in heads of {dim}",
        xs.len()
    );
    compiled!(run(
        xs,
        heads,
        cos,
        sin,
        dim,
        if backwards { -1.0 } else { 1.0 }
    ));
}

/// `to[i, :] += Σ_row h[row, i] · x[row, :]` for h `[rows, rank]`, x `[rows, width]`: the gradient of a
/// narrow matrix.
pub fn outer_sum(h: &[f32], rank: usize, x: &[f32], width: usize, to: &mut [f32]) {
    const RANKS: usize = 8;
    #[inline(always)]
    fn run(h: &[f32], rank: usize, x: &[f32], width: usize, to: &mut [f32]) {
        for first in (0..rank).step_by(RANKS) {
            let ranks = RANKS.min(rank - first);
            for column in (0..width).step_by(LANES) {
                let lanes = LANES.min(width - column);
                let mut sums = [[0.0f32; LANES]; RANKS];
                for (h, x) in h.chunks_exact(rank).zip(x.chunks_exact(width)) {
                    // whole blocks have fixed sizes, so that the sums stay in registers
                    match (
                        h[first..first + ranks].as_array::<RANKS>(),
                        x[column..column + lanes].as_array::<LANES>(),
                    ) {
                        (Some(h), Some(x)) => add_outer(&mut sums, h, x),
                        _ => {
                            let mut narrow = ([0.0; RANKS], [0.0; LANES]);
                            narrow.0[..ranks].copy_from_slice(&h[first..first + ranks]);
                            narrow.1[..lanes].copy_from_slice(&x[column..column + lanes]);
                            add_outer(&mut sums, &narrow.0, &narrow.1);
                        }
                    }
                }
                for (i, sums) in sums[..ranks].iter().enumerate() {
                    let at = (first + i) * width + column;
                    add_scaled(&mut to[at..at + lanes], 1.0, sums);
                }
            }
        }
    }
    #[inline(always)]
    fn add_outer(sums: &mut [[f32; LANES]; RANKS], h: &[f32; RANKS], x: &[f32; LANES]) {
        for r in 0..RANKS {
            for i in 0..LANES {
                sums[r][i] += h[r] * x[i];
            }
        }
    }
    assert!(
        rank > 0 && width > 0 && h.len() / rank == x.len() / width && to.len() == rank * width,
        "outer product of {rank} and {width}"
    );
    compiled!(run(h, rank, x, width, to));
}

/// Causal attention within sequences that lie one after the other: shapes shared by both directions.
#[derive(Clone, Copy, Debug)]
pub struct Sequences<'a> {
    /// Tokens of each.
    pub lengths: &'a [usize],
    pub heads: usize,
    pub kv_heads: usize,
    pub dim: usize,
    pub scale: f32,
}

impl Sequences<'_> {
    /// Tokens of all sequences.
    pub fn tokens(&self) -> usize {
        self.lengths.iter().sum()
    }

    /// Values that the probabilities take: of each head `[length, length]`.
    pub fn probabilities(&self) -> usize {
        self.heads * self.lengths.iter().map(|n| n * n).sum::<usize>()
    }

    fn check(&self, q: &[f32], k: &[f32], v: &[f32], probabilities: &[f32]) {
        let tokens = self.tokens();
        let kv = tokens * self.kv_heads * self.dim;
        assert!(
            self.kv_heads > 0 && self.heads.is_multiple_of(self.kv_heads) && self.dim > 0,
            "attention heads {} / {}",
            self.heads,
            self.kv_heads
        );
        assert!(
            q.len() == tokens * self.heads * self.dim && k.len() == kv && v.len() == kv,
            "attention over {tokens} tokens"
        );
        assert_eq!(probabilities.len(), self.probabilities(), "probabilities");
    }
}

/// q `[tokens, heads, dim]`, k and v `[tokens, kv_heads, dim]` → out as q; the probabilities are kept
/// for [`attention_backward`].
pub fn attention(
    what: &Sequences,
    [q, k, v]: [&[f32]; 3],
    probabilities: &mut [f32],
    out: &mut [f32],
) {
    #[inline(always)]
    fn run(what: &Sequences, [q, k, v]: [&[f32]; 3], probabilities: &mut [f32], out: &mut [f32]) {
        let (dim, group) = (what.dim, what.heads / what.kv_heads);
        let (q_row, k_row) = (what.heads * dim, what.kv_heads * dim);
        let (mut first, mut rest) = (0, probabilities);
        for &len in what.lengths {
            for head in 0..what.heads {
                let (table, after) = std::mem::take(&mut rest).split_at_mut(len * len);
                rest = after;
                let kv = |j: usize| (first + j) * k_row + head / group * dim;
                for i in 0..len {
                    let at = (first + i) * q_row + head * dim;
                    let query = &q[at..at + dim];
                    let row = &mut table[i * len..i * len + i + 1];
                    let mut largest = f32::NEG_INFINITY;
                    for (j, p) in row.iter_mut().enumerate() {
                        let at = kv(j);
                        *p = dot(query, &k[at..at + dim]) * what.scale;
                        largest = largest.max(*p);
                    }
                    for p in row.iter_mut() {
                        *p = exp(*p - largest);
                    }
                    let whole: f32 = row.iter().sum();
                    let to = &mut out[at..at + dim];
                    to.fill(0.0);
                    for (j, p) in row.iter_mut().enumerate() {
                        *p /= whole;
                        let at = kv(j);
                        add_scaled(to, *p, &v[at..at + dim]);
                    }
                }
            }
            first += len;
        }
    }
    what.check(q, k, v, probabilities);
    assert_eq!(q.len(), out.len(), "output of attention");
    compiled!(run(what, [q, k, v], probabilities, out));
}

/// Gradients of q, k and v (written over what `to` holds), given that of the output and the
/// probabilities of the forward pass.
pub fn attention_backward(
    what: &Sequences,
    [q, k, v]: [&[f32]; 3],
    probabilities: &[f32],
    grad: &[f32],
    to: [&mut [f32]; 3],
) {
    #[inline(always)]
    fn run(
        what: &Sequences,
        [q, k, v]: [&[f32]; 3],
        probabilities: &[f32],
        grad: &[f32],
        [dq, dk, dv]: [&mut [f32]; 3],
    ) {
        let (dim, group) = (what.dim, what.heads / what.kv_heads);
        let (q_row, k_row) = (what.heads * dim, what.kv_heads * dim);
        let longest = what.lengths.iter().copied().max().unwrap_or(0);
        let mut ds = vec![0.0; longest];
        let (mut first, mut rest) = (0, probabilities);
        for &len in what.lengths {
            for head in 0..what.heads {
                let (table, after) = rest.split_at(len * len);
                rest = after;
                for i in 0..len {
                    let at = (first + i) * q_row + head * dim;
                    let (query, d) = (&q[at..at + dim], &grad[at..at + dim]);
                    let row = &table[i * len..i * len + i + 1];
                    let ds = &mut ds[..row.len()];
                    let mut along = 0.0;
                    for (j, (&p, ds)) in row.iter().zip(ds.iter_mut()).enumerate() {
                        let at = (first + j) * k_row + head / group * dim;
                        *ds = dot(d, &v[at..at + dim]);
                        along += p * *ds;
                        add_scaled(&mut dv[at..at + dim], p, d);
                    }
                    let dq = &mut dq[at..at + dim];
                    for (j, (&p, ds)) in row.iter().zip(ds.iter()).enumerate() {
                        let at = (first + j) * k_row + head / group * dim;
                        let ds = p * (ds - along) * what.scale;
                        add_scaled(dq, ds, &k[at..at + dim]);
                        add_scaled(&mut dk[at..at + dim], ds, query);
                    }
                }
            }
            first += len;
        }
    }
    what.check(q, k, v, probabilities);
    let [dq, dk, dv] = to;
    assert!(
        grad.len() == q.len() && dq.len() == q.len() && dk.len() == k.len() && dv.len() == v.len(),
        "gradients of attention"
    );
    for to in [&mut *dq, &mut *dk, &mut *dv] {
        to.fill(0.0);
    }
    compiled!(run(what, [q, k, v], probabilities, grad, [dq, dk, dv]));
}

/// Cross-entropy of rows whose logits lie in two parts (the second may be empty) with their targets,
/// counted over both. Each logit becomes `weight · (probability − 1 at the target)`; the result is the
/// sum of weighted losses, in f64.
pub fn cross_entropy(
    [own, added]: [&mut [f32]; 2],
    [own_width, added_width]: [usize; 2],
    targets: &[u32],
    weights: &[f32],
) -> f64 {
    #[inline(always)]
    fn largest(row: &[f32]) -> f32 {
        let mut lanes = [f32::NEG_INFINITY; LANES];
        let mut lines = row.chunks_exact(LANES);
        for line in lines.by_ref() {
            for (lane, &x) in lanes.iter_mut().zip(line) {
                *lane = if x > *lane { x } else { *lane };
            }
        }
        let rest = lines.remainder().iter();
        lanes
            .iter()
            .chain(rest)
            .copied()
            .fold(f32::NEG_INFINITY, f32::max)
    }
    #[inline(always)]
    fn exponentials(row: &mut [f32], largest: f32) -> f32 {
        let mut lanes = [0.0; LANES];
        let mut lines = row.chunks_exact_mut(LANES);
        for line in lines.by_ref() {
            for (x, lane) in line.iter_mut().zip(&mut lanes) {
                *x = exp(*x - largest);
                *lane += *x;
            }
        }
        let mut whole = sum(lanes);
        for x in lines.into_remainder() {
            *x = exp(*x - largest);
            whole += *x;
        }
        whole
    }
    #[inline(always)]
    fn run(
        [own, added]: [&mut [f32]; 2],
        [own_width, added_width]: [usize; 2],
        targets: &[u32],
        weights: &[f32],
    ) -> f64 {
        let mut loss = 0.0;
        for (row, (&target, &weight)) in targets.iter().zip(weights).enumerate() {
            let own = &mut own[row * own_width..][..own_width];
            let added = &mut added[row * added_width..][..added_width];
            let target = target as usize;
            let logit = match target < own_width {
                true => own[target],
                false => added[target - own_width],
            };
            let largest = largest(own).max(largest(added));
            let whole = exponentials(own, largest) + exponentials(added, largest);
            loss += f64::from(weight) * f64::from(whole.ln() + largest - logit);
            let factor = weight / whole;
            for x in own.iter_mut().chain(added.iter_mut()) {
                *x *= factor;
            }
            match target < own_width {
                true => own[target] -= weight,
                false => added[target - own_width] -= weight,
            }
        }
        loss
    }
    let rows = targets.len();
    assert!(
        own.len() == rows * own_width && added.len() == rows * added_width && weights.len() == rows,
        "{rows} rows of {own_width} and {added_width} logits"
    );
    assert!(
        targets
            .iter()
            .all(|&t| (t as usize) < own_width + added_width),
        "targets among {own_width} and {added_width} logits"
    );
    compiled!(run(
        [own, added],
        [own_width, added_width],
        targets,
        weights
    ))
}
