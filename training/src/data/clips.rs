//! Makes the sound of the planned items.

use super::augment::trimmed;
use super::config::DataConfig;
use super::neural::Neural;
use super::plan::{Clip, Planned, rng_for};
use super::sound::{self, Recording, SYNTHETIC, at_peak, piece};
use super::speech::{self, RATE_HZ, Voice};
use super::{Error, Progress, Result};
use crate::{Item, Split};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rayon::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Clips of speech that babble is mixed from, a split.
const BABBLE_VOICES: usize = 24;

#[derive(Default)]
pub struct Clips {
    pub items: Vec<Item>,
    pub secs: f64,
    pub failed: usize,
    pub first_failure: Option<String>,
    pub notes: Vec<String>,
}

/// What clips are made with.
struct Studio<'a> {
    config: &'a DataConfig,
    neural: &'a Neural,
    wavs: PathBuf,
    recordings: Vec<Recording>,
    /// Clean speech by split.
    crowd: Vec<(Split, Vec<f32>)>,
}

pub fn make(
    planned: Vec<Planned>,
    config: &DataConfig,
    folder: &Path,
    neural: &Neural,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Clips> {
    let wavs = folder.join("wav");
    std::fs::create_dir_all(&wavs).map_err(Error::io(&wavs))?;
    let mut studio = Studio {
        config,
        neural,
        wavs,
        recordings: sound::recordings()?,
        crowd: Vec::new(),
    };
    let mut clips = Clips::default();
    if studio.recordings.is_empty() {
        clips
            .notes
            .push("no recordings of sounds are installed: noise is made up".to_owned());
    }
    studio.crowd = crowd(&planned, &studio)?;
    let total = planned.iter().filter(|p| p.clip.is_some()).count();
    let done = AtomicUsize::new(0);
    let one = |planned: Planned| {
        let Some(clip) = &planned.clip else {
            return (planned.item, Ok(0.0));
        };
        let made = studio.clip(&planned.item, clip);
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        progress(Progress {
            what: "clips",
            done,
            total,
        });
        match made {
            Ok((path, secs)) => {
                let audio = Some(path);
                (
                    Item {
                        audio,
                        ..planned.item
                    },
                    Ok(secs),
                )
            }
            Err(e) => (planned.item, Err(e)),
        }
    };
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(config.threads.max(1))
        .build()
        .map_err(|e| Error::tool("threads", e.to_string()))?;
    let results: Vec<_> = pool.install(|| planned.into_par_iter().map(one).collect());
    for (item, made) in results {
        match made {
            Ok(secs) => {
                clips.secs += secs;
                clips.items.push(item);
            }
            Err(e) => {
                clips.failed += 1;
                clips
                    .first_failure
                    .get_or_insert_with(|| format!("{}: {e}", item.words));
            }
        }
    }
    // One sentence that a voice can't say is no reason to stop; a program that isn't there is one.
    match clips.first_failure.take() {
        Some(reason) if clips.failed * 10 > total => Err(Error::tool("clips", reason)),
        reason => {
            clips.first_failure = reason;
            Ok(clips)
        }
    }
}

/// Clean speech of each split, for babble.
fn crowd(planned: &[Planned], studio: &Studio) -> Result<Vec<(Split, Vec<f32>)>> {
    let mut found = Vec::new();
    for split in [Split::Train, Split::Valid, Split::Test] {
        let spoken = planned.iter().filter(|p| p.item.split == split);
        let spoken = spoken.filter_map(|p| match &p.clip {
            Some(Clip::Speech(voice)) if p.item.group.as_deref() == Some("prose") => {
                Some((&p.item, voice))
            }
            _ => None,
        });
        for (item, voice) in spoken.take(BABBLE_VOICES) {
            found.push((split, studio.clean(item, voice)?));
        }
    }
    Ok(found)
}

impl Studio<'_> {
    /// The clip's path and length in seconds; made unless it is there.
    fn clip(&self, item: &Item, clip: &Clip) -> Result<(PathBuf, f64)> {
        let path = self.wavs.join(format!("{}.wav", item.id));
        if let Some(secs) = length_secs(&path) {
            return Ok((path, secs));
        }
        let mut rng = rng_for(self.config.seed, &item.id);
        let samples = match clip {
            Clip::Speech(voice) => {
                let speech = self.clean(item, voice)?;
                if trimmed(&speech).len() < RATE_HZ as usize / 10 {
                    return Err(Error::tool(&voice.name, "said nothing"));
                }
                let background = self.background(item.split, &mut rng);
                self.config
                    .augment
                    .apply(&speech, Some(&background), &mut rng)
            }
            Clip::Sound(group) => self.sound(item.split, group, &mut rng),
        };
        write_wav(&path, &samples)?;
        Ok((path, samples.len() as f64 / f64::from(RATE_HZ)))
    }

    fn clean(&self, item: &Item, voice: &Voice) -> Result<Vec<f32>> {
        let mut rng = rng_for(self.config.seed, &format!("{}|speech", item.id));
        let speech = speech::say(voice, &item.words, &mut rng, self.neural, &self.wavs)?;
        Ok(at_peak(speech, 0.7))
    }

    /// Ten seconds of what may stand behind speech.
    fn background(&self, split: Split, rng: &mut StdRng) -> Vec<f32> {
        let length = 10 * RATE_HZ as usize;
        match rng.random_range(0..10) {
            0..3 => self.babble(split, length, rng),
            3..6 => {
                let group = ["real-sound", "music", "music", "chime"]
                    .choose(rng)
                    .copied()
                    .unwrap_or("music");
                self.recording(split, group, length, rng)
            }
            6..9 => sound::synthetic("hiss", length, rng),
            _ => sound::synthetic("hum", length, rng),
        }
    }

    fn sound(&self, split: Split, group: &'static str, rng: &mut StdRng) -> Vec<f32> {
        let length = (rng.random_range(0.4..6.0) * RATE_HZ as f32) as usize;
        let mut samples = match group {
            "babble" => self.babble(split, length.max(RATE_HZ as usize), rng),
            made_up if SYNTHETIC.contains(&made_up) => sound::synthetic(made_up, length, rng),
            recorded => self.recording(split, recorded, length, rng),
        };
        if group == "silence" {
            return samples;
        }
        let hiss = sound::synthetic("hiss", samples.len(), rng);
        let level = rng.random_range(0.0..0.1);
        samples
            .iter_mut()
            .zip(hiss)
            .for_each(|(x, h)| *x += level * h);
        let gain = self.config.augment.gain;
        at_peak(samples, rng.random_range(gain[0]..=gain[1]) * 0.98)
    }

    fn recording(&self, split: Split, group: &str, length: usize, rng: &mut StdRng) -> Vec<f32> {
        let fitting: Vec<&Recording> = self
            .recordings
            .iter()
            .filter(|r| r.split == split && r.group == group)
            .collect();
        match fitting.choose(rng) {
            Some(recording) => at_peak(piece(&recording.samples, length, rng), 0.5),
            None => sound::synthetic("melody", length, rng),
        }
    }

    /// Four to seven people at once.
    fn babble(&self, split: Split, length: usize, rng: &mut StdRng) -> Vec<f32> {
        let people: Vec<&Vec<f32>> = self
            .crowd
            .iter()
            .filter(|(s, _)| *s == split)
            .map(|(_, x)| x)
            .collect();
        let mut out = vec![0.0; length];
        for _ in 0..rng.random_range(4..8) {
            let Some(speech) = people.choose(rng).filter(|s| !s.is_empty()) else {
                return sound::synthetic("hiss", length, rng);
            };
            let (from, level) = (
                rng.random_range(0..speech.len()),
                rng.random_range(0.4..1.0),
            );
            let speech = speech.iter().cycle().skip(from);
            out.iter_mut()
                .zip(speech)
                .for_each(|(x, s)| *x += level * s);
        }
        at_peak(out, 0.5)
    }
}

/// The length of a whole WAV file; `None` where there is none, or one that was cut off.
fn length_secs(path: &Path) -> Option<f64> {
    let reader = hound::WavReader::open(path).ok()?;
    let bytes = std::fs::metadata(path).ok()?.len();
    let whole = reader.duration() > 0 && bytes >= u64::from(reader.duration()) * 2;
    whole.then(|| f64::from(reader.duration()) / f64::from(RATE_HZ))
}

fn write_wav(path: &Path, samples: &[f32]) -> Result<()> {
    let part = path.with_extension("part");
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: RATE_HZ,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let write = || -> Result<(), hound::Error> {
        let mut writer = hound::WavWriter::create(&part, spec)?;
        for sample in samples {
            writer.write_sample((sample.clamp(-1.0, 1.0) * 32_767.0).round() as i16)?;
        }
        writer.finalize()?;
        Ok(std::fs::rename(&part, path)?)
    };
    write().map_err(|e| Error::tool("wav", format!("{}: {e}", path.display())))
}
