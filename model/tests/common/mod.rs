//! Every language model, tiny and with random weights, and the published tokenizer's small sister to write with.

use std::path::Path;
use std::sync::Arc;

use vita_model::lm::{LanguageModel, LmConfig};
use vita_model::nn::{RandomSource, Weights};

/// That of the tokenizer in `tests/golden`.
pub const VOCABULARY: usize = 768;
pub const MAX_LENGTH: usize = 512;

pub fn backbones() -> Vec<(&'static str, Arc<LanguageModel>)> {
    let sparse = r#","num_local_experts":4,"num_experts_per_tok":2"#;
    [("llama", ""), ("mixtral", sparse), ("qwen2", r#","tie_word_embeddings":true"#)]
        .into_iter()
        .map(|(name, more)| {
            let json = format!(
                r#"{{"model_type":"{name}","vocab_size":{VOCABULARY},"hidden_size":32,"intermediate_size":48,"num_hidden_layers":2,
                "num_attention_heads":4,"num_key_value_heads":2,"max_position_embeddings":{MAX_LENGTH}{more}}}"#
            );
            let config: LmConfig = serde_json::from_str(&json).expect("a config");
            config.validate(Path::new("config.json")).expect("a sound config");
            let weights = Weights::f32(Arc::new(RandomSource { seed: 7 }));
            let model = LanguageModel::new(&config, VOCABULARY, MAX_LENGTH, &weights);
            (name, Arc::new(model.expect("random weights fit")))
        })
        .collect()
}

pub fn ids(seed: u32, n: usize) -> Vec<u32> {
    (0..n as u32)
        .map(|i| (i * 7 + seed * 13 + i * i) % VOCABULARY as u32)
        .collect()
}
