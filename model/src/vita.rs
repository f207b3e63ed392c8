//! One model of the family, all parts together.

use crate::audio::{AudioAdapter, Padded, Whale};
use crate::checkpoint::{ModelConfig, Shards, load_cmvn};
use crate::connector::{MlpProjector, visual_tokens};
use crate::fbank::Fbank;
use crate::generate::{Answer, Delta, Writer, generate};
use crate::image::Tiling;
use crate::lm::LanguageModel;
use crate::merge::embed_prompt;
use crate::nn::{Probe, Weights};
use crate::prompt::{
    Conversation, Detokenizer, Media, MediaKind, Segment, StateTokens, Template, Tokenizer,
};
use crate::sampling::{Sampler, SamplingParams, StopRules};
use crate::vision::InternVit;
use crate::{Error, Result};
use ::image::RgbImage;
use candle_core::{DType, Device, Tensor};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// Tensors that carry this prefix and are unknown belong to later models of the family.
const TOLERATED_PREFIX: &str = "model.audio_encoder.";

/// A buffer that old checkpoints carry and that every reader computes itself.
const TOLERATED_SUFFIX: &str = "rotary_emb.inv_freq";

/// Where to load to, and in which types.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    pub device: Device,
    /// Type in which matrices are kept.
    pub stored: DType,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            device: Device::Cpu,
            stored: DType::F32,
        }
    }
}

impl LoadOptions {
    /// On a CPU everything but the stored matrices is f32: nothing is gained by computing in 16 bits.
    pub fn compute(&self) -> DType {
        match self.device.is_cpu() {
            true => DType::F32,
            false => self.stored,
        }
    }
}

/// How one answer is to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateOptions {
    pub sampling: SamplingParams,
    pub max_new_tokens: usize,
    /// End at once when the first token says that nothing was asked.
    pub stop_at_noise: bool,
    /// Leave special tokens in the text.
    pub keep_special: bool,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            sampling: SamplingParams::default(),
            max_new_tokens: 512,
            stop_at_noise: true,
            keep_special: false,
        }
    }
}

/// A loaded model. Immutable; share it in an `Arc`.
pub struct Vita {
    config: ModelConfig,
    lm: Arc<LanguageModel>,
    vision: InternVit,
    projector: MlpProjector,
    audio: Whale,
    adapter: AudioAdapter,
    fbank: Fbank,
    tokenizer: Arc<Tokenizer>,
    template: Template,
    states: StateTokens,
    stop_ids: Vec<u32>,
}

impl Vita {
    /// Loads a checkpoint folder of either dialect. Every tensor of the model must be there and fit;
    /// a tensor that no part knows is an error, except in the audio encoder, where later models of the
    /// family have more.
    pub fn load(folder: &Path, options: &LoadOptions) -> Result<Self> {
        let config = ModelConfig::load(folder)?;
        let tokenizer = Tokenizer::load(&folder.join("tokenizer.json"))?;
        let shards = Arc::new(Shards::open(folder)?);
        check_vocabulary(&config, &tokenizer)?;
        let (stored, compute) = (options.stored, options.compute());
        let w = Weights::new(shards.clone(), stored, compute, options.device.clone());
        let vita = Self::from_parts(config, tokenizer, &w)?;
        check_unused(&shards)?;
        Ok(vita)
    }

    fn from_parts(config: ModelConfig, tokenizer: Tokenizer, w: &Weights) -> Result<Self> {
        let template = Template::default();
        let w_audio = w.pp("model.audio_encoder");
        let cmvn = load_cmvn(&config, w)?;
        let w_vision = w.pp("model.vision_tower.vision_tower");
        Ok(Self {
            vision: InternVit::new(&config.vision, &w_vision)?,
            projector: MlpProjector::new(
                config.projector_depth,
                4 * config.vision.hidden_size,
                config.lm.hidden_size,
                &w.pp("model.mm_projector"),
            )?,
            audio: Whale::new(&config.audio, cmvn, &w_audio.pp("encoder"))?,
            adapter: AudioAdapter::new(&config.adapter, &w_audio.pp("adpter"))?,
            lm: Arc::new(LanguageModel::new(
                &config.lm,
                tokenizer.size(),
                config.max_length,
                w,
            )?),
            fbank: Fbank::whale(&config.fbank).map_err(|e| Error::Input(e.to_string()))?,
            states: tokenizer.state_tokens()?,
            stop_ids: template.stop_ids(&tokenizer)?,
            template,
            tokenizer: Arc::new(tokenizer),
            config,
        })
    }

    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    pub fn lm(&self) -> &Arc<LanguageModel> {
        &self.lm
    }

    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    pub fn state_tokens(&self) -> StateTokens {
        self.states
    }

    pub fn template(&self) -> &Template {
        &self.template
    }

    /// A still picture: tiles and thumbnail, one medium each, in the order of the prompt.
    pub fn see_picture(&self, picture: &RgbImage) -> Result<Vec<Media>> {
        let processor = &self.config.image_processor;
        let (width, height) = picture.dimensions();
        let tiling = Tiling::choose(width, height, processor.crop, self.config.tiling);
        self.see_pixels(&processor.batch(&tiling.cut(picture))?)
    }

    /// Video frames: one medium each.
    pub fn see_frames(&self, frames: &[RgbImage]) -> Result<Vec<Media>> {
        let processor = &self.config.image_processor;
        let pixels = frames
            .iter()
            .map(|f| processor.frame(f, self.config.frame_fit));
        let pixels = pixels.collect::<Result<Vec<_>>>()?;
        match pixels.is_empty() {
            true => Ok(Vec::new()),
            false => self.see_pixels(&Tensor::stack(&pixels, 0)?),
        }
    }

    /// Prepared pixels `[n, 3, height, width]`: n media.
    pub fn see_pixels(&self, pixels: &Tensor) -> Result<Vec<Media>> {
        let tokens = self.image_tokens(pixels)?;
        (0..tokens.dim(0)?)
            .map(|i| {
                Ok(Media {
                    kind: MediaKind::Image,
                    key: content_key(&pixels.get(i)?)?,
                    vectors: tokens.get(i)?,
                })
            })
            .collect()
    }

    fn image_tokens(&self, pixels: &Tensor) -> Result<Tensor> {
        let pixels = pixels
            .to_dtype(self.lm.compute_dtype())?
            .to_device(self.lm.device())?;
        let features = self.vision.forward(&pixels, &mut Probe::none())?;
        self.projector.forward(&visual_tokens(&features)?)
    }

    /// An utterance: samples in [−1, 1] at the encoder's rate (16 kHz).
    pub fn hear(&self, samples: &[f32]) -> Result<Media> {
        let frames = self.fbank.compute(samples);
        let frames = frames.map_err(|e| Error::Input(e.to_string()))?;
        let bins = self.config.audio.input_dim;
        self.hear_frames(&Tensor::from_vec(frames, ((), bins), &Device::Cpu)?)
    }

    /// An utterance as filterbank frames `[frames, bins]`, not normalised.
    pub fn hear_frames(&self, fbank: &Tensor) -> Result<Media> {
        let batch = fbank.unsqueeze(0)?.to_device(self.lm.device())?;
        let encoded = self
            .audio
            .forward(&batch, &[fbank.dim(0)?], &mut Probe::none())?;
        let Padded { values, lengths } = self.adapter.forward(&encoded, &mut Probe::none())?;
        let valid = lengths.first().copied().unwrap_or(0);
        Ok(Media {
            kind: MediaKind::Audio,
            key: content_key(fbank)?,
            vectors: values.get(0)?.narrow(0, 0, valid)?,
        })
    }

    /// Ids and media of a conversation whose next turn is the model's.
    pub fn prompt(&self, conversation: &Conversation) -> Result<Vec<Segment>> {
        self.template.render(conversation, &self.tokenizer)
    }

    /// Embeddings `[positions, hidden]` of a prompt.
    pub fn embed(&self, prompt: &[Segment]) -> Result<Tensor> {
        embed_prompt(&self.lm, prompt, self.config.max_length)
    }

    /// The state of an answer that has not begun.
    pub fn writer(&self, options: &GenerateOptions) -> Result<Writer> {
        let rules = StopRules {
            end: self.stop_ids.clone(),
            silent_first: options.stop_at_noise.then_some(self.states.noise),
            max_new_tokens: options.max_new_tokens,
        };
        let detokenizer = Detokenizer::new(self.tokenizer.clone(), options.keep_special);
        let sampler = Sampler::new(options.sampling)?;
        Ok(Writer::new(sampler, rules, detokenizer, self.states))
    }

    /// Answers one prompt, handing out words as they come.
    pub fn generate(
        &self,
        prompt: &[Segment],
        options: &GenerateOptions,
        on_delta: impl FnMut(&Delta) -> ControlFlow<()>,
    ) -> Result<Answer> {
        let xs = self.embed(prompt)?;
        let writer = self.writer(options)?;
        generate(&self.lm, &xs, self.config.max_length, writer, on_delta)
    }
}

fn check_vocabulary(config: &ModelConfig, tokenizer: &Tokenizer) -> Result<()> {
    let (size, rows) = (tokenizer.size(), config.lm.vocab_size);
    match size > rows {
        true => Err(Error::Tokenizer {
            path: tokenizer.path().to_path_buf(),
            reason: format!("expected at most {rows} tokens (vocab_size), found {size}"),
        }),
        false => Ok(()),
    }
}

fn check_unused(shards: &Shards) -> Result<()> {
    let (tolerated, unknown): (Vec<_>, Vec<_>) = shards
        .unused()
        .into_iter()
        .filter(|name| !name.ends_with(TOLERATED_SUFFIX))
        .partition(|name| name.starts_with(TOLERATED_PREFIX));
    for name in tolerated {
        tracing::warn!(
            tensor = name,
            "unknown tensor of the audio encoder is ignored"
        );
    }
    match unknown.first() {
        Some(first) => Err(Error::UnknownTensor {
            file: shards.file_of(first).display().to_string(),
            tensor: first.clone(),
            others: unknown.len() - 1,
        }),
        None => Ok(()),
    }
}

/// A hash of a tensor's values and shape.
fn content_key(content: &Tensor) -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    content.dims().hash(&mut hasher);
    let values = content
        .flatten_all()?
        .to_dtype(DType::F32)?
        .to_vec1::<f32>()?;
    for value in values {
        value.to_bits().hash(&mut hasher);
    }
    Ok(hasher.finish())
}
