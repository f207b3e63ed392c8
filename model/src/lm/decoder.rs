//! The decoder that Mixtral, Llama and Qwen2 share (spec section 5).

use super::mlp::FeedForward;
use super::rotary::{Angles, Rotary};
use super::{CacheShape, KvCache, LmConfig, LmFamily};
use crate::nn::{Linear, Probe, RmsNorm, Weights, attend_causal};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};

/// The tokens that one sequence adds in a step: the next `len` rows of the step's input.
pub struct Chunk<'a> {
    pub len: usize,
    pub cache: &'a mut KvCache,
}

#[derive(Debug, Clone)]
struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
}

impl Attention {
    fn new(config: &LmConfig, w: &Weights) -> Result<Self> {
        let (heads, kv_heads) = (config.num_attention_heads, config.kv_heads());
        let (hidden, head_dim) = (config.hidden_size, config.head_width());
        let project = |outputs: usize, name: &str| match config.family() {
            Some(LmFamily::Qwen2) => Linear::new(hidden, outputs, &w.pp(name)),
            _ => Linear::no_bias(hidden, outputs, &w.pp(name)),
        };
        Ok(Self {
            q: project(heads * head_dim, "q_proj")?,
            k: project(kv_heads * head_dim, "k_proj")?,
            v: project(kv_heads * head_dim, "v_proj")?,
            o: Linear::no_bias(heads * head_dim, hidden, &w.pp("o_proj"))?,
            heads,
            kv_heads,
            head_dim,
        })
    }

    /// Projections over all tokens of the step at once, attention for each sequence by itself.
    fn forward(
        &self,
        xs: &Tensor,
        angles: &Angles,
        layer: usize,
        chunks: &[Chunk<'_>],
    ) -> Result<Tensor> {
        let tokens = xs.dim(0)?;
        let split = |xs: Tensor, heads: usize| xs.reshape((tokens, heads, self.head_dim));
        let q = angles.rotate(&split(self.q.forward(xs)?, self.heads)?)?;
        let k = angles.rotate(&split(self.k.forward(xs)?, self.kv_heads)?)?;
        let v = split(self.v.forward(xs)?, self.kv_heads)?;
        let scale = (self.head_dim as f64).powf(-0.5);
        let mut first = 0;
        let mut parts = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            let rows = |xs: &Tensor| -> Result<Tensor> {
                Ok(xs
                    .narrow(0, first, chunk.len)?
                    .transpose(0, 1)?
                    .contiguous()?)
            };
            let pieces = chunk.cache.append(layer, &rows(&k)?, &rows(&v)?)?;
            let part = attend_causal(&rows(&q)?, &pieces, scale)?;
            parts.push(part.transpose(0, 1)?);
            first += chunk.len;
        }
        let ys = Tensor::cat(&parts, 0)?;
        self.o
            .forward(&ys.reshape((tokens, self.heads * self.head_dim))?)
    }
}

#[derive(Debug, Clone)]
struct Layer {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    feed_forward: FeedForward,
}

impl Layer {
    fn new(config: &LmConfig, w: &Weights) -> Result<Self> {
        let norm = |name: &str| RmsNorm::new(config.hidden_size, config.rms_norm_eps, &w.pp(name));
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            self_attn: Attention::new(config, &w.pp("self_attn"))?,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            feed_forward: FeedForward::new(config, w)?,
        })
    }
}

/// Embedding table, layers, head. Weights only: sequences bring their caches.
#[derive(Debug, Clone)]
pub struct LanguageModel {
    /// `[vocabulary, hidden]`.
    embed_tokens: Tensor,
    layers: Vec<Layer>,
    norm: RmsNorm,
    lm_head: Linear,
    /// Rows of tokens that were added behind the model's own.
    added_head: Option<Linear>,
    rotary: Rotary,
    config: LmConfig,
    compute: DType,
    vocabulary: usize,
}

impl LanguageModel {
    /// `vocabulary` is the tokenizer's, which has the last word: rows beyond it are cut off.
    /// `max_length` is the longest sequence to prepare for.
    pub fn new(
        config: &LmConfig,
        vocabulary: usize,
        max_length: usize,
        w: &Weights,
    ) -> Result<Self> {
        let (rows, hidden) = (config.vocab_size, config.hidden_size);
        if vocabulary > rows {
            return Err(Error::Input(format!(
                "the tokenizer has {vocabulary} tokens, the model's embedding table {rows} rows"
            )));
        }
        let w_model = w.pp("model");
        let table = w_model.matrix((rows, hidden), "embed_tokens.weight")?;
        let w_head = match config.tie_word_embeddings {
            true => w_model.pp("embed_tokens"),
            false => w.pp("lm_head"),
        };
        let lm_head = match w_head.quantised((rows, hidden), "weight")? {
            None if config.tie_word_embeddings => Linear::from_tensors(table.clone(), None)?,
            _ => Linear::no_bias(hidden, rows, &w_head)?,
        };
        let embed_tokens = table.narrow(0, 0, vocabulary)?;
        let compute = w.compute_dtype();
        Ok(Self {
            layers: (0..config.num_hidden_layers)
                .map(|i| Layer::new(config, &w_model.pp("layers").pp(i)))
                .collect::<Result<_>>()?,
            norm: RmsNorm::new(hidden, config.rms_norm_eps, &w_model.pp("norm"))?,
            rotary: Rotary::new(
                config.rope_theta,
                config.head_width(),
                max_length.min(config.max_position_embeddings),
                compute,
                w.device(),
            )?,
            embed_tokens,
            lm_head,
            added_head: None,
            config: config.clone(),
            compute,
            vocabulary,
        })
    }

    /// Puts tokens behind the vocabulary: `rows` `[tokens, hidden]` are their embeddings and, as in a
    /// tied head, what their logits are computed with.
    pub fn append_tokens(&mut self, rows: &Tensor) -> Result<()> {
        let table = [
            &self.embed_tokens,
            &rows.to_dtype(self.embed_tokens.dtype())?,
        ];
        self.embed_tokens = Tensor::cat(&table, 0)?;
        self.added_head = Some(Linear::from_tensors(rows.clone(), None)?);
        self.vocabulary += rows.dim(0)?;
        Ok(())
    }

    fn added(&self) -> usize {
        self.added_head.as_ref().map_or(0, Linear::outputs)
    }

    pub fn config(&self) -> &LmConfig {
        &self.config
    }

    /// Type of activations and caches.
    pub fn compute_dtype(&self) -> DType {
        self.compute
    }

    pub fn device(&self) -> &Device {
        self.embed_tokens.device()
    }

    /// Number of tokens that logits are given for.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// The longest sequence that it was prepared for.
    pub fn max_length(&self) -> usize {
        self.rotary.positions()
    }

    pub fn cache_shape(&self) -> CacheShape {
        CacheShape {
            layers: self.layers.len(),
            kv_heads: self.config.kv_heads(),
            head_dim: self.config.head_width(),
            dtype: self.compute,
        }
    }

    /// An empty cache for one sequence.
    pub fn cache(&self) -> KvCache {
        KvCache::new(self.cache_shape(), self.embed_tokens.device())
    }

    /// Embedding rows of token ids: `[ids, hidden]`.
    pub fn embed(&self, ids: &[u32]) -> Result<Tensor> {
        if let Some(id) = ids.iter().find(|&&id| id as usize >= self.vocabulary) {
            let vocabulary = self.vocabulary;
            return Err(Error::Input(format!(
                "token {id} of a vocabulary of {vocabulary}"
            )));
        }
        let ids = Tensor::new(ids, self.embed_tokens.device())?;
        Ok(self
            .embed_tokens
            .index_select(&ids, 0)?
            .to_dtype(self.compute)?)
    }

    /// One step: embeddings `[tokens, hidden]` of several sequences one after the other, without
    /// padding → hidden states after the final norm. Caches grow by their chunks; after an error they
    /// are as long as before.
    pub fn forward(
        &self,
        xs: &Tensor,
        chunks: &mut [Chunk<'_>],
        probe: &mut Probe,
    ) -> Result<Tensor> {
        let tokens: usize = chunks.iter().map(|c| c.len).sum();
        if tokens == 0 || tokens != xs.dim(0)? || chunks.iter().any(|c| c.len == 0) {
            let found = xs.dim(0)?;
            return Err(Error::Input(format!(
                "{found} embeddings for chunks of {tokens} tokens"
            )));
        }
        let runs: Vec<_> = chunks.iter().map(|c| (c.cache.len(), c.len)).collect();
        let angles = self.rotary.angles(&runs)?;
        for chunk in chunks.iter_mut() {
            chunk.cache.reserve(chunk.len)?;
        }
        let mut xs = xs.clone();
        for (i, layer) in self.layers.iter().enumerate() {
            probe.see(format_args!("hidden_states{i}"), &xs);
            let normed = layer.input_layernorm.forward(&xs)?;
            let attn = layer.self_attn.forward(&normed, &angles, i, chunks)?;
            probe.see(format_args!("attn_out{i}"), &attn);
            xs = (xs + attn)?;
            let normed = layer.post_attention_layernorm.forward(&xs)?;
            let moe = layer.feed_forward.forward(&normed, i, probe)?;
            probe.see(format_args!("moe_out{i}"), &moe);
            xs = (xs + moe)?;
        }
        let xs = self.norm.forward(&xs)?;
        probe.see(format_args!("hidden_states{}", self.layers.len()), &xs);
        for chunk in chunks.iter_mut() {
            chunk.cache.advance(chunk.len);
        }
        Ok(xs)
    }

    /// Logits `[rows, vocabulary]`, f32, of hidden states `[rows, hidden]`.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let logits = self.lm_head.forward(hidden)?;
        let own = self.vocabulary - self.added();
        let logits = match logits.dim(1)? == own {
            true => logits,
            false => logits.narrow(1, 0, own)?.contiguous()?,
        };
        let logits = match &self.added_head {
            Some(added) => Tensor::cat(&[&logits, &added.forward(hidden)?], 1)?,
            None => logits,
        };
        Ok(logits.to_dtype(DType::F32)?)
    }
}
