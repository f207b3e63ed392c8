use crate::{Error, Result};
use serde::Deserialize;
use std::path::Path;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LmFamily {
    Mixtral,
    Llama,
    Qwen2,
}

/// Sizes of a decoder, in the names of Hugging Face's `config.json`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct LmConfig {
    #[serde(default)]
    pub model_type: String,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    /// As many as query heads when absent.
    pub num_key_value_heads: Option<usize>,
    pub head_dim: Option<usize>,
    #[serde(default = "silu")]
    pub hidden_act: String,
    #[serde(default = "rms_norm_eps")]
    pub rms_norm_eps: f64,
    #[serde(default = "rope_theta")]
    pub rope_theta: f64,
    pub max_position_embeddings: usize,
    /// Not supported; accepted when it is at least as long as the model's context.
    pub sliding_window: Option<usize>,
    #[serde(default)]
    pub use_sliding_window: Option<bool>,
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// Experts per layer; absent in dense models.
    pub num_local_experts: Option<usize>,
    pub num_experts_per_tok: Option<usize>,
    #[serde(default)]
    pub rope_scaling: Option<serde_json::Value>,
}

fn silu() -> String {
    "silu".into()
}
fn rms_norm_eps() -> f64 {
    1e-5
}
fn rope_theta() -> f64 {
    1e4
}

impl LmConfig {
    /// Reads a language model's `config.json`.
    pub fn load(path: &Path) -> Result<Self> {
        let config: Self = crate::checkpoint::read_json(path)?;
        config.validate(path)?;
        Ok(config)
    }

    pub fn family(&self) -> Option<LmFamily> {
        match self.model_type.as_str() {
            "vita-mixtral" | "mixtral" => Some(LmFamily::Mixtral),
            "llama" => Some(LmFamily::Llama),
            "qwen2" => Some(LmFamily::Qwen2),
            _ => None,
        }
    }

    pub fn kv_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    /// Width of one head.
    pub fn head_width(&self) -> usize {
        self.head_dim
            .unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }

    /// Experts and how many of them serve each token, for mixtures.
    pub fn experts(&self) -> Option<(usize, usize)> {
        Some((self.num_local_experts?, self.num_experts_per_tok?))
    }

    /// Refuses what no weights could have and what is not implemented.
    pub fn validate(&self, path: &Path) -> Result<()> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.kv_heads()),
            ("max_position_embeddings", self.max_position_embeddings),
            ("head_dim", self.head_width()),
        ];
        crate::checkpoint::check_sizes(path, &sizes)?;
        let fail = |key: &str, expected: String, found: String| {
            Err(Error::config(path, key, expected, found))
        };
        let Some(family) = self.family() else {
            return fail(
                "model_type",
                "mixtral, llama or qwen2".into(),
                self.model_type.clone(),
            );
        };
        if self.head_dim.is_none() && !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            let expected = format!("a divisor of hidden_size {}", self.hidden_size);
            return fail(
                "num_attention_heads",
                expected,
                self.num_attention_heads.to_string(),
            );
        }
        if !self.num_attention_heads.is_multiple_of(self.kv_heads()) {
            let expected = format!(
                "a divisor of num_attention_heads {}",
                self.num_attention_heads
            );
            return fail("num_key_value_heads", expected, self.kv_heads().to_string());
        }
        if !self.head_width().is_multiple_of(2) {
            return fail(
                "head_dim",
                "an even number".into(),
                self.head_width().to_string(),
            );
        }
        if self.hidden_act != silu() {
            return fail("hidden_act", silu(), self.hidden_act.clone());
        }
        if !(self.rope_theta.is_finite() && self.rope_theta > 0.0) {
            return fail(
                "rope_theta",
                "more than 0".into(),
                self.rope_theta.to_string(),
            );
        }
        if self.rope_scaling.as_ref().is_some_and(|v| !v.is_null()) {
            return fail("rope_scaling", "none".into(), "a scaling".into());
        }
        let window = self
            .sliding_window
            .filter(|_| self.use_sliding_window != Some(false));
        if let Some(window) = window.filter(|&w| w < self.max_position_embeddings) {
            return fail("sliding_window", "none".into(), window.to_string());
        }
        match (family, self.num_local_experts, self.num_experts_per_tok) {
            (LmFamily::Mixtral, Some(all), Some(used)) => {
                crate::checkpoint::check_sizes(path, &[("num_local_experts", all)])?;
                if used == 0 || used > all {
                    return fail(
                        "num_experts_per_tok",
                        format!("1 to {all}"),
                        used.to_string(),
                    );
                }
                Ok(())
            }
            (LmFamily::Mixtral, all, used) => fail(
                "num_local_experts, num_experts_per_tok",
                "both".into(),
                format!("{all:?}, {used:?}"),
            ),
            (_, None, _) => Ok(()),
            (_, Some(all), _) => fail("num_local_experts", "none".into(), all.to_string()),
        }
    }
}
