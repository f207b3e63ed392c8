//! Low-rank updates of projections: `W + (alpha/rank) · B·A`.

use crate::lm::LanguageModel;
use crate::lm::updates::name;
use crate::nn::LowRank;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor, Var};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Sizes of the updates.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LoraConfig {
    pub rank: usize,
    pub alpha: f64,
    /// Layers below this one stay as they are.
    #[serde(default)]
    pub from_layer: usize,
}

/// Updates of q, k, v, o and down in every layer from `from_layer` on, as variables.
pub struct Lora {
    config: LoraConfig,
    variables: BTreeMap<String, Var>,
}

impl Lora {
    /// Updates that the model has already go on from where they are; of others A begins with small random
    /// numbers, B with zeros: at first the model is what it was.
    ///
    /// # Errors
    /// Where the model has updates of another rank.
    pub fn new(config: LoraConfig, lm: &LanguageModel, seed: u64) -> Result<Self> {
        let layers = lm.config().num_hidden_layers;
        if config.rank == 0 || config.from_layer >= layers || !config.alpha.is_finite() {
            return Err(Error::Input(format!(
                "low-rank updates {config:?} of a model with {layers} layers"
            )));
        }
        let mut rng = StdRng::seed_from_u64(seed);
        let mut variables = BTreeMap::new();
        let scale = config.alpha / config.rank as f64;
        for (layer, projection) in lm.projections(config.from_layer..layers) {
            let (outputs, inputs) = lm.projection_shape(projection);
            let (a, b) = beginning(config.rank, (outputs, inputs), lm.device(), &mut rng)?;
            let (a, b) = match lm.low_rank(layer, projection) {
                None => (a, b),
                Some(old) if old.a.dims() == a.dims() => {
                    let b = (old.b.to_dtype(DType::F32)? * (old.scale / scale))?;
                    (old.a.to_dtype(DType::F32)?, b)
                }
                Some(old) => {
                    let (found, rank) = (old.a.dim(0)?, config.rank);
                    return Err(Error::Input(format!(
                        "the model has low-rank updates of rank {found}, expected {rank} to go on with them"
                    )));
                }
            };
            variables.insert(name(layer, projection, "a"), Var::from_tensor(&a)?);
            variables.insert(name(layer, projection, "b"), Var::from_tensor(&b)?);
        }
        Ok(Self { config, variables })
    }

    /// By the names they have in files: `lora.<layer>.<q|k|v|o|down>.<a|b>`.
    pub fn variables(&self) -> &BTreeMap<String, Var> {
        &self.variables
    }

    fn scale(&self) -> f64 {
        self.config.alpha / self.config.rank as f64
    }

    /// The model with these updates, which go on learning.
    pub fn attach(&self, lm: &LanguageModel) -> Result<LanguageModel> {
        self.attached(lm, |var| var.as_tensor().clone())
    }

    /// The model with these updates as they are at the moment, with nothing that learns.
    pub fn attach_frozen(&self, lm: &LanguageModel) -> Result<LanguageModel> {
        self.attached(lm, |var| var.as_detached_tensor())
    }

    fn attached(
        &self,
        lm: &LanguageModel,
        tensor: impl Fn(&Var) -> Tensor,
    ) -> Result<LanguageModel> {
        let mut attached = lm.clone();
        let layers = self.config.from_layer..lm.config().num_hidden_layers;
        for (layer, projection) in lm.projections(layers) {
            let get = |matrix| tensor(&self.variables[&name(layer, projection, matrix)]);
            let (a, b, scale) = (get("a"), get("b"), self.scale());
            attached.update(layer, projection, LowRank { a, b, scale })?;
        }
        Ok(attached)
    }

    /// What a file of them holds, for [`Updates`](crate::lm::Updates): the scale goes into B, so that the update is
    /// `B·A`.
    pub fn tensors(&self) -> Result<HashMap<String, Tensor>> {
        scaled(&self.variables, self.scale())
    }
}

/// a `[rank, in]` of small random numbers, b `[out, rank]` of zeros.
pub(super) fn beginning(
    rank: usize,
    (outputs, inputs): (usize, usize),
    device: &Device,
    rng: &mut StdRng,
) -> Result<(Tensor, Tensor)> {
    let reach = (3.0 / inputs as f32).sqrt();
    let a = (0..rank * inputs).map(|_| rng.random_range(-reach..=reach));
    let a = Tensor::from_iter(a, device)?.reshape((rank, inputs))?;
    Ok((a, Tensor::zeros((outputs, rank), DType::F32, device)?))
}

/// As files hold them: the scale is in b.
pub(super) fn scaled(
    variables: &BTreeMap<String, Var>,
    scale: f64,
) -> Result<HashMap<String, Tensor>> {
    let tensors = variables.iter().map(|(name, var)| {
        let tensor = var.as_detached_tensor();
        Ok(match name.ends_with(".b") {
            true => (name.clone(), (tensor * scale)?),
            false => (name.clone(), tensor),
        })
    });
    tensors.collect()
}

/// Tensors into a safetensors file, in f16 if `half`. Written beside its place, then renamed.
pub fn save(path: &Path, tensors: &HashMap<String, Tensor>, half: bool) -> Result<()> {
    let io = |source| Error::Io {
        path: path.to_path_buf(),
        source,
    };
    let stored: HashMap<String, Tensor> = tensors
        .iter()
        .map(|(name, tensor)| {
            let tensor = tensor.to_device(&Device::Cpu)?;
            let tensor = match half && tensor.dtype().is_float() {
                true => tensor.to_dtype(DType::F16)?,
                false => tensor,
            };
            Ok((name.clone(), tensor.contiguous()?))
        })
        .collect::<Result<_>>()?;
    let partial = path.with_extension("partial");
    candle_core::safetensors::save(&stored, &partial)?;
    std::fs::File::open(&partial)
        .and_then(|file| file.sync_all())
        .map_err(io)?;
    std::fs::rename(&partial, path).map_err(io)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lm::{LmConfig, Projection, Updates};
    use crate::nn::{RandomSource, Source, Variables, Weights};
    use std::sync::Arc;

    const CONFIG: LoraConfig = LoraConfig {
        rank: 3,
        alpha: 6.0,
        from_layer: 1,
    };

    fn model(source: Arc<dyn Source>) -> LanguageModel {
        let json = r#"{"model_type":"llama","vocab_size":50,"hidden_size":24,"intermediate_size":40,"num_hidden_layers":3,
            "num_attention_heads":4,"num_key_value_heads":2,"max_position_embeddings":64}"#;
        let config: LmConfig = serde_json::from_str(json).unwrap();
        let w = Weights::f32(source).for_training();
        LanguageModel::new(&config, 50, 64, &w).unwrap()
    }

    /// Updates that are not zero.
    fn lora(lm: &LanguageModel) -> Lora {
        let lora = Lora::new(CONFIG, lm, 1).unwrap();
        for (name, var) in lora.variables() {
            let value = RandomSource { seed: 9 }.tensor(name, var.shape()).unwrap();
            var.set(&value).unwrap();
        }
        lora
    }

    fn loss(lm: &LanguageModel) -> Tensor {
        let ids: Vec<u32> = (0..11).map(|i| (i * 7) % 50).collect();
        let xs = lm.embed(&ids).unwrap();
        let hidden = lm.forward_sequences(&xs, &[4, 7]).unwrap();
        let (own, added) = lm.split_logits(&hidden).unwrap();
        let what = super::super::CrossEntropy::mean(ids.iter().map(|id| (id + 1) % 50).collect());
        super::super::cross_entropy(&own, added.as_ref(), &what).unwrap()
    }

    #[track_caller]
    fn close(a: &Tensor, b: &Tensor) {
        assert_eq!(a.dims(), b.dims());
        let difference = (a - b).unwrap().abs().unwrap().max_all().unwrap();
        let difference = difference.to_scalar::<f32>().unwrap();
        assert!(difference < 1e-5, "differ by {difference}");
    }

    #[test]
    fn an_update_merged_and_one_beside_its_weight_are_the_same_in_both_directions() {
        let lm = model(Arc::new(RandomSource { seed: 2 }));
        let lora = lora(&lm);
        let beside = loss(&lora.attach(&lm).unwrap());
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("lora.safetensors");
        save(&file, &lora.tensors().unwrap(), false).unwrap();
        let updates = Updates::load(&file, "").unwrap();
        let attached = updates.attach(&lm).unwrap();
        let again = Lora::new(CONFIG, &attached, 5).unwrap();
        for (name, var) in lora.variables() {
            close(var, &again.variables()[name]);
        }

        // the same model with merged weights that learn: W' = W + s·B·A, so dA = s·Bᵀ·dW', dB = s·dW'·Aᵀ
        struct Merged(Updates);
        impl Source for Merged {
            fn tensor(&self, name: &str, expected: &candle_core::Shape) -> Result<Tensor> {
                let weight = RandomSource { seed: 2 }.tensor(name, expected)?;
                match place(name) {
                    Some((layer, projection)) => self.0.merge(layer, projection, &weight),
                    None => Ok(weight),
                }
            }
            fn contains(&self, _: &str) -> bool {
                true
            }
        }
        fn place(name: &str) -> Option<(usize, Projection)> {
            let rest = name.strip_prefix("model.layers.")?;
            let (layer, rest) = rest.split_once('.')?;
            let projection = Projection::ALL.into_iter().find(|p| rest == p.weight())?;
            Some((layer.parse().ok()?, projection))
        }
        let variables = Arc::new(Variables::new(|name| place(name).is_some()));
        let merged = loss(&model(variables.of(Arc::new(Merged(updates)))));
        close(&beside, &merged);
        let (beside, merged) = (beside.backward().unwrap(), merged.backward().unwrap());
        let made = variables.made();
        for (layer, projection) in lm.projections(CONFIG.from_layer..3) {
            let full = format!("model.layers.{layer}.{}", projection.weight());
            let dw = merged.get(made[&full].as_tensor()).unwrap();
            let var = |matrix| &lora.variables()[&name(layer, projection, matrix)];
            let da = (var("b").t().unwrap().matmul(dw).unwrap() * lora.scale()).unwrap();
            let db = (dw.matmul(&var("a").t().unwrap()).unwrap() * lora.scale()).unwrap();
            close(beside.get(var("a").as_tensor()).unwrap(), &da);
            close(beside.get(var("b").as_tensor()).unwrap(), &db);
        }
    }

    #[test]
    fn at_first_the_model_is_what_it_was() {
        let lm = model(Arc::new(RandomSource { seed: 2 }));
        let lora = Lora::new(CONFIG, &lm, 1).unwrap();
        close(&loss(&lora.attach_frozen(&lm).unwrap()), &loss(&lm));
    }
}
