//! The stage `instruct` on a model small enough for a test: it learns, and a run that was cut off goes
//! on as if it had not been.

use candle_core::Tensor;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use vita_model::lm::{LanguageModel, LmConfig};
use vita_model::nn::{RandomSource, Source, Weights};
use vita_training::instruct::{Checkpoint, Options, export, run};
use vita_training::{Places, Recipe, Stage};

const LM: &str = r#"{"model_type":"llama","vocab_size":768,"hidden_size":32,"intermediate_size":48,"num_hidden_layers":2,
"num_attention_heads":4,"num_key_value_heads":2,"max_position_embeddings":256,"tie_word_embeddings":true}"#;

const RECIPE: &str = r#"
name = "small"
model = "./model"
items = ["items.jsonl"]
seed = 3

[system]
lang = "Answer."

[instruct]
learn = ["model.norm."]
low-rank = { rank = 4, alpha = 8.0 }
updates = 10
batch-tokens = 60
rate = { peak = 0.02, warm-up = 2 }
validate-updates = 5
validate-items = 4
state-weight = 2.0
"#;

/// Random weights, remembered so that they can be written down.
#[derive(Default)]
struct Recorded(Mutex<HashMap<String, Tensor>>);

impl Source for Recorded {
    fn tensor(&self, name: &str, expected: &candle_core::Shape) -> vita_model::Result<Tensor> {
        let tensor = RandomSource { seed: 5 }.tensor(name, expected)?;
        self.0.lock().unwrap().insert(name.into(), tensor.clone());
        Ok(tensor)
    }

    fn contains(&self, _: &str) -> bool {
        true
    }
}

fn make_model(folder: &Path) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/checkpoint");
    let lm = folder.join("lm");
    std::fs::create_dir_all(&lm).unwrap();
    std::fs::write(lm.join("config.json"), LM).unwrap();
    std::fs::copy(golden.join("tokenizer.json"), lm.join("tokenizer.json")).unwrap();
    let recorded = std::sync::Arc::new(Recorded::default());
    let config: LmConfig = serde_json::from_str(LM).unwrap();
    LanguageModel::new(&config, 768, 256, &Weights::f32(recorded.clone())).unwrap();
    let tensors = recorded.0.lock().unwrap();
    candle_core::safetensors::save(&tensors, lm.join("model.safetensors")).unwrap();
    let manifest = "name = \"small\"\nmax-length = 256\n[language-model]\npath = \"lm\"\n";
    std::fs::write(folder.join("vita.toml"), manifest).unwrap();
}

fn item(split: &str, words: &str, answer: &str) -> String {
    format!(
        r#"{{"id":"{words}","split":"{split}","kind":"text","audio":null,"words":"{words}","pictures":[],"system":"lang","answer":"{answer}","intent":"i","voice":null,"phrasing":"seen","group":"question"}}"#
    )
}

fn places(folder: &Path) -> Places {
    let places = Places {
        cache: folder.join("cache"),
        folder: folder.join("training"),
        model: folder.join("model"),
    };
    std::fs::create_dir_all(&places.folder).unwrap();
    let items = [
        item("train", "how are you", "fine"),
        item("train", "what is it", "a train"),
        item("train", "who are you", "a robot"),
        item("valid", "how are you", "fine"),
        item("valid", "what is it", "a train"),
    ];
    std::fs::write(places.folder.join("items.jsonl"), items.join("\n")).unwrap();
    make_model(&places.model);
    places
}

fn recipe(folder: &Path, text: &str) -> Recipe {
    let path = folder.join("recipe.toml");
    std::fs::write(&path, text).unwrap();
    Recipe::load(&path).unwrap()
}

fn newest(places: &Places) -> Checkpoint {
    let folder = places.stage(Stage::Instruct);
    Checkpoint::newest(&folder).unwrap().expect("a checkpoint")
}

fn bits(checkpoint: &Checkpoint) -> Vec<(String, Vec<u32>)> {
    let mut tensors: Vec<_> = checkpoint
        .state
        .iter()
        .map(|(name, tensor)| {
            let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            (name.clone(), values.iter().map(|v| v.to_bits()).collect())
        })
        .collect();
    tensors.sort();
    tensors
}

#[test]
fn a_run_that_was_cut_off_goes_on_bit_for_bit() {
    let whole = tempfile::tempdir().unwrap();
    let parts = tempfile::tempdir().unwrap();
    let once = places(whole.path());
    let summary = run(&recipe(whole.path(), RECIPE), &once, &Options::default()).unwrap();
    assert_eq!(summary.updates, 10);

    let twice = places(parts.path());
    let recipe = recipe(parts.path(), RECIPE);
    let five = Options {
        updates: Some(5),
        ..Options::default()
    };
    run(&recipe, &twice, &five).unwrap();
    // what a killed run leaves behind: half a checkpoint, and lines of updates that are made again
    let folder = twice.stage(Stage::Instruct);
    std::fs::write(folder.join("checkpoint.partial"), b"half").unwrap();
    let log = folder.join("log.jsonl");
    let mut lines = std::fs::read_to_string(&log).unwrap();
    lines.push_str(r#"{"event":"update","step":6,"loss":1.0,"rate":0.1,"gradient":1.0,"items":1,"tokens":9,"seconds":0.1}"#);
    lines.push_str("\n{\"event\":\"upd");
    std::fs::write(&log, lines).unwrap();
    let fresh = run(&recipe, &twice, &Options::default()).unwrap_err();
    assert!(fresh.to_string().contains("--resume"), "{fresh}");
    let resume = Options {
        resume: true,
        ..Options::default()
    };
    let summary = run(&recipe, &twice, &resume).unwrap();
    assert_eq!(summary.updates, 10);

    let (once, twice) = (newest(&once), newest(&twice));
    assert_eq!(once.progress, twice.progress);
    assert_eq!(bits(&once), bits(&twice));
    let log = std::fs::read_to_string(&log).unwrap();
    let steps: Vec<_> = log
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter(|line| line["event"] == "update")
        .map(|line| line["step"].as_u64().unwrap())
        .collect();
    assert_eq!(steps, (1..=10).collect::<Vec<_>>());
    assert!(folder.join("curve.svg").is_file());
}

#[test]
fn it_learns_answers_and_exports_them() {
    let folder = tempfile::tempdir().unwrap();
    let places = places(folder.path());
    let text = RECIPE
        .replace("updates = 10", "updates = 150")
        .replace("batch-tokens = 60", "batch-tokens = 120")
        .replace("rank = 4", "rank = 8");
    let recipe = recipe(folder.path(), &text);
    let summary = run(&recipe, &places, &Options::default()).unwrap();
    let measures = summary.measures.expect("measured at the end");
    assert_eq!(measures.states.part(), Some(1.0), "{measures}");
    assert_eq!(measures.answers_seen.part(), Some(1.0), "{measures}");

    let file: PathBuf = folder.path().join("learnt.safetensors");
    assert_eq!(export(&recipe, &places, &file).unwrap(), 150);
    let tensors = candle_core::safetensors::load(&file, &candle_core::Device::Cpu).unwrap();
    assert_eq!(tensors["lora.1.v.a"].dims(), [8, 32]);
    assert_eq!(tensors["lora.0.q.b"].dims(), [32, 8]);
    assert!(tensors.contains_key("model.norm.weight"));
}
