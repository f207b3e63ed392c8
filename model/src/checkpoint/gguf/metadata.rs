//! Typed access to a file's metadata.

use crate::lm::LmConfig;
use crate::{Error, Result};
use candle_core::quantized::gguf_file::{Content, Value};
use serde_json::json;
use std::path::Path;

pub(super) struct Metadata<'a> {
    pub path: &'a Path,
    content: &'a Content,
}

impl<'a> Metadata<'a> {
    pub fn new(path: &'a Path, content: &'a Content) -> Self {
        Self { path, content }
    }

    pub fn architecture(&self) -> Result<&'a str> {
        self.text("general.architecture")?
            .ok_or_else(|| self.wrong("general.architecture", "llama or qwen2", "none"))
    }

    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.content.metadata.get(key)
    }

    pub fn wrong(&self, key: &str, expected: &str, found: &str) -> Error {
        Error::config(self.path, key, expected, found)
    }

    pub fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.typed(key, "text", |v| v.to_string().ok().map(String::as_str))
    }

    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", |v| v.to_bool().ok())
    }

    pub fn integer(&self, key: &str) -> Result<Option<usize>> {
        self.typed(key, "a whole number", |v| {
            let signed = v.to_i32().ok().map(i64::from).or_else(|| v.to_i64().ok());
            let value = v.to_u64().ok().or_else(|| u64::try_from(signed?).ok())?;
            usize::try_from(value).ok()
        })
    }

    fn real(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", |v| {
            v.to_f32().ok().map(f64::from).or_else(|| v.to_f64().ok())
        })
    }

    /// A list of texts.
    pub fn texts(&self, key: &str) -> Result<Vec<&'a str>> {
        let list = self.typed(key, "a list of texts", |v| {
            let texts = v.to_vec().ok()?.iter();
            texts
                .map(|t| t.to_string().ok().map(String::as_str))
                .collect()
        })?;
        list.ok_or_else(|| self.wrong(key, "a list of texts", "none"))
    }

    fn typed<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match read(value) {
                Some(value) => Ok(Some(value)),
                None => Err(self.wrong(key, expected, &format!("{:?}", value.value_type()))),
            },
        }
    }

    /// The sizes, as Hugging Face's `config.json` would tell them.
    pub fn lm_config(&self) -> Result<LmConfig> {
        let architecture = self.architecture()?;
        let key = |name: &str| format!("{architecture}.{name}");
        let integer = |name: &str| self.integer(&key(name));
        let needed = |name: &str| {
            integer(name)?.ok_or_else(|| self.wrong(&key(name), "a whole number", "none"))
        };
        let experts = integer("expert_count")?.filter(|&n| n > 0);
        let model_type = match (architecture, experts) {
            ("llama", None) => "llama",
            ("llama", Some(_)) => "mixtral",
            ("qwen2", None) => "qwen2",
            (other, _) => {
                return Err(self.wrong("general.architecture", "llama or qwen2", other));
            }
        };
        if let Some(scaling) = self
            .text(&key("rope.scaling.type"))?
            .filter(|s| *s != "none")
        {
            return Err(self.wrong(&key("rope.scaling.type"), "none", scaling));
        }
        let table = self.content.tensor_infos.get("token_embd.weight");
        let rows = table.and_then(|info| info.shape.dims().first().copied());
        let heads = needed("attention.head_count")?;
        let config = json!({
            "model_type": model_type,
            "vocab_size": rows.or(integer("vocab_size")?),
            "hidden_size": needed("embedding_length")?,
            "intermediate_size": needed("feed_forward_length")?,
            "num_hidden_layers": needed("block_count")?,
            "num_attention_heads": heads,
            "num_key_value_heads": integer("attention.head_count_kv")?.unwrap_or(heads),
            "head_dim": integer("attention.key_length")?,
            "rms_norm_eps": self.real(&key("attention.layer_norm_rms_epsilon"))?.unwrap_or(1e-5),
            "rope_theta": self.real(&key("rope.freq_base"))?.unwrap_or(1e4),
            "max_position_embeddings": needed("context_length")?,
            "tie_word_embeddings": !self.content.tensor_infos.contains_key("output.weight"),
            "num_local_experts": experts,
            "num_experts_per_tok": integer("expert_used_count")?.filter(|&n| n > 0),
        });
        serde_json::from_value(config).map_err(|e| Error::format(self.path, e))
    }
}
