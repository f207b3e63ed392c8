//! Whisper's tensors under the names that this crate reads them by.

use crate::audio::{DecoderConfig, WhisperConfig};
use crate::checkpoint::CTranslate2;
use crate::nn::Source;
use crate::{Error, Result};
use candle_core::{DType, Shape, Tensor};
use std::collections::HashMap;
use std::path::Path;

/// Width of an attention head in every Whisper.
const HEAD_WIDTH: usize = 64;

/// Tensors, and the sizes that follow from their shapes.
pub struct Ears {
    pub tensors: HashMap<String, Tensor>,
    pub encoder: WhisperConfig,
    pub decoder: DecoderConfig,
}

/// Reads `model.bin` of CTranslate2.
pub fn read(path: &Path) -> Result<Ears> {
    let file = CTranslate2::open(path)?;
    let specification = file.specification();
    if specification != "WhisperSpec" {
        let reason = format!("expected a Whisper model (WhisperSpec), found {specification}");
        return Err(Error::format(path, reason));
    }
    let shapes: HashMap<String, Vec<usize>> = file
        .infos()
        .into_iter()
        .map(|info| (info.name, info.shape))
        .collect();
    let mut reader = Reader {
        path,
        file: &file,
        shapes: &shapes,
        tensors: HashMap::new(),
    };
    let [width, bins, _] = reader.sizes("encoder/conv1/weight")?;
    let [positions, _] = reader.sizes("encoder/position_encodings/encodings")?;
    let [inner, _] = reader.sizes("encoder/layer_0/ffn/linear_0/weight")?;
    let heads = reader.heads("encoder/num_heads", width)?;
    let encoder_layers = reader.layers("encoder");
    let [vocabulary, _] = reader.sizes("decoder/embeddings/weight")?;
    let [texts, _] = reader.sizes("decoder/position_encodings/encodings")?;
    let [decoder_inner, _] = reader.sizes("decoder/layer_0/ffn/linear_0/weight")?;
    let decoder_heads = reader.heads("decoder/num_heads", width)?;
    let decoder_layers = reader.layers("decoder");

    for conv in ["conv1", "conv2"] {
        reader.weight_and_bias(&format!("encoder/{conv}"), &format!("encoder.{conv}"))?;
    }
    for side in ["encoder", "decoder"] {
        let positions = format!("{side}.embed_positions.weight");
        reader.copy(&format!("{side}/position_encodings/encodings"), &positions)?;
        reader.norm(&format!("{side}/layer_norm"), &format!("{side}.layer_norm"))?;
    }
    reader.copy("decoder/embeddings/weight", "decoder.embed_tokens.weight")?;
    for layer in 0..encoder_layers {
        reader.layer("encoder", layer, width)?;
    }
    for layer in 0..decoder_layers {
        reader.layer("decoder", layer, width)?;
        reader.cross_attention(layer, width)?;
    }
    Ok(Ears {
        tensors: reader.tensors,
        encoder: WhisperConfig {
            num_mel_bins: bins,
            d_model: width,
            encoder_attention_heads: heads,
            encoder_ffn_dim: inner,
            encoder_layers,
            max_source_positions: positions,
        },
        decoder: DecoderConfig {
            vocab_size: vocabulary,
            decoder_attention_heads: decoder_heads,
            decoder_ffn_dim: decoder_inner,
            decoder_layers,
            max_target_positions: texts,
        },
    })
}

struct Reader<'a> {
    path: &'a Path,
    file: &'a CTranslate2,
    shapes: &'a HashMap<String, Vec<usize>>,
    tensors: HashMap<String, Tensor>,
}

impl Reader<'_> {
    fn shape(&self, name: &str) -> Result<Vec<usize>> {
        let shape = self.shapes.get(name).cloned();
        shape.ok_or_else(|| Error::MissingTensor {
            file: self.path.display().to_string(),
            tensor: name.into(),
            expected: Vec::new(),
        })
    }

    fn sizes<const N: usize>(&self, name: &str) -> Result<[usize; N]> {
        let found = self.shape(name)?;
        found.try_into().map_err(|found| Error::TensorShape {
            file: self.path.display().to_string(),
            tensor: name.into(),
            expected: vec![0; N],
            found,
        })
    }

    fn heads(&self, name: &str, width: usize) -> Result<usize> {
        let heads = self.file.integer(name)?;
        match usize::try_from(heads) {
            Ok(heads) if heads.checked_mul(HEAD_WIDTH) == Some(width) => Ok(heads),
            _ => {
                let reason =
                    format!("{name}: expected heads of {HEAD_WIDTH} in {width}, found {heads}");
                Err(Error::format(self.path, reason))
            }
        }
    }

    /// Layers that the file has, counted from the first.
    fn layers(&self, side: &str) -> usize {
        let has = |i: &usize| {
            let name = format!("{side}/layer_{i}/ffn/linear_0/weight");
            self.shapes.contains_key(&name)
        };
        (0..).take_while(has).count()
    }

    fn read(&self, name: &str) -> Result<Tensor> {
        self.file.tensor(name, &Shape::from(self.shape(name)?))
    }

    fn put(&mut self, name: String, tensor: &Tensor) -> Result<()> {
        let tensor = super::half(&name, tensor)?;
        self.tensors.insert(name, tensor);
        Ok(())
    }

    fn copy(&mut self, from: &str, to: &str) -> Result<()> {
        let tensor = self.read(from)?;
        self.put(to.into(), &tensor)
    }

    fn weight_and_bias(&mut self, from: &str, to: &str) -> Result<()> {
        self.copy(&format!("{from}/weight"), &format!("{to}.weight"))?;
        self.copy(&format!("{from}/bias"), &format!("{to}.bias"))
    }

    fn norm(&mut self, from: &str, to: &str) -> Result<()> {
        self.copy(&format!("{from}/gamma"), &format!("{to}.weight"))?;
        self.copy(&format!("{from}/beta"), &format!("{to}.bias"))
    }

    /// Self-attention and feed-forward, which both sides have.
    fn layer(&mut self, side: &str, layer: usize, width: usize) -> Result<()> {
        let (from, to) = (
            format!("{side}/layer_{layer}"),
            format!("{side}.layers.{layer}"),
        );
        let attention = format!("{from}/self_attention");
        self.norm(
            &format!("{attention}/layer_norm"),
            &format!("{to}.self_attn_layer_norm"),
        )?;
        let into = |name: &str| format!("{to}.self_attn.{name}");
        let names = ["q_proj", "k_proj", "v_proj"].map(into);
        self.stacked(&format!("{attention}/linear_0"), &names, width)?;
        self.weight_and_bias(&format!("{attention}/linear_1"), &into("out_proj"))?;
        self.norm(
            &format!("{from}/ffn/layer_norm"),
            &format!("{to}.final_layer_norm"),
        )?;
        self.weight_and_bias(&format!("{from}/ffn/linear_0"), &format!("{to}.fc1"))?;
        self.weight_and_bias(&format!("{from}/ffn/linear_1"), &format!("{to}.fc2"))
    }

    fn cross_attention(&mut self, layer: usize, width: usize) -> Result<()> {
        let attention = format!("decoder/layer_{layer}/attention");
        let to = format!("decoder.layers.{layer}");
        self.norm(
            &format!("{attention}/layer_norm"),
            &format!("{to}.encoder_attn_layer_norm"),
        )?;
        let into = |name: &str| format!("{to}.encoder_attn.{name}");
        self.weight_and_bias(&format!("{attention}/linear_0"), &into("q_proj"))?;
        let names = ["k_proj", "v_proj"].map(into);
        self.stacked(&format!("{attention}/linear_1"), &names, width)?;
        self.weight_and_bias(&format!("{attention}/linear_2"), &into("out_proj"))
    }

    /// Matrices that the file keeps on top of each other. The keys' bias is left out: it is zero in every Whisper.
    fn stacked(&mut self, from: &str, names: &[String], width: usize) -> Result<()> {
        let rows = names.len() * width;
        let weight = format!("{from}/weight");
        let weight = self.file.tensor(&weight, &Shape::from((rows, width)))?;
        let bias = self
            .file
            .tensor(&format!("{from}/bias"), &Shape::from(rows))?;
        for (i, name) in names.iter().enumerate() {
            self.put(
                format!("{name}.weight"),
                &weight.narrow(0, i * width, width)?,
            )?;
            let bias = bias.narrow(0, i * width, width)?.to_dtype(DType::F32)?;
            if !name.ends_with("k_proj") {
                self.put(format!("{name}.bias"), &bias)?;
            } else if bias.abs()?.max_all()?.to_scalar::<f32>()? != 0.0 {
                let reason = format!("{from}/bias: expected zeros for the keys");
                return Err(Error::format(self.path, reason));
            }
        }
        Ok(())
    }
}
