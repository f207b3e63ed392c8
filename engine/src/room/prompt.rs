//! A room's conversation as VITA has it (spec sections 6.1 and 7.4).

use vita_dialogue::history;
use vita_dialogue::state::State;
use vita_model::prompt::{
    Content, Conversation, Media, Modality, PicturePlace, Role, Segment, Turn, user_turn,
};
use vita_model::{Result, Vita};

use super::frames::Chosen;

/// What the paper and the training code call the model.
const NAME: &str = "VITA";

/// A question's words: sound, or text.
#[derive(Clone, Debug)]
pub(super) enum Words {
    Spoken(Media),
    Typed(String),
}

impl Words {
    /// The state that its answer begins with.
    pub fn state(&self) -> State {
        match self {
            Self::Spoken(_) => State::Query,
            Self::Typed(_) => State::Text,
        }
    }

    fn turn(&self, images: Vec<Media>) -> Turn {
        match self.clone() {
            Self::Spoken(media) => user_turn(images, Some(media), None),
            Self::Typed(text) => user_turn(images, None, Some(text)),
        }
    }
}

pub(super) fn state_token(state: State, vita: &Vita) -> u32 {
    let tokens = vita.state_tokens();
    match state {
        State::Query => tokens.query,
        State::Noise => tokens.noise,
        State::Text => tokens.text,
    }
}

/// A past turn that can be shown again.
#[derive(Clone, Debug)]
pub(super) struct Past {
    words: Words,
    state_token: u32,
    said: String,
}

impl Past {
    pub fn new(turn: &history::Turn, words: Words, vita: &Vita) -> Self {
        Self {
            state_token: state_token(words.state(), vita),
            words,
            said: turn.said.clone(),
        }
    }

    fn answer(&self) -> Turn {
        let state = Content::Token(self.state_token);
        Turn {
            role: Role::Bot,
            content: vec![state, Content::Text(self.said.clone())],
        }
    }
}

/// A prompt, and how many of its tokens are the question itself.
#[derive(Debug)]
pub(super) struct Prompt {
    pub segments: Vec<Segment>,
    pub len: usize,
    /// As the question will stand in the history, so without pictures.
    pub question_tokens: usize,
}

/// As many of the past turns, the newest, as leave `room` positions to the answer. Past turns keep their sound and lose
/// their pictures; those of the question stand where the model's template says.
pub(super) fn prompt(
    vita: &Vita,
    system: Option<&str>,
    past: &[Past],
    words: &Words,
    frames: &[Chosen],
    room: usize,
) -> Result<Prompt> {
    let system = match system {
        Some(system) => Some(system.to_owned()),
        None => {
            let modality = match frames.is_empty() {
                true => Modality::Lang,
                false => Modality::Video,
            };
            vita.system_text(modality, NAME)
        }
    };
    let images: Vec<Media> = frames
        .iter()
        .flat_map(|chosen| std::iter::repeat_n(chosen.frame.media.clone(), chosen.repeat as usize))
        .collect();
    let bare = Conversation {
        system: None,
        turns: vec![words.turn(Vec::new())],
    };
    let question_tokens = length(&vita.prompt(&bare)?);
    let place = vita.template().pictures;
    let mut forgotten = 0;
    loop {
        let turns = turns(&past[forgotten..], words, images.clone(), place);
        let conversation = Conversation {
            system: system.clone(),
            turns,
        };
        let segments = vita.prompt(&conversation)?;
        let len = length(&segments);
        if len + room <= vita.lm().max_length() || forgotten == past.len() {
            return Ok(Prompt {
                segments,
                len,
                question_tokens,
            });
        }
        forgotten += 1;
    }
}

fn turns(past: &[Past], words: &Words, images: Vec<Media>, place: PicturePlace) -> Vec<Turn> {
    let mut turns = Vec::with_capacity(2 * past.len() + 1);
    let (mut first, own) = match place {
        PicturePlace::FirstTurn if !past.is_empty() => (images, Vec::new()),
        _ => (Vec::new(), images),
    };
    for past in past {
        turns.push(past.words.turn(std::mem::take(&mut first)));
        turns.push(past.answer());
    }
    turns.push(words.turn(own));
    turns
}

fn length(segments: &[Segment]) -> usize {
    segments.iter().map(Segment::len).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Tensor};
    use vita_model::prompt::MediaKind;

    #[test]
    fn pictures_stand_where_the_template_says() {
        let picture = Media {
            kind: MediaKind::Image,
            key: 1,
            vectors: Tensor::zeros((1, 2), DType::F32, &Device::Cpu).unwrap(),
            transcript: None,
        };
        let past = Past {
            words: Words::Typed("Where?".into()),
            state_token: 3,
            said: "Here.".into(),
        };
        let now = Words::Typed("And now?".into());
        let pictures = |past: &[Past], place| -> Vec<usize> {
            let is_picture = |content: &&Content| matches!(content, Content::Media(_));
            let turns = turns(past, &now, vec![picture.clone(), picture.clone()], place);
            let counts = turns
                .iter()
                .map(|turn| turn.content.iter().filter(is_picture).count());
            counts.collect()
        };
        let two = [past.clone(), past];
        assert_eq!(pictures(&two, PicturePlace::FirstTurn), [2, 0, 0, 0, 0]);
        assert_eq!(pictures(&two, PicturePlace::Question), [0, 0, 0, 0, 2]);
        assert_eq!(pictures(&[], PicturePlace::FirstTurn), [2]);
        assert_eq!(pictures(&[], PicturePlace::Question), [2]);
    }
}
