//! Learned position tables for grids other than the native one.

use crate::Result;
use candle_core::{Device, Tensor};

/// Bicubic (a = −0.75, pixel centres, borders repeated, f32) interpolation of the patch part of a
/// position table `[1 + grid², hidden]`; the class entry stays. Result `[1 + rows·columns, hidden]`.
pub(super) fn interpolate_positions(
    table: &Tensor,
    grid: usize,
    rows: usize,
    columns: usize,
) -> Result<Tensor> {
    let hidden = table.dim(1)?;
    let values = table.flatten_all()?.to_vec1::<f32>()?;
    let (class, patches) = values.split_at(hidden);
    let mut out = Vec::with_capacity((1 + rows * columns) * hidden);
    out.extend_from_slice(class);
    let down = taps(grid, rows);
    let across = taps(grid, columns);
    for row in &down {
        for column in &across {
            for channel in 0..hidden {
                let at = |r: usize, c: usize| patches[(r * grid + c) * hidden + channel];
                let line = |r: usize| weighted(column, |c| at(r, c));
                out.push(weighted(row, line));
            }
        }
    }
    Ok(Tensor::from_vec(
        out,
        (1 + rows * columns, hidden),
        &Device::Cpu,
    )?)
}

type Taps = [(usize, f32); 4];

fn weighted(taps: &Taps, value: impl Fn(usize) -> f32) -> f32 {
    taps.iter()
        .map(|(index, weight)| value(*index) * weight)
        .sum()
}

fn taps(input: usize, output: usize) -> Vec<Taps> {
    const A: f32 = -0.75;
    let near = |x: f32| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f32| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    let scale = input as f32 / output as f32;
    let last = input as isize - 1;
    (0..output)
        .map(|i| {
            let centre = scale * (i as f32 + 0.5) - 0.5;
            let floor = centre.floor();
            let t = centre - floor;
            let weights = [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)];
            let first = floor as isize - 1;
            std::array::from_fn(|k| {
                let index = (first + k as isize).clamp(0, last) as usize;
                (index, weights[k])
            })
        })
        .collect()
}
