//! Checkpoints that are broken in one place give one error that says where, and never a panic.

use candle_core::{DType, Device, Tensor};
use proptest::prelude::*;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use tempfile::TempDir;
use vita_model::checkpoint::{ModelConfig, Shards};
use vita_model::prompt::Tokenizer;
use vita_model::{Error, ErrorKind, LoadOptions, Vita};

const WEIGHTS: &str = "model.safetensors";

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden")
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy_folder(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

struct Checkpoint(TempDir);

impl Checkpoint {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        copy_folder(&golden().join("checkpoint"), folder.path());
        Self(folder)
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    fn edit_text(&self, file: &str, edit: impl FnOnce(String) -> String) {
        let text = std::fs::read_to_string(self.path(file)).unwrap();
        let edited = edit(text.clone());
        assert_ne!(text, edited, "the test changes nothing in {file}");
        std::fs::write(self.path(file), edited).unwrap();
    }

    fn edit_weights(&self, edit: impl FnOnce(&mut HashMap<String, Tensor>)) {
        let mut tensors = candle_core::safetensors::load(self.path(WEIGHTS), &Device::Cpu).unwrap();
        edit(&mut tensors);
        candle_core::safetensors::save(&tensors, self.path(WEIGHTS)).unwrap();
    }

    fn load(&self) -> vita_model::Result<Vita> {
        Vita::load(self.0.path(), &LoadOptions::default())
    }

    #[track_caller]
    fn fails(&self, kind: ErrorKind, words: &[&str]) -> Error {
        let error = self.load().err().expect("an error");
        let text = error.to_string();
        assert_eq!(error.kind(), kind, "{text}");
        for word in words {
            assert!(text.contains(word), "no {word:?} in: {text}");
        }
        assert!(!text.contains('\n'), "one line: {text}");
        error
    }
}

#[test]
fn a_whole_checkpoint_loads() {
    Checkpoint::new().load().unwrap();
}

#[test]
fn missing_tensor() {
    let checkpoint = Checkpoint::new();
    checkpoint
        .edit_weights(|tensors| drop(tensors.remove("model.layers.1.self_attn.v_proj.weight")));
    let name = "model.layers.1.self_attn.v_proj.weight";
    checkpoint.fails(
        ErrorKind::Tensor,
        &[WEIGHTS, name, "[64, 128]", "no such tensor"],
    );
}

#[test]
fn wrong_shape() {
    let checkpoint = Checkpoint::new();
    let name = "model.mm_projector.2.weight";
    checkpoint.edit_weights(|tensors| {
        let short = tensors[name]
            .narrow(1, 0, 100)
            .unwrap()
            .contiguous()
            .unwrap();
        tensors.insert(name.into(), short);
    });
    checkpoint.fails(
        ErrorKind::Tensor,
        &[WEIGHTS, name, "[128, 128]", "[128, 100]"],
    );
}

#[test]
fn wrong_type() {
    let checkpoint = Checkpoint::new();
    let name = "model.norm.weight";
    checkpoint.edit_weights(|tensors| {
        let integers = tensors[name].to_dtype(DType::I64).unwrap();
        tensors.insert(name.into(), integers);
    });
    checkpoint.fails(
        ErrorKind::Tensor,
        &[WEIGHTS, name, "f32, f16 or bf16", "i64"],
    );
}

#[test]
fn unknown_tensors_are_an_error_except_in_the_audio_encoder() {
    let checkpoint = Checkpoint::new();
    let one = Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap();
    let add = |name: &str| checkpoint.edit_weights(|t| drop(t.insert(name.into(), one.clone())));
    add("model.audio_encoder.prompt_embeddings.weight");
    checkpoint.load().unwrap();
    add("model.layers.7.norm.weight");
    add("model.layers.8.norm.weight");
    let words = [WEIGHTS, "model.layers.7.norm.weight", "unknown", "1 more"];
    checkpoint.fails(ErrorKind::Tensor, &words);
}

#[test]
fn truncated_weights() {
    let checkpoint = Checkpoint::new();
    let bytes = std::fs::read(checkpoint.path(WEIGHTS)).unwrap();
    std::fs::write(checkpoint.path(WEIGHTS), &bytes[..bytes.len() - 1000]).unwrap();
    checkpoint.fails(ErrorKind::Format, &[WEIGHTS]);
    std::fs::write(checkpoint.path(WEIGHTS), &bytes[..50]).unwrap();
    checkpoint.fails(ErrorKind::Format, &[WEIGHTS]);
    std::fs::write(checkpoint.path(WEIGHTS), b"").unwrap();
    assert!(checkpoint.load().is_err());
}

#[test]
fn missing_files() {
    let files = [
        "config.json",
        "tokenizer.json",
        WEIGHTS,
        "internvit_tiny/config.json",
    ];
    for file in files {
        let checkpoint = Checkpoint::new();
        std::fs::remove_file(checkpoint.path(file)).unwrap();
        checkpoint.fails(ErrorKind::Io, &[file]);
    }
    let checkpoint = Checkpoint::new();
    std::fs::remove_dir_all(checkpoint.path("audio_encoder")).unwrap();
    checkpoint.fails(
        ErrorKind::Config,
        &["config.json", "mm_audio_encoder", "audio_encoder"],
    );
}

#[test]
fn tokenizer_without_a_state_token() {
    let checkpoint = Checkpoint::new();
    checkpoint.edit_text("tokenizer.json", |text| {
        text.replace("\"<2>\"", "\"<two>\"")
    });
    checkpoint.fails(ErrorKind::Tokenizer, &["tokenizer.json", "<2>"]);
}

#[test]
fn tokenizer_larger_than_the_vocabulary() {
    let checkpoint = Checkpoint::new();
    checkpoint.edit_text("tokenizer.json", |text| {
        let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let tokens = json["added_tokens"].as_array_mut().unwrap();
        let mut one_more = tokens.last().unwrap().clone();
        one_more["id"] = 768.into();
        one_more["content"] = "<4>".into();
        tokens.push(one_more);
        json.to_string()
    });
    checkpoint.fails(
        ErrorKind::Tokenizer,
        &["tokenizer.json", "at most 768", "769"],
    );
}

#[test]
fn vocabulary_that_is_not_the_tables() {
    let checkpoint = Checkpoint::new();
    let edit = |text: String| text.replace("\"vocab_size\": 768", "\"vocab_size\": 800");
    checkpoint.edit_text("config.json", edit);
    let words = [
        WEIGHTS,
        "model.embed_tokens.weight",
        "[800, 128]",
        "[768, 128]",
    ];
    checkpoint.fails(ErrorKind::Tensor, &words);
}

#[test]
fn config_without_a_key_or_with_a_nonsense_value() {
    let checkpoint = Checkpoint::new();
    let edit = |text: String| text.replace("\"hidden_size\"", "\"hiden_size\"");
    checkpoint.edit_text("config.json", edit);
    checkpoint.fails(ErrorKind::Format, &["config.json", "hidden_size"]);
    let edits = [
        (
            "config.json",
            "\"num_attention_heads\": 4",
            "\"num_attention_heads\": 0",
        ),
        (
            "config.json",
            "\"num_experts_per_tok\": 2",
            "\"num_experts_per_tok\": 9",
        ),
        ("config.json", "\"mlp2x_gelu\"", "\"mlp2x_silu\""),
        (
            "config.json",
            "\"model_type\": \"vita-mixtral\"",
            "\"model_type\": \"gpt\"",
        ),
        (
            "config.json",
            "\"tokenizer_model_max_length\": 4600",
            "\"tokenizer_model_max_length\": 1",
        ),
        (
            "internvit_tiny/config.json",
            "\"patch_size\": 14",
            "\"patch_size\": 0",
        ),
        (
            "internvit_tiny/preprocessor_config.json",
            "\"size\": 112",
            "\"size\": 99999999",
        ),
        ("audio_encoder/train.yaml", "rel-enc", "abs-enc"),
        (
            "audio_encoder/train.yaml",
            "transformer-attention-heads: 3",
            "transformer-attention-heads: 7",
        ),
    ];
    for (file, from, to) in edits {
        let checkpoint = Checkpoint::new();
        checkpoint.edit_text(file, |text| text.replace(from, to));
        let name = Path::new(file).file_name().unwrap().to_str().unwrap();
        checkpoint.fails(ErrorKind::Config, &[name]);
    }
}

#[test]
fn sharded_weights_load_and_a_wrong_index_is_named() {
    let checkpoint = Checkpoint::new();
    let tensors = candle_core::safetensors::load(checkpoint.path(WEIGHTS), &Device::Cpu).unwrap();
    let (lm, rest): (HashMap<_, _>, HashMap<_, _>) = tensors
        .into_iter()
        .partition(|(name, _)| name.starts_with("model.layers"));
    let files = [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ];
    let mut map = serde_json::Map::new();
    for (file, tensors) in files.iter().zip([&lm, &rest]) {
        candle_core::safetensors::save(tensors, checkpoint.path(file)).unwrap();
        map.extend(tensors.keys().map(|name| (name.clone(), (*file).into())));
    }
    std::fs::remove_file(checkpoint.path(WEIGHTS)).unwrap();
    let write = |map: &serde_json::Map<_, _>| {
        let index = serde_json::json!({ "metadata": {}, "weight_map": map });
        std::fs::write(
            checkpoint.path("model.safetensors.index.json"),
            index.to_string(),
        )
        .unwrap();
    };
    write(&map);
    checkpoint.load().unwrap();
    map.insert("lm_head.weight".into(), files[0].into());
    write(&map);
    checkpoint.fails(
        ErrorKind::Config,
        &["index.json", "lm_head.weight", files[0]],
    );
    map.insert("lm_head.weight".into(), "../elsewhere.safetensors".into());
    write(&map);
    checkpoint.fails(ErrorKind::Config, &["index.json", "elsewhere"]);
}

#[test]
fn sixteen_bit_weights_load_and_answer_alike() {
    let checkpoint = Checkpoint::new();
    checkpoint.edit_weights(|tensors| {
        for tensor in tensors.values_mut() {
            *tensor = tensor.to_dtype(DType::BF16).unwrap();
        }
    });
    for stored in [DType::BF16, DType::F16, DType::F32] {
        let options = LoadOptions {
            stored,
            ..LoadOptions::default()
        };
        let vita = Vita::load(checkpoint.0.path(), &options).unwrap();
        let ids = vita.tokenizer().encode_text("a blue whale").unwrap();
        let xs = vita.lm().embed(&ids).unwrap();
        let mut cache = vita.lm().cache();
        let logits = vita_model::generate::prefill(vita.lm(), &xs, &mut cache).unwrap();
        assert!(logits.iter().all(|l| l.is_finite()));
    }
}

/// One change of a file's bytes.
#[derive(Debug, Clone)]
enum Damage {
    Set(f64, u8),
    Remove(f64, usize),
    Insert(f64, Vec<u8>),
    Cut(f64),
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let at = |share: f64| (share * bytes.len() as f64) as usize;
        match self {
            Self::Set(share, value) => {
                let at = at(*share);
                bytes[at] = *value;
            }
            Self::Remove(share, count) => {
                let from = at(*share);
                let to = (from + count).min(bytes.len());
                bytes.drain(from..to);
            }
            Self::Insert(share, new) => {
                let at = at(*share);
                bytes.splice(at..at, new.iter().copied());
            }
            Self::Cut(share) => {
                let at = at(*share);
                bytes.truncate(at);
            }
        }
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    let place = 0.0..1.0f64;
    let digits = proptest::collection::vec(
        proptest::sample::select(&b"0123456789-.eE\"{}[],:"[..]),
        1..6,
    );
    prop_oneof![
        (place.clone(), any::<u8>()).prop_map(|(p, v)| Damage::Set(p, v)),
        (place.clone(), 1..40usize).prop_map(|(p, n)| Damage::Remove(p, n)),
        (place.clone(), digits).prop_map(|(p, new)| Damage::Insert(p, new)),
        place.prop_map(Damage::Cut),
    ]
}

const TEXTS: [&str; 6] = [
    "config.json",
    "internvit_tiny/config.json",
    "internvit_tiny/preprocessor_config.json",
    "audio_encoder/train.yaml",
    "audio_encoder/global_cmvn",
    "tokenizer.json",
];

static ORIGINAL: LazyLock<Vec<u8>> =
    LazyLock::new(|| std::fs::read(golden().join("checkpoint").join(WEIGHTS)).unwrap());

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_panic_on_damaged_configs(file in 0..TEXTS.len(), damages in proptest::collection::vec(damage(), 1..4)) {
        thread_local!(static CHECKPOINT: Checkpoint = Checkpoint::new());
        CHECKPOINT.with(|checkpoint| {
            let path = checkpoint.path(TEXTS[file]);
            let original = std::fs::read(&path).unwrap();
            let mut bytes = original.clone();
            damages.iter().for_each(|d| if !bytes.is_empty() { d.apply(&mut bytes) });
            std::fs::write(&path, &bytes).unwrap();
            let loaded = ModelConfig::load(checkpoint.0.path());
            let tokenizer = Tokenizer::load(&checkpoint.path("tokenizer.json"));
            if let Ok(tokenizer) = tokenizer {
                let _ = tokenizer.encode_text("a <2> text");
            }
            if loaded.is_ok() && !TEXTS[file].contains("tokenizer") {
                let _ = checkpoint.load();
            }
            std::fs::write(&path, original).unwrap();
        });
    }

    #[test]
    fn no_panic_on_a_damaged_safetensors_header(damages in proptest::collection::vec(damage(), 1..4)) {
        let length = u64::from_le_bytes(ORIGINAL[..8].try_into().unwrap()) as usize;
        let mut bytes = ORIGINAL[..8 + length].to_vec();
        damages.iter().for_each(|d| if !bytes.is_empty() { d.apply(&mut bytes) });
        bytes.extend_from_slice(&ORIGINAL[8 + length..]);
        if let Ok(shards) = Shards::from_bytes(Path::new("damaged.safetensors"), bytes) {
            for info in shards.infos() {
                let _ = shards.read(&info.name);
            }
        }
    }
}
