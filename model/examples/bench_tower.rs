//! Times a tower of full size with random weights: `bench_tower vit|whale`, threads in `RAYON_NUM_THREADS`.
//!
//! Prints a line of JSON when it is ready, then runs once for each line read and prints the seconds, so that
//! `scripts/bench-towers` can alternate between us and the peers.

use candle_core::{Device, Tensor};
use std::io::{BufRead, stdin};
use std::sync::Arc;
use std::time::Instant;
use vita_model::Result;
use vita_model::audio::whale::GlobalCmvn;
use vita_model::audio::{Whale, WhaleConfig};
use vita_model::nn::{Probe, RandomSource, Weights};
use vita_model::vision::{InternVit, InternVitConfig};

/// 10 s of audio.
const FRAMES: usize = 998;
const MELS: usize = 80;

fn vit() -> Result<Box<dyn Fn() -> Result<Tensor>>> {
    let config = InternVitConfig {
        hidden_size: 1024,
        intermediate_size: 4096,
        num_hidden_layers: 24,
        num_attention_heads: 16,
        image_size: 448,
        patch_size: 14,
        num_channels: 3,
        layer_norm_eps: 1e-6,
        qkv_bias: true,
        qk_normalization: false,
        norm_type: "layer_norm".into(),
        hidden_act: "gelu".into(),
    };
    let tower = InternVit::new(&config, &Weights::f32(Arc::new(RandomSource { seed: 1 })))?;
    let pixels = Tensor::randn(0f32, 1.0, (1, 3, 448, 448), &Device::Cpu)?;
    Ok(Box::new(move || tower.forward(&pixels, &mut Probe::none())))
}

fn whale() -> Result<Box<dyn Fn() -> Result<Tensor>>> {
    let config = WhaleConfig {
        input_dim: MELS,
        subsampling_size: 1024,
        hidden_size: 1024,
        intermediate_size: 4096,
        num_hidden_layers: 24,
        num_attention_heads: 16,
    };
    let ones = Tensor::ones(MELS, candle_core::DType::F32, &Device::Cpu)?;
    let cmvn = GlobalCmvn::new(ones.zeros_like()?, ones);
    let tower = Whale::new(
        &config,
        cmvn,
        &Weights::f32(Arc::new(RandomSource { seed: 2 })),
    )?;
    let fbank = Tensor::randn(0f32, 1.0, (1, FRAMES, MELS), &Device::Cpu)?;
    Ok(Box::new(move || {
        Ok(tower.forward(&fbank, &[FRAMES], &mut Probe::none())?.values)
    }))
}

fn main() -> Result<()> {
    let run = match std::env::args().nth(1).as_deref() {
        Some("vit") => vit()?,
        Some("whale") => whale()?,
        _ => {
            eprintln!("usage: bench_tower vit|whale");
            std::process::exit(2);
        }
    };
    let shape = run()?.dims().to_vec();
    println!(
        "{{\"version\": \"{}\", \"shape\": {shape:?}}}",
        env!("CARGO_PKG_VERSION")
    );
    for _ in stdin().lock().lines() {
        let start = Instant::now();
        run()?;
        println!("{}", start.elapsed().as_secs_f64());
    }
    Ok(())
}
