//! One question, answered from files, without pipelines and broker.

pub mod decode;

use std::time::{Duration, Instant};

use anyhow::Context;
use image::RgbImage;
use serde::Serialize;
use vita_dialogue::state::{self, StateRule};
use vita_engine::models::Model;
use vita_messages::kinds::{SeenFrame, State, StateProbabilities};
use vita_model::generate::{self, prefill};
use vita_model::prompt::{Conversation, Media, Modality, Segment, user_turn};
use vita_model::sampling::Stop;
use vita_model::{GenerateOptions, Vita};

/// What the paper and the training code call the model.
const NAME: &str = "VITA";

/// What the model is shown and asked.
#[derive(Clone, Debug)]
pub struct Question {
    pub seen: Seen,
    /// Samples in [−1, 1], 16 kHz.
    pub sound: Option<Vec<f32>>,
    pub text: Option<String>,
}

/// What is in view.
#[derive(Clone, Debug)]
pub enum Seen {
    Nothing,
    Picture(RgbImage),
    Clip(Vec<ClipFrame>),
}

/// A frame that the model's clip rule chose.
#[derive(Clone, Debug)]
pub struct ClipFrame {
    pub picture: RgbImage,
    pub stream_time_ns: u64,
    /// How often the model sees it.
    pub repeat: u32,
}

/// How to answer.
#[derive(Clone, Debug)]
pub struct Options {
    /// Instead of the model's own.
    pub system: Option<String>,
    /// Tokens of the longest answer.
    pub max_tokens: usize,
    pub rule: StateRule,
}

/// The answer and how it came about. Its JSON is what `vita ask --json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Reply {
    pub state: State,
    pub state_probabilities: StateProbabilities,
    /// `None`: silence, because nothing was asked.
    pub answer: Option<String>,
    pub timings_ms: Timings,
    pub frames: Vec<SeenFrame>,
    pub model: String,
    /// What the model's ears read, where they write words.
    pub transcript: Option<String>,
    /// Why the answer stopped before its end.
    pub cut_off: Option<&'static str>,
    pub prompt_tokens: usize,
    pub answer_tokens: usize,
}

/// Milliseconds. What did not come to pass is `None`.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Timings {
    pub load: f64,
    /// Files to pictures and samples.
    pub decode: f64,
    /// Pictures and sound to vectors.
    pub encode: f64,
    pub prefill: f64,
    /// From the decoded files to the first token of the answer.
    pub first_token: Option<f64>,
    /// Between two tokens, on average.
    pub per_token: Option<f64>,
}

/// Milliseconds, to the microsecond.
pub fn ms(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}

/// Answers, handing out words as they come. `load` and `decode` of the timings are the caller's to fill in.
///
/// # Errors
/// For what the model cannot see, hear or hold.
pub fn ask(
    model: &Model,
    question: &Question,
    options: &Options,
    on_words: impl FnMut(&str),
) -> anyhow::Result<Reply> {
    let vita = model.vita();
    check_senses(model, question)?;
    let begin = Instant::now();
    let (conversation, transcript) = conversation(vita, question, options)?;
    let encoded = begin.elapsed();
    let prompt = vita.prompt(&conversation)?;
    let mut written = write(vita, &prompt, question, options, on_words)?;
    written.timings.encode = ms(encoded);
    if let Some(first) = &mut written.timings.first_token {
        *first += ms(encoded);
    }
    let folder = &model.spec().path;
    Ok(Reply {
        state: written.state,
        state_probabilities: StateProbabilities {
            query: written.states.query,
            noise: written.states.noise,
            text: written.states.text,
        },
        answer: (written.state != State::Noise).then(|| written.text.trim().to_owned()),
        timings_ms: written.timings,
        frames: frames(&question.seen),
        model: folder.file_name().map_or_else(
            || folder.display().to_string(),
            |name| name.to_string_lossy().into_owned(),
        ),
        transcript,
        cut_off: written.cut_off,
        prompt_tokens: prompt.iter().map(Segment::len).sum(),
        answer_tokens: written.tokens,
    })
}

fn check_senses(model: &Model, question: &Question) -> anyhow::Result<()> {
    let vita = model.vita();
    let lacks = |what: &str, part: &str, leave_out: &str| {
        anyhow::anyhow!(
            "the model in {} cannot {what}: it has no {part} part; leave out {leave_out}, or choose a model that can \
             with --model (`vita model inspect FOLDER` shows a model's parts)",
            model.spec().path.display()
        )
    };
    if !matches!(question.seen, Seen::Nothing) && vita.eyes().is_err() {
        return Err(lacks("see", "vision", "--video and --image"));
    }
    if question.sound.is_some() && vita.ears().is_err() {
        return Err(lacks("hear", "audio", "--audio and type the question"));
    }
    Ok(())
}

/// The model's words for it, and what its ears read.
fn conversation(
    vita: &Vita,
    question: &Question,
    options: &Options,
) -> anyhow::Result<(Conversation, Option<String>)> {
    let (modality, images) = match &question.seen {
        Seen::Nothing => (Modality::Lang, Vec::new()),
        Seen::Picture(picture) => (Modality::Image, vita.see_picture(picture)?),
        Seen::Clip(frames) => (Modality::Video, clip(vita, frames)?),
    };
    let sound = question
        .sound
        .as_ref()
        .map(|samples| vita.hear(samples).context("cannot hear the sound"));
    let sound = sound.transpose()?;
    let transcript = sound.as_ref().and_then(|media| media.transcript.clone());
    let system = options.system.clone();
    let conversation = Conversation {
        system: system.or_else(|| vita.system_text(modality, NAME)),
        turns: vec![user_turn(images, sound, question.text.clone())],
    };
    Ok((conversation, transcript))
}

/// Each frame is encoded once, however often it is shown.
fn clip(vita: &Vita, frames: &[ClipFrame]) -> anyhow::Result<Vec<Media>> {
    let mut shown = Vec::new();
    for frame in frames {
        for media in vita.see_frames(std::slice::from_ref(&frame.picture))? {
            shown.extend(std::iter::repeat_n(media, frame.repeat as usize));
        }
    }
    Ok(shown)
}

fn frames(seen: &Seen) -> Vec<SeenFrame> {
    let frame = |stream_time_ns, repeat| SeenFrame {
        stream_time_ns,
        capture_time: None,
        repeat,
    };
    match seen {
        Seen::Nothing => Vec::new(),
        Seen::Picture(_) => vec![frame(0, 1)],
        Seen::Clip(frames) => frames
            .iter()
            .map(|f| frame(f.stream_time_ns, f.repeat))
            .collect(),
    }
}

struct Written {
    state: State,
    states: generate::StateProbabilities,
    text: String,
    tokens: usize,
    cut_off: Option<&'static str>,
    timings: Timings,
}

/// Reads the prompt, judges it as a room does that is silent, and answers with the state token that the verdict says.
fn write(
    vita: &Vita,
    prompt: &[Segment],
    question: &Question,
    options: &Options,
    mut on_words: impl FnMut(&str),
) -> anyhow::Result<Written> {
    let begin = Instant::now();
    let lm = vita.lm();
    let mut cache = lm.cache();
    let mut logits = prefill(lm, &vita.embed(prompt)?, &mut cache)?;
    let mut writer = vita.writer(&GenerateOptions {
        // The state token is one of them.
        max_new_tokens: options.max_tokens.saturating_add(1),
        ..GenerateOptions::default()
    })?;
    let states = writer.judge(&logits);
    let state = judge(&states, question, &options.rule);
    let mut written = Written {
        state,
        states,
        text: String::new(),
        tokens: 0,
        cut_off: None,
        timings: Timings {
            prefill: ms(begin.elapsed()),
            ..Timings::default()
        },
    };
    let tokens = vita.state_tokens();
    let token = match state {
        State::Query => tokens.query,
        State::Text => tokens.text,
        State::Noise | State::Other => return Ok(written),
    };
    let room = |cached: usize| vita.max_length().saturating_sub(cached + 1);
    let mut delta = writer.take(token, room(cache.len()))?;
    let mut first = None;
    loop {
        on_words(&delta.text);
        written.text += &delta.text;
        if let Some(stop) = delta.stop {
            written.cut_off = cut_off(stop);
            break;
        }
        let embedded = lm.embed(&[delta.id])?;
        logits = prefill(lm, &embedded, &mut cache)?;
        delta = writer.next(&logits, room(cache.len()))?;
        first.get_or_insert_with(Instant::now);
        written.tokens += 1;
    }
    written.timings.first_token = first.map(|at| ms(at - begin));
    let steps = written.tokens.checked_sub(1).filter(|steps| *steps > 0);
    written.timings.per_token = first
        .zip(steps)
        .map(|(first, steps)| ms(first.elapsed().div_f64(steps as f64)));
    Ok(written)
}

/// What is typed is a question; what is only heard is one if the probabilities say so.
fn judge(states: &generate::StateProbabilities, question: &Question, rule: &StateRule) -> State {
    if question.text.is_some() {
        return State::Text;
    }
    let probabilities = state::StateProbabilities {
        query: states.query as f32,
        noise: states.noise as f32,
        text: states.text as f32,
    };
    match rule.judge_speech(&probabilities, false) {
        state::State::Query => State::Query,
        state::State::Noise => State::Noise,
        state::State::Text => State::Text,
    }
}

fn cut_off(stop: Stop) -> Option<&'static str> {
    match stop {
        Stop::End | Stop::Noise => None,
        Stop::MaxTokens => Some("max_tokens"),
        Stop::ContextFull => Some("context_full"),
    }
}
