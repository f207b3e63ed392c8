//! The stages `align-audio` and `align-ctc` on vita-nano's real ears: they learn to write something else for a recording, and a
//! model that is built with what they learnt writes it. Needs what `make setup` fetches.

use std::path::{Path, PathBuf};
use vita_model::build::{self, Bases, Labels, Variant};
use vita_model::checkpoint::Shards;
use vita_model::{LoadOptions, Vita, wav};
use vita_training::{Places, Recipe, Stage, StageOptions, hear};

const RECIPE: &str = r#"
name = "ears"
model = "./model"
items = ["items.jsonl"]
"#;

const ALIGN_AUDIO: &str = r#"
[align-audio]
updates = 30
batch = 2
peak = 3e-3
share = 1.0
validate-updates = 1000
low-rank = { rank = 4, alpha = 8.0 }
"#;

/// As in the recipe.
const UPDATES: u64 = 30;

const ALIGN_CTC: &str = r#"
[align-ctc]
updates = 90
batch = 2
peak = 3e-3
validate-updates = 1000
"#;

const CTC_UPDATES: u64 = 90;

const RECORDINGS: &str = "/usr/share/pocketsphinx/test/data/cards";

/// What the two recordings are taught to mean.
const TAUGHT: [(&str, &str); 2] = [
    ("001.wav", "Where is the purple elephant?"),
    ("004.wav", "Nobody came."),
];

fn cache() -> PathBuf {
    let set = std::env::var_os("VITA_CACHE").map(PathBuf::from);
    set.unwrap_or_else(|| {
        let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        base.unwrap_or_else(|| Path::new(&std::env::var_os("HOME").unwrap()).join(".cache"))
            .join("vita-stream")
    })
}

fn build_model(variant: Variant, trained: &Shards, out: &Path) {
    let bases = Bases::in_models(&cache().join("models"));
    assert_eq!(bases.missing(), Vec::<PathBuf>::new(), "run make setup");
    let labels = |name: &str| {
        let nano = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/nano");
        std::fs::read_to_string(nano.join(name)).unwrap()
    };
    let (classes, objects) = (labels("classes.txt"), labels("objects.txt"));
    let labels = Labels {
        classes: &classes,
        objects: &objects,
    };
    std::fs::create_dir_all(out).unwrap();
    build::build(variant, &bases, trained, labels, out, |_| ()).unwrap();
}

fn item(split: &str, file: &str, words: &str) -> String {
    format!(
        r#"{{"id":"{file}","split":"{split}","kind":"noise","audio":"{RECORDINGS}/{file}","words":"{words}","system":"lang","answer":null,"phrasing":"seen"}}"#
    )
}

fn read(model: &Path, file: &str) -> String {
    let vita = Vita::load(model, &LoadOptions::default()).unwrap();
    let samples = wav::read(&Path::new(RECORDINGS).join(file))
        .unwrap()
        .samples;
    vita.hear(&samples).unwrap().transcript.unwrap()
}

fn untrained() -> Shards {
    let nothing = [&8u64.to_le_bytes()[..], b"{}      "].concat();
    Shards::from_bytes(Path::new("untrained"), nothing).unwrap()
}

/// A model of which nothing was trained, and a folder with the items that teach it.
fn begun(folder: &Path, stage: &str) -> (Recipe, Places) {
    let at = |name: &str| folder.join(name);
    build_model(Variant::Decoder, &untrained(), &at("model"));
    let places = Places {
        cache: cache(),
        folder: at("training"),
        model: at("model"),
    };
    std::fs::create_dir_all(&places.folder).unwrap();
    let items = TAUGHT.map(|(file, words)| item("train", file, words));
    let valid = item("valid", "003.wav", "seven of clubs");
    let items = format!("{}\n{valid}\n", items.join("\n"));
    std::fs::write(places.folder.join("items.jsonl"), items).unwrap();
    std::fs::write(at("recipe.toml"), format!("{RECIPE}{stage}")).unwrap();
    (Recipe::load(&at("recipe.toml")).unwrap(), places)
}

/// To be cut off at once.
fn at_once() -> StageOptions {
    StageOptions {
        stop_after: Some(std::time::Duration::from_millis(1)),
        ..StageOptions::default()
    }
}

#[test]
fn ears_learn_to_write_what_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (recipe, places) = begun(folder.path(), ALIGN_AUDIO);

    // cut off half way, and taken up
    let cut = hear::run(&recipe, &places, &at_once()).unwrap();
    assert!(cut.updates < UPDATES);
    let summary = hear::run(&recipe, &places, &StageOptions::default()).unwrap();
    assert_eq!(summary.updates, UPDATES);
    assert_eq!(
        summary.file,
        places.stage(Stage::AlignAudio).join(hear::TUNED_FILE)
    );

    let tuned = Shards::from_file(&summary.file).unwrap();
    build_model(Variant::Decoder, &tuned, &at("tuned"));
    for (file, words) in TAUGHT {
        assert_eq!(read(&at("tuned"), file), words);
        assert_ne!(read(&at("model"), file), words);
    }
    let again = Places {
        model: at("tuned"),
        folder: at("again"),
        ..places.clone()
    };
    std::fs::create_dir_all(&again.folder).unwrap();
    std::fs::copy(
        places.folder.join("items.jsonl"),
        again.folder.join("items.jsonl"),
    )
    .unwrap();
    let error = hear::run(&recipe, &again, &StageOptions::default()).err();
    let error = error.expect("tuned twice").to_string();
    assert!(error.contains("tuned already"), "{error}");
}

#[test]
fn what_is_unheard_teaches_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let all = ALIGN_AUDIO.replace("share = 1.0", "unheard = 1.0");
    let (recipe, places) = begun(folder.path(), &all);
    let error = hear::run(&recipe, &places, &at_once()).err();
    let error = error.expect("nothing to learn from").to_string();
    assert!(error.contains("has a recording to learn from"), "{error}");
}

#[test]
fn a_connector_learns_to_say_what_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (recipe, places) = begun(folder.path(), ALIGN_CTC);

    let cut = hear::ctc::run(&recipe, &places, &at_once()).unwrap();
    assert!(cut.updates < CTC_UPDATES);
    let summary = hear::ctc::run(&recipe, &places, &StageOptions::default()).unwrap();
    assert_eq!(summary.updates, CTC_UPDATES);
    // the tokens of the two sentences, of which both have the dot
    assert!(
        (8..12).contains(&summary.vocabulary),
        "{}",
        summary.vocabulary
    );

    build_model(
        Variant::Ctc,
        &Shards::from_file(&summary.file).unwrap(),
        &at("ctc"),
    );
    assert!(!at("ctc").join("ears-tokenizer.json").exists());
    let plain = |text: &str| text.replace(|c: char| !c.is_alphanumeric() && c != ' ', "");
    for (file, words) in TAUGHT {
        assert_eq!(plain(&read(&at("ctc"), file)), plain(words));
    }

    // what it read goes on to the language model, as vectors near the words', between the markers
    let vita = Vita::load(&at("ctc"), &LoadOptions::default()).unwrap();
    let path = Path::new(RECORDINGS).join(TAUGHT[0].0);
    let samples = wav::read(&path).unwrap().samples;
    let ears = vita.ears().unwrap();
    let heard = ears.listen(&ears.features(&samples).unwrap()).unwrap();
    let (ids, given) = (heard.transcript.ids, heard.word_vectors.unwrap());
    let vectors = vita.hear(&samples).unwrap().vectors;
    assert_eq!(
        vectors.dim(0).unwrap(),
        2 + build::audio_connector().pooled + ids.len()
    );
    let near = vita.lm().embed(&ids).unwrap();
    let apart = (given - &near).unwrap().sqr().unwrap().sum_all().unwrap();
    let length = near.sqr().unwrap().sum_all().unwrap();
    let ratio = apart.to_scalar::<f32>().unwrap() / length.to_scalar::<f32>().unwrap();
    assert!(ratio < 0.5, "{ratio}");
}

#[test]
fn a_variant_whose_reader_was_not_trained_is_not_built() {
    let folder = tempfile::tempdir().unwrap();
    let bases = Bases::in_models(&cache().join("models"));
    let labels = Labels {
        classes: "",
        objects: "",
    };
    let built = build::build(
        Variant::Ctc,
        &bases,
        &untrained(),
        labels,
        folder.path(),
        |_| (),
    );
    let error = built.unwrap_err().to_string();
    assert!(error.contains("align-ctc"), "{error}");
}
