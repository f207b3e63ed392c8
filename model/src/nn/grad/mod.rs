//! Operations with fast forms in both directions, for training on the CPU.
//!
//! Weights that do not learn are packed twice: as they are for the product, transposed for its
//! gradient, the latter when the first gradient passes. What an operation needs of its forward pass
//! it keeps until its gradient is asked for.
//!
//! Quantised weights stay so in both directions: products are the same as at inference, and a gradient
//! is rounded to 8 bits in blocks of 32 values where it meets the next weight, at more than twice the
//! speed of f32 (`docs/training.md`).

mod attention;
mod frozen;
mod rows;

use candle_core::{CpuStorage, Device, Layout, Shape, Tensor, bail};
use vita_kernels::ops::with_contiguous;

pub use attention::attend_sequences;
pub use frozen::Frozen;
pub(super) use rows::rms_norm;
pub use rows::rotate;

type CandleResult<T> = candle_core::Result<T>;

/// The values of a contiguous f32 argument.
pub(crate) fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> CandleResult<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((from, to))) => Ok(&values[from..to]),
        _ => bail!("expected contiguous f32, found {layout:?}"),
    }
}

/// Gives `f` the values of a gradient or of an argument, contiguous.
fn lend<R>(x: &Tensor, f: impl FnOnce(&[f32]) -> R) -> CandleResult<R> {
    with_contiguous(&x.contiguous()?, |values| Ok(f(values)))
}

fn tensor(values: Vec<f32>, like: impl Into<Shape>) -> CandleResult<Tensor> {
    Tensor::from_vec(values, like.into(), &Device::Cpu)
}

fn with_last(layout: &Layout, last: usize) -> Shape {
    let mut dims = layout.dims().to_vec();
    if let Some(width) = dims.last_mut() {
        *width = last;
    }
    Shape::from(dims)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Var;
    use candle_core::quantized::{GgmlDType, QTensor};

    fn random(shape: impl Into<Shape>) -> Tensor {
        Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap()
    }

    /// Gradients of `sum(f(x) · direction)`.
    fn gradient(x: &Var, direction: &Tensor, f: impl Fn(&Tensor) -> Tensor) -> Tensor {
        let loss = (f(x.as_tensor()) * direction).unwrap().sum_all().unwrap();
        loss.backward().unwrap().get(x.as_tensor()).unwrap().clone()
    }

    fn length(x: &Tensor) -> f32 {
        x.sqr()
            .unwrap()
            .sum_all()
            .unwrap()
            .sqrt()
            .unwrap()
            .to_scalar::<f32>()
            .unwrap()
    }

    #[track_caller]
    fn alike(a: &Tensor, b: &Tensor, tolerance: f32) {
        let error = length(&(a - b).unwrap()) / length(b);
        assert!(error < tolerance, "relative difference {error}");
    }

    #[test]
    fn quantised_weights_give_nearly_the_same_gradients() {
        let (inputs, inner, rows) = (64, 96, 9);
        let quantised = |seed: f64| {
            let w = (random((inner, inputs)) * (0.1 * seed)).unwrap();
            QTensor::quantize(&w, GgmlDType::Q8_0).unwrap()
        };
        let (gate, up) = (quantised(1.0), quantised(2.0));
        let dense = [&gate, &up].map(|w| w.dequantize(&Device::Cpu).unwrap());
        let x = Var::from_tensor(&random((rows, inputs))).unwrap();
        let direction = random((rows, inner));
        let both = Frozen::new(&Tensor::cat(&dense, 0).unwrap()).unwrap();
        let by_hand = |x: &Tensor| {
            let times = |w: &Tensor| x.matmul(&w.t().unwrap()).unwrap();
            (times(&dense[0]).silu().unwrap() * times(&dense[1])).unwrap()
        };
        let wanted = gradient(&x, &direction, by_hand);
        let exact = gradient(&x, &direction, |x| both.forward_gated(x).unwrap());
        alike(&exact, &wanted, 1e-5);
        let eight_bits = Frozen::quantised(&[gate, up]).unwrap();
        let found = gradient(&x, &direction, |x| eight_bits.forward_gated(x).unwrap());
        alike(&found, &wanted, 0.02);
    }

    #[test]
    fn attention_of_shared_heads_has_the_gradients_of_its_definition() {
        let (lengths, heads, kv_heads, dim) = ([3, 5], 4, 2, 20);
        let tokens = lengths.iter().sum::<usize>();
        let inputs = [heads, kv_heads, kv_heads]
            .map(|heads| Var::from_tensor(&random((tokens, heads, dim))).unwrap());
        let by_hand = |q: &Tensor, k: &Tensor, v: &Tensor| {
            let mut parts = Vec::new();
            let mut first = 0;
            for len in lengths {
                let rows = |x: &Tensor| {
                    let rows = x.narrow(0, first, len).unwrap().transpose(0, 1).unwrap();
                    rows.contiguous().unwrap()
                };
                let part = crate::nn::attend_causal(&rows(q), &[(rows(k), rows(v))], 0.3);
                parts.push(part.unwrap().transpose(0, 1).unwrap());
                first += len;
            }
            Tensor::cat(&parts, 0).unwrap()
        };
        let direction = random((tokens, heads, dim));
        for learning in 0..3 {
            let with = |x: &Tensor| {
                let mut all = inputs.each_ref().map(|var| var.as_detached_tensor());
                all[learning] = x.clone();
                all
            };
            let wanted = gradient(&inputs[learning], &direction, |x| {
                let [q, k, v] = with(x);
                by_hand(&q, &k, &v)
            });
            let found = gradient(&inputs[learning], &direction, |x| {
                let [q, k, v] = with(x);
                attend_sequences([&q, &k, &v], &lengths, 0.3).unwrap()
            });
            alike(&found, &wanted, 1e-5);
        }
    }
}
