//! What comes before the encoders: filterbanks, resampling, choice of frames (`audio.safetensors`,
//! `resample.safetensors`, `video_indices.json`).

use crate::support::{FBANK, Folder, RESAMPLE, Report, say};
use candle_core::{Device, Tensor};
use std::path::PathBuf;
use vita_model::Result;
use vita_model::fbank::Fbank;
use vita_model::resample::resample;
use vita_model::video::{File, FrameSelection, Rule, live};

struct Ears {
    fbank: Fbank,
    rate_hz: u32,
}

impl Ears {
    fn load(folder: &Folder) -> Self {
        let (config, _) = folder.model();
        Self {
            fbank: Fbank::whale(&config.fbank).unwrap(),
            rate_hz: config.fbank.sample_rate_hz,
        }
    }

    fn frames(&self, samples: &[f32]) -> Result<Tensor> {
        let frames = self.fbank.compute(samples).unwrap();
        Ok(Tensor::from_vec(
            frames,
            ((), self.fbank.num_mel_bins()),
            &Device::Cpu,
        )?)
    }
}

#[test]
fn golden_fbank() {
    let folder = Folder::find();
    let Some(tensors) = folder.tensors("audio.safetensors") else {
        return say("no audio.safetensors: skipped");
    };
    let ears = Ears::load(&folder);
    let mut report = Report::new("audio");
    for (name, golden) in tensors.with_prefix("fbank_") {
        let samples = match name.strip_prefix("silence_") {
            Some(count) => vec![0.0; count.parse().unwrap()],
            None => match sound_file(&folder, name) {
                Some(path) => vita_model::wav::read(&path).unwrap().samples,
                None => {
                    say(&format!(
                        "audio/fbank_{name}: no recording of that name, skipped"
                    ));
                    continue;
                }
            },
        };
        report.try_close(
            &format!("fbank_{name}"),
            ears.frames(&samples),
            golden,
            FBANK,
        );
    }
    report.finish();
}

/// Inputs stand in the folder, longer recordings in `media` beside it or in the repository.
fn sound_file(folder: &Folder, name: &str) -> Option<PathBuf> {
    let repository = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/media");
    let places = [
        folder.path("inputs").join(format!("wave_{name}.wav")),
        folder.path("inputs").join(format!("{name}.wav")),
        folder.path("../media").join(format!("{name}.wav")),
        repository.join(format!("{name}.wav")),
    ];
    places.into_iter().find(|path| path.is_file())
}

#[test]
fn golden_resample() {
    let folder = Folder::find();
    let Some(tensors) = folder.tensors("resample.safetensors") else {
        return say("no resample.safetensors: skipped");
    };
    let ears = Ears::load(&folder);
    let mut report = Report::new("resample");
    for (rate, golden) in tensors.with_prefix("from_") {
        let path = folder.path("inputs").join(format!("resample_{rate}.wav"));
        let sound = vita_model::wav::read(&path).unwrap();
        let samples = resample(&sound.samples, sound.sample_rate_hz, ears.rate_hz).unwrap();
        let ours = Tensor::new(samples.as_slice(), &Device::Cpu).unwrap();
        report.close(&format!("from_{rate}"), &ours, golden, RESAMPLE);
        // `quirk_fbank_*` records a defect of the reference
        let name = format!("proper_fbank_from_{rate}");
        if let Some(golden) = tensors.get(&name) {
            report.try_close(&name, ears.frames(&samples), golden, FBANK);
        }
    }
    report.finish();
}

#[test]
fn golden_video_indices() {
    let folder = Folder::find();
    let Some(table) = folder.json("video_indices.json") else {
        return say("no video_indices.json: skipped");
    };
    let (mut ours, mut golden) = (Vec::new(), Vec::new());
    for row in table.as_array().unwrap() {
        let number = |key: &str| row[key].as_u64().unwrap() as usize;
        let selection = FrameSelection {
            rule: Rule::Code,
            min_frames: number("min_frames"),
            max_frames: number("max_frames"),
        };
        let file = File {
            fps: row["fps"].as_f64().unwrap(),
            frames: number("n_frames"),
            seconds: row["start_s"].as_f64().zip(row["end_s"].as_f64()),
        };
        ours.push(match row["mode"].as_str() {
            Some("realtime") => live(file.frames),
            Some(mode) => panic!("unknown mode {mode:?}"),
            None => selection.of_file(&file),
        });
        let indices = row["indices"].as_array().unwrap().iter();
        golden.push(
            indices
                .map(|i| i.as_u64().unwrap() as usize)
                .collect::<Vec<_>>(),
        );
    }
    let mut report = Report::new("video_indices");
    report.equal("frames", &ours, &golden);
    report.finish();
}
