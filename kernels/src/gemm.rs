//! `Y = epilogue(X · Wᵀ)` in f32 with weights packed once at load.
//!
//! The tile that stays in the registers is `TILE_ROWS` rows of X by two vectors of columns (rows of
//! W). Both operands are packed so that the innermost loop reads forwards: W once at load, X a block
//! at a time into the second-level cache. The epilogue (bias, activation, layer scale, residual) is
//! applied to the tile before it is written, so the result passes through memory once.

use super::buffer::Aligned;
use super::dense::PackedDense;
use super::epilogue::{Activation, Epilogue};
use super::math;
use super::simd::{Simd, at_level};
use super::threads::{Disjoint, share, share_chunks, threads};
use std::cell::RefCell;
use std::ops::Range;

/// Values of one row that lie together in a packed block of X: a cache line.
pub(super) const LINE: usize = 16;
/// Depth of a packed block: `DEPTH` × two vectors of W stay in the second-level cache.
const DEPTH: usize = 512;
/// Rows of a packed block.
const BLOCK_ROWS: usize = 252;

/// Where the rows of X come from.
pub trait Rows: Sync {
    fn count(&self) -> usize;
    /// Gives `f` the columns of a row, in order, in pieces.
    fn pieces(&self, row: usize, columns: Range<usize>, f: impl FnMut(&[f32]));
}

/// Rows of a row-major matrix, `stride` values apart.
#[derive(Clone, Copy)]
pub struct Strided<'a> {
    pub data: &'a [f32],
    pub rows: usize,
    pub stride: usize,
}

impl Rows for Strided<'_> {
    fn count(&self) -> usize {
        self.rows
    }
    #[inline(always)]
    fn pieces(&self, row: usize, columns: Range<usize>, mut f: impl FnMut(&[f32])) {
        let at = row * self.stride;
        f(&self.data[at + columns.start..at + columns.end]);
    }
}

/// `out[rows, n] = epilogue(x[rows, k] · wᵀ)`, all row-major and contiguous.
pub fn linear(x: &[f32], w: &PackedDense, epilogue: &Epilogue, out: &mut [f32]) {
    let rows = x.len() / w.k.max(1);
    assert_eq!(x.len(), rows * w.k, "x must be whole rows of {}", w.k);
    linear_rows(
        &Strided {
            data: x,
            rows,
            stride: w.k,
        },
        w,
        epilogue,
        out,
    );
}

/// [`linear`] over rows from anywhere.
pub fn linear_rows(x: &impl Rows, w: &PackedDense, epilogue: &Epilogue, out: &mut [f32]) {
    assert_eq!(
        out.len(),
        x.count() * w.n,
        "output of {} × {}",
        x.count(),
        w.n
    );
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
fn plain(x: &impl Rows, w: &PackedDense, epilogue: &Epilogue, out: &mut [f32]) {
    let dot = |row: &[f32], i: usize| {
        let terms = row.iter().enumerate();
        terms.map(|(j, x)| x * w.value(i * w.k + j)).sum::<f32>()
    };
    share_chunks(out, w.n, |i, out| {
        let mut row = Vec::with_capacity(w.k);
        x.pieces(i, 0..w.k, |piece| row.extend_from_slice(piece));
        for (j, y) in out.iter_mut().enumerate() {
            let v = if w.gated {
                Activation::Silu.of(dot(&row, 2 * j)) * dot(&row, 2 * j + 1)
            } else {
                dot(&row, j)
            };
            *y = epilogue.of(v, *y, j);
        }
    });
}

struct Scratch {
    /// A packed block of X.
    x: Aligned<f32>,
    /// Sums of the blocks before the last.
    sums: Aligned<f32>,
    /// A widened panel of W.
    wide: Aligned<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = const {
        RefCell::new(Scratch { x: Aligned::new(), sums: Aligned::new(), wide: Aligned::new() })
    };
}

fn packed<S: Simd>(s: S, x: &impl Rows, w: &PackedDense, epilogue: &Epilogue, out: &mut [f32]) {
    let (rows, panels) = (x.count(), w.panel_count());
    // Blocks of rows first; columns are divided too when there are too few blocks for the threads.
    let whole_tiles = BLOCK_ROWS / S::TILE_ROWS * S::TILE_ROWS;
    let blocks = rows
        .div_ceil(whole_tiles)
        .max(threads().min(rows.div_ceil(S::TILE_ROWS)));
    let block_rows = rows.div_ceil(blocks).next_multiple_of(S::TILE_ROWS);
    let blocks = rows.div_ceil(block_rows);
    let groups = if threads() == 1 {
        1
    } else {
        (2 * threads()).div_ceil(blocks).min(panels)
    };
    let out = Disjoint::new(out);
    share(blocks * groups, |task| {
        let (block, group) = (task / groups, task % groups);
        let rows = block * block_rows..((block + 1) * block_rows).min(rows);
        let panels = group * panels / groups..(group + 1) * panels / groups;
        SCRATCH.with_borrow_mut(|scratch| {
            let block = Block {
                s,
                x,
                w,
                epilogue,
                out: &out,
                rows,
                panels,
            };
            s.enter(
                #[inline(always)]
                || block.run(scratch),
            );
        });
    });
}

struct Block<'a, S, X> {
    s: S,
    x: &'a X,
    w: &'a PackedDense,
    epilogue: &'a Epilogue<'a>,
    out: &'a Disjoint<'a, f32>,
    rows: Range<usize>,
    panels: Range<usize>,
}

/// Calls `$f::<ROWS>` for the smallest tile that holds `$rows` rows.
macro_rules! with_tile_rows {
    ($s:ident, $rows:expr, $call:ident($($arg:expr),*)) => {
        if $s::LANES == 16 {
            match $rows {
                1 => $call::<$s, 1>($($arg),*),
                2 => $call::<$s, 2>($($arg),*),
                3 | 4 => $call::<$s, 4>($($arg),*),
                5..=8 => $call::<$s, 8>($($arg),*),
                _ => $call::<$s, 14>($($arg),*),
            }
        } else {
            match $rows {
                1 => $call::<$s, 1>($($arg),*),
                2 => $call::<$s, 2>($($arg),*),
                3 | 4 => $call::<$s, 4>($($arg),*),
                _ => $call::<$s, 6>($($arg),*),
            }
        }
    };
}
pub(super) use with_tile_rows;

/// Rows that the tile for `rows` rows has.
#[inline(always)]
pub(super) fn tile_rows<S: Simd>(rows: usize) -> usize {
    match rows {
        0..=2 => rows,
        3 | 4 => 4,
        5..=8 if S::TILE_ROWS > 8 => 8,
        _ => S::TILE_ROWS,
    }
}

impl<S: Simd, X: Rows> Block<'_, S, X> {
    #[inline(always)]
    fn run(
        &self,
        Scratch {
            x: packed_x,
            sums,
            wide,
        }: &mut Scratch,
    ) {
        let (k, width) = (self.w.k, 2 * S::LANES);
        let block_len =
            self.rows.len().next_multiple_of(S::TILE_ROWS) * DEPTH.min(k.next_multiple_of(LINE));
        packed_x.grow(block_len);
        let depths = k.div_ceil(DEPTH).max(1);
        if depths > 1 {
            sums.grow(self.rows.len().next_multiple_of(S::TILE_ROWS) * self.panels.len() * width);
        }
        for depth in 0..depths {
            let depth_range = depth * DEPTH..((depth + 1) * DEPTH).min(k);
            self.pack(depth_range.clone(), packed_x);
            for panel in self.panels.clone() {
                let range =
                    (panel * k + depth_range.start) * width..(panel * k + depth_range.end) * width;
                let b = self.w.packed(self.s, range, wide);
                let mut a_from = 0;
                for first in self.rows.clone().step_by(S::TILE_ROWS) {
                    let rows = S::TILE_ROWS.min(self.rows.end - first);
                    let tile_len = tile_rows::<S>(rows) * depth_range.len().next_multiple_of(LINE);
                    let a = &packed_x[a_from..a_from + tile_len];
                    a_from += tile_len;
                    let sum = if depths > 1 {
                        let at = ((panel - self.panels.start)
                            * self.rows.len().next_multiple_of(S::TILE_ROWS)
                            + (first - self.rows.start))
                            * width;
                        &mut sums[at..at + S::TILE_ROWS * width]
                    } else {
                        &mut []
                    };
                    let step = Step {
                        from_sums: depth > 0,
                        last: depth + 1 == depths,
                        panel,
                        first,
                        rows,
                    };
                    with_tile_rows!(S, rows, tile_step(self, &step, a, b, sum));
                }
            }
        }
    }

    /// Packs the block: tile after tile, in each line after line, in each the rows.
    #[inline(always)]
    fn pack(&self, depth: Range<usize>, to: &mut [f32]) {
        let mut at = 0;
        for first in self.rows.clone().step_by(S::TILE_ROWS) {
            let rows = S::TILE_ROWS.min(self.rows.end - first);
            let tile = tile_rows::<S>(rows);
            let len = tile * depth.len().next_multiple_of(LINE);
            let lines = &mut to[at..at + len];
            at += len;
            for r in 0..rows {
                let mut column = 0;
                self.x.pieces(first + r, depth.clone(), |mut piece| {
                    while !piece.is_empty() {
                        let take = piece.len().min(LINE - column % LINE);
                        let to = column / LINE * tile * LINE + r * LINE + column % LINE;
                        let (now, later) = piece.split_at(take);
                        lines[to..to + take].copy_from_slice(now);
                        (piece, column) = (later, column + take);
                    }
                });
            }
        }
    }
}

/// Which tile of which pass over the depth.
struct Step {
    from_sums: bool,
    last: bool,
    panel: usize,
    first: usize,
    rows: usize,
}

#[inline(always)]
fn tile_step<S: Simd, const ROWS: usize>(
    block: &Block<'_, S, impl Rows>,
    step: &Step,
    a: &[f32],
    b: &[f32],
    sums: &mut [f32],
) {
    let s = block.s;
    let mut acc = [[s.zero(); 2]; ROWS];
    if step.from_sums {
        for (r, acc) in acc.iter_mut().enumerate() {
            let at = r * 2 * S::LANES;
            *acc = [s.load(&sums[at..]), s.load(&sums[at + S::LANES..])];
        }
    }
    tile(s, a, b, &mut acc);
    if !step.last {
        for (r, acc) in acc.iter().enumerate() {
            let at = r * 2 * S::LANES;
            s.store(&mut sums[at..], acc[0]);
            s.store(&mut sums[at + S::LANES..], acc[1]);
        }
        return;
    }
    for (r, acc) in acc.iter().enumerate() {
        if r >= step.rows {
            break;
        }
        if block.w.gated {
            let v = s.mul(math::silu(s, acc[0]), acc[1]);
            block.epilogue.write(
                s,
                block.out,
                (step.first + r, step.panel * S::LANES),
                block.w.n,
                v,
            );
        } else {
            for (half, v) in acc.iter().enumerate() {
                let column = (2 * step.panel + half) * S::LANES;
                block
                    .epilogue
                    .write(s, block.out, (step.first + r, column), block.w.n, *v);
            }
        }
    }
}

/// `acc += a · b` for a packed tile: `a` is lines × `ROWS` × [`LINE`], `b` depth × two vectors.
#[inline(always)]
pub(super) fn tile<S: Simd, const ROWS: usize>(
    s: S,
    a: &[f32],
    b: &[f32],
    acc: &mut [[S::F; 2]; ROWS],
) {
    let width = 2 * S::LANES;
    let mut local = *acc;
    let mut b_lines = b.chunks_exact(LINE * width);
    let mut a_lines = a.chunks_exact(ROWS * LINE);
    for (b, line) in b_lines.by_ref().zip(a_lines.by_ref()) {
        for (i, b) in b.chunks_exact(width).enumerate() {
            outer(s, line, i & (LINE - 1), b, &mut local);
        }
    }
    if let Some(line) = a_lines.next() {
        for (i, b) in b_lines.remainder().chunks_exact(width).enumerate() {
            outer(s, line, i & (LINE - 1), b, &mut local);
        }
    }
    *acc = local;
}

/// `acc += a · b` for one column of `a` and one row of `b`.
#[inline(always)]
fn outer<S: Simd, const ROWS: usize>(
    s: S,
    line: &[f32],
    i: usize,
    b: &[f32],
    acc: &mut [[S::F; 2]; ROWS],
) {
    let (b0, b1) = (s.load(b), s.load(&b[S::LANES..]));
    for r in 0..ROWS {
        let x = s.splat(line[r * LINE + i]);
        acc[r] = [s.fma(x, b0, acc[r][0]), s.fma(x, b1, acc[r][1])];
    }
}
