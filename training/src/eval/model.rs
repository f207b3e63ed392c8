//! The model under test, asked as the product asks it.

use super::people;
use crate::{Error, Item, Kind, Result, System};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};
use vita_model::generate::{self, StateProbabilities};
use vita_model::prompt::{Content, Conversation, Media, Modality, Role, Turn, user_turn};
use vita_model::{GenerateOptions, Vita};

/// Longest answer of the closed domain.
const MAX_TOKENS: usize = 48;

pub struct Subject {
    pub vita: Vita,
    /// A base model has no state tokens; its answers begin at once.
    pub has_states: bool,
}

/// What it made of an item.
pub struct Reply {
    pub states: StateProbabilities,
    pub text: String,
    pub transcript: Option<String>,
    pub until_state: Duration,
    pub until_word: Option<Duration>,
    /// Tokens behind the first, and how long they took.
    pub rest: (usize, Duration),
}

impl Reply {
    /// The likeliest of the three state tokens.
    pub fn state(&self) -> Kind {
        let StateProbabilities { query, noise, text } = self.states;
        match (query >= noise && query >= text, noise >= text) {
            (true, _) => Kind::Query,
            (false, true) => Kind::Noise,
            (false, false) => Kind::Text,
        }
    }

    /// As the dialogue decides: `<1>` and `<3>` both mean that somebody wants an answer.
    pub fn is_addressed(&self) -> bool {
        self.states.query + self.states.text >= self.states.noise
    }
}

impl Subject {
    /// Answers; of what is noise only the state is asked.
    pub fn reply(&self, item: &Item) -> Result<Reply> {
        let images = self.images(item)?;
        let samples = item.audio.as_deref().map(people::samples).transpose()?;
        let begin = Instant::now();
        let sound = samples
            .map(|samples| self.vita.hear(&samples))
            .transpose()?;
        let transcript = sound.as_ref().and_then(|media| media.transcript.clone());
        let text = sound.is_none().then(|| item.words.clone());
        let conversation = self.conversation(item.system, vec![user_turn(images, sound, text)]);
        let prompt = self.vita.embed(&self.vita.prompt(&conversation)?)?;
        let options = GenerateOptions {
            max_new_tokens: if item.kind == Kind::Noise {
                1
            } else {
                MAX_TOKENS
            },
            ..GenerateOptions::default()
        };
        let (mut until_state, mut until_word, mut tokens) = (None, None, 0usize);
        let writer = self.vita.writer(&options)?;
        let answer = generate::generate(
            self.vita.lm(),
            &prompt,
            self.vita.max_length(),
            writer,
            |delta| {
                tokens += 1;
                until_state.get_or_insert_with(|| begin.elapsed());
                if !delta.text.trim().is_empty() {
                    until_word.get_or_insert_with(|| begin.elapsed());
                }
                ControlFlow::Continue(())
            },
        )?;
        let until_state = until_state.unwrap_or_default();
        Ok(Reply {
            states: answer.states,
            text: answer.text.trim().to_owned(),
            transcript,
            until_state,
            until_word,
            rest: (
                tokens.saturating_sub(1),
                begin.elapsed().saturating_sub(until_state),
            ),
        })
    }

    /// Sum of the losses of `answer`'s tokens, nats, and their number.
    pub fn loss(&self, words: &str, answer: &str) -> Result<(f64, usize)> {
        let mut open = self.conversation(
            System::Lang,
            vec![user_turn(Vec::new(), None, Some(words.to_owned()))],
        );
        let state = self
            .has_states
            .then(|| Content::Token(self.vita.state_tokens().text));
        let content = state
            .into_iter()
            .chain([Content::Text(answer.to_owned())])
            .collect();
        open.turns.push(Turn {
            role: Role::Bot,
            content,
        });
        let labels = vita_model::train::Labels::default();
        let parts = labels.render(self.vita.template(), self.vita.tokenizer(), &open, true)?;
        let states = self.vita.state_tokens();
        let (mut targets, mut length) = (Vec::new(), 0);
        for part in &parts {
            if let vita_model::prompt::Segment::Ids(ids) = &part.segment {
                let asked = part
                    .targets
                    .iter()
                    .zip(ids)
                    .enumerate()
                    .filter(|(_, (is, _))| **is);
                // The state token is not part of what the base would say.
                let asked = asked.filter(|(_, (_, id))| !self.has_states || **id != states.text);
                targets.extend(asked.map(|(i, (_, &id))| (length + i, id)));
            }
            length += part.segment.len();
        }
        let segments: Vec<_> = parts.into_iter().map(|part| part.segment).collect();
        let xs = self.vita.embed(&segments)?;
        let hidden = self.vita.lm().forward_sequences(&xs, &[length])?;
        let (mut loss, mut count) = (0.0, 0);
        for (at, id) in targets.iter().filter(|(at, _)| *at > 0) {
            let logits = self.vita.lm().logits(&hidden.narrow(0, at - 1, 1)?)?;
            let log = candle_nn::ops::log_softmax(&logits, 1)?;
            let value: Vec<f32> = log.squeeze(0)?.to_vec1()?;
            loss -= f64::from(
                value
                    .get(*id as usize)
                    .copied()
                    .unwrap_or(f32::NEG_INFINITY),
            );
            count += 1;
        }
        Ok((loss, count))
    }

    fn conversation(&self, system: System, turns: Vec<Turn>) -> Conversation {
        let modality = match system {
            System::Lang => Modality::Lang,
            System::Image => Modality::Image,
            System::Video => Modality::Video,
        };
        let own = self
            .has_states
            .then(|| self.vita.system_text(modality, "VITA"));
        let system = own.flatten();
        Conversation { system, turns }
    }

    fn images(&self, item: &Item) -> Result<Vec<Media>> {
        let open = |path: &std::path::PathBuf| {
            let picture = image::open(path).map_err(|e| Error::format(path, e))?;
            Ok(picture.to_rgb8())
        };
        let pictures: Vec<_> = item.pictures.iter().map(open).collect::<Result<_>>()?;
        Ok(match item.system {
            System::Video => self.vita.see_frames(&pictures)?,
            _ => {
                let mut media = Vec::new();
                for picture in &pictures {
                    media.extend(self.vita.see_picture(picture)?);
                }
                media
            }
        })
    }
}
