//! What learns, and one update of it.

use super::Checkpoint;
use crate::example::Piece;
use crate::{Error, Example, InstructStage, Result};
use candle_core::{Tensor, Var};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use vita_model::lm::LanguageModel;
use vita_model::nn::Variables;
use vita_model::train::{AdamW, CrossEntropy, Gradients, Lora, cross_entropy};
use vita_model::{LoadOptions, Vita};

/// A model some of whose tensors learn.
pub struct Learner {
    vita: Arc<Vita>,
    lm: LanguageModel,
    lora: Option<Lora>,
    optimiser: AdamW,
    factors: BTreeMap<String, f64>,
    clip: f64,
    state_weight: f32,
}

/// What the model says at the targets of one example.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    /// The likeliest token at each target.
    pub best: Vec<u32>,
    /// Logits of the three state tokens at the first target: query, noise, text.
    pub states: [f32; 3],
}

impl Learner {
    pub fn load(folder: &Path, stage: &InstructStage, seed: u64) -> Result<Self> {
        let learn = stage.learn.clone();
        let chosen = move |name: &str| learn.iter().any(|begin| name.starts_with(begin));
        let variables = Arc::new(Variables::new(chosen));
        let options = LoadOptions {
            variables: Some(variables.clone()),
            ..LoadOptions::default()
        };
        let vita = Arc::new(Vita::load(folder, &options)?);
        let mut learning = variables.made();
        let unknown = stage
            .learn
            .iter()
            .find(|begin| !learning.keys().any(|name| name.starts_with(*begin)));
        if let Some(begin) = unknown {
            return Err(Error::Input(format!(
                "instruct.learn: no tensor of {} has a name that begins with {begin:?}",
                folder.display()
            )));
        }
        let mut lm = LanguageModel::clone(vita.lm());
        let lora = match stage.low_rank {
            Some(config) => Some(Lora::new(config, &lm, seed)?),
            None => None,
        };
        if let Some(lora) = &lora {
            lm = lora.attach(&lm)?;
            learning.extend(lora.variables().clone());
        }
        Ok(Self {
            vita,
            lm,
            lora,
            optimiser: AdamW::new(stage.adamw, learning),
            factors: stage.rate.factors.clone(),
            clip: stage.clip,
            state_weight: stage.state_weight,
        })
    }

    pub fn vita(&self) -> &Arc<Vita> {
        &self.vita
    }

    /// Updates so far.
    pub fn step(&self) -> u64 {
        self.optimiser.step()
    }

    pub fn variables(&self) -> &BTreeMap<String, Var> {
        self.optimiser.variables()
    }

    pub fn state(&self) -> Result<HashMap<String, Tensor>> {
        Ok(self.optimiser.state()?)
    }

    pub fn restore(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let step = checkpoint.progress.step;
        Ok(self.optimiser.restore(&checkpoint.state, step)?)
    }

    /// What was learnt, as it is put into a model: see [`Lora::tensors`].
    pub fn tensors(&self) -> Result<HashMap<String, Tensor>> {
        let mut tensors: HashMap<_, _> = self
            .variables()
            .iter()
            .map(|(name, var)| (name.clone(), var.as_detached_tensor()))
            .collect();
        if let Some(lora) = &self.lora {
            tensors.extend(lora.tensors()?);
        }
        Ok(tensors)
    }

    /// One update at a learning rate: mean loss and the length of the gradient before clipping.
    pub fn update(&mut self, batch: &[Example], rate: f64) -> Result<(f64, f64)> {
        let loss = self.loss(batch)?;
        let value = f64::from(loss.to_scalar::<f32>()?);
        let mut gradients = Gradients::of(self.optimiser.variables(), &loss.backward()?)?;
        let norm = gradients.clip(self.clip);
        let factors = &self.factors;
        let factor = |name: &str| {
            let mut fitting = factors.iter().filter(|(begin, _)| name.starts_with(*begin));
            fitting.next_back().map_or(1.0, |(_, factor)| *factor)
        };
        self.optimiser
            .update(&gradients, |name| rate * factor(name))?;
        Ok((value, norm))
    }

    /// Mean cross-entropy over the targets of a batch.
    pub fn loss(&self, batch: &[Example]) -> Result<Tensor> {
        let xs = self.embeddings(batch)?;
        let (own, added) = self.logits(&self.lm, &xs, batch)?;
        let (mut targets, mut weights) = (Vec::new(), Vec::new());
        for (i, (_, token)) in batch.iter().flat_map(|e| e.targets.iter().enumerate()) {
            targets.push(*token);
            weights.push(if i == 0 { self.state_weight } else { 1.0 });
        }
        let what = CrossEntropy { targets, weights };
        Ok(cross_entropy(&own, added.as_ref(), &what)?)
    }

    /// What the model says where the targets are, given what stands before.
    pub fn said(&self, batch: &[Example]) -> Result<Vec<Said>> {
        let frozen = match &self.lora {
            Some(lora) => lora.attach_frozen(self.vita.lm())?,
            None => self.lm.clone(),
        };
        let xs = self.embeddings(batch)?.detach();
        let (own, added) = self.logits(&frozen, &xs, batch)?;
        let logits = match added {
            Some(added) => Tensor::cat(&[own, added.detach()], 1)?,
            None => own,
        };
        let best = logits.argmax(1)?.to_vec1::<u32>()?;
        let states = self.vita.state_tokens();
        let ids = [states.query, states.noise, states.text];
        let mut said = Vec::new();
        let mut row = 0;
        for example in batch {
            let first = logits.get(row)?;
            let logit = |id: u32| first.get(id as usize)?.to_scalar::<f32>();
            said.push(Said {
                best: best[row..row + example.targets.len()].to_vec(),
                states: [logit(ids[0])?, logit(ids[1])?, logit(ids[2])?],
            });
            row += example.targets.len();
        }
        Ok(said)
    }

    /// `[positions, hidden]` of all sequences, one after the other.
    fn embeddings(&self, batch: &[Example]) -> Result<Tensor> {
        let mut parts = Vec::new();
        for piece in batch.iter().flat_map(|example| &example.pieces) {
            match piece {
                Piece::Ids(ids) => parts.push(self.lm.embed(ids)?),
                Piece::Medium(medium) => parts.extend(medium.embeddings(&self.vita)?),
            }
        }
        Ok(Tensor::cat(&parts, 0)?)
    }

    /// Logits at the places before the targets, of the model's own tokens and of the added ones.
    fn logits(
        &self,
        lm: &LanguageModel,
        xs: &Tensor,
        batch: &[Example],
    ) -> Result<(Tensor, Option<Tensor>)> {
        let lengths: Vec<_> = batch.iter().map(|example| example.len).collect();
        let layers = lm.config().num_hidden_layers;
        let hidden = lm.forward_layers(xs, &lengths, 0..layers)?;
        let mut rows = Vec::new();
        let mut first = 0;
        for example in batch {
            rows.extend(
                example
                    .targets
                    .iter()
                    .map(|(at, _)| (first + at - 1) as u32),
            );
            first += example.len;
        }
        let rows = Tensor::new(rows, xs.device())?;
        let hidden = lm.final_norm(&hidden.index_select(&rows, 0)?)?;
        Ok(lm.split_logits(&hidden)?)
    }
}
