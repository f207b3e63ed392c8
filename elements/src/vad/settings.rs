//! The properties' values, and what they mean in samples.

use std::path::PathBuf;

use gst::{glib, prelude::*};
use vita_dialogue::utterance::{MIN_SPEECH, UtteranceSettings};
use vita_model::vad::{BLOCK_SAMPLES, SAMPLE_RATE};

/// Nanoseconds of a sample: a whole number, so positions and times convert exactly.
pub(super) const SAMPLE_NS: u64 = 1_000_000_000 / SAMPLE_RATE as u64;
/// Samples of a block of the network.
pub(super) const BLOCK: u64 = BLOCK_SAMPLES as u64;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Settings {
    pub(super) model: Option<PathBuf>,
    pub(super) threshold: f64,
    pub(super) hysteresis: f64,
    pub(super) min_silence: gst::ClockTime,
    pub(super) pre_padding: gst::ClockTime,
    pub(super) post_padding: gst::ClockTime,
    pub(super) min_speech: gst::ClockTime,
    pub(super) max_utterance: gst::ClockTime,
    pub(super) max_gap: gst::ClockTime,
}

impl Default for Settings {
    /// The rule's numbers are those of the paper's demo (spec section 7.2).
    fn default() -> Self {
        Self {
            model: None,
            threshold: 0.7,
            hysteresis: 0.15,
            min_silence: gst::ClockTime::from_mseconds(500),
            pre_padding: gst::ClockTime::from_mseconds(150),
            post_padding: gst::ClockTime::from_mseconds(100),
            min_speech: gst::ClockTime::from_mseconds(MIN_SPEECH.as_millis() as u64),
            max_utterance: gst::ClockTime::from_seconds(30),
            max_gap: gst::ClockTime::from_mseconds(100),
        }
    }
}

impl Settings {
    /// Always valid: the longest utterance is long enough for its padding and the shortest speech.
    pub(super) fn rule(&self) -> UtteranceSettings {
        let (pre_padding, min_speech) = (samples(self.pre_padding), samples(self.min_speech));
        UtteranceSettings {
            threshold: self.threshold,
            hysteresis: self.hysteresis,
            min_silence: samples(self.min_silence),
            pre_padding,
            post_padding: samples(self.post_padding),
            min_speech,
            max_utterance: samples(self.max_utterance).max(pre_padding + min_speech + 2 * BLOCK),
        }
    }

    /// Samples that are held back behind the last whole block, so that a start is known before its first sample leaves.
    pub(super) fn hold_back(&self) -> u64 {
        samples(self.pre_padding)
    }

    /// How long a sample stays here at most, in a stream that arrives in time.
    pub(super) fn latency(&self) -> gst::ClockTime {
        gst::ClockTime::from_nseconds((self.hold_back() + BLOCK) * SAMPLE_NS)
    }

    pub(super) fn properties() -> Vec<glib::ParamSpec> {
        let defaults = Self::default();
        let probability = |name, nick, blurb, minimum, default| {
            glib::ParamSpecDouble::builder(name)
                .nick(nick)
                .blurb(blurb)
                .minimum(minimum)
                .maximum(1.0)
                .default_value(default)
                .mutable_playing()
                .build()
        };
        let time = |name,
                    nick,
                    blurb,
                    minimum: gst::ClockTime,
                    maximum: gst::ClockTime,
                    default: gst::ClockTime| {
            glib::ParamSpecUInt64::builder(name)
                .nick(nick)
                .blurb(blurb)
                .minimum(minimum.nseconds())
                .maximum(maximum.nseconds())
                .default_value(default.nseconds())
                .mutable_playing()
                .build()
        };
        let second = gst::ClockTime::SECOND;
        vec![
            glib::ParamSpecString::builder("model")
                .nick("Model file")
                .blurb("Weights of Silero VAD v6 for 16 kHz (safetensors); none: those inside the plugin")
                .mutable_ready()
                .build(),
            probability(
                "threshold",
                "Threshold",
                "Probability from which a block of 32 ms is speech",
                0.01,
                defaults.threshold,
            ),
            probability(
                "hysteresis",
                "Hysteresis",
                "A block is silence below threshold - hysteresis (never below 0.01)",
                0.0,
                defaults.hysteresis,
            ),
            time(
                "min-silence",
                "Minimum silence",
                "Silence after its first block that ends an utterance (ns)",
                gst::ClockTime::ZERO,
                10 * second,
                defaults.min_silence,
            ),
            time(
                "pre-padding",
                "Padding before speech",
                "Audio before the first block of speech that belongs to the utterance (ns); adds as much latency",
                gst::ClockTime::ZERO,
                5 * second,
                defaults.pre_padding,
            ),
            time(
                "post-padding",
                "Padding after speech",
                "Audio after the last block of speech that belongs to the utterance (ns)",
                gst::ClockTime::ZERO,
                5 * second,
                defaults.post_padding,
            ),
            time(
                "min-speech",
                "Minimum speech",
                "Utterances with less speech, padding not counted, end with accepted=false (ns)",
                gst::ClockTime::ZERO,
                10 * second,
                defaults.min_speech,
            ),
            time(
                "max-utterance",
                "Maximum utterance",
                "Utterances are cut at this length (ns); never below pre-padding + min-speech + 64 ms",
                gst::ClockTime::ZERO,
                600 * second,
                defaults.max_utterance,
            ),
            time(
                "max-gap",
                "Maximum gap",
                "Jumps of time up to this do not end an utterance (ns)",
                gst::ClockTime::ZERO,
                10 * second,
                defaults.max_gap,
            ),
        ]
    }

    /// Takes the value of the property `name` of [`Self::properties`].
    pub(super) fn set(&mut self, name: &str, value: &glib::Value) {
        let probability = || value.get().expect("type checked by GObject");
        let time = || gst::ClockTime::from_nseconds(value.get().expect("type checked by GObject"));
        match name {
            "model" => {
                let file: Option<String> = value.get().expect("type checked by GObject");
                self.model = file.map(PathBuf::from);
            }
            "threshold" => self.threshold = probability(),
            "hysteresis" => self.hysteresis = probability(),
            "min-silence" => self.min_silence = time(),
            "pre-padding" => self.pre_padding = time(),
            "post-padding" => self.post_padding = time(),
            "min-speech" => self.min_speech = time(),
            "max-utterance" => self.max_utterance = time(),
            "max-gap" => self.max_gap = time(),
            _ => unreachable!("GObject knows the names"),
        }
    }

    /// The value of the property `name` of [`Self::properties`].
    pub(super) fn get(&self, name: &str) -> glib::Value {
        match name {
            "model" => self
                .model
                .as_ref()
                .map(|file| file.display().to_string())
                .to_value(),
            "threshold" => self.threshold.to_value(),
            "hysteresis" => self.hysteresis.to_value(),
            "min-silence" => self.min_silence.nseconds().to_value(),
            "pre-padding" => self.pre_padding.nseconds().to_value(),
            "post-padding" => self.post_padding.nseconds().to_value(),
            "min-speech" => self.min_speech.nseconds().to_value(),
            "max-utterance" => self.max_utterance.nseconds().to_value(),
            "max-gap" => self.max_gap.nseconds().to_value(),
            _ => unreachable!("GObject knows the names"),
        }
    }
}

fn samples(time: gst::ClockTime) -> u64 {
    time.nseconds() / SAMPLE_NS
}
