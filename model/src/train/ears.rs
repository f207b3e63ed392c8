//! Low-rank updates of ears that read: a site's voices, rooms and words.

use super::LoraConfig;
use super::lora::{beginning, scaled};
use crate::audio::{UPDATES_PREFIX, Whisper, WhisperDecoder};
use crate::nn::LowRank;
use crate::{Error, Result};
use candle_core::{Device, Tensor, Var};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, HashMap};

/// Updates of every matrix in the layers of a Whisper's encoder and decoder, as variables.
pub struct EarsLora {
    scale: f64,
    variables: BTreeMap<String, Var>,
}

impl EarsLora {
    /// At first the ears are what they were: A begins with small random numbers, B with zeros.
    ///
    /// # Errors
    /// Where the rank is 0 or the weights are of a kind that nothing can be trained beside.
    pub fn new(
        config: LoraConfig,
        encoder: &Whisper,
        decoder: &WhisperDecoder,
        seed: u64,
    ) -> Result<Self> {
        if config.rank == 0 || config.from_layer != 0 || !config.alpha.is_finite() {
            return Err(Error::Input(format!(
                "low-rank updates {config:?} of ears: expected a rank above 0, and from-layer 0"
            )));
        }
        let mut rng = StdRng::seed_from_u64(seed);
        let mut variables = BTreeMap::new();
        let (mut encoder, mut decoder) = (encoder.clone(), decoder.clone());
        for (place, matrix) in encoder.matrices().into_iter().chain(decoder.matrices()) {
            let shape = (matrix.outputs(), matrix.inputs()?);
            let (a, b) = beginning(config.rank, shape, &Device::Cpu, &mut rng)?;
            variables.insert(name(&place, "a"), Var::from_tensor(&a)?);
            variables.insert(name(&place, "b"), Var::from_tensor(&b)?);
        }
        let scale = config.alpha / config.rank as f64;
        Ok(Self { scale, variables })
    }

    /// By the names they have in files: `ears.<place>.<a|b>`.
    pub fn variables(&self) -> &BTreeMap<String, Var> {
        &self.variables
    }

    /// The ears with these updates, which go on learning.
    pub fn attach(
        &self,
        encoder: &Whisper,
        decoder: &WhisperDecoder,
    ) -> Result<(Whisper, WhisperDecoder)> {
        self.attached(encoder, decoder, self.scale, |var| var.as_tensor().clone())
    }

    /// The ears with a share (0 to 1) of these updates as they are at the moment, with nothing that learns.
    pub fn attach_frozen(
        &self,
        encoder: &Whisper,
        decoder: &WhisperDecoder,
        share: f64,
    ) -> Result<(Whisper, WhisperDecoder)> {
        let scale = share * self.scale;
        self.attached(encoder, decoder, scale, |var| var.as_detached_tensor())
    }

    fn attached(
        &self,
        encoder: &Whisper,
        decoder: &WhisperDecoder,
        scale: f64,
        tensor: impl Fn(&Var) -> Tensor,
    ) -> Result<(Whisper, WhisperDecoder)> {
        let (mut encoder, mut decoder) = (encoder.clone(), decoder.clone());
        for (place, matrix) in encoder.matrices().into_iter().chain(decoder.matrices()) {
            let get = |which| tensor(&self.variables[&name(&place, which)]);
            let (a, b) = (get("a"), get("b"));
            *matrix = matrix.updated(LowRank { a, b, scale })?;
        }
        Ok((encoder, decoder))
    }

    /// What a file of a share of them holds: the scale goes into B, so that the update is `B·A`.
    pub fn tensors(&self, share: f64) -> Result<HashMap<String, Tensor>> {
        scaled(&self.variables, share * self.scale)
    }
}

fn name(place: &str, which: &str) -> String {
    format!("{UPDATES_PREFIX}{place}.{which}")
}
