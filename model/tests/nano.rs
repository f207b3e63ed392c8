//! vita-nano as `vita model build` makes it, on its real bases: what it hears, sees and answers before anything of it was
//! trained. Needs what `make setup` fetches.

use candle_core::{Device, Tensor};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use vita_model::audio::{DecoderConfig, Whisper, WhisperConfig, WhisperDecoder};
use vita_model::build::{self, Bases, Labels, Variant};
use vita_model::checkpoint::{Inspection, Shards};
use vita_model::fbank::{Fbank, normalise_whisper};
use vita_model::nn::{Linear, Weights};
use vita_model::prompt::{Content, Conversation, Role, Segment, Turn};
use vita_model::vision::EfficientNetLite0;
use vita_model::{GenerateOptions, LoadOptions, Vita, wav};

const RECORDINGS: &str = "/usr/share/pocketsphinx/test/data/librivox";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn cache() -> PathBuf {
    std::env::var_os("VITA_CACHE")
        .map(PathBuf::from)
        .unwrap_or_else(|| {
            let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
            base.unwrap_or_else(|| Path::new(&std::env::var_os("HOME").unwrap()).join(".cache"))
                .join("vita-stream")
        })
}

fn folder() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let bases = Bases::in_models(&cache().join("models"));
        assert_eq!(bases.missing(), Vec::<PathBuf>::new(), "run make setup");
        let nothing = [&8u64.to_le_bytes()[..], b"{}      "].concat();
        let untrained = Shards::from_bytes(Path::new("untrained"), nothing).unwrap();
        let read = |name: &str| {
            let file = repository().join("models/nano").join(name);
            std::fs::read_to_string(file).unwrap()
        };
        let (classes, objects) = (read("classes.txt"), read("objects.txt"));
        let labels = Labels {
            classes: &classes,
            objects: &objects,
        };
        let mut last = 0.0;
        let report = build::build(
            Variant::Decoder,
            &bases,
            &untrained,
            labels,
            folder.path(),
            |progress| {
                assert!(progress.fraction >= last, "{progress:?} after {last}");
                last = progress.fraction;
            },
        );
        assert_eq!(last, 1.0);
        assert_eq!(report.unwrap().untrained.len(), 4);
        folder
    });
    folder.path()
}

fn nano() -> &'static Vita {
    static MODEL: OnceLock<Vita> = OnceLock::new();
    MODEL.get_or_init(|| Vita::load(folder(), &LoadOptions::default()).unwrap())
}

/// Lower-case words without punctuation.
fn words(text: &str) -> Vec<String> {
    let spaced = text.replace('-', " ").to_lowercase();
    let plain = |word: &str| word.chars().filter(|c| c.is_alphanumeric()).collect();
    spaced
        .split_whitespace()
        .map(plain)
        .filter(|word: &String| !word.is_empty())
        .collect()
}

fn transcript(file: &Path) -> String {
    let samples = wav::read(file).unwrap().samples;
    nano().hear(&samples).unwrap().transcript.unwrap()
}

#[test]
fn it_reads_a_speech() {
    let expected = "And so my fellow Americans, ask not what your country can do for you, ask what you can do for \
                    your country.";
    let read = transcript(&cache().join("media/jfk.wav"));
    assert_eq!(words(&read), words(expected), "{read}");
}

/// See `scripts/golden-whisper`. CTranslate2 shares no code with ours.
#[test]
fn its_ears_equal_another_implementation() {
    let file = repository().join("tests/golden/whisper_tiny_en.safetensors");
    let golden = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
    let integers = |name: &str| golden[name].to_vec1::<i64>().unwrap();
    let config: WhisperConfig = toml::from_str(
        "d-model = 384\nencoder-attention-heads = 6\nencoder-ffn-dim = 1536\nencoder-layers = 4",
    )
    .unwrap();
    let decoder: DecoderConfig = toml::from_str(
        "vocab-size = 51864\ndecoder-attention-heads = 6\ndecoder-ffn-dim = 1536\ndecoder-layers = 4",
    )
    .unwrap();
    let weights = Shards::from_file(&folder().join("ears.safetensors")).unwrap();
    let w = Weights::f32(Arc::new(weights));
    let samples = wav::read(&cache().join("media/jfk.wav")).unwrap().samples;
    let mut features = Fbank::whisper().compute(&samples).unwrap();
    normalise_whisper(&mut features);
    let features = Tensor::from_vec(features, ((), 80), &Device::Cpu).unwrap();
    let encoded = Whisper::new(&config, &w.pp("encoder")).unwrap();
    let encoded = encoded.forward(&features).unwrap();
    let steps: Vec<u32> = integers("steps").iter().map(|&s| s as u32).collect();
    let steps = Tensor::new(steps, &Device::Cpu).unwrap();
    let kept = encoded.values.get(0).unwrap().index_select(&steps, 0);
    assert_near(&kept.unwrap(), &golden["encoded"], 1e-3, "encoder");

    let ids = [integers("prompt"), integers("ids")].concat();
    let ids: Vec<u32> = ids.into_iter().map(|id| id as u32).collect();
    let read = |w: &Weights| WhisperDecoder::new(384, &decoder, &w.pp("decoder")).unwrap();
    let stepping = read(&w);
    let mut state = stepping.begin(&encoded).unwrap();
    let given = &ids[..ids.len() - 1];
    let logits = stepping.step(given, &mut state).unwrap();
    // as it is trained: the whole text at once
    let whole = read(&w.clone().for_training());
    let whole = whole.logits(&whole.forward(given, &encoded.values).unwrap());
    assert_near(&whole.unwrap(), &logits, 1e-3, "whole text");
    let prompt = integers("prompt").len();
    let kept: Vec<u32> = (0..51_864).step_by(32).collect();
    let kept = Tensor::new(kept, &Device::Cpu).unwrap();
    let written = logits.narrow(0, prompt - 1, ids.len() - prompt).unwrap();
    let written = written.contiguous().unwrap().index_select(&kept, 1);
    assert_near(&written.unwrap(), &golden["logits"], 5e-3, "logits");
}

/// See `scripts/golden-efficientnet`: onnxruntime, on a graph that is not of ours.
#[test]
fn its_eyes_equal_another_implementation() {
    let file = repository().join("tests/golden/efficientnet_lite0.safetensors");
    let golden = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
    let weights = Shards::from_file(&folder().join("eyes.safetensors")).unwrap();
    let w = Weights::f32(Arc::new(weights));
    let picture = image::open(repository().join("tests/golden/inputs/image_448.png")).unwrap();
    let picture = picture.crop_imm(0, 0, 224, 224).to_rgb8().into_raw();
    let pixels: Vec<f32> = picture.into_iter().map(f32::from).collect();
    let pixels = Tensor::from_vec(pixels, (1, 224, 224, 3), &Device::Cpu).unwrap();
    let pixels = ((pixels - 127.0).unwrap() / 128.0).unwrap();
    let pixels = pixels.permute((0, 3, 1, 2)).unwrap();
    let map = EfficientNetLite0::new(&w)
        .unwrap()
        .forward(&pixels)
        .unwrap();
    let channels: Vec<u32> = (0..1280).step_by(8).collect();
    let channels = Tensor::new(channels, &Device::Cpu).unwrap();
    let kept = map.get(0).unwrap().contiguous().unwrap();
    let kept = kept.index_select(&channels, 2).unwrap();
    assert_near(&kept, &golden["features"], 1e-3, "features");
    let classifier = Linear::new(1280, 1000, &w.pp("_fc")).unwrap();
    let mean = map.flatten(1, 2).unwrap().mean(1).unwrap();
    let logits = classifier.forward(&mean).unwrap().get(0).unwrap();
    assert_near(&logits, &golden["logits"], 1e-3, "logits");
}

fn assert_near(ours: &Tensor, theirs: &Tensor, tolerance: f32, what: &str) {
    assert_eq!(ours.dims(), theirs.dims(), "{what}");
    let difference = (ours - theirs).unwrap().abs().unwrap().max_all().unwrap();
    let difference = difference.to_scalar::<f32>().unwrap();
    println!(
        "{what}: {:?}, greatest difference {difference:.1e}, tolerance {tolerance:.0e}",
        ours.dims()
    );
    assert!(difference <= tolerance, "{what}: {difference}");
}

#[test]
fn it_reads_a_novel_read_aloud() {
    let list = std::fs::read_to_string(format!("{RECORDINGS}/transcription")).unwrap();
    let (mut errors, mut total) = (0, 0);
    for line in list.lines() {
        let (text, name) = line.rsplit_once('(').unwrap();
        let text = text.replace("<s>", "").replace("</s>", "");
        let name = name.trim_end_matches(')');
        let read = transcript(Path::new(&format!("{RECORDINGS}/{name}.wav")));
        errors += strsim::generic_levenshtein(&words(&text), &words(&read));
        total += words(&text).len();
        println!("{read}");
    }
    println!("{errors} of {total} words");
    // Whisper itself, padded to 30 s, reads 4 of 71 wrong
    assert!(
        total > 60 && 100 * errors <= 12 * total,
        "{errors} of {total} words"
    );
}

#[test]
fn an_utterance_is_markers_vectors_and_words() {
    let samples = wav::read(&cache().join("media/jfk.wav")).unwrap().samples;
    let media = nano().hear(&samples[..4 * 16_000]).unwrap();
    let text = media.transcript.unwrap();
    let ids = nano().tokenizer().encode_text(&text).unwrap();
    assert_eq!(media.vectors.dims(), [1 + 4 + ids.len() + 1, 576], "{text}");
    let embedded = nano().lm().embed(&ids).unwrap();
    let inside = media.vectors.narrow(0, 5, ids.len()).unwrap();
    let difference = (inside - embedded)
        .unwrap()
        .abs()
        .unwrap()
        .max_all()
        .unwrap();
    assert_eq!(difference.to_scalar::<f32>().unwrap(), 0.0);
}

#[test]
fn silence_and_noise_have_few_words_and_end() {
    let silence = vec![0.0; 3 * 16_000];
    let noise: Vec<f32> = (0..5 * 16_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 16_777_216.0 - 0.5)
        .collect();
    for sound in [silence, noise, vec![0.5; 16_000]] {
        let heard = nano().ears().unwrap();
        let heard = heard.listen(&heard.features(&sound).unwrap()).unwrap();
        assert!(heard.transcript.ids.len() < 60, "{:?}", heard.transcript);
        let input = heard.pooled_input.to_vec1::<f32>().unwrap();
        assert!(input.iter().all(|x| x.is_finite()));
    }
}

#[test]
fn what_is_longer_than_half_a_minute_is_read_in_pieces() {
    let mut samples = wav::read(&cache().join("media/jfk.wav")).unwrap().samples;
    for number in ["0870", "0880", "0890", "0920", "0930"] {
        let file = format!("{RECORDINGS}/sense_and_sensibility_01_austen_64kb-{number}.wav");
        samples.extend(wav::read(file.as_ref()).unwrap().samples);
    }
    assert!(samples.len() > 35 * 16_000);
    let ears = nano().ears().unwrap();
    let frames = ears.fbank.compute(&samples).unwrap().len() / ears.fbank.num_mel_bins();
    assert!(
        frames < ears.max_frames(),
        "a stream would cut {frames} frames"
    );
    let read = words(&nano().hear(&samples).unwrap().transcript.unwrap());
    for word in ["americans", "dashwood", "hearted", "respectable", "himself"] {
        assert!(read.iter().any(|read| read == word), "{word} in {read:?}");
    }
}

#[test]
fn it_names_the_main_thing_of_a_photo() {
    for (photo, expected) in [
        ("coffee", &["espresso", "cup"][..]),
        ("cat", &["Egyptian cat", "tabby", "tiger cat"]),
        ("rocket", &["missile", "projectile"]),
    ] {
        let path = repository().join(format!("model/tests/photos/{photo}.jpg"));
        let picture = image::open(path).unwrap().to_rgb8();
        let seen = nano().see_picture(&picture).unwrap();
        let names = seen[0].transcript.clone().unwrap();
        println!("{photo}: {names}");
        let (found, recognised) = names.split_once(". ").unwrap();
        assert!(found.contains("no people"), "{photo}: {names}");
        let named = recognised.split(", ");
        let named = named.map(|name| name.trim_end_matches('?'));
        assert!(
            named.into_iter().any(|name| expected.contains(&name)),
            "{photo}: {names}"
        );
        let ids = nano().tokenizer().encode_text(&names).unwrap();
        assert_eq!(seen[0].vectors.dims(), [ids.len() + 17, 576]);
    }
}

/// What LiteRT computes with the same network (`scripts/golden-detector`).
fn litert() -> serde_json::Value {
    let file = repository().join("tests/golden-detector.json");
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

fn photo(name: &str) -> image::RgbImage {
    let file = repository().join(format!("model/tests/photos/{name}.jpg"));
    image::open(file).unwrap().to_rgb8()
}

#[test]
fn its_detector_computes_what_litert_computes() {
    let detector = nano().eyes().unwrap().detector().unwrap();
    let side = 300u32;
    let noise = (0..side * side * 3).map(|i| {
        let number = i.wrapping_mul(2_654_435_761) >> 24;
        number as f32 / 127.5 - 1.0
    });
    let shape = (1, side as usize, side as usize, 3);
    let pixels = Tensor::from_iter(noise, &Device::Cpu).unwrap();
    let pixels = pixels.reshape(shape).unwrap();
    let raw = detector
        .raw(&pixels.permute((0, 3, 1, 2)).unwrap())
        .unwrap();
    let golden = &litert()["noise"];
    let every = golden["every"].as_u64().unwrap() as usize;
    for (name, found) in [("boxes", raw.boxes), ("classes", raw.classes)] {
        let found = found.get(0).unwrap().to_vec2::<f32>().unwrap();
        let expected = golden[name].as_array().unwrap();
        assert_eq!(expected.len(), found.len().div_ceil(every));
        for (found, expected) in found.iter().step_by(every).zip(expected) {
            for (found, expected) in found.iter().zip(expected.as_array().unwrap()) {
                let expected = expected.as_f64().unwrap() as f32;
                let most = 1e-3 * (1.0 + expected.abs());
                assert!(
                    (found - expected).abs() < most,
                    "{name}: {found}, not {expected}"
                );
            }
        }
    }
}

#[test]
fn its_detector_finds_in_photos_what_litert_finds() {
    let detector = nano().eyes().unwrap().detector().unwrap();
    for (name, golden) in litert()["photos"].as_object().unwrap() {
        let pixels = detector.pixels(&photo(name)).unwrap().unsqueeze(0).unwrap();
        let raw = detector.raw(&pixels).unwrap();
        let logits = raw.classes.get(0).unwrap().to_vec2::<f32>().unwrap();
        let anchor = golden["anchor"].as_u64().unwrap() as usize;
        let best = logits[anchor][1..].iter().copied().fold(f32::MIN, f32::max);
        let probability = 1.0 / (1.0 + (-f64::from(best)).exp());
        let expected = golden["probability"].as_f64().unwrap();
        // decoders of JPEG differ by a step of brightness
        assert!(
            (probability - expected).abs() < 0.02,
            "{name}: {probability}, not {expected}"
        );
        let words = detector.words(&detector.detect(&pixels).unwrap()[0].found);
        println!("{name}: {words}");
        let person = golden["person"].as_f64().unwrap() > 0.5;
        assert_eq!(!words.starts_with("no people"), person, "{name}: {words}");
    }
}

#[test]
fn a_person_is_counted_and_placed() {
    let seen = nano()
        .see_frames(&[photo("astronaut"), photo("cat")])
        .unwrap();
    let words: Vec<_> = seen
        .iter()
        .filter_map(|m| m.transcript.as_deref())
        .collect();
    assert!(words[0].starts_with("1 person left"), "{words:?}");
    assert!(words[1].starts_with("no people; cat middle. "), "{words:?}");
    assert_ne!(seen[0].key, seen[1].key);
}

/// Nanoseconds that this thread has computed: others on the machine do not count.
fn computed() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse().unwrap()
}

#[test]
#[ignore = "prints how long a picture takes on one thread"]
fn time_of_a_picture() {
    let eyes = nano().eyes().unwrap();
    let prepared = eyes.frames(&[photo("astronaut")]).unwrap();
    let pixels = prepared.for_detector.clone().unwrap();
    let detector = eyes.detector().unwrap();
    let median = |work: &dyn Fn()| {
        let mut times: Vec<_> = (0..30)
            .map(|_| {
                let began = computed();
                work();
                (computed() - began) as f64 / 1e6
            })
            .collect();
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let frame = image::RgbImage::from_fn(1280, 720, |x, y| image::Rgb([x as u8, y as u8, 90]));
    let frame = [frame];
    let prepare = median(&|| drop(eyes.frames(&frame).unwrap()));
    let detect = median(&|| drop(detector.detect(&pixels).unwrap()));
    let look = median(&|| drop(eyes.look(&prepared).unwrap()));
    println!(
        "720p prepared {prepare:.1} ms, detector {detect:.1} ms, detector and encoder {look:.1} ms"
    );
}

#[test]
fn a_typed_question_gets_the_language_models_answer() {
    let conversation = Conversation {
        system: None,
        turns: vec![Turn {
            role: Role::User,
            content: vec![Content::Text("What is the capital of France?".into())],
        }],
    };
    let mut prompt = nano().prompt(&conversation).unwrap();
    // the state of a typed question is known
    prompt.push(Segment::Ids(vec![nano().state_tokens().text]));
    let options = GenerateOptions {
        max_new_tokens: 24,
        ..GenerateOptions::default()
    };
    let answer = nano()
        .generate(&prompt, &options, |_| ControlFlow::Continue(()))
        .unwrap();
    assert!(answer.text.contains("Paris"), "{}", answer.text);
}

#[test]
fn its_folder_can_be_inspected() {
    let inspection = Inspection::of(folder()).unwrap();
    for part in ["audio encoder", "audio decoder", "vision tower", "detector"] {
        assert!(inspection.parts[part].tensors > 0, "{inspection:?}");
    }
}
