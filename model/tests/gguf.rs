//! Language models from GGUF files: against the same weights as safetensors, against candle's own
//! reader on a real file, and on damaged headers.

use candle_core::quantized::{GgmlDType, QTensor, gguf_file};
use candle_core::{DType, Device, Tensor};
use candle_transformers::models::quantized_llama::ModelWeights;
use proptest::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use vita_model::checkpoint::{Gguf, ModelConfig, Shards};
use vita_model::generate::prefill;
use vita_model::lm::LanguageModel;
use vita_model::nn::{Source, Weights};

fn checkpoint() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/checkpoint")
}

/// The golden checkpoint's Mixtral written as llama.cpp's converter does: experts stacked, query and
/// key rows interleaved.
fn golden_as_gguf(matrices: GgmlDType) -> Vec<u8> {
    let config = ModelConfig::load(&checkpoint()).unwrap().lm;
    let shards = Shards::open(&checkpoint()).unwrap();
    let heads_of = |name: &str| match name {
        "attn_q" => Some(config.num_attention_heads),
        "attn_k" => Some(config.kv_heads()),
        _ => None,
    };
    let mut tensors: Vec<(String, Tensor)> = vec![
        (
            "token_embd.weight".into(),
            shards.read("model.embed_tokens.weight").unwrap(),
        ),
        (
            "output_norm.weight".into(),
            shards.read("model.norm.weight").unwrap(),
        ),
        (
            "output.weight".into(),
            shards.read("lm_head.weight").unwrap(),
        ),
    ];
    let names = [
        ("attn_norm", "input_layernorm"),
        ("ffn_norm", "post_attention_layernorm"),
        ("attn_q", "self_attn.q_proj"),
        ("attn_k", "self_attn.k_proj"),
        ("attn_v", "self_attn.v_proj"),
        ("attn_output", "self_attn.o_proj"),
        ("ffn_gate_inp", "block_sparse_moe.gate"),
    ];
    for layer in 0..config.num_hidden_layers {
        for (theirs, ours) in names {
            let tensor = shards
                .read(&format!("model.layers.{layer}.{ours}.weight"))
                .unwrap();
            let tensor = match heads_of(theirs) {
                Some(heads) => interleaved(&tensor, heads),
                None => tensor,
            };
            tensors.push((format!("blk.{layer}.{theirs}.weight"), tensor));
        }
        let (experts, _) = config.experts().unwrap();
        for (theirs, ours) in [
            ("ffn_gate_exps", "w1"),
            ("ffn_up_exps", "w3"),
            ("ffn_down_exps", "w2"),
        ] {
            let of = |e| format!("model.layers.{layer}.block_sparse_moe.experts.{e}.{ours}.weight");
            let stack: Vec<_> = (0..experts).map(|e| shards.read(&of(e)).unwrap()).collect();
            tensors.push((
                format!("blk.{layer}.{theirs}.weight"),
                Tensor::stack(&stack, 0).unwrap(),
            ));
        }
    }
    let u32 = |n: usize| gguf_file::Value::U32(n as u32);
    let (experts, used) = config.experts().unwrap();
    let metadata = [
        (
            "general.architecture",
            gguf_file::Value::String("llama".into()),
        ),
        ("llama.embedding_length", u32(config.hidden_size)),
        ("llama.feed_forward_length", u32(config.intermediate_size)),
        ("llama.block_count", u32(config.num_hidden_layers)),
        (
            "llama.attention.head_count",
            u32(config.num_attention_heads),
        ),
        ("llama.attention.head_count_kv", u32(config.kv_heads())),
        ("llama.context_length", u32(4096)),
        ("llama.expert_count", u32(experts)),
        ("llama.expert_used_count", u32(used)),
        (
            "llama.rope.freq_base",
            gguf_file::Value::F32(config.rope_theta as f32),
        ),
        (
            "llama.attention.layer_norm_rms_epsilon",
            gguf_file::Value::F32(config.rms_norm_eps as f32),
        ),
    ];
    let quantised: Vec<(String, QTensor)> = tensors
        .into_iter()
        .map(|(name, tensor)| {
            let keep = tensor.rank() == 1 || name.contains("gate_inp");
            let dtype = if keep { GgmlDType::F32 } else { matrices };
            (name, QTensor::quantize(&tensor, dtype).unwrap())
        })
        .collect();
    let tensors: Vec<_> = quantised.iter().map(|(n, t)| (n.as_str(), t)).collect();
    let metadata: Vec<_> = metadata.iter().map(|(k, v)| (*k, v)).collect();
    let mut out = std::io::Cursor::new(Vec::new());
    gguf_file::write(&mut out, &metadata, &tensors).unwrap();
    out.into_inner()
}

fn interleaved(weight: &Tensor, heads: usize) -> Tensor {
    let (rows, columns) = weight.dims2().unwrap();
    let halves = weight
        .reshape((heads, 2, rows / heads / 2, columns))
        .unwrap();
    halves
        .transpose(1, 2)
        .unwrap()
        .reshape((rows, columns))
        .unwrap()
        .contiguous()
        .unwrap()
}

fn model_of(source: Arc<dyn Source>, config: &vita_model::lm::LmConfig) -> LanguageModel {
    LanguageModel::new(config, config.vocab_size, 512, &Weights::f32(source)).unwrap()
}

fn logits(model: &LanguageModel, ids: &[u32]) -> Vec<f32> {
    prefill(model, &model.embed(ids).unwrap(), &mut model.cache()).unwrap()
}

fn max_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

#[test]
fn mixtral_as_gguf_is_mixtral_as_safetensors() {
    let ids: Vec<u32> = (0..40).map(|i| i * 17 % 768).collect();
    let config = ModelConfig::load(&checkpoint()).unwrap().lm;
    let reference = model_of(Arc::new(Shards::open(&checkpoint()).unwrap()), &config);
    let wanted = logits(&reference, &ids);
    for (dtype, tolerance) in [
        (GgmlDType::F32, 1e-3),
        (GgmlDType::F16, 0.05),
        (GgmlDType::Q8_0, 0.5),
    ] {
        let file = Gguf::from_bytes(Path::new("golden.gguf"), golden_as_gguf(dtype)).unwrap();
        let config = file.lm_config().clone();
        let ours = logits(&model_of(Arc::new(file), &config), &ids);
        let difference = max_difference(&ours, &wanted);
        println!("{dtype:?}: largest difference of a logit {difference}");
        assert!(difference < tolerance, "{dtype:?}: {difference}");
    }
}

fn smollm2() -> PathBuf {
    let cache = std::env::var_os("VITA_CACHE")
        .map(PathBuf::from)
        .unwrap_or_else(|| {
            let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
            base.unwrap_or_else(|| Path::new(&std::env::var_os("HOME").unwrap()).join(".cache"))
                .join("vita-stream")
        });
    cache.join("models/SmolLM2-135M-Instruct.Q4_1.gguf")
}

const QUESTION: &str =
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n";

/// The first layers of a file with all weights in f32: 8-bit rounding of activations, which differs with
/// the last bit of each sum, would hide whether two implementations agree.
fn first_layers_in_f32(path: &Path, layers: usize) -> Vec<u8> {
    let mut reader = std::fs::File::open(path).unwrap();
    let content = gguf_file::Content::read(&mut reader).unwrap();
    let wanted = |name: &&String| match name.strip_prefix("blk.").and_then(|n| n.split_once('.')) {
        Some((layer, _)) => layer.parse::<usize>().unwrap() < layers,
        None => true,
    };
    let tensors: Vec<(String, QTensor)> = content
        .tensor_infos
        .keys()
        .filter(wanted)
        .map(|name| {
            let tensor = content.tensor(&mut reader, name, &Device::Cpu).unwrap();
            let dense = tensor.dequantize(&Device::Cpu).unwrap();
            (
                name.clone(),
                QTensor::quantize(&dense, GgmlDType::F32).unwrap(),
            )
        })
        .collect();
    let mut metadata = content.metadata.clone();
    metadata.insert(
        "llama.block_count".into(),
        gguf_file::Value::U32(layers as u32),
    );
    let metadata: Vec<_> = metadata.iter().map(|(k, v)| (k.as_str(), v)).collect();
    let tensors: Vec<_> = tensors.iter().map(|(n, t)| (n.as_str(), t)).collect();
    let mut out = std::io::Cursor::new(Vec::new());
    gguf_file::write(&mut out, &metadata, &tensors).unwrap();
    out.into_inner()
}

#[test]
fn smollm2_equals_candles_own_llama() {
    let bytes = first_layers_in_f32(&smollm2(), 4);
    let mut reader = std::io::Cursor::new(bytes.clone());
    let content = gguf_file::Content::read(&mut reader).unwrap();
    let mut theirs = ModelWeights::from_gguf(content, &mut reader, &Device::Cpu).unwrap();
    let file = Gguf::from_bytes(Path::new("smollm2-f32.gguf"), bytes).unwrap();
    let ids = file.tokenizer().unwrap().encode_markup(QUESTION).unwrap();
    let input = Tensor::new(ids.as_slice(), &Device::Cpu)
        .unwrap()
        .unsqueeze(0)
        .unwrap();
    let wanted = theirs
        .forward(&input, 0)
        .unwrap()
        .flatten_all()
        .unwrap()
        .to_vec1::<f32>()
        .unwrap();
    let config = file.lm_config().clone();
    let ours = logits(&model_of(Arc::new(file), &config), &ids);
    let difference = max_difference(&ours, &wanted);
    println!("largest difference of a logit {difference}");
    assert!(difference < 1e-2, "{difference}");
}

#[test]
fn smollm2_answers() {
    let file = Gguf::open(&smollm2()).expect("scripts/setup fetches it");
    let tokenizer = file.tokenizer().unwrap();
    let ids = tokenizer.encode_markup(QUESTION).unwrap();
    assert_eq!(ids[0], 1, "<|im_start|> is one token");
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), QUESTION);
    let config = file.lm_config().clone();
    let model = model_of(Arc::new(file), &config);
    let mut cache = model.cache();
    let mut ours = prefill(&model, &model.embed(&ids).unwrap(), &mut cache).unwrap();
    let end = tokenizer.added_token("<|im_end|>").unwrap();
    let mut answer = Vec::new();
    for _ in 0..16 {
        let best = (0..ours.len())
            .max_by(|&a, &b| ours[a].total_cmp(&ours[b]))
            .unwrap() as u32;
        if best == end {
            break;
        }
        answer.push(best);
        ours = prefill(&model, &model.embed(&[best]).unwrap(), &mut cache).unwrap();
    }
    let text = tokenizer.decode(&answer, true).unwrap();
    assert!(text.contains("Paris"), "{text}");
}

static SMALL: LazyLock<Vec<u8>> = LazyLock::new(|| golden_as_gguf(GgmlDType::Q8_0));

/// Bytes of header at the front of the small file, with room to spare.
const HEADER: usize = 4096;

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_panic_on_a_damaged_gguf_header(
        changes in proptest::collection::vec((0..HEADER, any::<u8>()), 1..6),
        cut in proptest::option::of(0..HEADER * 4),
    ) {
        let mut bytes = SMALL.clone();
        for (at, value) in changes {
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut);
        }
        if let Ok(file) = Gguf::from_bytes(Path::new("damaged.gguf"), bytes) {
            let _ = file.tokenizer();
            let config = file.lm_config().clone();
            let w = Weights::new(Arc::new(file), DType::F32, DType::F32, Device::Cpu);
            if config.vocab_size <= 4096 {
                let _ = LanguageModel::new(&config, config.vocab_size, 512, &w);
            }
        }
    }
}

#[test]
fn wrong_files_are_named() {
    let no_file = Gguf::open(Path::new("/nowhere/model.gguf")).err().unwrap();
    assert!(no_file.to_string().contains("/nowhere/model.gguf"));
    let other = Gguf::from_bytes(Path::new("picture.gguf"), b"\x89PNG\r\n".to_vec())
        .err()
        .unwrap();
    assert!(
        other.to_string().contains("picture.gguf") && !other.to_string().contains('\n'),
        "{other}"
    );
}
