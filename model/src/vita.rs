//! One model of the family, all parts together.

mod load;

pub use load::{LoadOptions, Progress};

use crate::audio::{Ears, Utterance};
use crate::generate::{Answer, Delta, Writer, generate};
use crate::lm::LanguageModel;
use crate::merge::embed_prompt;
use crate::prompt::{
    Conversation, Detokenizer, Media, MediaKind, Modality, Segment, StateTokens, SystemTexts,
    Template, Tokenizer, system_text,
};
use crate::sampling::{Sampler, SamplingParams, StopRules};
use crate::vision::{Eyes, Prepared};
use crate::{Error, Result};
use ::image::RgbImage;
use candle_core::{DType, Tensor};
use foldhash::quality::FixedState;
use std::hash::{BuildHasher, Hash, Hasher};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

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
    lm: Arc<LanguageModel>,
    eyes: Option<Eyes>,
    ears: Option<Ears>,
    tokenizer: Arc<Tokenizer>,
    template: Template,
    /// VITA's own where there are none.
    system: Option<SystemTexts>,
    states: StateTokens,
    stop_ids: Vec<u32>,
    max_length: usize,
}

impl Vita {
    /// Loads a model folder: what its `vita.toml` says, or a VITA checkpoint of either dialect. Of a
    /// checkpoint every tensor must be there and fit; a tensor that no part knows is an error, except in
    /// the audio encoder, where later models of the family have more.
    pub fn load(folder: &Path, options: &LoadOptions) -> Result<Self> {
        load::load(folder, options)
    }

    /// How pictures become vectors, for models that see.
    pub fn eyes(&self) -> Result<&Eyes> {
        let missing = || Error::Input("this model has no vision part".into());
        self.eyes.as_ref().ok_or_else(missing)
    }

    /// How sound becomes vectors, for models that hear.
    pub fn ears(&self) -> Result<&Ears> {
        let missing = || Error::Input("this model has no audio part".into());
        self.ears.as_ref().ok_or_else(missing)
    }

    /// Longest sequence, answer included.
    pub fn max_length(&self) -> usize {
        self.max_length
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

    /// What a conversation of this modality begins with; `name` is what VITA's texts call the robot.
    /// `None`: with nothing.
    pub fn system_text(&self, modality: Modality, name: &str) -> Option<String> {
        match &self.system {
            Some(texts) => texts.of(modality).map(str::to_owned),
            None => Some(system_text(modality, name)),
        }
    }

    /// A still picture: tiles and thumbnail, one medium each, in the order of the prompt.
    pub fn see_picture(&self, picture: &RgbImage) -> Result<Vec<Media>> {
        self.see_pixels(&self.eyes()?.picture(picture)?)
    }

    /// Video frames: one medium each.
    pub fn see_frames(&self, frames: &[RgbImage]) -> Result<Vec<Media>> {
        match frames.is_empty() {
            true => Ok(Vec::new()),
            false => self.see_pixels(&self.eyes()?.frames(frames)?),
        }
    }

    /// n prepared pictures: n media.
    pub fn see_pixels(&self, prepared: &Prepared) -> Result<Vec<Media>> {
        self.see_keyed(prepared, &prepared.keys()?)
    }

    /// [`Self::see_pixels`] of pictures whose keys ([`Prepared::keys`]) are known already.
    pub fn see_keyed(&self, prepared: &Prepared, keys: &[u64]) -> Result<Vec<Media>> {
        let (pictures, wanted) = (prepared.count()?, keys.len());
        if pictures != wanted {
            return Err(Error::Input(format!(
                "{wanted} keys for {pictures} pictures"
            )));
        }
        let pictures = self.eyes()?.encode(prepared)?.into_iter().zip(keys);
        let media = pictures.map(|(picture, &key)| Media {
            kind: MediaKind::Image,
            key,
            vectors: picture.vectors,
            transcript: picture.names,
        });
        Ok(media.collect())
    }

    /// An utterance: samples in [−1, 1] at the encoder's rate (16 kHz).
    pub fn hear(&self, samples: &[f32]) -> Result<Media> {
        self.hear_frames(&self.ears()?.features(samples)?)
    }

    /// An utterance as the features `[frames, bins]` that the encoder listens to.
    pub fn hear_frames(&self, features: &Tensor) -> Result<Media> {
        self.hear_keyed(features, content_key(features)?)
    }

    /// [`Self::hear_frames`] of features whose [`content_key`] is known already.
    pub fn hear_keyed(&self, features: &Tensor, key: u64) -> Result<Media> {
        let Utterance {
            vectors,
            transcript,
        } = self.ears()?.encode(features)?;
        Ok(Media {
            kind: MediaKind::Audio,
            key,
            vectors,
            transcript,
        })
    }

    /// Ids and media of a conversation whose next turn is the model's.
    pub fn prompt(&self, conversation: &Conversation) -> Result<Vec<Segment>> {
        self.template.render(conversation, &self.tokenizer)
    }

    /// Embeddings `[positions, hidden]` of a prompt.
    pub fn embed(&self, prompt: &[Segment]) -> Result<Tensor> {
        embed_prompt(&self.lm, prompt, self.max_length)
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
        generate(&self.lm, &xs, self.max_length, writer, on_delta)
    }
}

/// A hash of a tensor's values and shape, the same in every process: the [`Media::key`] of prepared pixels `[3, height, width]` or of features.
pub fn content_key(content: &Tensor) -> Result<u64> {
    let mut hasher = FixedState::default().build_hasher();
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
