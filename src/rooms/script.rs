//! A scripted room as it is written: what is seen, heard and done at which time, and what is to be told of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use vita_messages::Kind;

const NANOSECONDS: f64 = 1e9;

/// Longest script: all of its sound and pictures are in memory.
const MAX_SECS: f64 = 600.0;

/// Kinds whose messages must all be expected.
const KINDS: [Kind; 7] = [
    Kind::Query,
    Kind::Noise,
    Kind::Answer,
    Kind::Interrupted,
    Kind::RolesSwapped,
    Kind::Cancelled,
    Kind::Reset,
];

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    pub version: u32,
    /// What it shows, for people.
    #[serde(default)]
    pub about: String,
    /// A folder with a `/` in it, relative to the script, or a name in the cache.
    pub model: String,
    /// How long the media last.
    pub seconds: f64,
    /// Media time that a decode step takes.
    #[serde(default = "default_step_ms")]
    pub step_ms: u64,
    pub max_tokens: Option<u32>,
    pub history_tokens: Option<u32>,
    pub system_prompt: Option<String>,
    /// `token:value,…`, to force what a model without an opinion says.
    pub logit_bias: Option<String>,
    /// Kinds of messages that must all be expected; those of the dialogue but its words when absent.
    pub kinds: Option<Vec<String>>,
    #[serde(default, rename = "sound")]
    pub sounds: Vec<Placed>,
    #[serde(default, rename = "picture")]
    pub pictures: Vec<Placed>,
    #[serde(default, rename = "video")]
    pub videos: Vec<Placed>,
    #[serde(default, rename = "act")]
    pub acts: Vec<Act>,
    #[serde(default, rename = "expect")]
    pub expected: Vec<Expected>,
}

fn default_step_ms() -> u64 {
    40
}

/// A file at a time.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placed {
    pub at_secs: f64,
    pub file: PathBuf,
}

/// Something that is done at a time; one of its keys says what.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Act {
    pub at_secs: f64,
    /// Type a question.
    pub ask: Option<String>,
    #[serde(default)]
    pub reset: bool,
    /// The source goes away and is there again: a new pipeline, and a new dialogue.
    #[serde(default)]
    pub restart: bool,
    /// Another bias from the next question on.
    pub logit_bias: Option<String>,
    /// The source loses this medium, for so many seconds.
    pub lose: Option<Lost>,
    pub for_secs: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lost {
    Sound,
    Pictures,
}

/// A message that is to be told.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    pub kind: String,
    /// When, in the stream.
    pub at_secs: Option<f64>,
    #[serde(default = "default_tolerance_secs")]
    pub tolerance_secs: f64,
    /// What an answer's text has in it, in whatever case.
    pub says: Option<String>,
    /// Fields of its `data`, in any number.
    #[serde(default)]
    pub data: toml::Table,
}

fn default_tolerance_secs() -> f64 {
    0.25
}

impl Script {
    /// Reads a script and says what is wrong with it.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let place = || path.display().to_string();
        let text = std::fs::read_to_string(path).with_context(place)?;
        let mut script: Self = toml::from_str(&text).with_context(place)?;
        script.check().with_context(place)?;
        let base = path.parent().unwrap_or(Path::new(""));
        let media = [&mut script.sounds, &mut script.pictures, &mut script.videos];
        for placed in media.into_iter().flatten() {
            placed.file = base.join(&placed.file);
        }
        if script.model.contains('/') {
            script.model = base.join(&script.model).display().to_string();
        }
        let begins = |act: &Act| act.at_secs;
        script.acts.sort_by(|a, b| begins(a).total_cmp(&begins(b)));
        Ok(script)
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!(self.version == 1, "version: expected 1");
        ensure!(
            self.seconds > 0.0 && self.seconds <= MAX_SECS,
            "seconds: expected more than 0, at most {MAX_SECS}"
        );
        ensure!(self.step_ms > 0, "step_ms: expected more than 0");
        self.kinds()?;
        for expected in &self.expected {
            kind(&expected.kind)?;
        }
        let media = [&self.sounds, &self.pictures, &self.videos];
        let times = media.into_iter().flatten().map(|placed| placed.at_secs);
        for at in times.chain(self.acts.iter().map(|act| act.at_secs)) {
            ensure!(
                (0.0..=self.seconds).contains(&at),
                "at_secs {at}: expected 0 to {}, the seconds of the script",
                self.seconds
            );
        }
        self.acts.iter().try_for_each(Act::check)
    }

    pub fn kinds(&self) -> anyhow::Result<Vec<Kind>> {
        match &self.kinds {
            Some(names) => names.iter().map(|name| kind(name)).collect(),
            None => Ok(KINDS.to_vec()),
        }
    }

    pub fn length(&self) -> gst::ClockTime {
        time(self.seconds)
    }
}

impl Act {
    fn check(&self) -> anyhow::Result<()> {
        let given = [
            self.ask.is_some(),
            self.reset,
            self.restart,
            self.logit_bias.is_some(),
            self.lose.is_some(),
        ];
        if given.iter().filter(|given| **given).count() != 1 {
            bail!(
                "act at {} s: expected one of ask, reset, restart, logit_bias and lose",
                self.at_secs
            );
        }
        ensure!(
            self.lose.is_some() == self.for_secs.is_some(),
            "act at {} s: lose and for_secs belong together",
            self.at_secs
        );
        Ok(())
    }

    /// When the medium is lost.
    pub fn loses(&self, medium: Lost) -> Option<std::ops::Range<gst::ClockTime>> {
        let for_secs = self.for_secs.filter(|_| self.lose == Some(medium))?;
        Some(time(self.at_secs)..time(self.at_secs + for_secs))
    }
}

fn kind(name: &str) -> anyhow::Result<Kind> {
    Kind::from_name(name).with_context(|| {
        let names: Vec<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        format!("kind {name}: expected one of {}", names.join(", "))
    })
}

/// Seconds of a script as media time.
pub fn time(seconds: f64) -> gst::ClockTime {
    let limited = Duration::from_secs_f64((seconds * NANOSECONDS).round().max(0.0) / NANOSECONDS);
    gst::ClockTime::from_nseconds(u64::try_from(limited.as_nanos()).unwrap_or(u64::MAX))
}
