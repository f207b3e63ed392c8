//! Low-rank updates of projections, in files of their own beside the weights.

use super::{LanguageModel, Projection};
use crate::checkpoint::Shards;
use crate::nn::LowRank;
use crate::{Error, Result};
use candle_core::{DType, Tensor};
use std::collections::HashMap;
use std::path::Path;

/// Name of a matrix in files: `a` `[rank, in]`, `b` `[out, rank]`; the update is `b·a`.
pub(crate) fn name(layer: usize, projection: Projection, matrix: &str) -> String {
    format!("lora.{layer}.{}.{matrix}", projection.name())
}

/// Layer and projection of the name of an `a`.
fn parse(name: &str) -> Option<(usize, Projection)> {
    let (layer, rest) = name.strip_prefix("lora.")?.split_once('.')?;
    let projection = rest.strip_suffix(".a")?;
    let projection = Projection::ALL
        .into_iter()
        .find(|p| p.name() == projection)?;
    Some((layer.parse().ok()?, projection))
}

/// Updates read from a file, to be merged into weights or attached to a model.
pub struct Updates {
    updates: HashMap<(usize, Projection), (Tensor, Tensor)>,
    file: String,
}

impl Updates {
    /// Reads `lora.<layer>.<q|k|v|o|down>.<a|b>` under a prefix; other tensors of the file are left alone.
    pub fn load(path: &Path, prefix: &str) -> Result<Self> {
        let shards = Shards::from_file(path)?;
        let prefix = match prefix {
            "" => String::new(),
            prefix => format!("{prefix}."),
        };
        let mut updates = HashMap::new();
        for info in shards.infos() {
            let Some((layer, projection)) = info.name.strip_prefix(&prefix).and_then(parse) else {
                continue;
            };
            let read = |matrix| -> Result<Tensor> {
                let name = prefix.clone() + &name(layer, projection, matrix);
                Ok(shards.read(&name)?.to_dtype(DType::F32)?)
            };
            updates.insert((layer, projection), (read("a")?, read("b")?));
        }
        let file = path.display().to_string();
        Ok(Self { updates, file })
    }

    pub fn is_empty(&self) -> bool {
        self.updates.is_empty()
    }

    /// `weight + b·a` of one projection; the weight itself where there is no update.
    pub fn merge(&self, layer: usize, projection: Projection, weight: &Tensor) -> Result<Tensor> {
        match self.updates.get(&(layer, projection)) {
            Some((a, b)) => Ok((weight.to_dtype(DType::F32)? + b.matmul(a)?)?),
            None => Ok(weight.clone()),
        }
    }

    /// The model with these updates beside its weights.
    ///
    /// # Errors
    /// Where a shape does not fit the model's.
    pub fn attach(&self, lm: &LanguageModel) -> Result<LanguageModel> {
        let mut attached = lm.clone();
        for (&(layer, projection), (a, b)) in &self.updates {
            let (outputs, inputs) = lm.projection_shape(projection);
            let rank = a.dims().first().copied().unwrap_or(0);
            for (matrix, tensor, expected) in
                [("a", a, vec![rank, inputs]), ("b", b, vec![outputs, rank])]
            {
                if tensor.dims() != expected {
                    return Err(Error::TensorShape {
                        file: self.file.clone(),
                        tensor: name(layer, projection, matrix),
                        expected,
                        found: tensor.dims().to_vec(),
                    });
                }
            }
            let (a, b) = (a.to_device(lm.device())?, b.to_device(lm.device())?);
            attached.update(layer, projection, LowRank { a, b, scale: 1.0 })?;
        }
        Ok(attached)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lm::{Chunk, LmConfig};
    use crate::nn::{Probe, RandomSource, Source, TensorMap, Weights};
    use candle_core::{Device, Shape};
    use std::sync::{Arc, Mutex};

    /// Random weights, remembered.
    #[derive(Default)]
    struct Recorded(Mutex<HashMap<String, Tensor>>);

    impl Source for Recorded {
        fn tensor(&self, name: &str, expected: &Shape) -> Result<Tensor> {
            let tensor = RandomSource { seed: 5 }.tensor(name, expected)?;
            self.0.lock().unwrap().insert(name.into(), tensor.clone());
            Ok(tensor)
        }
        fn contains(&self, _: &str) -> bool {
            true
        }
    }

    fn model(source: Arc<dyn Source>) -> LanguageModel {
        let json = r#"{"model_type":"llama","vocab_size":50,"hidden_size":24,"intermediate_size":40,"num_hidden_layers":2,
            "num_attention_heads":4,"num_key_value_heads":2,"max_position_embeddings":64}"#;
        let config: LmConfig = serde_json::from_str(json).unwrap();
        LanguageModel::new(&config, 50, 64, &Weights::f32(source)).unwrap()
    }

    fn logits(lm: &LanguageModel) -> Tensor {
        let mut cache = lm.cache();
        let xs = lm.embed(&[3, 1, 4, 1, 5]).unwrap();
        let chunk = Chunk {
            len: 5,
            cache: &mut cache,
        };
        let hidden = lm.forward(&xs, &mut [chunk], &mut Probe::none()).unwrap();
        lm.logits(&hidden).unwrap()
    }

    #[test]
    fn updates_beside_the_weights_do_what_merged_ones_do() {
        let recorded = Arc::new(Recorded::default());
        let lm = model(recorded.clone());
        let random = |shape: (usize, usize)| Tensor::randn(0f32, 0.3, shape, &Device::Cpu).unwrap();
        let mut tensors = HashMap::new();
        for (layer, projection) in lm.projections(0..2) {
            let (outputs, inputs) = lm.projection_shape(projection);
            tensors.insert(name(layer, projection, "a"), random((3, inputs)));
            tensors.insert(name(layer, projection, "b"), random((outputs, 3)));
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("updates.safetensors");
        candle_core::safetensors::save(&tensors, &file).unwrap();
        let updates = Updates::load(&file, "").unwrap();

        let mut merged = recorded.0.lock().unwrap().clone();
        for (layer, projection) in lm.projections(0..2) {
            let full = format!("model.layers.{layer}.{}", projection.weight());
            let weight = updates.merge(layer, projection, &merged[&full]).unwrap();
            merged.insert(full, weight);
        }
        let beside = logits(&updates.attach(&lm).unwrap());
        let merged = logits(&model(Arc::new(TensorMap(merged))));
        let difference = |a: &Tensor, b: &Tensor| {
            let all = (a - b).unwrap().abs().unwrap().max_all().unwrap();
            all.to_scalar::<f32>().unwrap()
        };
        assert!(difference(&beside, &merged) < 1e-4);
        assert!(difference(&beside, &logits(&lm)) > 0.1);

        tensors.insert("lora.1.v.b".into(), random((5, 3)));
        candle_core::safetensors::save(&tensors, &file).unwrap();
        let error = Updates::load(&file, "").unwrap().attach(&lm).unwrap_err();
        assert!(error.to_string().contains("lora.1.v.b"), "{error}");
    }
}
