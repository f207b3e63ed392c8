//! A checkpoint goes through the quantiser and comes back from the file as near as its format allows.

use std::collections::HashMap;
use std::fs::{self, File};
use std::ops::ControlFlow;
use std::path::Path;

use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file;
use candle_core::{Device, Tensor};
use tempfile::TempDir;
use vita_model::checkpoint::QUANTISED_FILE;
use vita_model::prompt::{Content, Conversation, Role, Turn};
use vita_model::quantize::{LmFormat, QuantizeOptions, TowerFormat, quantize};
use vita_model::{ErrorKind, GenerateOptions, LoadOptions, Vita};

fn checkpoint(dir: &Path) -> HashMap<String, Tensor> {
    let random =
        |shape: &[usize]| Tensor::randn(0f32, 0.05, shape, &Device::Cpu).expect("random numbers");
    let tensors: HashMap<String, Tensor> = [
        ("model.embed_tokens.weight", vec![64, 512]),
        ("model.layers.0.self_attn.v_proj.weight", vec![128, 512]),
        ("model.layers.1.self_attn.v_proj.weight", vec![128, 512]),
        ("model.layers.0.block_sparse_moe.gate.weight", vec![16, 512]),
        ("model.layers.0.input_layernorm.weight", vec![512]),
        ("lm_head.weight", vec![64, 512]),
        ("model.mm_projector.0.weight", vec![96, 100]),
        ("model.audio_encoder.adpter.conv1d2.weight", vec![64, 48, 5]),
    ]
    .into_iter()
    .map(|(name, shape)| (name.to_owned(), random(&shape)))
    .collect();
    candle_core::safetensors::save(&tensors, dir.join("model.safetensors")).expect("saves");
    fs::write(dir.join("config.json"), "{}").expect("writes");
    fs::create_dir(dir.join("audio_encoder")).expect("creates");
    fs::write(dir.join("audio_encoder/train.yaml"), "input_dim: 80").expect("writes");
    fs::write(
        dir.join("audio_encoder/final.pt"),
        "weights that are in the safetensors file",
    )
    .expect("writes");
    tensors
}

/// Every tensor of the file, with its format and its distance from the original.
fn compare(out: &Path, originals: &HashMap<String, Tensor>) -> HashMap<String, (GgmlDType, f32)> {
    let mut file = File::open(out.join(QUANTISED_FILE)).expect("opens");
    let content = gguf_file::Content::read(&mut file).expect("another reader reads it");
    assert_eq!(content.tensor_infos.len(), originals.len());
    originals
        .iter()
        .map(|(name, original)| {
            let tensor = content
                .tensor(&mut file, name, &Device::Cpu)
                .expect("is there");
            let back = tensor.dequantize(&Device::Cpu).expect("dequantises");
            assert_eq!(back.dims(), original.dims(), "{name}");
            let difference = (back - original)
                .and_then(|d| d.abs()?.max_all()?.to_scalar::<f32>())
                .expect("same shapes");
            (name.clone(), (tensor.dtype(), difference))
        })
        .collect()
}

#[test]
fn tensors_come_back_as_near_as_their_format_allows() {
    let from = TempDir::new().expect("a folder");
    let originals = checkpoint(from.path());
    for lm in [
        LmFormat::Q8_0,
        LmFormat::Q4_0,
        LmFormat::Q4KM,
        LmFormat::F16,
    ] {
        for towers in [
            TowerFormat::F16,
            TowerFormat::BF16,
            TowerFormat::Q8_0,
            TowerFormat::F32,
        ] {
            let to = TempDir::new().expect("a folder");
            let mut seen = Vec::new();
            let report = quantize(
                from.path(),
                to.path(),
                QuantizeOptions { lm, towers },
                |p| seen.push((p.done, p.total)),
            );
            let report = report.expect("quantises");
            assert_eq!(
                seen,
                (0..originals.len())
                    .map(|i| (i, originals.len()))
                    .collect::<Vec<_>>()
            );
            assert_eq!(
                report.bytes_after,
                fs::metadata(to.path().join(QUANTISED_FILE))
                    .expect("is there")
                    .len()
            );
            assert!(report.bytes_after < report.bytes_before);
            for (name, (format, difference)) in compare(to.path(), &originals) {
                // The largest of some ten thousand numbers of deviation 0.05 is near 0.2.
                let allowed = match format {
                    GgmlDType::F32 => 0.0,
                    GgmlDType::F16 => 1e-4,
                    GgmlDType::BF16 => 1e-3,
                    GgmlDType::Q8_0 => 1.1e-3,
                    GgmlDType::Q6K => 6e-3,
                    _ => 0.03,
                };
                assert!(difference <= allowed, "{name} as {format:?}: {difference}");
            }
        }
    }
}

#[test]
fn the_mixed_format_and_its_exceptions_are_in_the_file() {
    let (from, to) = (
        TempDir::new().expect("a folder"),
        TempDir::new().expect("a folder"),
    );
    let originals = checkpoint(from.path());
    let options = QuantizeOptions {
        lm: LmFormat::Q4KM,
        ..QuantizeOptions::default()
    };
    quantize(from.path(), to.path(), options, |_| ()).expect("quantises");
    let formats = compare(to.path(), &originals);
    let format = |name: &str| formats[name].0;
    assert_eq!(
        format("model.layers.0.self_attn.v_proj.weight"),
        GgmlDType::Q6K
    );
    assert_eq!(
        format("model.layers.1.self_attn.v_proj.weight"),
        GgmlDType::Q4K
    );
    assert_eq!(
        format("model.layers.0.block_sparse_moe.gate.weight"),
        GgmlDType::F32
    );
    assert_eq!(
        format("model.layers.0.input_layernorm.weight"),
        GgmlDType::F32
    );
    assert_eq!(format("model.mm_projector.0.weight"), GgmlDType::F16);

    assert!(
        to.path().join("config.json").is_file()
            && to.path().join("audio_encoder/train.yaml").is_file()
    );
    assert!(
        !to.path().join("model.safetensors").exists()
            && !to.path().join("audio_encoder/final.pt").exists()
    );
}

#[test]
fn nothing_is_written_over_and_no_half_file_stays() {
    let (from, to) = (
        TempDir::new().expect("a folder"),
        TempDir::new().expect("a folder"),
    );
    checkpoint(from.path());
    let again = quantize(from.path(), from.path(), QuantizeOptions::default(), |_| ())
        .expect_err("not empty");
    assert_eq!(again.kind(), ErrorKind::Input);
    assert!(again.to_string().contains("is not empty"), "{again}");

    let model = from.path().join("model.safetensors");
    let bytes = fs::read(&model).expect("reads");
    fs::write(&model, &bytes[..bytes.len() - 1]).expect("cuts");
    let cut =
        quantize(from.path(), to.path(), QuantizeOptions::default(), |_| ()).expect_err("cut off");
    assert_eq!(cut.kind(), ErrorKind::Format);
    assert!(!to.path().join(QUANTISED_FILE).exists());
}

#[test]
fn a_quantised_checkpoint_loads_and_answers_nearly_as_before() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/checkpoint");
    let conversation = Conversation {
        system: Some("You are VITA.".into()),
        turns: vec![Turn {
            role: Role::User,
            content: vec![Content::Text("what is this?".into())],
        }],
    };
    let states = |folder: &Path| {
        let vita = Vita::load(folder, &LoadOptions::default()).expect("loads");
        let prompt = vita.prompt(&conversation).expect("a prompt");
        let options = GenerateOptions {
            max_new_tokens: 1,
            ..GenerateOptions::default()
        };
        let answer = vita
            .generate(&prompt, &options, |_| ControlFlow::Continue(()))
            .expect("answers");
        [answer.states.query, answer.states.noise, answer.states.text]
    };
    let exact = states(&golden);
    for (lm, tolerance) in [(LmFormat::F16, 0.01), (LmFormat::Q8_0, 0.2)] {
        let to = TempDir::new().expect("a folder");
        let options = QuantizeOptions {
            lm,
            ..QuantizeOptions::default()
        };
        quantize(&golden, to.path(), options, |_| ()).expect("quantises");
        for (before, after) in exact.iter().zip(states(to.path())) {
            // Relative, since probabilities among 768 random tokens are small.
            assert!(
                (after / before - 1.0).abs() < tolerance,
                "{lm:?}: {before} became {after}"
            );
        }
    }
}
