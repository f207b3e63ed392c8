//! The voice activity network beside onnxruntime's recorded probabilities, and beside the same graph in candle's
//! operations.

mod graph;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use candle_core::{Device, Tensor};
use graph::Graph;
use proptest::prelude::*;
use vita_model::vad::{self, BLOCK_SAMPLES, SileroState, SileroVad, VadError, onnx};

/// The bound.
const TOLERANCE: f32 = 1e-4;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn cache() -> PathBuf {
    let user = || {
        std::env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"))
            .join("vita-stream")
    };
    std::env::var_os("VITA_CACHE")
        .map(PathBuf::from)
        .unwrap_or_else(user)
}

/// The pinned file of `scripts/parts.tsv`.
fn pinned_onnx() -> Vec<u8> {
    let path = cache().join("models/silero_vad_16k_op15.onnx");
    std::fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; run `make setup`", path.display()))
}

fn committed_weights() -> PathBuf {
    repository().join("models/silero-vad/silero_vad_16k.safetensors")
}

/// Whole blocks of a 16 kHz recording.
fn blocks(path: &Path) -> Vec<[f32; BLOCK_SAMPLES]> {
    let mut wav =
        hound::WavReader::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(
        (wav.spec().sample_rate, wav.spec().channels),
        (vad::SAMPLE_RATE, 1)
    );
    let samples: Vec<f32> = wav
        .samples::<i16>()
        .map(|sample| f32::from(sample.unwrap()) / 32768.0)
        .collect();
    samples.as_chunks().0.to_vec()
}

fn probabilities(network: &SileroVad, blocks: &[[f32; BLOCK_SAMPLES]]) -> Vec<f32> {
    let mut state = SileroState::default();
    blocks
        .iter()
        .map(|block| network.step(&mut state, block))
        .collect()
}

#[track_caller]
fn assert_near(what: &str, actual: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(actual.len(), expected.len(), "{what}: blocks");
    for (block, (actual, expected)) in actual.iter().zip(expected).enumerate() {
        assert!(
            (actual - expected).abs() <= tolerance,
            "{what}, block {block}: {actual}, expected {expected}"
        );
    }
}

#[track_caller]
fn assert_golden(name: &str, recording: &Path) {
    let golden = std::fs::read(repository().join(format!("tests/golden-vad/{name}.json"))).unwrap();
    let golden: serde_json::Value = serde_json::from_slice(&golden).unwrap();
    let expected: Vec<f32> = serde_json::from_value(golden["probabilities"].clone()).unwrap();
    assert!(
        expected.iter().any(|&p| p > 0.9) && expected.iter().any(|&p| p < 0.1),
        "{name}: speech and silence"
    );
    let actual = probabilities(&vad::shared(None).unwrap(), &blocks(recording));
    assert_near(name, &actual, &expected, TOLERANCE);
}

#[test]
fn probabilities_are_those_of_onnxruntime() {
    assert_golden("q1", &repository().join("tests/media/q1.wav"));
    assert_golden("q2", &repository().join("tests/media/q2.wav"));
    assert_golden("jfk", &cache().join("media/jfk.wav"));
    let librivox = Path::new("/usr/share/pocketsphinx/test/data/librivox");
    assert_golden(
        "librivox-0870",
        &librivox.join("sense_and_sensibility_01_austen_64kb-0870.wav"),
    );
    assert_golden(
        "librivox-0930",
        &librivox.join("sense_and_sensibility_01_austen_64kb-0930.wav"),
    );
}

#[test]
fn committed_weights_are_the_initialisers_of_the_pinned_onnx() {
    let initialisers = onnx::initialisers(&pinned_onnx()).unwrap();
    let committed = candle_core::safetensors::load(committed_weights(), &Device::Cpu).unwrap();
    assert_eq!(initialisers.len(), 15);
    assert_eq!(committed.len(), initialisers.len());
    let bits = |tensor: &Tensor| -> Vec<u32> {
        tensor
            .flatten_all()
            .unwrap()
            .to_vec1::<f32>()
            .unwrap()
            .into_iter()
            .map(f32::to_bits)
            .collect()
    };
    for (name, expected) in &initialisers {
        assert_eq!(committed[name].dims(), expected.dims(), "{name}");
        assert_eq!(bits(&committed[name]), bits(expected), "{name}");
    }
}

#[test]
fn probabilities_are_those_of_the_graph_in_candle() {
    let blocks = blocks(&repository().join("tests/media/q2.wav"));
    let mut graph = Graph::new();
    let expected: Vec<f32> = blocks
        .iter()
        .map(|block| graph.step(block).unwrap())
        .collect();
    assert_near(
        "q2",
        &probabilities(&vad::shared(None).unwrap(), &blocks),
        &expected,
        1e-5,
    );
}

#[test]
fn streams_that_take_turns_do_not_hear_each_other() {
    let network = vad::shared(None).unwrap();
    let one = blocks(&repository().join("tests/media/q1.wav"));
    let other = blocks(&repository().join("tests/media/q2.wav"));
    let (mut of_one, mut of_other) = (SileroState::default(), SileroState::default());
    let together: (Vec<f32>, Vec<f32>) = one
        .iter()
        .zip(&other)
        .map(|(one, other)| {
            (
                network.step(&mut of_one, one),
                network.step(&mut of_other, other),
            )
        })
        .unzip();
    assert_eq!(together.0, probabilities(&network, &one));
    assert_eq!(together.1, probabilities(&network, &other[..one.len()]));
}

#[test]
fn damaged_samples_leave_no_trace_after_a_reset_and_never_a_nan() {
    let network = vad::shared(None).unwrap();
    let mut state = SileroState::default();
    for damage in [
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MAX,
        f32::MIN_POSITIVE,
    ] {
        let probability = network.step(&mut state, &[damage; BLOCK_SAMPLES]);
        assert!(
            (0.0..=1.0).contains(&probability),
            "{damage}: {probability}"
        );
    }
    let speech = blocks(&repository().join("tests/media/q1.wav"));
    assert!(
        speech
            .iter()
            .map(|block| network.step(&mut state, block))
            .any(|p| p > 0.9),
        "it recovers without a reset"
    );
}

#[test]
fn a_file_is_loaded_once_and_shared() {
    let path = committed_weights();
    let first = vad::shared(Some(&path)).unwrap();
    // Another way to say the same file.
    let second = vad::shared(Some(
        &path
            .parent()
            .unwrap()
            .join(".")
            .join(path.file_name().unwrap()),
    ))
    .unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    assert!(Arc::ptr_eq(
        &vad::shared(None).unwrap(),
        &vad::shared(None).unwrap()
    ));
}

#[track_caller]
fn refusal(path: &Path) -> String {
    vad::shared(Some(path)).err().expect("refused").to_string()
}

#[test]
fn a_file_that_will_not_do_is_named_with_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("none.safetensors");
    assert!(
        refusal(&missing).starts_with(&format!("cannot read {}: No such file", missing.display()))
    );

    let other = folder.path().join("other.safetensors");
    let tensors = HashMap::from([(
        "weight",
        Tensor::zeros(3, candle_core::DType::F32, &Device::Cpu).unwrap(),
    )]);
    candle_core::safetensors::save(&tensors, &other).unwrap();
    let message = refusal(&other);
    assert!(
        message.contains(other.to_str().unwrap())
            && message.contains("model.stft.forward_basis_buffer"),
        "{message}"
    );

    std::fs::write(&other, b"not tensors").unwrap();
    assert!(refusal(&other).contains("the weights are not those of silero vad v6"));
    assert!(matches!(
        SileroVad::from_onnx(&[]),
        Err(VadError::Onnx(onnx::OnnxError::NoGraph))
    ));
    assert!(SileroVad::from_onnx(&pinned_onnx()).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_damaged_onnx_is_an_error_or_tensors(at in any::<prop::sample::Index>(), byte in any::<u8>(), end in any::<prop::sample::Index>()) {
        let mut bytes = pinned_onnx();
        // Most of the file is weights; the structure stands around them.
        let near = at.index(4096);
        bytes[near] = byte;
        let _ = onnx::initialisers(&bytes);
        bytes.truncate(end.index(bytes.len()));
        let _ = onnx::initialisers(&bytes);
    }
}
