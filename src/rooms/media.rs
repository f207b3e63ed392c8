//! The media of a script: sound and frames, decoded and put at their times.

use anyhow::Context;
use gst::ClockTime;
use image::RgbImage;

use super::script::{Lost, Script, time};
use crate::ask::decode;

const SAMPLE_RATE_HZ: u64 = 16_000;

/// Samples in a buffer: what a sound card gives, 20 ms.
const BLOCK: usize = 320;

/// Sound and pictures, each at its time.
pub struct Media {
    /// First samples of blocks, with their times; what is lost is not there.
    pub sound: Vec<(ClockTime, Vec<f32>)>,
    pub frames: Vec<(ClockTime, RgbImage)>,
}

impl Media {
    pub fn of(script: &Script) -> anyhow::Result<Self> {
        Ok(Self {
            sound: sound(script)?,
            frames: frames(script)?,
        })
    }

    /// What there is between two times, as a stream that begins at the first of them.
    pub fn between(&self, from: ClockTime, to: ClockTime) -> Self {
        Self {
            sound: part(&self.sound, from, to),
            frames: part(&self.frames, from, to),
        }
    }
}

fn part<T: Clone>(media: &[(ClockTime, T)], from: ClockTime, to: ClockTime) -> Vec<(ClockTime, T)> {
    let inside = media.iter().filter(|(at, _)| (from..to).contains(at));
    inside
        .map(|(at, medium)| (*at - from, medium.clone()))
        .collect()
}

fn sound(script: &Script) -> anyhow::Result<Vec<(ClockTime, Vec<f32>)>> {
    let place = |at: ClockTime| {
        let samples = at.nseconds() * SAMPLE_RATE_HZ / ClockTime::SECOND.nseconds();
        usize::try_from(samples).unwrap_or(usize::MAX)
    };
    let mut samples = vec![0.0_f32; place(script.length())];
    for placed in &script.sounds {
        let heard = decode::sound(&placed.file, false)?.samples;
        let start = place(time(placed.at_secs)).min(samples.len());
        for (sample, heard) in samples[start..].iter_mut().zip(heard) {
            *sample += heard;
        }
    }
    let at = |block: usize| {
        let samples = (block * BLOCK) as u64;
        ClockTime::from_nseconds(samples * ClockTime::SECOND.nseconds() / SAMPLE_RATE_HZ)
    };
    let blocks = samples.chunks(BLOCK).enumerate();
    Ok(blocks
        .map(|(index, block)| (at(index), block.to_vec()))
        .filter(|(at, _)| !is_lost(script, Lost::Sound, *at))
        .collect())
}

/// A still picture is seen each second until the next picture; a video as the model's clip rule chooses its frames.
fn frames(script: &Script) -> anyhow::Result<Vec<(ClockTime, RgbImage)>> {
    let mut frames = Vec::new();
    let mut pictures = script.pictures.clone();
    pictures.sort_by(|a, b| a.at_secs.total_cmp(&b.at_secs));
    for (index, placed) in pictures.iter().enumerate() {
        let picture = decode::picture(&placed.file)?;
        let end = pictures
            .get(index + 1)
            .map_or(script.length(), |next| time(next.at_secs));
        let mut at = time(placed.at_secs);
        while at < end {
            frames.push((at, picture.clone()));
            at += ClockTime::SECOND;
        }
    }
    for placed in &script.videos {
        let clip = decode::clip(&placed.file).context("cannot take the video")?;
        let start = time(placed.at_secs);
        frames.extend(clip.into_iter().map(|frame| {
            let at = start + ClockTime::from_nseconds(frame.stream_time_ns);
            (at, frame.picture)
        }));
    }
    frames.retain(|(at, _)| *at < script.length() && !is_lost(script, Lost::Pictures, *at));
    frames.sort_by_key(|(at, _)| *at);
    Ok(frames)
}

fn is_lost(script: &Script, medium: Lost, at: ClockTime) -> bool {
    let mut losses = script.acts.iter().filter_map(|act| act.loses(medium));
    losses.any(|loss| loss.contains(&at))
}
