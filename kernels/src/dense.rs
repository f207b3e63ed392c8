//! Dense weight matrices, packed once at load.

use super::buffer::Aligned;
use super::simd::{Level, Simd};
use half::{bf16, f16};
use std::ops::Range;

/// Values of a weight matrix as they are stored.
#[derive(Clone, Copy)]
pub enum Values<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    Bf16(&'a [bf16]),
}

/// A weight matrix `[n, k]` (rows are outputs), packed for the level of this CPU. What is stored in
/// 16 bits stays so and is widened a block at a time.
pub struct PackedDense {
    pub(super) level: Level,
    pub(super) k: usize,
    pub(super) n: usize,
    panels: Panels,
    pub(super) gated: bool,
}

enum Panels {
    F32(Aligned<f32>),
    F16(Aligned<f16>),
    Bf16(Aligned<bf16>),
}

impl PackedDense {
    /// `weight` is `[n, k]`, row-major.
    pub fn new(weight: Values, n: usize, k: usize) -> Self {
        Self::with_level(weight, n, k, Level::detect())
    }

    pub(crate) fn with_level(weight: Values, n: usize, k: usize, level: Level) -> Self {
        let panels = match weight {
            Values::F32(w) => Panels::F32(packed_rows(n, n, k, level, |i| row(w, n, k, i))),
            Values::F16(w) => Panels::F16(packed_rows(n, n, k, level, |i| row(w, n, k, i))),
            Values::Bf16(w) => Panels::Bf16(packed_rows(n, n, k, level, |i| row(w, n, k, i))),
        };
        let gated = false;
        Self {
            level,
            k,
            n,
            panels,
            gated,
        }
    }

    /// Gate and up projection of a gated feed-forward in one: `linear` gives `silu(gate) · up`, `n`
    /// wide. Both must be stored in the same type.
    pub fn gated(gate: Values, up: Values, n: usize, k: usize) -> Self {
        Self::gated_with_level(gate, up, n, k, Level::detect())
    }

    pub(crate) fn gated_with_level(
        gate: Values,
        up: Values,
        n: usize,
        k: usize,
        level: Level,
    ) -> Self {
        let panels = match (gate, up) {
            (Values::F32(gate), Values::F32(up)) => {
                Panels::F32(packed_pairs(gate, up, n, k, level))
            }
            (Values::F16(gate), Values::F16(up)) => {
                Panels::F16(packed_pairs(gate, up, n, k, level))
            }
            (Values::Bf16(gate), Values::Bf16(up)) => {
                Panels::Bf16(packed_pairs(gate, up, n, k, level))
            }
            _ => panic!("gate and up are stored in different types"),
        };
        let gated = true;
        Self {
            level,
            k,
            n,
            panels,
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
        match &self.panels {
            Panels::F32(values) => 4 * values.len(),
            Panels::F16(values) => 2 * values.len(),
            Panels::Bf16(values) => 2 * values.len(),
        }
    }

    /// Row `i` in f32. Not for gated weights.
    pub fn row(&self, i: usize, to: &mut [f32]) {
        assert!(
            i < self.n && to.len() == self.k && !self.gated,
            "row {i} of {} × {}",
            self.n,
            self.k
        );
        let width = panel_width(self.level);
        let (from, step) = match width {
            0 => (i * self.k, 1),
            width => (i / width * width * self.k + i % width, width),
        };
        for (j, to) in to.iter_mut().enumerate() {
            *to = self.value(from + j * step);
        }
    }

    pub(super) fn value(&self, at: usize) -> f32 {
        match &self.panels {
            Panels::F32(values) => values[at],
            Panels::F16(values) => values[at].to_f32(),
            Panels::Bf16(values) => values[at].to_f32(),
        }
    }

    /// Packed values in f32: lent, or widened into `wide`.
    #[inline(always)]
    pub(super) fn packed<'a, S: Simd>(
        &'a self,
        s: S,
        range: Range<usize>,
        wide: &'a mut Aligned<f32>,
    ) -> &'a [f32] {
        let len = range.len();
        match &self.panels {
            Panels::F32(values) => &values[range],
            Panels::F16(values) => {
                wide.grow(len);
                for (to, from) in wide
                    .chunks_exact_mut(S::LANES)
                    .zip(values[range].chunks_exact(S::LANES))
                {
                    s.store(to, s.load_f16(from));
                }
                &wide[..len]
            }
            Panels::Bf16(values) => {
                wide.grow(len);
                for (to, from) in wide
                    .chunks_exact_mut(S::LANES)
                    .zip(values[range].chunks_exact(S::LANES))
                {
                    s.store(to, s.load_bf16(from));
                }
                &wide[..len]
            }
        }
    }

    pub(super) fn panel_count(&self) -> usize {
        let width = panel_width(self.level);
        if self.gated {
            self.n.div_ceil(width / 2)
        } else {
            self.n.div_ceil(width)
        }
    }
}

/// Row `i` of a row-major matrix; nothing beyond its end.
fn row<T>(weight: &[T], n: usize, k: usize, i: usize) -> &[T] {
    assert_eq!(weight.len(), n * k, "weight of {n} × {k}");
    if i < n {
        &weight[i * k..(i + 1) * k]
    } else {
        &[]
    }
}

/// Packs `rows` rows, of which the last panel may lack some.
fn packed_rows<'a, T: Copy + Default + 'a>(
    rows: usize,
    n: usize,
    k: usize,
    level: Level,
    row: impl Fn(usize) -> &'a [T],
) -> Aligned<T> {
    debug_assert!(rows >= n);
    let width = panel_width(level).max(1);
    let mut packed = Aligned::zeros(rows.div_ceil(width) * width * k);
    for i in 0..rows {
        let at = i / width * width * k + i % width;
        for (j, &value) in row(i).iter().enumerate() {
            packed[at + j * width] = value;
        }
    }
    packed
}

/// Half a panel of gate rows, then half a panel of up rows, so that a tile holds both.
fn packed_pairs<T: Copy + Default>(
    gate: &[T],
    up: &[T],
    n: usize,
    k: usize,
    level: Level,
) -> Aligned<T> {
    let half = (panel_width(level) / 2).max(1);
    packed_rows(2 * n.next_multiple_of(half), n, k, level, |i| {
        let from = if (i / half).is_multiple_of(2) {
            gate
        } else {
            up
        };
        row(from, n, k, i / (2 * half) * half + i % half)
    })
}

/// Columns of a panel: two vectors. 0: not packed.
fn panel_width(level: Level) -> usize {
    match level {
        Level::Portable => 0,
        Level::Avx2 => 16,
        Level::Avx512 => 32,
    }
}
