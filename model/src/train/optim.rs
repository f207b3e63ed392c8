//! AdamW with all of its state in the open, learning-rate schedule, gradient clipping.

use crate::{Error, Result};
use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};

/// Gradients of variables by their names.
pub struct Gradients(pub BTreeMap<String, Vec<f32>>);

impl Gradients {
    /// Those of `variables`; one that the loss did not depend on has none.
    pub fn of<'a>(
        variables: impl IntoIterator<Item = (&'a String, &'a Var)>,
        store: &GradStore,
    ) -> Result<Self> {
        let mut gradients = BTreeMap::new();
        for (name, var) in variables {
            if let Some(gradient) = store.get(var.as_tensor()) {
                let values = gradient.flatten_all()?.to_vec1::<f32>()?;
                gradients.insert(name.clone(), values);
            }
        }
        Ok(Self(gradients))
    }

    /// Euclidean length over all of them.
    pub fn norm(&self) -> f64 {
        let squares = self.0.values().flatten().map(|&g| f64::from(g).powi(2));
        squares.sum::<f64>().sqrt()
    }

    /// Scales all so that the length is at most `limit`; gives what it was.
    pub fn clip(&mut self, limit: f64) -> f64 {
        let norm = self.norm();
        if norm > limit {
            let factor = (limit / norm) as f32;
            let values = self.0.values_mut().flatten();
            values.for_each(|g| *g *= factor);
        }
        norm
    }
}

/// Linear warm-up from 0 to `peak`, then a half cosine down to `floor · peak`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Schedule {
    pub peak: f64,
    pub warm_up: u64,
    pub updates: u64,
    #[serde(default)]
    pub floor: f64,
}

impl Schedule {
    /// Learning rate of update `step`, counted from 0.
    pub fn rate(&self, step: u64) -> f64 {
        if step < self.warm_up {
            return self.peak * (step + 1) as f64 / self.warm_up as f64;
        }
        let span = self.updates.saturating_sub(self.warm_up).max(1);
        let along = ((step - self.warm_up) as f64 / span as f64).min(1.0);
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * along).cos());
        self.peak * (self.floor + (1.0 - self.floor) * cosine)
    }
}

/// Settings of AdamW (Loshchilov and Hutter 2019).
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct AdamWConfig {
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
        }
    }
}

#[derive(Clone)]
struct Moments {
    first: Vec<f32>,
    second: Vec<f32>,
}

/// The optimiser: variables by name, their moments, the number of updates so far.
pub struct AdamW {
    config: AdamWConfig,
    variables: BTreeMap<String, Var>,
    moments: BTreeMap<String, Moments>,
    step: u64,
}

const FIRST: &str = "adamw.first.";
const SECOND: &str = "adamw.second.";

impl AdamW {
    pub fn new(config: AdamWConfig, variables: BTreeMap<String, Var>) -> Self {
        let zeros = |var: &Var| vec![0.0; var.elem_count()];
        let moments = variables.iter().map(|(name, var)| {
            let (first, second) = (zeros(var), zeros(var));
            (name.clone(), Moments { first, second })
        });
        Self {
            moments: moments.collect(),
            config,
            variables,
            step: 0,
        }
    }

    pub fn variables(&self) -> &BTreeMap<String, Var> {
        &self.variables
    }

    /// Updates so far.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// One update. `rate` gives the learning rate of each variable; one without a gradient stays.
    pub fn update(&mut self, gradients: &Gradients, rate: impl Fn(&str) -> f64) -> Result<()> {
        self.step += 1;
        let AdamWConfig {
            beta1,
            beta2,
            eps,
            weight_decay,
        } = self.config;
        let steps = i32::try_from(self.step).unwrap_or(i32::MAX);
        let (scale1, scale2) = (1.0 - beta1.powi(steps), 1.0 - beta2.powi(steps));
        let (b1, b2, eps) = (beta1 as f32, beta2 as f32, eps as f32);
        for (name, var) in &self.variables {
            let Some(gradient) = gradients.0.get(name) else {
                continue;
            };
            let Some(moments) = self.moments.get_mut(name) else {
                continue;
            };
            let rate = rate(name);
            let mut values = var.flatten_all()?.to_vec1::<f32>()?;
            let (decay, rate) = ((1.0 - rate * weight_decay) as f32, (rate / scale1) as f32);
            let root = (1.0 / scale2) as f32;
            let state = moments.first.iter_mut().zip(&mut moments.second);
            for ((value, &g), (m, v)) in values.iter_mut().zip(gradient).zip(state) {
                *m = b1 * *m + (1.0 - b1) * g;
                *v = b2 * *v + (1.0 - b2) * g * g;
                *value = *value * decay - rate * *m / ((*v * root).sqrt() + eps);
            }
            var.set(&Tensor::from_vec(values, var.shape(), var.device())?)?;
        }
        Ok(())
    }

    /// Everything that the next update depends on, beside the number of updates so far.
    pub fn state(&self) -> Result<HashMap<String, Tensor>> {
        let mut state = HashMap::new();
        for (name, var) in &self.variables {
            let moment = |values: &[f32]| Tensor::new(values, var.device());
            state.insert(name.clone(), var.as_detached_tensor());
            if let Some(moments) = self.moments.get(name) {
                state.insert(format!("{FIRST}{name}"), moment(&moments.first)?);
                state.insert(format!("{SECOND}{name}"), moment(&moments.second)?);
            }
        }
        Ok(state)
    }

    /// Takes up what [`Self::state`] gave after `step` updates.
    pub fn restore(&mut self, state: &HashMap<String, Tensor>, step: u64) -> Result<()> {
        let get = |name: &str, var: &Var| -> Result<Tensor> {
            match state.get(name) {
                Some(tensor) if tensor.elem_count() == var.elem_count() => Ok(tensor.clone()),
                found => Err(Error::Input(format!(
                    "the saved state of training: tensor {name}: expected {:?}, found {:?}",
                    var.dims(),
                    found.map(Tensor::dims)
                ))),
            }
        };
        for (name, var) in &self.variables {
            let moment = |prefix| -> Result<Vec<f32>> {
                Ok(get(&format!("{prefix}{name}"), var)?.to_vec1::<f32>()?)
            };
            let (first, second) = (moment(FIRST)?, moment(SECOND)?);
            var.set(&get(name, var)?.reshape(var.shape())?)?;
            self.moments.insert(name.clone(), Moments { first, second });
        }
        self.step = step;
        Ok(())
    }
}
