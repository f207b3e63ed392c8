//! Where utterances begin and end, from the probability of speech of each block of audio.
//!
//! The rule is that of the paper's demo (spec section 7.2, the iterator of Silero VAD): speech begins with the first
//! block whose probability reaches the threshold; it ends when, after a block below the threshold minus the hysteresis,
//! no block reaches the threshold for the minimum of silence. Positions are counted in samples since the last
//! [`UtteranceRule::reset`], and are exact; what time they are is the caller's knowledge.

use std::time::Duration;

use thiserror::Error;

/// Less speech than this is no utterance, here and in the dialogue, unless a setting says otherwise. The paper's demo drops
/// what is shorter than 1.5 s with the blocks around it, which comes down to two blocks of 256 ms that hold some speech
/// (spec section 7.2).
pub const MIN_SPEECH: Duration = Duration::from_millis(250);

/// What makes an utterance. Lengths are in samples.
#[derive(Clone, Debug, PartialEq)]
pub struct UtteranceSettings {
    /// Probability from which a block is speech.
    pub threshold: f64,
    /// A block is silence below `threshold - hysteresis`. Between the two a block neither begins nor ends anything.
    pub hysteresis: f64,
    /// An utterance ends with the first silent block that ends this long after the end of the first silent one.
    pub min_silence: u64,
    /// Audio before the first block of speech that belongs to the utterance.
    pub pre_padding: u64,
    /// Audio after the last block of speech that belongs to the utterance, as far as it has been heard.
    pub post_padding: u64,
    /// Utterances with less speech than this, padding not counted, are reported as not accepted.
    pub min_speech: u64,
    /// Utterances are cut at this length, padding counted; what is said on is the next utterance.
    pub max_utterance: u64,
}

/// A probability below this is always silence, whatever the hysteresis; else an utterance might never end (as in
/// Silero's own iterator).
const CERTAIN_SILENCE: f64 = 0.01;

/// A setting that cannot be.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum SettingsError {
    #[error("{name} is {value}, expected {expected}")]
    Probability {
        name: &'static str,
        value: f64,
        expected: &'static str,
    },
    #[error(
        "maximum utterance is {max_utterance} samples, expected more than pre-padding and minimum speech together ({least})"
    )]
    MaxUtterance { max_utterance: u64, least: u64 },
}

impl UtteranceSettings {
    /// # Errors
    /// Where a probability is out of range, or where no utterance could be long enough to be accepted.
    pub fn validate(&self) -> Result<(), SettingsError> {
        if !(self.threshold > 0.0 && self.threshold <= 1.0) {
            return Err(SettingsError::Probability {
                name: "threshold",
                value: self.threshold,
                expected: "more than 0 and at most 1",
            });
        }
        if !(0.0..=1.0).contains(&self.hysteresis) {
            return Err(SettingsError::Probability {
                name: "hysteresis",
                value: self.hysteresis,
                expected: "0 to 1",
            });
        }
        let least = self.pre_padding.saturating_add(self.min_speech);
        if self.max_utterance <= least {
            return Err(SettingsError::MaxUtterance {
                max_utterance: self.max_utterance,
                least,
            });
        }
        Ok(())
    }

    fn silence_below(&self) -> f64 {
        (self.threshold - self.hysteresis).max(CERTAIN_SILENCE)
    }
}

/// Why an utterance ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// Enough silence was heard.
    Silence,
    /// It reached the maximum length; what follows may be its second part.
    MaxDuration,
    /// The stream ended.
    Eos,
    /// The stream was flushed or stopped.
    Flush,
    /// Audio is missing, or time jumped.
    Gap,
}

impl EndReason {
    /// As messages say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Silence => "silence",
            Self::MaxDuration => "max-duration",
            Self::Eos => "eos",
            Self::Flush => "flush",
            Self::Gap => "gap",
        }
    }
}

/// An utterance began.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SpeechStart {
    /// 1 for the first utterance of a rule; resets do not begin again.
    pub utterance_id: u64,
    /// First sample of the utterance, pre-padding included. Not before the end of the utterance before.
    pub start: u64,
    /// First sample of the first block of speech.
    pub onset: u64,
    /// Of that block.
    pub probability: f64,
}

/// An utterance ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SpeechEnd {
    pub utterance_id: u64,
    /// As in [`SpeechStart`].
    pub start: u64,
    /// As in [`SpeechStart`].
    pub onset: u64,
    /// First sample after the speech: that of the first silent block.
    pub offset: u64,
    /// First sample after the utterance, post-padding included as far as audio has been heard.
    pub end: u64,
    /// Mean probability of the blocks from `onset` to `offset`, each counted by its length.
    pub probability: f64,
    /// The speech was at least the minimum.
    pub accepted: bool,
    pub reason: EndReason,
}

/// What a block of audio brought.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum UtteranceEvent {
    Start(SpeechStart),
    End(SpeechEnd),
}

/// The rule, and where it stands in one stream.
#[derive(Clone, Debug)]
pub struct UtteranceRule {
    settings: UtteranceSettings,
    /// Samples heard since the last reset.
    position: u64,
    /// Before this, samples belong to an earlier utterance.
    free_from: u64,
    last_id: u64,
    open: Option<Open>,
}

/// The utterance that is being heard.
#[derive(Clone, Debug)]
struct Open {
    start: u64,
    onset: u64,
    /// Sum of probability × samples since the onset.
    weight: f64,
    silence: Option<Silence>,
}

/// The run of blocks, from the first silent one, in which no block is speech.
#[derive(Clone, Debug)]
struct Silence {
    start: u64,
    /// End of its first block, from where the minimum is counted.
    counted_from: u64,
    /// `Open::weight` at its start.
    weight: f64,
}

impl UtteranceRule {
    /// # Errors
    /// As [`UtteranceSettings::validate`].
    pub fn new(settings: UtteranceSettings) -> Result<Self, SettingsError> {
        settings.validate()?;
        Ok(Self {
            settings,
            position: 0,
            free_from: 0,
            last_id: 0,
            open: None,
        })
    }

    /// Other settings from the next block on, also for an utterance that is open.
    ///
    /// # Errors
    /// As [`UtteranceSettings::validate`]; then the settings stay as they were.
    pub fn set_settings(&mut self, settings: UtteranceSettings) -> Result<(), SettingsError> {
        settings.validate()?;
        self.settings = settings;
        Ok(())
    }

    /// Takes the next block: its length in samples and its probability of speech. A block brings one event at most.
    pub fn push(&mut self, samples: u64, probability: f64) -> Option<UtteranceEvent> {
        let block_start = self.position;
        self.position += samples;
        let is_speech = probability >= self.settings.threshold;
        let is_silent = probability < self.settings.silence_below();
        let weight = probability * samples as f64;

        let Some(open) = &mut self.open else {
            return is_speech
                .then(|| UtteranceEvent::Start(self.begin(block_start, probability, weight)));
        };
        if is_speech {
            open.silence = None;
        } else if is_silent && open.silence.is_none() {
            open.silence = Some(Silence {
                start: block_start,
                counted_from: self.position,
                weight: open.weight,
            });
        }
        open.weight += weight;

        let enough =
            |silence: &Silence| self.position - silence.counted_from >= self.settings.min_silence;
        let reason = if is_silent && open.silence.as_ref().is_some_and(enough) {
            EndReason::Silence
        } else if self.position + samples - open.start > self.settings.max_utterance {
            EndReason::MaxDuration
        } else {
            return None;
        };
        self.finish(reason).map(UtteranceEvent::End)
    }

    /// Ends the open utterance, if there is one, with what has been heard so far.
    pub fn finish(&mut self, reason: EndReason) -> Option<SpeechEnd> {
        let open = self.open.take()?;
        let (offset, weight) = match &open.silence {
            Some(silence) => (silence.start, silence.weight),
            None => (self.position, open.weight),
        };
        let end = offset
            .saturating_add(self.settings.post_padding)
            .min(self.position);
        self.free_from = end;
        let speech = offset - open.onset;
        Some(SpeechEnd {
            utterance_id: self.last_id,
            start: open.start,
            onset: open.onset,
            offset,
            end,
            probability: weight / speech as f64,
            accepted: speech >= self.settings.min_speech,
            reason,
        })
    }

    /// Where the open utterance ends if nothing more is said, once all audio up to there has been heard: long before the
    /// minimum of silence makes sure.
    pub fn pause(&self) -> Option<u64> {
        let silence = self.open.as_ref()?.silence.as_ref()?;
        let end = silence.start.saturating_add(self.settings.post_padding);
        (end <= self.position).then_some(end)
    }

    /// Begins to count samples anew, after a gap. An open utterance is forgotten: [`Self::finish`] it first.
    pub fn reset(&mut self) {
        self.position = 0;
        self.free_from = 0;
        self.open = None;
    }

    /// Samples heard since the last reset.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// No later event names a position before this one.
    pub fn settled(&self) -> u64 {
        match &self.open {
            Some(open) => open
                .silence
                .as_ref()
                .map_or(self.position, |silence| silence.start),
            None => self
                .free_from
                .max(self.position.saturating_sub(self.settings.pre_padding)),
        }
    }

    /// An utterance is open.
    pub fn in_speech(&self) -> bool {
        self.open.is_some()
    }

    fn begin(&mut self, onset: u64, probability: f64, weight: f64) -> SpeechStart {
        let start = onset
            .saturating_sub(self.settings.pre_padding)
            .max(self.free_from);
        self.last_id += 1;
        self.open = Some(Open {
            start,
            onset,
            weight,
            silence: None,
        });
        SpeechStart {
            utterance_id: self.last_id,
            start,
            onset,
            probability,
        }
    }
}
