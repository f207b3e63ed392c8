//! The language model's file, requantised, and its tokenizer with tokens of our own behind it.

use super::ADDED_TOKENS;
use crate::checkpoint::{Gguf, GgufFile};
use crate::nn::Source;
use crate::{Error, Result};
use candle_core::quantized::{GgmlDType, QTensor, gguf_file};
use candle_core::{DType, Device, Shape, Tensor};
use std::io::Write;
use std::path::Path;

/// Writes `from` to `to` with Q4 and Q5 blocks as Q8_0, for which there are fast kernels. Everything else stays as it is,
/// metadata and tokenizer included. `progress` is told how many of how many tensors are done.
pub fn requantise(from: &Path, to: &Path, mut progress: impl FnMut(usize, usize)) -> Result<()> {
    let file = GgufFile::open(from)?;
    let infos = file.infos();
    let mut tensors = Vec::with_capacity(infos.len());
    for (done, info) in infos.iter().enumerate() {
        progress(done, infos.len());
        let shape = Shape::from(info.shape.clone());
        let blocks = file.quantised(&info.name, &shape, &Device::Cpu)?;
        let tensor = match blocks {
            Some(blocks) if needs_requantising(blocks.dtype()) => {
                QTensor::quantize(&blocks.dequantize(&Device::Cpu)?, GgmlDType::Q8_0)?
            }
            Some(blocks) => blocks,
            None => plain(&file.tensor(&info.name, &shape)?)?,
        };
        tensors.push((info.name.as_str(), tensor));
    }
    let mut metadata: Vec<_> = file.metadata().iter().collect();
    metadata.sort_by_key(|(name, _)| name.as_str());
    let metadata: Vec<_> = metadata.iter().map(|(n, v)| (n.as_str(), *v)).collect();
    let tensors: Vec<_> = tensors.iter().map(|(n, t)| (*n, t)).collect();
    let io = |source| Error::Io {
        path: to.to_path_buf(),
        source,
    };
    let mut out = std::io::BufWriter::new(std::fs::File::create(to).map_err(io)?);
    gguf_file::write(&mut out, &metadata, &tensors)?;
    out.flush().map_err(io)
}

fn needs_requantising(dtype: GgmlDType) -> bool {
    use GgmlDType::{Q4_0, Q4_1, Q5_0, Q5_1};
    matches!(dtype, Q4_0 | Q4_1 | Q5_0 | Q5_1)
}

/// A tensor without blocks, in its type.
fn plain(tensor: &Tensor) -> Result<QTensor> {
    let dtype = match tensor.dtype() {
        DType::F16 => GgmlDType::F16,
        DType::BF16 => GgmlDType::BF16,
        _ => GgmlDType::F32,
    };
    Ok(QTensor::quantize(tensor, dtype)?)
}

/// `tokenizer.json` of the file's tokenizer with [`ADDED_TOKENS`] behind its own.
pub fn tokenizer(gguf: &Gguf) -> Result<String> {
    let mut json = gguf.tokenizer_json()?;
    let first = gguf.lm_config().vocab_size;
    let added = ADDED_TOKENS.iter().enumerate().map(|(i, content)| {
        serde_json::json!({
            "id": first + i, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        })
    });
    if let Some(tokens) = json["added_tokens"].as_array_mut() {
        tokens.extend(added);
    }
    Ok(json.to_string())
}

/// How much of a line break the rows of added tokens begin with.
const INITIAL_SCALE: f64 = 0.3;

/// Rows `[ADDED_TOKENS, hidden]` to begin with: a faint line break, which disturbs no prompt that it stands in, and is too
/// faint to be chosen as an answer's word.
pub fn initial_rows(gguf: &Gguf) -> Result<Tensor> {
    let config = gguf.lm_config();
    let shape = Shape::from((config.vocab_size, config.hidden_size));
    let table = gguf.tensor("model.embed_tokens.weight", &shape)?;
    let ids = gguf.tokenizer()?.encode_text("\n")?;
    let [id] = ids.as_slice() else {
        return Err(Error::Input(format!(
            "a line break is {ids:?}, not one token"
        )));
    };
    let row = table.narrow(0, *id as usize, 1)?.to_dtype(DType::F32)?;
    Ok((row.repeat((ADDED_TOKENS.len(), 1))? * INITIAL_SCALE)?)
}
