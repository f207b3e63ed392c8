//! Every level that this CPU has against the plain version, and the plain version against candle.

use super::attention::{Attention, Heads, KeyBias, Piece, attention_at};
use super::conv::PackedConv;
use super::dense::{PackedDense, Values};
use super::epilogue::{Activation, Epilogue};
use super::gemm::linear;
use super::math;
use super::norm::{Norm, normalise_at};
use super::q8::{BLOCK, PackedQ8, QuantisedRows, linear_q8};
use super::simd::{Level, Simd};
use super::{ops, threads};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, IndexOp, Module, Result, Tensor};
use proptest::prelude::*;
use rand::{Rng, SeedableRng, rngs::StdRng};

fn random(seed: u64, len: usize) -> Vec<f32> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..len).map(|_| rng.random_range(-1.0..1.0)).collect()
}

#[track_caller]
fn assert_close(got: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let allowed = tolerance * (1.0 + expected.abs());
        assert!(
            (got - expected).abs() <= allowed,
            "{what}, value {i}: {got}, expected {expected}"
        );
    }
}

fn activation() -> impl Strategy<Value = Activation> {
    prop_oneof![
        Just(Activation::None),
        Just(Activation::Gelu),
        Just(Activation::Relu),
        Just(Activation::Relu6),
        Just(Activation::Silu)
    ]
}

fn faster_levels() -> Vec<Level> {
    Level::supported()
        .into_iter()
        .filter(|&level| level != Level::Portable)
        .collect()
}

/// A product at one level on what stood in the output before.
fn product(w: &PackedDense, x: &[f32], epilogue: &Epilogue, before: &[f32]) -> Vec<f32> {
    let mut out = before.to_vec();
    linear(x, w, epilogue, &mut out);
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_product_is_the_same_at_every_level(
        rows in 0usize..40, k in 0usize..90, n in 0usize..80, activation in activation(),
        bias: bool, scale: bool, accumulate: bool, seed: u64,
    ) {
        let (x, w) = (random(seed, rows * k), random(seed ^ 1, n * k));
        let (b, s, before) = (random(seed ^ 2, n), random(seed ^ 3, n), random(seed ^ 4, rows * n));
        // With no columns of x the number of rows cannot be told from it.
        let before = if k == 0 { &before[..0] } else { &before[..] };
        let epilogue = Epilogue { bias: bias.then_some(&b[..]), activation, scale: scale.then_some(&s[..]), accumulate };
        let expected = product(&PackedDense::with_level(Values::F32(&w), n, k, Level::Portable), &x, &epilogue, before);
        for level in faster_levels() {
            let got = product(&PackedDense::with_level(Values::F32(&w), n, k, level), &x, &epilogue, before);
            assert_close(&got, &expected, 2e-5, &format!("{level:?}"));
        }
    }

    #[test]
    fn a_gated_product_is_the_same_at_every_level(rows in 1usize..20, k in 1usize..70, n in 1usize..70, seed: u64) {
        let (x, gate, up) = (random(seed, rows * k), random(seed ^ 1, n * k), random(seed ^ 2, n * k));
        let zeros = vec![0.0; rows * n];
        let none = Epilogue::default();
        let silu = Epilogue { activation: Activation::Silu, ..none };
        let gates = product(&PackedDense::with_level(Values::F32(&gate), n, k, Level::Portable), &x, &silu, &zeros);
        let ups = product(&PackedDense::with_level(Values::F32(&up), n, k, Level::Portable), &x, &none, &zeros);
        let expected: Vec<f32> = gates.iter().zip(&ups).map(|(g, u)| g * u).collect();
        for level in Level::supported() {
            let got = product(&PackedDense::gated_with_level(Values::F32(&gate), Values::F32(&up), n, k, level), &x, &none, &zeros);
            assert_close(&got, &expected, 2e-5, &format!("{level:?}"));
        }
    }

    #[test]
    fn a_quantised_product_is_the_same_at_every_level(
        rows in 0usize..20, blocks in 1usize..6, n in 0usize..80, bias: bool, accumulate: bool, gated: bool, seed: u64,
    ) {
        let k = blocks * BLOCK;
        let (w, up) = (q8_0(&random(seed, n * k)), q8_0(&random(seed ^ 1, n * k)));
        let mut x = QuantisedRows::default();
        x.fill(&random(seed ^ 2, rows * k), k);
        let (b, before) = (random(seed ^ 3, n), random(seed ^ 4, rows * n));
        let epilogue = Epilogue { bias: (bias && !gated).then_some(&b[..]), accumulate, ..Epilogue::default() };
        let run = |level| {
            let w = match gated {
                true => PackedQ8::gated_with_level(&w, &up, n, k, level),
                false => PackedQ8::with_level(&w, n, k, level),
            };
            let mut out = before.clone();
            linear_q8(&x, &w, &epilogue, &mut out);
            out
        };
        let expected = run(Level::Portable);
        for level in faster_levels() {
            assert_close(&run(level), &expected, 2e-5, &format!("{level:?}"));
        }
    }

    #[test]
    fn attention_is_the_same_at_every_level(
        batch in 1usize..3, kv_heads in 1usize..3, group in 1usize..4, queries in 1usize..40, past in 0usize..20,
        dim in 1usize..70, width in 1usize..70, causal: bool, bias in 0usize..3, seed: u64,
    ) {
        let (heads, keys) = (kv_heads * group, queries + past);
        check_attention([batch, heads, kv_heads, queries, keys, dim, width], causal, bias, seed);
    }

    #[test]
    fn norms_are_the_same_at_every_level(rows in 0usize..5, width in 1usize..200, seed: u64) {
        let x: Vec<f32> = random(seed, rows * width).iter().map(|v| 3.0 * v + 1.0).collect();
        let (weight, bias) = (random(seed ^ 1, width), random(seed ^ 2, width));
        let norms = [Norm::Layer { weight: &weight, bias: &bias, eps: 1e-5 }, Norm::Rms { weight: &weight, eps: 1e-5 }];
        for norm in norms {
            let run = |level| {
                let mut out = vec![0.0; x.len()];
                normalise_at(level, &norm, &x, &mut out);
                out
            };
            for level in faster_levels() {
                assert_close(&run(level), &run(Level::Portable), 2e-5, &format!("{level:?}"));
            }
        }
    }
}

#[test]
fn weights_of_16_bits_are_as_good_as_their_values_in_f32() {
    use half::{bf16, f16};
    let (rows, k, n) = (20, 600, 70);
    let (x, w, up, zeros) = (
        random(1, rows * k),
        random(2, n * k),
        random(3, n * k),
        vec![0.0; rows * n],
    );
    let none = Epilogue::default();
    let halves = |w: &[f32]| w.iter().map(|&w| f16::from_f32(w)).collect::<Vec<_>>();
    let brains = |w: &[f32]| w.iter().map(|&w| bf16::from_f32(w)).collect::<Vec<_>>();
    let (w16, up16, wb, upb) = (halves(&w), halves(&up), brains(&w), brains(&up));
    let wide16: Vec<Vec<f32>> = [&w16, &up16]
        .map(|w| w.iter().map(|w| w.to_f32()).collect())
        .into();
    let wideb: Vec<Vec<f32>> = [&wb, &upb]
        .map(|w| w.iter().map(|w| w.to_f32()).collect())
        .into();
    for level in Level::supported() {
        for (narrow, up, wide) in [
            (Values::F16(&w16), Values::F16(&up16), &wide16),
            (Values::Bf16(&wb), Values::Bf16(&upb), &wideb),
        ] {
            let (w, u) = (Values::F32(&wide[0]), Values::F32(&wide[1]));
            let got = product(
                &PackedDense::with_level(narrow, n, k, level),
                &x,
                &none,
                &zeros,
            );
            assert_eq!(
                got,
                product(&PackedDense::with_level(w, n, k, level), &x, &none, &zeros),
                "{level:?}"
            );
            let got = product(
                &PackedDense::gated_with_level(narrow, up, n, k, level),
                &x,
                &none,
                &zeros,
            );
            assert_eq!(
                got,
                product(
                    &PackedDense::gated_with_level(w, u, n, k, level),
                    &x,
                    &none,
                    &zeros
                ),
                "{level:?}"
            );
            let mut row = vec![0.0; k];
            PackedDense::with_level(narrow, n, k, level).row(41, &mut row);
            assert_eq!(row, wide[0][41 * k..42 * k]);
        }
    }
}

#[test]
fn a_convolution_agrees_with_candle() -> Result<()> {
    for (batch, height, width, channels, outputs, size, stride) in [
        (2, 9, 8, 1, 5, 3, 2),
        (1, 7, 11, 20, 33, 3, 2),
        (1, 5, 5, 3, 4, 2, 1),
        (1, 2, 9, 3, 4, 3, 2),
    ] {
        let x = random(1, batch * height * width * channels);
        let kernel = random(2, outputs * channels * size * size);
        let x = Tensor::from_vec(x, (batch, channels, height, width), &Device::Cpu)?;
        let kernel = Tensor::from_vec(kernel, (outputs, channels, size, size), &Device::Cpu)?;
        let ours = ops::Conv::new(&kernel, stride)?.forward(
            &x.permute((0, 2, 3, 1))?,
            None,
            Activation::Relu,
        )?;
        if height < size {
            assert_eq!(
                ours.dims(),
                [batch, 0, (width - size) / stride + 1, outputs]
            );
            continue;
        }
        let candle = x
            .conv2d(&kernel, 0, stride, 1, 1)?
            .relu()?
            .permute((0, 2, 3, 1))?;
        assert_eq!(ours.dims(), candle.dims());
        assert!(difference(&ours, &candle)? < 1e-5);
        let (values, kernel) = (
            x.permute((0, 2, 3, 1))?.flatten_all()?.to_vec1()?,
            kernel.flatten_all()?.to_vec1()?,
        );
        for level in Level::supported() {
            let conv = PackedConv::with_level(&kernel, [outputs, channels, size], stride, level);
            let mut out = vec![0.0; ours.elem_count()];
            let epilogue = Epilogue {
                activation: Activation::Relu,
                ..Epilogue::default()
            };
            conv.run(&values, [batch, height, width], &epilogue, &mut out);
            assert_close(
                &out,
                &ours.flatten_all()?.to_vec1()?,
                2e-5,
                &format!("{level:?}"),
            );
        }
    }
    Ok(())
}

fn check_attention(sizes: [usize; 7], causal: bool, bias: usize, seed: u64) {
    let [batch, heads, kv_heads, queries, keys, dim, width] = sizes;
    let q = random(seed, batch * heads * queries * dim);
    let (k, v) = (
        random(seed ^ 1, batch * kv_heads * keys * dim),
        random(seed ^ 2, batch * kv_heads * keys * width),
    );
    // 0: none, 1: for all heads, 2: for each head. Every fifth key is hidden.
    let bias_heads = if bias == 2 { kv_heads } else { 1 };
    let mut bias_values = random(seed ^ 3, batch * bias_heads * keys);
    bias_values
        .iter_mut()
        .step_by(5)
        .for_each(|b| *b = f32::NEG_INFINITY);
    fn contiguous(data: &[f32], heads: usize, rows: usize, width: usize) -> Heads<'_> {
        Heads {
            data,
            batch_stride: heads * rows * width,
            head_stride: rows * width,
            row_stride: width,
            width,
        }
    }
    // The keys lie in two pieces, the first of which may be empty.
    let split = seed as usize % keys;
    let (k, v) = (
        contiguous(&k, kv_heads, keys, dim),
        contiguous(&v, kv_heads, keys, width),
    );
    let pieces = [
        Piece { k, v, keys: split },
        Piece {
            k: Heads {
                data: &k.data[split * dim..],
                ..k
            },
            v: Heads {
                data: &v.data[split * width..],
                ..v
            },
            keys: keys - split,
        },
    ];
    let what = Attention {
        batch,
        heads,
        kv_heads,
        queries,
        q: contiguous(&q, heads, queries, dim),
        pieces: &pieces,
        scale: 0.5,
        causal,
        key_bias: (bias > 0).then_some(KeyBias {
            data: &bias_values,
            heads: bias_heads,
        }),
    };
    let run = |level| {
        let mut out = vec![f32::NAN; batch * queries * heads * width];
        attention_at(level, &what, &mut out);
        out
    };
    let expected = run(Level::Portable);
    for level in faster_levels() {
        assert_close(
            &run(level),
            &expected,
            2e-5,
            &format!("{level:?} {sizes:?}"),
        );
    }
}

#[test]
fn a_query_that_may_see_no_key_gets_zeros() {
    for queries in [1, 40] {
        check_attention([1, 1, 1, queries, 1, 1, 1], false, 1, 0);
    }
}

#[test]
fn attention_over_many_blocks_of_keys_is_that_of_one_softmax() {
    for causal in [false, true] {
        check_attention([1, 2, 1, 300, 700, 64, 64], causal, 1, 7);
    }
}

#[test]
fn a_deep_product_sums_its_blocks() {
    let (rows, k, n) = (300, 1500, 70);
    let (x, w, before) = (random(1, rows * k), random(2, n * k), random(3, rows * n));
    let epilogue = Epilogue {
        accumulate: true,
        activation: Activation::Gelu,
        ..Epilogue::default()
    };
    let expected = product(
        &PackedDense::with_level(Values::F32(&w), n, k, Level::Portable),
        &x,
        &epilogue,
        &before,
    );
    for level in faster_levels() {
        let got = product(
            &PackedDense::with_level(Values::F32(&w), n, k, level),
            &x,
            &epilogue,
            &before,
        );
        assert_close(&got, &expected, 1e-4, &format!("{level:?}"));
    }
}

/// Largest difference of a vector function from f64, over a range.
fn worst<S: Simd>(
    s: S,
    range: (f32, f32),
    f: impl Fn(S, S::F) -> S::F,
    exact: impl Fn(f64) -> f64,
    relative: bool,
) -> f64 {
    let steps = 400_000;
    let mut worst = 0f64;
    let mut out = vec![0.0; S::LANES];
    for i in 0..=steps / S::LANES {
        let x: Vec<f32> = (0..S::LANES)
            .map(|lane| range.0 + (range.1 - range.0) * (i * S::LANES + lane) as f32 / steps as f32)
            .collect();
        s.enter(|| {
            let y = f(s, s.load(&x));
            s.store(&mut out, y);
        });
        for (x, y) in x.iter().zip(&out) {
            let expected = exact(f64::from(*x));
            let difference = (f64::from(*y) - expected).abs();
            worst = worst.max(if relative {
                difference / expected.abs()
            } else {
                difference
            });
        }
    }
    worst
}

fn check_functions<S: Simd>(s: S) {
    let erf = candle_core::cpu::erf::erf_f64;
    let error = worst(s, (-6.0, 6.0), math::erf, erf, false);
    assert!(error < 5e-7, "erf is off by {error:e}");
    let error = worst(s, (-80.0, 80.0), math::exp, f64::exp, true);
    assert!(error < 1e-5, "exp is off by {error:e} of its value");
    let error = worst(s, (-125.0, 125.0), math::exp2, f64::exp2, true);
    assert!(error < 3e-7, "exp2 is off by {error:e} of its value");
    let gelu = |x: f64| 0.5 * x * (1.0 + erf(x / 2f64.sqrt()));
    let error = worst(s, (-6.0, 6.0), math::gelu, gelu, false);
    assert!(error < 1e-6, "gelu is off by {error:e}");
    let error = worst(
        s,
        (-20.0, 20.0),
        math::silu,
        |x| x / (1.0 + (-x).exp()),
        false,
    );
    assert!(error < 3e-6, "silu is off by {error:e}");
}

#[test]
#[cfg(target_arch = "x86_64")]
fn vector_functions_are_within_their_stated_errors() {
    if let Some(s) = super::simd::Avx2::new() {
        check_functions(s);
    }
    if let Some(s) = super::simd::Avx512::new() {
        check_functions(s);
    }
}

fn q8_0(values: &[f32]) -> Vec<u8> {
    if values.is_empty() {
        return Vec::new();
    }
    let tensor = Tensor::from_slice(values, values.len(), &Device::Cpu).unwrap();
    QTensor::quantize(&tensor, GgmlDType::Q8_0)
        .unwrap()
        .data()
        .unwrap()
        .to_vec()
}

/// Largest difference, relative to the largest value.
fn difference(a: &Tensor, b: &Tensor) -> Result<f32> {
    let top = b.abs()?.max_all()?.to_scalar::<f32>()?;
    Ok((a - b)?.abs()?.max_all()?.to_scalar::<f32>()? / top)
}

#[test]
fn a_quantised_product_agrees_with_candle_and_its_rows_with_the_tensor() -> Result<()> {
    let (rows, k, n) = (5, 96, 50);
    let w = Tensor::from_vec(random(1, n * k), (n, k), &Device::Cpu)?;
    let x = Tensor::from_vec(random(2, rows * k), (rows, k), &Device::Cpu)?;
    let quantised = QTensor::quantize(&w, GgmlDType::Q8_0)?;
    let packed = ops::Packed::q8_0(&quantised.data()?, n, k);
    let ours = packed.forward(&x, None, Activation::None)?;
    let candle =
        candle_core::quantized::QMatMul::from_qtensor(QTensor::quantize(&w, GgmlDType::Q8_0)?)?
            .forward(&x)?;
    // candle rounds a half away from zero when it quantises x, we to even.
    assert!(difference(&ours, &candle)? < 2e-3);
    let ops::Packed::Q8(packed) = packed else {
        panic!("packed as Q8_0")
    };
    let all = quantised.dequantize(&Device::Cpu)?;
    for i in 0..n {
        let mut row = vec![0.0; k];
        packed.row(i, &mut row);
        assert_eq!(row, all.i(i)?.to_vec1::<f32>()?);
    }
    Ok(())
}

#[test]
fn tensors_with_strides_go_through() -> Result<()> {
    let (tokens, heads, dim) = (9, 3, 8);
    let qkv = Tensor::from_vec(
        random(5, tokens * 3 * heads * dim),
        (1, tokens, 3, heads, dim),
        &Device::Cpu,
    )?;
    let split = qkv.permute((2, 0, 3, 1, 4))?;
    let (q, k, v) = (split.i(0)?, split.i(1)?, split.i(2)?);
    let ours = ops::attention(&q, &k, &v, 0.3, false, None)?;
    let scores = (q.contiguous()?.matmul(&k.t()?.contiguous()?)? * 0.3)?;
    let mixed = candle_nn::ops::softmax_last_dim(&scores)?
        .matmul(&v.contiguous()?)?
        .transpose(1, 2)?;
    assert!(difference(&ours, &mixed)? < 1e-5);

    let x = Tensor::from_vec(random(6, 4 * 6), (4, 6), &Device::Cpu)?;
    let w = Tensor::from_vec(random(7, 5 * 4), (5, 4), &Device::Cpu)?;
    let (bias, scale) = (
        Tensor::from_vec(random(8, 5), 5, &Device::Cpu)?,
        Tensor::from_vec(random(9, 5), 5, &Device::Cpu)?,
    );
    let plain = x.t()?.matmul(&w.t()?)?.broadcast_add(&bias)?;
    let packed = ops::Packed::dense(&w)?;
    let gelu = packed.forward(&x.t()?, Some(&bias), Activation::Gelu)?;
    assert!(difference(&gelu, &plain.gelu_erf()?)? < 1e-5);
    let residual = plain.ones_like()?;
    let sum = packed.forward_residual(&x.t()?, Some(&bias), Some(&scale), &residual)?;
    assert!(difference(&sum, &(residual + plain.broadcast_mul(&scale)?)?)? < 1e-5);
    Ok(())
}

#[test]
fn causal_attention_over_pieces_is_that_over_the_whole() -> Result<()> {
    let (heads, kv_heads, dim) = (6, 2, 16);
    let keys = Tensor::from_vec(
        random(1, kv_heads * 40 * dim),
        (kv_heads, 40, dim),
        &Device::Cpu,
    )?;
    let values = Tensor::from_vec(
        random(2, kv_heads * 40 * dim),
        (kv_heads, 40, dim),
        &Device::Cpu,
    )?;
    for new in [1, 2, 9] {
        let q = Tensor::from_vec(
            random(3, heads * new * dim),
            (heads, new, dim),
            &Device::Cpu,
        )?;
        let (q4, k4, v4) = (
            q.unsqueeze(0)?,
            keys.narrow(1, 0, 30)?.unsqueeze(0)?,
            values.narrow(1, 0, 30)?.unsqueeze(0)?,
        );
        let whole = ops::attention(&q4, &k4, &v4, 0.25, true, None)?.squeeze(0)?;
        let piece = |from, len| Ok((keys.narrow(1, from, len)?, values.narrow(1, from, len)?));
        let pieces: Vec<_> = [piece(0, 7), piece(7, 13), piece(20, 10)]
            .into_iter()
            .collect::<Result<_>>()?;
        let parts = ops::attention_causal(&q, &pieces, 0.25)?;
        assert_eq!(parts.dims(), [new, heads, dim]);
        assert!(difference(&parts, &whole)? < 1e-6);
        assert!(ops::attention_causal(&q.narrow(2, 0, 8)?, &pieces, 0.25).is_err());
    }
    assert!(ops::attention_causal(&keys, &[], 0.25).is_err());
    Ok(())
}

#[test]
fn what_the_kernels_cannot_take_is_told() -> Result<()> {
    let x = Tensor::zeros((2, 4), DType::F32, &Device::Cpu)?;
    assert!(ops::can_take(&x));
    assert!(!ops::can_take(&x.to_dtype(DType::F16)?));
    assert!(!ops::can_take(
        candle_core::Var::from_tensor(&x)?.as_tensor()
    ));
    let packed = ops::Packed::dense(&Tensor::zeros((3, 5), DType::F32, &Device::Cpu)?)?;
    let error = packed
        .forward(&x, None, Activation::None)
        .unwrap_err()
        .to_string();
    assert!(error.contains("the weight takes 5"), "{error}");
    let heads = x.reshape((1, 1, 2, 4))?;
    assert!(ops::attention(&heads, &heads, &x.reshape((1, 1, 4, 2))?, 1.0, false, None).is_err());
    Ok(())
}

#[test]
fn shared_tasks_run_once_each() {
    let count: Vec<_> = (0..1000)
        .map(|_| std::sync::atomic::AtomicUsize::new(0))
        .collect();
    threads::share(count.len(), |i| {
        count[i].fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    });
    assert!(
        count
            .iter()
            .all(|c| c.load(std::sync::atomic::Ordering::Relaxed) == 1)
    );
    threads::share(0, |_| panic!("no task"));
    assert!(threads::threads() >= 1);
}
