//! From an item to the sequence that the language model is trained on.

use crate::media::{Medium, Store};
use crate::recognition::{Confusions, SoundAlikes, misheard};
use crate::words::word_errors;
use crate::{Error, Item, Kind, Phrasing, Recipe, RecognitionErrors, Result, Split};
use candle_core::{DType, Device, Tensor};
use rand::rngs::StdRng;
use std::sync::Arc;
use vita_model::Vita;
use vita_model::prompt::{Content, Conversation, Media, MediaKind, Role, Segment, Turn, user_turn};
use vita_model::train::Labels;

/// Part of a sequence.
#[derive(Debug, Clone)]
pub enum Piece {
    Ids(Vec<u32>),
    /// Goes through what learns in each update.
    Medium(Medium),
}

/// A sequence, and where its targets are.
#[derive(Debug, Clone)]
pub struct Example {
    pub kind: Kind,
    pub phrasing: Option<Phrasing>,
    pub pieces: Vec<Piece>,
    /// Positions in the sequence and the tokens that stand there; the first is the state token.
    pub targets: Vec<(usize, u32)>,
    /// Positions.
    pub len: usize,
}

/// Makes examples of items.
pub struct Examples {
    vita: Arc<Vita>,
    recipe: Recipe,
    errors: RecognitionErrors,
    alikes: SoundAlikes,
    confusions: Confusions,
    store: Store,
}

impl Examples {
    /// Words of the `items` that are trained on may be taken for one another.
    pub fn new(vita: Arc<Vita>, recipe: &Recipe, store: Store, items: &[Item]) -> Self {
        let errors = recipe.instruct.as_ref().map(|s| s.recognition);
        let trained = || items.iter().filter(|item| item.split == Split::Train);
        let recorded = trained().filter_map(|item| Some((item.words.as_str(), store.read(item)?)));
        Self {
            vita,
            recipe: recipe.clone(),
            errors: errors.unwrap_or_default(),
            alikes: SoundAlikes::of(trained().map(|item| item.words.as_str())),
            confusions: Confusions::of(recorded),
            store,
        }
    }

    /// The part of a recording's words that the ears read right; 1 without a recording.
    pub fn understood(&self, item: &Item) -> f64 {
        let Some(read) = self.store.read(item) else {
            return 1.0;
        };
        let (errors, words) = word_errors(&item.words, read);
        1.0 - errors as f64 / words.max(1) as f64
    }

    /// Whether all that an item shows or says can be had.
    pub fn can_make(&self, item: &Item) -> bool {
        let sound = match item.kind {
            Kind::Text => true,
            _ => self.store.can_hear(item),
        };
        sound && self.store.can_see(item)
    }

    /// The item as the model is to see it. `rng` decides what is simulated.
    pub fn make(&self, item: &Item, rng: &mut StdRng) -> Result<Example> {
        let mut media = Vec::new();
        for picture in &item.pictures {
            media.push(self.store.picture(picture)?);
        }
        let images = media.len();
        let text = match item.kind {
            Kind::Text => Some(item.words.clone()),
            Kind::Query | Kind::Noise => {
                media.push(self.heard(item, rng)?);
                None
            }
        };
        let mut stand_ins = Vec::new();
        for (i, medium) in media.iter().enumerate() {
            stand_ins.push(stand_in(i, medium.len(&self.vita)?, i < images)?);
        }
        let sound = stand_ins.split_off(images).pop();
        let states = self.vita.state_tokens();
        let state = match item.kind {
            Kind::Query => states.query,
            Kind::Noise => states.noise,
            Kind::Text => states.text,
        };
        let mut answer = vec![Content::Token(state)];
        answer.extend(item.answer.clone().map(Content::Text));
        let conversation = Conversation {
            system: self.recipe.system.get(&item.system).cloned(),
            turns: vec![
                user_turn(stand_ins, sound, text),
                Turn {
                    role: Role::Bot,
                    content: answer,
                },
            ],
        };
        self.sequence(item, &conversation, media)
    }

    fn heard(&self, item: &Item, rng: &mut StdRng) -> Result<Medium> {
        match &item.audio {
            Some(path) => self.store.sound(path),
            None => {
                let words = &item.words;
                let words = misheard(words, &self.alikes, &self.confusions, &self.errors, rng);
                self.store.simulated(item, words, rng)
            }
        }
    }

    fn sequence(
        &self,
        item: &Item,
        conversation: &Conversation,
        media: Vec<Medium>,
    ) -> Result<Example> {
        let (template, tokenizer) = (self.vita.template(), self.vita.tokenizer());
        let labelled = Labels::default().render(template, tokenizer, conversation, true)?;
        let (mut pieces, mut targets, mut len) = (Vec::new(), Vec::new(), 0);
        for part in labelled {
            let positions = part.segment.len();
            match part.segment {
                Segment::Ids(ids) => {
                    let asked = part.targets.iter().zip(&ids).enumerate();
                    let asked = asked.filter(|(_, (is, _))| **is);
                    targets.extend(asked.map(|(i, (_, &id))| (len + i, id)));
                    pieces.push(Piece::Ids(ids));
                }
                Segment::Media(stand_in) => {
                    let medium = media.get(stand_in.key as usize).cloned();
                    pieces.extend(medium.map(Piece::Medium));
                }
            }
            len += positions;
        }
        if len > self.vita.max_length() {
            let (id, longest) = (&item.id, self.vita.max_length());
            return Err(Error::Input(format!(
                "item {id:?} has {len} positions, the model at most {longest}"
            )));
        }
        Ok(Example {
            kind: item.kind,
            phrasing: item.phrasing,
            pieces,
            targets,
            len,
        })
    }
}

/// Media that is as long as what is put in its place.
fn stand_in(i: usize, len: usize, image: bool) -> Result<Media> {
    Ok(Media {
        kind: match image {
            true => MediaKind::Image,
            false => MediaKind::Audio,
        },
        key: i as u64,
        vectors: Tensor::zeros((len, 1), DType::F32, &Device::Cpu)?,
        transcript: None,
    })
}
