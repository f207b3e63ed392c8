//! Every language model, tiny and with random weights.

use std::sync::Arc;

use vita_model::lm::{Decoder, Experts, LmConfig, RopeLayout};
use vita_model::nn::{RandomSource, Weights};

pub fn config() -> LmConfig {
    LmConfig {
        hidden_size: 32,
        intermediate_size: 48,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 8,
        vocab_size: 50,
        max_positions: 512,
        rope_theta: 1e4,
        rope_layout: RopeLayout::Half,
        norm_eps: 1e-5,
        experts: None,
        tied_head: false,
        qkv_bias: false,
    }
}

pub fn backbones() -> Vec<(&'static str, Arc<Decoder>)> {
    let mixtral = LmConfig {
        experts: Some(Experts {
            count: 4,
            per_token: 2,
        }),
        ..config()
    };
    let qwen2 = LmConfig {
        qkv_bias: true,
        tied_head: true,
        ..config()
    };
    let gguf = LmConfig {
        rope_layout: RopeLayout::Interleaved,
        tied_head: true,
        ..config()
    };
    [
        ("llama", config()),
        ("mixtral", mixtral),
        ("qwen2", qwen2),
        ("llama of a GGUF file", gguf),
    ]
    .into_iter()
    .map(|(name, config)| {
        let weights = Weights::f32(Arc::new(RandomSource { seed: 7 }));
        (
            name,
            Arc::new(Decoder::new(config, &weights).expect("random weights fit")),
        )
    })
    .collect()
}

pub fn ids(seed: u32, n: usize) -> Vec<u32> {
    (0..n as u32)
        .map(|i| (i * 7 + seed * 13 + i * i) % 50)
        .collect()
}
