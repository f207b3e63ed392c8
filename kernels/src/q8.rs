//! `Y = epilogue(X · Wᵀ)` with W in Q8_0, repacked, and X quantised to Q8_0 once for each input.
//!
//! The same kernel serves decode (a few rows: every weight is read once for all of them, so memory is
//! the limit) and prefill (tiles of rows: the integer dot products are the limit). The weights of 32
//! columns (two groups of 16) pass through the registers four deep, so that one vector instruction
//! multiplies and adds 16 columns × 4.

use super::buffer::Aligned;
use super::epilogue::{Activation, Epilogue};
use super::math;
use super::simd::{Level, at_level};
use super::simd8::Simd8;
use super::threads::{Disjoint, share, share_chunks, threads};
use half::f16;
use std::ops::Range;

/// Values that share a scale, as in GGML.
pub const BLOCK: usize = 32;
/// Bytes of a GGML Q8_0 block: an f16 scale, 32 × i8.
pub const BLOCK_BYTES: usize = 2 + BLOCK;
/// Columns that lie together.
const GROUP: usize = 16;
const GROUP_BYTES: usize = GROUP * BLOCK;
/// How far ahead of the products weights are asked for: the CPU's own prefetching stops at each page.
const AHEAD_BYTES: usize = 4096;
/// Weights of one task; fewer are not worth a thread.
const TASK_WEIGHTS: usize = 1 << 17;

/// Where a block of a group lies.
#[inline(always)]
fn place(group: usize, block: usize, blocks: usize) -> usize {
    (group / 2 * blocks + block) * 2 + group % 2
}

/// A weight matrix `[n, k]` (rows are outputs) in Q8_0, repacked.
pub struct PackedQ8 {
    level: Level,
    k: usize,
    n: usize,
    /// Per pair of groups, block and group: eight quads, each 16 columns × 4 weights plus 128. In the order in which
    /// a product reads them, so that memory is one stream.
    weights: Aligned<u8>,
    /// Per pair of groups, block and group: 16 scales, f16.
    scales: Aligned<u16>,
    gated: bool,
}

impl PackedQ8 {
    /// From the rows of a GGML Q8_0 tensor. `k` is a multiple of 32.
    pub fn new(q8_0: &[u8], n: usize, k: usize) -> Self {
        Self::with_level(q8_0, n, k, Level::detect())
    }

    pub(crate) fn with_level(q8_0: &[u8], n: usize, k: usize, level: Level) -> Self {
        assert_eq!(q8_0.len(), n * k / BLOCK * BLOCK_BYTES, "Q8_0 of {n} × {k}");
        let row = |i: usize| {
            (i < n).then(|| &q8_0[i * k / BLOCK * BLOCK_BYTES..(i + 1) * k / BLOCK * BLOCK_BYTES])
        };
        Self::pack(row, n.next_multiple_of(2 * GROUP), n, k, level, false)
    }

    /// Gate and up projection of a gated feed-forward in one: [`linear_q8`] gives `silu(gate) · up`, `n` wide.
    pub fn gated(gate: &[u8], up: &[u8], n: usize, k: usize) -> Self {
        Self::gated_with_level(gate, up, n, k, Level::detect())
    }

    pub(crate) fn gated_with_level(
        gate: &[u8],
        up: &[u8],
        n: usize,
        k: usize,
        level: Level,
    ) -> Self {
        let bytes = n * k / BLOCK * BLOCK_BYTES;
        assert!(
            gate.len() == bytes && up.len() == bytes,
            "Q8_0 gate and up of {n} × {k}"
        );
        let row = |i: usize| {
            // A group of gate rows, then a group of up rows.
            let from = if (i / GROUP).is_multiple_of(2) {
                gate
            } else {
                up
            };
            let j = i / (2 * GROUP) * GROUP + i % GROUP;
            (j < n).then(|| &from[j * k / BLOCK * BLOCK_BYTES..(j + 1) * k / BLOCK * BLOCK_BYTES])
        };
        Self::pack(row, 2 * n.next_multiple_of(GROUP), n, k, level, true)
    }

    fn pack<'a>(
        row: impl Fn(usize) -> Option<&'a [u8]>,
        rows: usize,
        n: usize,
        k: usize,
        level: Level,
        gated: bool,
    ) -> Self {
        assert!(
            k.is_multiple_of(BLOCK),
            "Q8_0 needs rows of a multiple of {BLOCK}, not {k}"
        );
        let blocks = k / BLOCK;
        let mut weights = Aligned::zeros(rows * k);
        weights.fill(128);
        let mut scales = Aligned::zeros(rows * blocks);
        for i in 0..rows {
            let Some(values) = row(i) else { continue };
            for (block, values) in values.chunks_exact(BLOCK_BYTES).enumerate() {
                let at = place(i / GROUP, block, blocks);
                scales[at * GROUP + i % GROUP] = u16::from_le_bytes([values[0], values[1]]);
                for (quad, four) in values[2..].chunks_exact(4).enumerate() {
                    let to = at * GROUP_BYTES + (quad * GROUP + i % GROUP) * 4;
                    for (to, &w) in weights[to..to + 4].iter_mut().zip(four) {
                        *to = w ^ 128;
                    }
                }
            }
        }
        Self {
            level,
            k,
            n,
            weights,
            scales,
            gated,
        }
    }

    /// Width of X.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Width of Y.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Memory in bytes.
    pub fn bytes(&self) -> usize {
        self.weights.len() + 2 * self.scales.len()
    }

    /// Row `i` in f32 (embedding look-up). Not for gated weights.
    pub fn row(&self, i: usize, to: &mut [f32]) {
        assert!(
            i < self.n && to.len() == self.k && !self.gated,
            "row {i} of {} × {}",
            self.n,
            self.k
        );
        for (block, to) in to.chunks_exact_mut(BLOCK).enumerate() {
            let at = place(i / GROUP, block, self.k / BLOCK);
            let d = f16::from_bits(self.scales[at * GROUP + i % GROUP]).to_f32();
            for (j, to) in to.iter_mut().enumerate() {
                let w = self.weights[at * GROUP_BYTES + (j / 4 * GROUP + i % GROUP) * 4 + j % 4];
                *to = (i32::from(w) - 128) as f32 * d;
            }
        }
    }

    /// Pairs of groups.
    fn pairs(&self) -> usize {
        self.scales.len() / (2 * GROUP) / (self.k / BLOCK).max(1)
    }
}

/// Rows quantised as GGML quantises activations: per 32 values a scale `max |x| / 127`.
#[derive(Default)]
pub struct QuantisedRows {
    rows: usize,
    k: usize,
    /// Four activations each.
    quads: Vec<i32>,
    scales: Vec<f32>,
    /// Sums of the 32 quantised activations.
    sums: Vec<i32>,
}

impl QuantisedRows {
    /// Quantises rows of `k` values, `k` a multiple of 32. Reuses the memory.
    pub fn fill(&mut self, x: &[f32], k: usize) {
        assert!(
            k > 0 && k.is_multiple_of(BLOCK) && x.len().is_multiple_of(k),
            "x must be whole rows of {k}, a multiple of {BLOCK}"
        );
        self.rows = x.len() / k;
        self.k = k;
        let blocks = x.len() / BLOCK;
        self.quads.resize(x.len() / 4, 0);
        self.scales.resize(blocks, 0.0);
        self.sums.resize(blocks, 0);
        at_level!(
            Level::detect(),
            |s| super::simd::Simd::enter(
                s,
                #[inline(always)]
                || self.quantise(x)
            ),
            self.quantise(x)
        );
    }

    #[inline(always)]
    fn quantise(&mut self, x: &[f32]) {
        for (i, block) in x.chunks_exact(BLOCK).enumerate() {
            let block: &[f32; BLOCK] = block.try_into().expect("a block");
            let mut tops = [0.0f32; 16];
            for half in block.chunks_exact(16) {
                for (top, x) in tops.iter_mut().zip(half) {
                    *top = if x.abs() > *top { x.abs() } else { *top };
                }
            }
            let largest = tops.into_iter().fold(0.0f32, f32::max);
            let d = largest / 127.0;
            let inverse = if d > 0.0 { 1.0 / d } else { 0.0 };
            let mut q = [0i8; BLOCK];
            let mut sum = 0;
            for (q, x) in q.iter_mut().zip(block) {
                // Half to even by the addition, which the compiler turns into vectors; |x · inverse| ≤ 127.
                let shifted = x * inverse + 12_582_912.0;
                let whole = shifted.to_bits() as i32 - 0x4b40_0000;
                *q = whole as i8;
                sum += whole;
            }
            self.scales[i] = d;
            self.sums[i] = sum;
            for (quad, q) in self.quads[i * 8..(i + 1) * 8]
                .iter_mut()
                .zip(q.as_chunks::<4>().0)
            {
                *quad = i32::from_le_bytes(q.map(|q| q as u8));
            }
        }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }
}

/// `out[rows, n] = epilogue(x[rows, k] · wᵀ)`.
pub fn linear_q8(x: &QuantisedRows, w: &PackedQ8, epilogue: &Epilogue, out: &mut [f32]) {
    assert_eq!(x.k, w.k, "width of x and of the weights");
    assert_eq!(out.len(), x.rows * w.n, "output of {} × {}", x.rows, w.n);
    epilogue.check(w.n, w.gated);
    if out.is_empty() {
        return;
    }
    at_level!(
        w.level,
        |s| packed(s, x, w, epilogue, out),
        plain(x, w, epilogue, out)
    );
}

/// The portable version.
fn plain(x: &QuantisedRows, w: &PackedQ8, epilogue: &Epilogue, out: &mut [f32]) {
    let blocks = w.k / BLOCK;
    let dot = |row: usize, column: usize| -> f32 {
        let block = |block: usize| {
            let at = place(column / GROUP, block, blocks);
            let mut sum = 0;
            for quad in 0..BLOCK / 4 {
                let four = x.quads[(row * blocks + block) * 8 + quad].to_le_bytes();
                for (i, x) in four.into_iter().enumerate() {
                    let w = w.weights[at * GROUP_BYTES + (quad * GROUP + column % GROUP) * 4 + i];
                    sum += (i32::from(w) - 128) * i32::from(x as i8);
                }
            }
            let d = f16::from_bits(w.scales[at * GROUP + column % GROUP]).to_f32();
            sum as f32 * (d * x.scales[row * blocks + block])
        };
        (0..blocks).map(block).sum()
    };
    share_chunks(out, w.n, |row, out| {
        for (j, y) in out.iter_mut().enumerate() {
            let v = if w.gated {
                let gate = j / GROUP * 2 * GROUP + j % GROUP;
                Activation::Silu.of(dot(row, gate)) * dot(row, gate + GROUP)
            } else {
                dot(row, j)
            };
            *y = epilogue.of(v, *y, j);
        }
    });
}

fn packed<S: Simd8>(s: S, x: &QuantisedRows, w: &PackedQ8, epilogue: &Epilogue, out: &mut [f32]) {
    let pairs = w.pairs();
    let work = pairs * 2 * GROUP * w.k * x.rows;
    let tasks = if threads() == 1 {
        1
    } else {
        (work / TASK_WEIGHTS).clamp(1, pairs.min(4 * threads()))
    };
    let out = Disjoint::new(out);
    share(tasks, |task| {
        let columns = Columns {
            s,
            x,
            w,
            epilogue,
            out: &out,
            pairs: task * pairs / tasks..(task + 1) * pairs / tasks,
        };
        s.enter(
            #[inline(always)]
            || columns.run(),
        );
    });
}

struct Columns<'a, S> {
    s: S,
    x: &'a QuantisedRows,
    w: &'a PackedQ8,
    epilogue: &'a Epilogue<'a>,
    out: &'a Disjoint<'a, f32>,
    pairs: Range<usize>,
}

impl<S: Simd8> Columns<'_, S> {
    #[inline(always)]
    fn run(&self) {
        for pair in self.pairs.clone() {
            let mut row = 0;
            while row < self.x.rows {
                let rows = (self.x.rows - row).min(S::Q8_ROWS);
                match rows {
                    1 => self.tile::<1>(pair, row),
                    2 => self.tile::<2>(pair, row),
                    _ if S::Q8_ROWS == 2 => unreachable!("tiles of two rows"),
                    3 => self.tile::<3>(pair, row),
                    4 => self.tile::<4>(pair, row),
                    5 => self.tile::<5>(pair, row),
                    _ => self.tile::<6>(pair, row),
                }
                row += rows;
            }
        }
    }

    /// `ROWS` rows of X by 32 columns.
    #[inline(always)]
    fn tile<const ROWS: usize>(&self, pair: usize, row: usize) {
        let (s, x) = (self.s, self.x);
        let blocks = self.w.k / BLOCK;
        let w = &self.w.weights[place(2 * pair, 0, blocks) * GROUP_BYTES..];
        let d = &self.w.scales[place(2 * pair, 0, blocks) * GROUP..];
        let x_quads: [&[i32]; ROWS] =
            std::array::from_fn(|r| &x.quads[(row + r) * blocks * 8..][..blocks * 8]);
        let x_sums: [&[i32]; ROWS] =
            std::array::from_fn(|r| &x.sums[(row + r) * blocks..][..blocks]);
        let x_scales: [&[f32]; ROWS] =
            std::array::from_fn(|r| &x.scales[(row + r) * blocks..][..blocks]);
        let mut acc = [[s.wide_zero(); 2]; ROWS];
        for block in 0..blocks {
            let both = &w[2 * block * GROUP_BYTES..][..2 * GROUP_BYTES];
            if row == 0 {
                s.prefetch(&w[2 * block * GROUP_BYTES..], AHEAD_BYTES);
            }
            let (w0, w1) = both.split_at(GROUP_BYTES);
            let mut sums: [[S::I; 2]; ROWS] = std::array::from_fn(
                #[inline(always)]
                |r| [s.start(x_sums[r][block]); 2],
            );
            for quad in 0..BLOCK / 4 {
                let (w0, w1) = (
                    &w0[quad * 64..(quad + 1) * 64],
                    &w1[quad * 64..(quad + 1) * 64],
                );
                for r in 0..ROWS {
                    let four = x_quads[r][block * 8 + quad];
                    sums[r] = [s.dot(sums[r][0], w0, four), s.dot(sums[r][1], w1, four)];
                }
            }
            let (d0, d1) = (
                s.scales(&d[2 * block * GROUP..][..GROUP]),
                s.scales(&d[(2 * block + 1) * GROUP..][..GROUP]),
            );
            for r in 0..ROWS {
                let x_d = x_scales[r][block];
                acc[r] = [
                    s.add_scaled(acc[r][0], sums[r][0], d0, x_d),
                    s.add_scaled(acc[r][1], sums[r][1], d1, x_d),
                ];
            }
        }
        for (r, acc) in acc.iter().enumerate() {
            let (first, second) = (s.vectors(acc[0]), s.vectors(acc[1]));
            for half in 0..GROUP / S::LANES {
                let column = half * S::LANES;
                if self.w.gated {
                    let v = s.mul(math::silu(s, first[half]), second[half]);
                    self.epilogue
                        .write(s, self.out, (row + r, pair * GROUP + column), self.w.n, v);
                } else {
                    self.epilogue.write(
                        s,
                        self.out,
                        (row + r, pair * 2 * GROUP + column),
                        self.w.n,
                        first[half],
                    );
                    self.epilogue.write(
                        s,
                        self.out,
                        (row + r, pair * 2 * GROUP + GROUP + column),
                        self.w.n,
                        second[half],
                    );
                }
            }
        }
    }
}
