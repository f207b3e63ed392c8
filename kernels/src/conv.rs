//! Two-dimensional convolution without padding, as a product whose rows are read where they lie.
//!
//! The picture has its channels innermost, so that what one tap of the kernel sees is contiguous: no
//! matrix of patches is written.

use super::dense::{PackedDense, Values};
use super::epilogue::Epilogue;
use super::gemm::{Rows, linear_rows};
use super::simd::Level;
use std::ops::Range;

/// A square kernel, packed for the level of this CPU.
pub struct PackedConv {
    packed: PackedDense,
    channels: usize,
    size: usize,
    stride: usize,
}

/// Positions that a kernel of `size` takes along `length` at a stride.
pub fn positions(length: usize, size: usize, stride: usize) -> usize {
    if length < size {
        0
    } else {
        (length - size) / stride + 1
    }
}

impl PackedConv {
    /// `kernel` is `[outputs, channels, size, size]`.
    pub fn new(kernel: &[f32], [outputs, channels, size]: [usize; 3], stride: usize) -> Self {
        Self::with_level(kernel, [outputs, channels, size], stride, Level::detect())
    }

    pub(crate) fn with_level(
        kernel: &[f32],
        [outputs, channels, size]: [usize; 3],
        stride: usize,
        level: Level,
    ) -> Self {
        let taps = size * size;
        assert_eq!(
            kernel.len(),
            outputs * channels * taps,
            "kernel of {outputs} × {channels} × {size}²"
        );
        assert!(
            stride > 0 && size > 0,
            "a kernel of {size} at a stride of {stride}"
        );
        let mut rows = vec![0.0; kernel.len()];
        for (row, kernel) in rows
            .chunks_exact_mut((channels * taps).max(1))
            .zip(kernel.chunks_exact((channels * taps).max(1)))
        {
            for (i, value) in kernel.iter().enumerate() {
                row[i % taps * channels + i / taps] = *value;
            }
        }
        let packed = PackedDense::with_level(Values::F32(&rows), outputs, channels * taps, level);
        Self {
            packed,
            channels,
            size,
            stride,
        }
    }

    pub fn outputs(&self) -> usize {
        self.packed.n()
    }

    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Height and width after the convolution.
    pub fn output(&self, [height, width]: [usize; 2]) -> [usize; 2] {
        [
            positions(height, self.size, self.stride),
            positions(width, self.size, self.stride),
        ]
    }

    /// `x` is `[batch, height, width, channels]`, `out` `[batch, height', width', outputs]`.
    pub fn run(
        &self,
        x: &[f32],
        [batch, height, width]: [usize; 3],
        epilogue: &Epilogue,
        out: &mut [f32],
    ) {
        assert_eq!(
            x.len(),
            batch * height * width * self.channels,
            "picture of {batch} × {height} × {width}"
        );
        let [rows, columns] = self.output([height, width]);
        let patches = Patches {
            conv: self,
            x,
            height,
            width,
            rows,
            columns,
            count: batch * rows * columns,
        };
        linear_rows(&patches, &self.packed, epilogue, out);
    }
}

struct Patches<'a> {
    conv: &'a PackedConv,
    x: &'a [f32],
    height: usize,
    width: usize,
    rows: usize,
    columns: usize,
    count: usize,
}

impl Rows for Patches<'_> {
    fn count(&self) -> usize {
        self.count
    }

    #[inline(always)]
    fn pieces(&self, row: usize, columns: Range<usize>, mut f: impl FnMut(&[f32])) {
        let PackedConv {
            channels,
            size,
            stride,
            ..
        } = *self.conv;
        let (image, place) = (
            row / (self.rows * self.columns),
            row % (self.rows * self.columns),
        );
        let (top, left) = (place / self.columns * stride, place % self.columns * stride);
        let corner = (image * self.height + top) * self.width + left;
        // The taps of one row of the kernel lie side by side in the picture.
        let run = size * channels;
        let mut at = columns.start;
        while at < columns.end {
            let (line, within) = (at / run, at % run);
            let take = (run - within).min(columns.end - at);
            let from = (corner + line * self.width) * channels + within;
            f(&self.x[from..from + take]);
            at += take;
        }
    }
}
