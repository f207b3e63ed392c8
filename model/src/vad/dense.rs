//! Matrix times a few vectors, for matrices so small that a general product's set-up would cost more than the product.

/// Outputs that are computed side by side: enough for 16 independent sums in flight, few enough that two rows of them
/// stay in SSE registers.
const LANES: usize = 16;

/// A matrix `[outputs, inputs]` with a bias, laid out for [`Dense::apply`].
pub(super) struct Dense {
    /// One panel for each `LANES` outputs: for each input, that input's weight of each of them. The last panel is
    /// filled up with zeros.
    panels: Vec<[f32; LANES]>,
    /// As many as the panels have outputs.
    bias: Vec<[f32; LANES]>,
    inputs: usize,
    outputs: usize,
}

impl Dense {
    /// `weight(output, input)` says the matrix, `bias(output)` the bias.
    pub(super) fn new(
        outputs: usize,
        inputs: usize,
        weight: impl Fn(usize, usize) -> f32,
        bias: impl Fn(usize) -> f32,
    ) -> Self {
        let lanes = |panel: usize, value: &dyn Fn(usize) -> f32| {
            std::array::from_fn(|lane| {
                let output = panel * LANES + lane;
                if output < outputs { value(output) } else { 0.0 }
            })
        };
        let count = outputs.div_ceil(LANES);
        Self {
            panels: (0..count * inputs)
                .map(|at| lanes(at / inputs, &|output| weight(output, at % inputs)))
                .collect(),
            bias: (0..count).map(|panel| lanes(panel, &bias)).collect(),
            inputs,
            outputs,
        }
    }

    /// Writes `matrix · row + bias` for each of `rows`, which begin `stride` values apart in `input`, to `output`, one
    /// after another.
    pub(super) fn apply(&self, input: &[f32], stride: usize, rows: usize, output: &mut [f32]) {
        let row = |index: usize| &input[index * stride..][..self.inputs];
        let mut pairs = output[..rows * self.outputs].chunks_exact_mut(2 * self.outputs);
        for (pair, out) in pairs.by_ref().enumerate() {
            let (first, second) = out.split_at_mut(self.outputs);
            self.sums([row(2 * pair), row(2 * pair + 1)], [first, second]);
        }
        let last = pairs.into_remainder();
        if !last.is_empty() {
            self.sums([row(rows - 1)], [last]);
        }
    }

    fn sums<const ROWS: usize>(&self, rows: [&[f32]; ROWS], mut outputs: [&mut [f32]; ROWS]) {
        for (index, (panel, bias)) in self
            .panels
            .chunks_exact(self.inputs)
            .zip(&self.bias)
            .enumerate()
        {
            let mut sums = [*bias; ROWS];
            for (input, weights) in panel.iter().enumerate() {
                for (sum, row) in sums.iter_mut().zip(rows) {
                    let value = row[input];
                    for lane in 0..LANES {
                        sum[lane] += value * weights[lane];
                    }
                }
            }
            for (sum, output) in sums.iter().zip(&mut outputs) {
                let at = index * LANES;
                let wanted = LANES.min(self.outputs - at);
                output[at..at + wanted].copy_from_slice(&sum[..wanted]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_the_sum_written_out() {
        for (outputs, inputs, rows) in [(1, 1, 1), (16, 3, 2), (33, 7, 5), (129, 10, 4)] {
            let weight = |output: usize, input: usize| ((output * 7 + input * 3) % 11) as f32 - 5.0;
            let bias = |output: usize| output as f32 / 8.0;
            let dense = Dense::new(outputs, inputs, weight, bias);
            let input: Vec<f32> = (0..(rows - 1) * 2 + inputs)
                .map(|at| (at % 13) as f32 - 6.0)
                .collect();
            let mut output = vec![0.0; rows * outputs];
            dense.apply(&input, 2, rows, &mut output);
            for row in 0..rows {
                for at in 0..outputs {
                    let expected = bias(at)
                        + (0..inputs)
                            .map(|i| weight(at, i) * input[row * 2 + i])
                            .sum::<f32>();
                    assert_eq!(
                        output[row * outputs + at],
                        expected,
                        "{outputs}×{inputs}, row {row}, output {at}"
                    );
                }
            }
        }
    }
}
