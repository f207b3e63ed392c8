//! Lines of questions and answers.

use std::fmt::Write;

use vita_messages::kinds::{
    Answer, Cancelled, CutOff, Noise, NoiseReason, Query, Question, QuestionKind,
    StateProbabilities, Verdict,
};

use super::render::{seconds, word};

pub fn query_line(query: &Query) -> String {
    format!(
        "question {}: {} ({})",
        query.turn_id,
        question(&query.question),
        probabilities(&query.verdict)
    )
}

pub fn noise_line(noise: &Noise) -> String {
    let why = match (&noise.verdict, noise.reason) {
        (Some(verdict), _) => probabilities(verdict),
        (None, NoiseReason::TooShort) => "too short".to_owned(),
        (None, reason) => word(&reason),
    };
    format!("not answered: {} ({why})", question(&noise.question))
}

pub fn cancelled_line(cancelled: &Cancelled) -> String {
    let mut line = format!(
        "question {} dropped: {}",
        cancelled.turn_id,
        word(&cancelled.reason)
    );
    if let Some(text) = &cancelled.text {
        let _ = write!(line, " ({text})");
    }
    line
}

/// The answer and what is to be known of it; without its words where they have been shown.
pub fn answer_line(answer: &Answer, has_words: bool) -> String {
    let mut line = format!("answer {}", answer.generation_id);
    if !has_words {
        let _ = write!(line, ": {}", one_line(&answer.text));
    }
    let _ = write!(line, " ({})", facts(answer).join(", "));
    line
}

fn facts(answer: &Answer) -> Vec<String> {
    let first = answer.timings.first_token_ns;
    let frames = answer.verdict.frames.len();
    let stale = answer.verdict.staleness_ns;
    [
        answer.cut_off.as_ref().map(cut_off),
        first.map(|ns| format!("first words after {}", seconds(ns))),
        Some(format!("{} tokens", answer.tokens.answer)),
        (frames > 0).then(|| format!("{frames} frames")),
        stale.map(|ns| format!("the newest {} old", seconds(ns))),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn cut_off(cut_off: &CutOff) -> String {
    let mut text = format!("cut off: {}", word(&cut_off.reason));
    if let Some(turn) = cut_off.by_turn_id {
        let _ = write!(text, " by question {turn}");
    }
    if let Some(why) = &cut_off.text {
        let _ = write!(text, ": {why}");
    }
    text
}

fn question(question: &Question) -> String {
    let text = question
        .text
        .as_ref()
        .map(|text| format!("“{}”", one_line(text)));
    match (question.kind, text) {
        (QuestionKind::Speech, text) => {
            let from = seconds(question.start_stream_time_ns);
            let to = seconds(question.end_stream_time_ns);
            let text = text.map(|text| format!(" {text}"));
            format!("speech{} from {from} to {to}", text.unwrap_or_default())
        }
        (_, Some(text)) => text,
        (kind, None) => word(&kind),
    }
}

fn probabilities(verdict: &Verdict) -> String {
    let StateProbabilities { query, noise, text } = verdict.state_probabilities;
    format!("query {query:.2}, noise {noise:.2}, text {text:.2}")
}

/// Without line ends, which only a model or a typist put there.
pub fn one_line(text: &str) -> String {
    text.replace(['\n', '\r', '\t'], " ")
}
