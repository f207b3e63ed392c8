//! The decoder that Mixtral, Llama and Qwen2 share (spec section 5).

use super::mlp::FeedForward;
use super::rotary::{Angles, Rotary};
use super::{CacheShape, KvCache, LmConfig, LmFamily};
use crate::nn::{Linear, LowRank, Probe, RmsNorm, Weights, attend_causal, attend_sequences};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use std::ops::Range;

/// The tokens that one sequence adds in a step: the next `len` rows of the step's input.
pub struct Chunk<'a> {
    pub len: usize,
    pub cache: &'a mut KvCache,
}

/// The next `len` rows, and what they may look back on beside themselves.
struct Run<'a> {
    len: usize,
    cache: Option<&'a KvCache>,
}

/// The projections that low-rank updates are made for: those of attention, and the one that leaves a dense
/// feed-forward layer. Experts have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Projection {
    Q,
    K,
    V,
    O,
    Down,
}

impl Projection {
    pub const ALL: [Self; 5] = [Self::Q, Self::K, Self::V, Self::O, Self::Down];

    /// As in the names of files: `q`, `k`, `v`, `o`, `down`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q => "q",
            Self::K => "k",
            Self::V => "v",
            Self::O => "o",
            Self::Down => "down",
        }
    }

    /// In a layer of a dense checkpoint.
    #[cfg(test)]
    pub fn weight(self) -> String {
        let block = match self {
            Self::Down => "mlp",
            _ => "self_attn",
        };
        format!("{block}.{}_proj.weight", self.name())
    }
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
        runs: &[Run<'_>],
    ) -> Result<Tensor> {
        let tokens = xs.dim(0)?;
        let split = |xs: Tensor, heads: usize| xs.reshape((tokens, heads, self.head_dim));
        let q = angles.rotate(&split(self.q.forward(xs)?, self.heads)?)?;
        let k = angles.rotate(&split(self.k.forward(xs)?, self.kv_heads)?)?;
        let v = split(self.v.forward(xs)?, self.kv_heads)?;
        let scale = (self.head_dim as f64).powf(-0.5);
        let learns = q.track_op() || k.track_op() || v.track_op();
        let ys = match learns && xs.device().is_cpu() && xs.dtype() == DType::F32 {
            true => {
                let lengths: Vec<_> = runs.iter().map(|run| run.len).collect();
                attend_sequences([&q, &k, &v], &lengths, scale)?
            }
            false => Self::attend([&q, &k, &v], layer, runs, scale)?,
        };
        self.o
            .forward(&ys.reshape((tokens, self.heads * self.head_dim))?)
    }

    /// Each sequence by itself, behind what its cache holds.
    fn attend(
        [q, k, v]: [&Tensor; 3],
        layer: usize,
        runs: &[Run<'_>],
        scale: f64,
    ) -> Result<Tensor> {
        let mut first = 0;
        let mut parts = Vec::with_capacity(runs.len());
        for run in runs {
            let rows = |xs: &Tensor| -> Result<Tensor> {
                Ok(xs
                    .narrow(0, first, run.len)?
                    .transpose(0, 1)?
                    .contiguous()?)
            };
            let pieces = match run.cache {
                Some(cache) => cache.append(layer, &rows(k)?, &rows(v)?)?,
                None => vec![(rows(k)?, rows(v)?)],
            };
            let part = attend_causal(&rows(q)?, &pieces, scale)?;
            parts.push(part.transpose(0, 1)?);
            first += run.len;
        }
        Ok(Tensor::cat(&parts, 0)?)
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

    /// `None`: this layer has no such projection.
    fn projection(&self, projection: Projection) -> Option<&Linear> {
        let attention = &self.self_attn;
        Some(match projection {
            Projection::Q => &attention.q,
            Projection::K => &attention.k,
            Projection::V => &attention.v,
            Projection::O => &attention.o,
            Projection::Down => return self.feed_forward.down(),
        })
    }

    fn projection_mut(&mut self, projection: Projection) -> Option<&mut Linear> {
        let attention = &mut self.self_attn;
        Some(match projection {
            Projection::Q => &mut attention.q,
            Projection::K => &mut attention.k,
            Projection::V => &mut attention.v,
            Projection::O => &mut attention.o,
            Projection::Down => return self.feed_forward.down_mut(),
        })
    }

    fn forward(
        &self,
        xs: Tensor,
        angles: &Angles,
        i: usize,
        runs: &[Run<'_>],
        probe: &mut Probe,
    ) -> Result<Tensor> {
        let normed = self.input_layernorm.forward(&xs)?;
        let attn = self.self_attn.forward(&normed, angles, i, runs)?;
        probe.see(format_args!("attn_out{i}"), &attn);
        let xs = (xs + attn)?;
        let normed = self.post_attention_layernorm.forward(&xs)?;
        let moe = self.feed_forward.forward(&normed, i, probe)?;
        probe.see(format_args!("moe_out{i}"), &moe);
        Ok((xs + moe)?)
    }
}

/// Embeddings `[tokens, hidden]`, and the head tied to them.
#[derive(Debug, Clone)]
struct Added {
    rows: Tensor,
    head: Linear,
}

/// Embedding table, layers, head. Weights only: sequences bring their caches.
#[derive(Debug, Clone)]
pub struct LanguageModel {
    /// `[vocabulary, hidden]`.
    embed_tokens: Tensor,
    layers: Vec<Layer>,
    norm: RmsNorm,
    lm_head: Linear,
    /// Tokens that were added behind the model's own.
    added: Option<Added>,
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
            None if config.tie_word_embeddings && w.packs() => {
                Linear::from_tensors(table.clone(), None)?
            }
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
            added: None,
            config: config.clone(),
            compute,
            vocabulary,
        })
    }

    /// Puts tokens behind the vocabulary: `rows` `[tokens, hidden]` are their embeddings and, as in a
    /// tied head, what their logits are computed with.
    pub fn append_tokens(&mut self, rows: &Tensor) -> Result<()> {
        let rows = match &self.added {
            Some(added) => Tensor::cat(&[&added.rows, rows], 0)?,
            None => rows.clone(),
        };
        self.vocabulary = self.own_vocabulary() + rows.dim(0)?;
        let head = Linear::from_tensors(rows.clone(), None)?;
        self.added = Some(Added { rows, head });
        Ok(())
    }

    /// Tokens that were not added.
    fn own_vocabulary(&self) -> usize {
        self.vocabulary - self.added.as_ref().map_or(0, |added| added.head.outputs())
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
        let own = self.own_vocabulary() as u32;
        let device = self.embed_tokens.device();
        let row = |id: u32| if id < own { id } else { 0 };
        let rows = Tensor::from_iter(ids.iter().map(|&id| row(id)), device)?;
        let embedded = self.embed_tokens.index_select(&rows, 0)?;
        let embedded = embedded.to_dtype(self.compute)?;
        let added: Vec<usize> = (0..ids.len()).filter(|&i| ids[i] >= own).collect();
        let Some(Added { rows, .. }) = self.added.as_ref().filter(|_| !added.is_empty()) else {
            return Ok(embedded);
        };
        // Row 0 stands in the place of an added token until its own comes.
        let mut keep = vec![1f32; ids.len()];
        added.iter().for_each(|&i| keep[i] = 0.0);
        let keep = Tensor::from_vec(keep, (ids.len(), 1), device)?.to_dtype(self.compute)?;
        let which = Tensor::from_iter(added.iter().map(|&i| ids[i] - own), device)?;
        let places = Tensor::from_iter(added.iter().map(|&i| i as u32), device)?;
        let rows = rows.index_select(&which, 0)?.to_dtype(self.compute)?;
        Ok(embedded
            .broadcast_mul(&keep)?
            .index_add(&places, &rows, 0)?)
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
        check_lengths(xs, chunks.iter().map(|c| c.len))?;
        let positions: Vec<_> = chunks.iter().map(|c| (c.cache.len(), c.len)).collect();
        let angles = self.rotary.angles(&positions)?;
        for chunk in chunks.iter_mut() {
            chunk.cache.reserve(chunk.len)?;
        }
        let runs: Vec<_> = chunks
            .iter()
            .map(|c| Run {
                len: c.len,
                cache: Some(&*c.cache),
            })
            .collect();
        let mut xs = xs.clone();
        for (i, layer) in self.layers.iter().enumerate() {
            probe.see(format_args!("hidden_states{i}"), &xs);
            xs = layer.forward(xs, &angles, i, &runs, probe)?;
        }
        let xs = self.norm.forward(&xs)?;
        probe.see(format_args!("hidden_states{}", self.layers.len()), &xs);
        for chunk in chunks.iter_mut() {
            chunk.cache.advance(chunk.len);
        }
        Ok(xs)
    }

    /// Whole sequences of the given lengths, one after the other, without caches, for training:
    /// embeddings `[tokens, hidden]` → hidden states after the final norm. Gradients pass where
    /// something learns.
    pub fn forward_sequences(&self, xs: &Tensor, lengths: &[usize]) -> Result<Tensor> {
        let xs = self.forward_layers(xs, lengths, 0..self.layers.len())?;
        self.norm.forward(&xs)
    }

    /// Some of the layers of [`Self::forward_sequences`], without the final norm.
    pub fn forward_layers(
        &self,
        xs: &Tensor,
        lengths: &[usize],
        layers: Range<usize>,
    ) -> Result<Tensor> {
        check_lengths(xs, lengths.iter().copied())?;
        let positions: Vec<_> = lengths.iter().map(|&len| (0, len)).collect();
        let angles = self.rotary.angles(&positions)?;
        let cache = None;
        let runs: Vec<_> = lengths.iter().map(|&len| Run { len, cache }).collect();
        let mut xs = xs.clone();
        for (i, layer) in self.layers.iter().enumerate() {
            if layers.contains(&i) {
                xs = layer.forward(xs, &angles, i, &runs, &mut Probe::none())?;
            }
        }
        Ok(xs)
    }

    /// Hidden states after the last layer → after the final norm.
    pub fn final_norm(&self, xs: &Tensor) -> Result<Tensor> {
        self.norm.forward(xs)
    }

    /// Puts an update beside one of the matrices, in place of any that it had. What a clone shares stays
    /// as it is.
    pub fn update(
        &mut self,
        layer: usize,
        projection: Projection,
        low_rank: LowRank,
    ) -> Result<()> {
        let layers = self.layers.len();
        let Some(layer) = self.layers.get_mut(layer) else {
            return Err(Error::Input(format!(
                "an update of layer {layer}, the model has {layers}"
            )));
        };
        let Some(linear) = layer.projection_mut(projection) else {
            return Err(Error::Input(format!(
                "an update of {:?}, which this model's layers don't have",
                projection.name()
            )));
        };
        *linear = linear.updated(low_rank)?;
        Ok(())
    }

    /// The update beside one of the matrices.
    pub fn low_rank(&self, layer: usize, projection: Projection) -> Option<&LowRank> {
        self.layers.get(layer)?.projection(projection)?.low_rank()
    }

    /// Those that some of the layers have.
    pub fn projections(
        &self,
        layers: Range<usize>,
    ) -> impl Iterator<Item = (usize, Projection)> + '_ {
        let all = layers.flat_map(|layer| Projection::ALL.map(|projection| (layer, projection)));
        all.filter(|&(layer, projection)| {
            let layer = self.layers.get(layer);
            layer.is_some_and(|layer| layer.projection(projection).is_some())
        })
    }

    /// Width of a projection's output and input.
    pub fn projection_shape(&self, projection: Projection) -> (usize, usize) {
        let (config, dim) = (&self.config, self.config.head_width());
        let (q, kv) = (config.num_attention_heads * dim, config.kv_heads() * dim);
        match projection {
            Projection::Q => (q, config.hidden_size),
            Projection::K | Projection::V => (kv, config.hidden_size),
            Projection::O => (config.hidden_size, q),
            Projection::Down => (config.hidden_size, config.intermediate_size),
        }
    }

    /// Logits `[rows, vocabulary]`, f32, of hidden states `[rows, hidden]`.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        Ok(match self.split_logits(hidden)? {
            (own, Some(added)) => Tensor::cat(&[&own, &added], 1)?,
            (own, None) => own,
        })
    }

    /// [`Self::logits`] of the model's own tokens and of those that were added, apart.
    pub fn split_logits(&self, hidden: &Tensor) -> Result<(Tensor, Option<Tensor>)> {
        let logits = self.lm_head.forward(hidden)?;
        let own = self.own_vocabulary();
        let logits = match logits.dim(1)? == own {
            true => logits,
            false => logits.narrow(1, 0, own)?.contiguous()?,
        };
        let added = match &self.added {
            Some(added) => Some(added.head.forward(hidden)?.to_dtype(DType::F32)?),
            None => None,
        };
        Ok((logits.to_dtype(DType::F32)?, added))
    }
}

fn check_lengths(xs: &Tensor, lengths: impl Iterator<Item = usize> + Clone) -> Result<()> {
    let tokens: usize = lengths.clone().sum();
    let found = xs.dim(0)?;
    match tokens > 0 && tokens == found && lengths.into_iter().all(|len| len > 0) {
        true => Ok(()),
        false => Err(Error::Input(format!(
            "{found} embeddings for chunks of {tokens} tokens"
        ))),
    }
}
