//! Audio encoder and adapter, every stage (`audio.safetensors`, `demo_audio_path.safetensors`,
//! `audio_lengths.json`).

use crate::support::{EXACT, Folder, Report, STAGE, Seen, Tensors, open_model, say};
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeSet;
use std::path::Path;
use vita_model::Result;
use vita_model::audio::{AudioAdapter, Padded, Whale, whale};
use vita_model::checkpoint::load_cmvn;
use vita_model::fbank::Fbank;
use vita_model::nn::Probe;

/// Zero frames that stand for missing audio in the reference's training batches.
const DUMMY_FRAMES: usize = 400;

struct Ears {
    encoder: Whale,
    adapter: AudioAdapter,
    bins: usize,
}

impl Ears {
    fn load(checkpoint: &Path) -> Self {
        let (config, weights) = open_model(checkpoint);
        let w = weights.pp("model.audio_encoder");
        let cmvn = load_cmvn(&config, &weights).unwrap();
        Self {
            encoder: Whale::new(&config.audio, cmvn, &w.pp("encoder")).unwrap(),
            adapter: AudioAdapter::new(&config.adapter, &w.pp("adpter")).unwrap(),
            bins: config.audio.input_dim,
        }
    }

    fn encode(&self, fbank: &Tensor, lengths: &[usize], probe: &mut Probe) -> Result<Padded> {
        let encoded = self.encoder.forward(fbank, lengths, probe)?;
        let tokens = self.adapter.forward(&encoded, probe)?;
        let steps = tokens.values.dim(1)?;
        let valid = tokens
            .lengths
            .iter()
            .flat_map(|&n| (0..steps).map(move |i| u8::from(i < n)));
        let mask =
            Tensor::from_iter(valid, &Device::Cpu)?.reshape((tokens.lengths.len(), steps))?;
        probe.see(format_args!("audio_token_mask"), &mask);
        Ok(tokens)
    }
}

#[test]
fn golden_audio_encoder_and_adapter() {
    let folder = Folder::find();
    let Some(tensors) = folder.tensors("audio.safetensors") else {
        return say("no audio.safetensors: skipped");
    };
    let ears = Ears::load(&folder.checkpoint());
    let mut report = Report::new("audio");
    let groups: BTreeSet<&str> = tensors
        .0
        .keys()
        .filter_map(|n| Some(n.split_once('.')?.0))
        .collect();
    for group in groups {
        compare_group(&ears, &tensors, group, &mut report);
    }
    report.finish();
}

fn compare_group(ears: &Ears, tensors: &Tensors, group: &str, report: &mut Report) {
    let prefix = format!("{group}.");
    let (input, lengths) = match tensors.get(&format!("{prefix}input")) {
        Some(input) => (input.clone(), row_lengths(tensors, &prefix, input)),
        None => {
            let shape = (1, DUMMY_FRAMES, ears.bins);
            (
                Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap(),
                vec![DUMMY_FRAMES],
            )
        }
    };
    let mut seen = Seen::default();
    if let Err(e) = seen.during(|probe| ears.encode(&input, &lengths, probe)) {
        return report.fail(format!("{group}: {e}"));
    }
    for (stage, golden) in tensors.with_prefix(&prefix) {
        let tolerance = if stage.ends_with("mask") {
            EXACT
        } else {
            STAGE
        };
        match (stage, seen.0.get(stage)) {
            ("input" | "lengths", _) => {}
            (_, Some(ours)) => report.close(&format!("{group}.{stage}"), ours, golden, tolerance),
            (_, None) => report.fail(format!(
                "{group}.{stage}: a stage that the encoder does not have"
            )),
        }
    }
}

fn row_lengths(tensors: &Tensors, prefix: &str, input: &Tensor) -> Vec<usize> {
    let (rows, frames, _) = input.dims3().unwrap();
    match tensors.get(&format!("{prefix}lengths")) {
        None => vec![frames; rows],
        Some(lengths) => {
            let lengths = lengths
                .to_dtype(DType::I64)
                .unwrap()
                .to_vec1::<i64>()
                .unwrap();
            lengths.into_iter().map(|n| n as usize).collect()
        }
    }
}

#[test]
fn golden_audio_of_the_demo_layout() {
    let folder = Folder::find();
    let recorded = folder.tensors("demo_audio_path.safetensors");
    let inputs = folder.tensors("audio.safetensors");
    let (Some(recorded), Some(inputs)) = (recorded, inputs) else {
        return say("no demo_audio_path.safetensors: skipped");
    };
    let demo = folder.demo_checkpoint();
    let ears = match &demo {
        Some(demo) => Ears::load(demo.path()),
        None => Ears::load(&folder.checkpoint()),
    };
    let mut report = Report::new("demo_audio_path");
    let mut seen = Seen::default();
    let Some(input) = inputs.get("single.input") else {
        return say("no single.input: skipped");
    };
    let frames = input.dim(1).unwrap();
    seen.during(|probe| ears.encode(input, &[frames], probe))
        .unwrap();
    let stages = [("features", "cmvn"), ("encoder_out", "encoder_out")];
    for (name, ours) in stages {
        if let Some(golden) = recorded.get(name) {
            let ours = seen.0[ours].reshape(golden.dims());
            report.try_close(name, ours.map_err(Into::into), golden, STAGE);
        }
    }
    report.finish();
}

#[test]
fn golden_audio_lengths() {
    let folder = Folder::find();
    let Some(table) = folder.json("audio_lengths.json") else {
        return say("no audio_lengths.json: skipped");
    };
    let (config, _) = folder.model();
    let fbank = Fbank::whale(&config.fbank).unwrap();
    let (mut ours, mut golden) = (Vec::new(), Vec::new());
    for (samples, row) in table.as_object().unwrap() {
        let samples: usize = samples.parse().unwrap();
        let number = |key: &str| row[key].as_i64().unwrap();
        let stages = ["fbank_frames", "after_conv1", "after_conv2", "audio_tokens"];
        golden.push((samples, stages.map(number)));
        let computed = fbank.compute(&vec![0.0; samples]);
        let frames = computed.map_or(-1, |values| (values.len() / fbank.num_mel_bins()) as i64);
        let (first, second) = whale::subsampled(frames.max(0) as usize);
        let lengths = [first, second, second.div_ceil(2)].map(|n| n as i64);
        ours.push((samples, [frames, lengths[0], lengths[1], lengths[2]]));
    }
    let mut report = Report::new("audio_lengths");
    report.equal("frames, steps, tokens", &ours, &golden);
    report.finish();
}
