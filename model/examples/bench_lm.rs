//! Times a language model in GGUF: `bench_lm MODEL.gguf`, threads in `RAYON_NUM_THREADS`.
//!
//! Prints a line of JSON when it is ready, then for each line read the seconds that it took: `prefill N` is N
//! tokens in one step on an empty cache, `decode N` is N tokens one by one after 128, `decode2 N` is the same
//! for two sequences in the same steps (N tokens each). `bench_lm --q8_0 IN.gguf OUT.gguf` writes a file with
//! every quantised tensor in Q8_0, so that everybody reads the same one.

use candle_core::Device;
use candle_core::quantized::{GgmlDType, QTensor, gguf_file};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, stdin};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use vita_model::checkpoint::Gguf;
use vita_model::lm::{Chunk, KvCache, LanguageModel};
use vita_model::nn::{Probe, Weights};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const CONTEXT: usize = 1024;
const PAST: usize = 128;

fn write_q8_0(from: &Path, to: &Path) -> Result<()> {
    let mut file = BufReader::new(File::open(from)?);
    let content = gguf_file::Content::read(&mut file)?;
    let mut tensors = Vec::new();
    for name in content.tensor_infos.keys() {
        let tensor = content.tensor(&mut file, name, &Device::Cpu)?;
        let tensor = match tensor.dtype() {
            GgmlDType::F32 | GgmlDType::F16 | GgmlDType::BF16 | GgmlDType::Q8_0 => tensor,
            _ => QTensor::quantize(&tensor.dequantize(&Device::Cpu)?, GgmlDType::Q8_0)?,
        };
        tensors.push((name.as_str(), tensor));
    }
    tensors.sort_by_key(|(name, _)| *name);
    let metadata: Vec<_> = content
        .metadata
        .iter()
        .map(|(k, v)| (k.as_str(), v))
        .collect();
    let tensors: Vec<_> = tensors
        .iter()
        .map(|(name, tensor)| (*name, tensor))
        .collect();
    // A rename, so that a reader never meets half a file.
    let part = to.with_extension("part");
    gguf_file::write(
        &mut BufWriter::new(File::create(&part)?),
        &metadata,
        &tensors,
    )?;
    Ok(std::fs::rename(part, to)?)
}

/// The `count` tokens from `at` of a text that says nothing; all ids are in any vocabulary of today.
fn ids(at: usize, count: usize) -> Vec<u32> {
    (at..at + count)
        .map(|i| (1000 + i * 37 % 20000) as u32)
        .collect()
}

/// One step of several sequences: the same tokens for each; logits of the last of each.
fn step(model: &LanguageModel, caches: &mut [KvCache], ids: &[u32]) -> Result<()> {
    let all: Vec<u32> = caches.iter().flat_map(|_| ids).copied().collect();
    let embeddings = model.embed(&all)?;
    let count = caches.len();
    let len = ids.len();
    let mut chunks: Vec<_> = caches
        .iter_mut()
        .map(|cache| Chunk { cache, len })
        .collect();
    let hidden = model.forward(&embeddings, &mut chunks, &mut Probe::none())?;
    let last: Vec<u32> = (1..=count).map(|i| (i * len - 1) as u32).collect();
    let last = candle_core::Tensor::new(last, &Device::Cpu)?;
    model.logits(&hidden.index_select(&last, 0)?)?;
    Ok(())
}

fn time(model: &LanguageModel, kind: &str, count: usize) -> Result<f64> {
    let sequences = if kind == "decode2" { 2 } else { 1 };
    let mut caches: Vec<_> = (0..sequences).map(|_| model.cache()).collect();
    if kind == "prefill" {
        let start = Instant::now();
        step(model, &mut caches, &ids(0, count))?;
        return Ok(start.elapsed().as_secs_f64());
    }
    step(model, &mut caches, &ids(0, PAST))?;
    let start = Instant::now();
    for i in 0..count {
        step(model, &mut caches, &ids(PAST + i, 1))?;
    }
    Ok(start.elapsed().as_secs_f64())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let model = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--q8_0", from, to] => return write_q8_0(Path::new(from), Path::new(to)),
        [model] => Path::new(model),
        _ => return Err("usage: bench_lm MODEL.gguf | bench_lm --q8_0 IN.gguf OUT.gguf".into()),
    };
    let gguf = Gguf::open(model)?;
    let config = gguf.lm_config().clone();
    let model = LanguageModel::new(
        &config,
        config.vocab_size,
        CONTEXT,
        &Weights::f32(Arc::new(gguf)),
    )?;
    println!("{{\"version\": \"{}\"}}", env!("CARGO_PKG_VERSION"));
    for line in stdin().lock().lines() {
        let line = line?;
        let (kind, count) = line.split_once(' ').ok_or("expected KIND COUNT")?;
        println!("{}", time(&model, kind, count.parse()?)?);
    }
    Ok(())
}
