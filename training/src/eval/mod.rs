//! `vita eval`: what a model reaches on held-out voices, phrasings, recordings and pictures.

mod interval;
mod model;
mod people;
mod report;

pub use report::{Chat, Latency, MEASURES, Measure, Report, Row, Wrong};

use crate::data::normalise;
use crate::words::word_errors;
use crate::{Error, Item, Kind, Phrasing, Result, Split, read_items};
use model::{Reply, Subject};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use report::CHAT_TOLERANCE_NATS;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use vita_model::Vita;

/// So many failures of each row are shown in the JSON.
const EXAMPLES: usize = 12;

#[derive(Debug, Clone)]
pub struct Options {
    /// How the model is called in the report.
    pub name: String,
    /// Lists of items.
    pub items: Vec<PathBuf>,
    /// The set-up's folder, for recordings.
    pub cache: PathBuf,
    /// The base language model (GGUF), to compare free chat with.
    pub base: Option<PathBuf>,
    /// Most items a row, drawn by `seed`.
    pub limit: Option<usize>,
    pub seed: u64,
    /// Only these rows, by key (and `chat`); all where empty.
    pub only: Vec<String>,
}

/// Measures. `progress` gets what is done and how much there is.
///
/// # Errors
/// For items that can't be read and for what the model can't hear, see or hold.
pub fn run(vita: Vita, options: &Options, progress: &dyn Fn(usize, usize)) -> Result<Report> {
    let mut items = Vec::new();
    for file in &options.items {
        items.extend(read_items(file)?);
    }
    items.retain(|item| {
        item.split == Split::Test && (item.audio.is_some() || item.kind == Kind::Text)
    });
    items.extend(
        people::recordings(&options.cache)
            .iter()
            .map(people::Recording::item),
    );
    let wanted = |key: &str| options.only.is_empty() || options.only.iter().any(|k| k == key);
    let subject = Subject {
        vita,
        has_states: true,
    };
    let drawn: Vec<(&Measure, Vec<usize>)> = MEASURES
        .iter()
        .filter(|measure| wanted(measure.key))
        .map(|measure| (measure, draw(&items, measure.key, options)))
        .collect();
    let mut asked: Vec<usize> = drawn.iter().flat_map(|(_, items)| items.clone()).collect();
    asked.sort_unstable();
    asked.dedup();
    let mut replies = BTreeMap::new();
    for (done, &i) in asked.iter().enumerate() {
        replies.insert(i, subject.reply(&items[i])?);
        progress(done + 1, asked.len());
    }
    let rows = drawn
        .iter()
        .map(|(measure, chosen)| row(measure, chosen, &items, &replies));
    let (rows, wrong): (Vec<Row>, Vec<Vec<Wrong>>) = rows.unzip();
    let mut report = Report {
        model: options.name.clone(),
        seed: options.seed,
        limit: options.limit,
        rows,
        wrong: wrong.into_iter().flatten().collect(),
        chat: None,
        latency: latency(&items, &replies),
        notes: Vec::new(),
    };
    if wanted("chat") {
        match &options.base {
            Some(base) => report.chat = chat(&subject, base, &items, options)?,
            None => report
                .notes
                .push("free chat: there is no base model to compare with".into()),
        }
    }
    Ok(report)
}

/// Indices of the items of a row.
fn draw(items: &[Item], key: &str, options: &Options) -> Vec<usize> {
    let mut chosen: Vec<usize> = (0..items.len())
        .filter(|&i| belongs(&items[i], key))
        .collect();
    chosen.shuffle(&mut StdRng::seed_from_u64(options.seed));
    chosen.truncate(options.limit.unwrap_or(usize::MAX));
    chosen
}

const SOUNDS: [&str; 9] = [
    "real-sound",
    "babble",
    "music",
    "chime",
    "hiss",
    "hum",
    "knocks",
    "beeps",
    "melody",
];

fn belongs(item: &Item, key: &str) -> bool {
    let group = item.group.as_deref().unwrap_or_default();
    let human = ["librivox", "jfk", "cards", "naming"].contains(&group);
    let sound = SOUNDS.contains(&group) || group == "silence";
    let blind = item.pictures.is_empty();
    let question = item.kind == Kind::Query && group == "question";
    let talk = item.kind == Kind::Noise && !sound && !human && blind;
    let unseen = item.phrasing == Some(Phrasing::Unseen);
    match key {
        "state" => unseen && (question || talk),
        "sounds" => sound,
        "talk" => talk,
        "people" => human,
        "spoken-seen" => question && !unseen,
        "spoken-unseen" => question && unseen,
        "typed-state" => item.kind == Kind::Text && blind,
        "shown-state" => group == "shown",
        "typed-answer" => group == "typed" && unseen,
        "wer-librivox" => group == "librivox",
        "wer-jfk" => group == "jfk",
        shown => !item.pictures.is_empty() && group == shown,
    }
}

fn row(
    measure: &Measure,
    chosen: &[usize],
    items: &[Item],
    replies: &BTreeMap<usize, Reply>,
) -> (Row, Vec<Wrong>) {
    let (mut right, mut total, mut failures) = (0, 0, Vec::new());
    for &i in chosen {
        let (item, reply) = (&items[i], &replies[&i]);
        let (good, all) = match measure.errors {
            true => word_errors(&item.words, reply.transcript.as_deref().unwrap_or_default()),
            false => (usize::from(is_right(measure.key, item, reply)), 1),
        };
        right += good;
        total += all;
        if (good > 0) == measure.errors {
            failures.push(failure(measure.key, item, reply));
        }
    }
    let examples = failures.iter().take(EXAMPLES).map(Wrong::to_string);
    let row = Row::new(measure, right, total, examples.collect());
    (row, failures)
}

fn is_right(key: &str, item: &Item, reply: &Reply) -> bool {
    match key {
        "state" | "typed-state" | "shown-state" => reply.state() == item.kind,
        "sounds" | "talk" | "people" => reply.state() == Kind::Noise,
        _ => reply.is_addressed() && answer_is_right(item, &reply.text),
    }
}

/// By the corpus's rule; without one, the words of the answer.
pub fn answer_is_right(item: &Item, answer: &str) -> bool {
    match (&item.right, &item.answer) {
        (Some(rule), _) => rule.is_right(answer),
        (None, Some(wanted)) => normalise(answer) == normalise(wanted),
        (None, None) => answer.trim().is_empty(),
    }
}

fn failure(key: &'static str, item: &Item, reply: &Reply) -> Wrong {
    let states = &reply.states;
    Wrong {
        key,
        id: item.id.clone(),
        kind: item.kind,
        group: item.group.clone(),
        intent: item.intent.clone(),
        voice: item.voice.clone(),
        words: item.words.clone(),
        heard: reply.transcript.clone(),
        expected: item.answer.clone(),
        said: reply.text.clone(),
        states: [states.query, states.noise, states.text],
    }
}

fn latency(items: &[Item], replies: &BTreeMap<usize, Reply>) -> Option<Latency> {
    let spoken = replies
        .iter()
        .filter(|(i, _)| items[**i].kind == Kind::Query && items[**i].audio.is_some());
    let replies: Vec<&Reply> = spoken.map(|(_, reply)| reply).collect();
    let (tokens, spent) = replies.iter().fold((0, Duration::ZERO), |(n, t), reply| {
        (n + reply.rest.0, t + reply.rest.1)
    });
    let first_words = replies.iter().filter_map(|reply| reply.until_word);
    (!replies.is_empty()).then(|| Latency {
        questions: replies.len(),
        state_ms: median_ms(replies.iter().map(|reply| reply.until_state)),
        first_word_ms: median_ms(first_words),
        tokens_per_sec: tokens as f64 / spent.as_secs_f64().max(1e-9),
        peak_rss_mib: peak_rss_mib().unwrap_or(0.0),
    })
}

fn median_ms(times: impl Iterator<Item = Duration>) -> f64 {
    let mut times: Vec<f64> = times.map(|time| time.as_secs_f64() * 1e3).collect();
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(0.0)
}

/// `VmHWM` of this process.
fn peak_rss_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib / 1024.0)
}

/// The loss of the base model's own answers, under it and under the model.
fn chat(
    subject: &Subject,
    base: &std::path::Path,
    items: &[Item],
    options: &Options,
) -> Result<Option<Chat>> {
    let mut chosen: Vec<&Item> = items
        .iter()
        .filter(|item| item.group.as_deref() == Some("chat") && item.kind == Kind::Text)
        .collect();
    chosen.shuffle(&mut StdRng::seed_from_u64(options.seed));
    chosen.truncate(options.limit.unwrap_or(usize::MAX));
    if chosen.is_empty() {
        return Ok(None);
    }
    let folder = options.items.first().and_then(|file| file.parent());
    let folder = folder.unwrap_or(std::path::Path::new("."));
    let base = Subject {
        vita: crate::data::base_model(base, folder).map_err(|e| Error::Input(e.to_string()))?,
        has_states: false,
    };
    let mean = |subject: &Subject| -> Result<f64> {
        let (mut loss, mut tokens) = (0.0, 0);
        for item in &chosen {
            let (l, n) = subject.loss(&item.words, item.answer.as_deref().unwrap_or_default())?;
            loss += l;
            tokens += n;
        }
        Ok(loss / tokens.max(1) as f64)
    };
    let (model_nats, base_nats) = (mean(subject)?, mean(&base)?);
    Ok(Some(Chat {
        prompts: chosen.len(),
        model_nats,
        base_nats,
        passed: model_nats <= base_nats + CHAT_TOLERANCE_NATS,
    }))
}
