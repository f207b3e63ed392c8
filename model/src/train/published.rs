//! Training records in the reference's format, and how it prepares their texts (spec 8.2).

use crate::prompt::{
    Content, Conversation, Media, MediaKind, Modality, Role, StateTokens, Turn, system_text,
};
use crate::{Error, Result};

const IMAGE: &str = "<image>";
const AUDIO: &str = "<audio>";
const VIDEO: &str = "<video>";

/// Image markers of one message beyond these are cut off.
const MAX_IMAGES: usize = 16;

/// One conversation of the reference's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub modality: Modality,
    /// Human and model in turn, human first.
    pub messages: Vec<String>,
    /// Tiles (thumbnail included) of the picture of each message that has one, in order; both
    /// markers of a message with two get the first one's count.
    pub tiles: Vec<usize>,
    /// Frames of a video.
    pub frames: usize,
    /// Index of the answer to something that was not meant for the system.
    pub noise: Option<usize>,
}

/// Which state token an answer begins with; none in conversations of text alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Query,
    Noise,
    Text,
}

impl State {
    /// As the reference writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Query => "<1>",
            Self::Noise => "<2>",
            Self::Text => "<3>",
        }
    }

    fn id(self, states: StateTokens) -> u32 {
        match self {
            Self::Query => states.query,
            Self::Noise => states.noise,
            Self::Text => states.text,
        }
    }
}

/// A message after preparation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    pub state: Option<State>,
    /// With a marker for each tile, frame and sound.
    pub text: String,
}

impl Record {
    /// The texts as the reference tokenises them.
    pub fn prepare(&self) -> Vec<Prepared> {
        let has = |marker| self.messages.iter().any(|m| m.contains(marker));
        if !has(IMAGE) && !has(AUDIO) && !has(VIDEO) {
            let plain = |text: &String| Prepared {
                state: None,
                text: text.clone(),
            };
            return self.messages.iter().map(plain).collect();
        }
        let mut tiles = self.tiles.iter().copied();
        let mut prepared = Vec::with_capacity(self.messages.len());
        let mut spoken = false;
        for (i, message) in self.messages.iter().enumerate() {
            let state = match i % 2 {
                0 => None,
                _ if self.noise == Some(i) => Some(State::Noise),
                _ if spoken => Some(State::Query),
                _ => Some(State::Text),
            };
            if i % 2 == 0 {
                spoken = message.contains(AUDIO);
            }
            let count = match message.contains(IMAGE) {
                true => tiles.next().unwrap_or(1),
                false => 0,
            };
            let text = self.expand(&markers_first(message), count);
            prepared.push(Prepared { state, text });
        }
        prepared
    }

    fn expand(&self, message: &str, tiles: usize) -> String {
        let pictures = |count| IMAGE.repeat(count) + "\n";
        // the video's frames become image markers, so the images of the message come first
        let text = message.replace(IMAGE, &pictures(tiles));
        let text = text.replace(VIDEO, &pictures(self.frames));
        let text = text.replace(&format!("{AUDIO}\n"), AUDIO);
        text.replace("\n\n", "\n")
    }

    /// The conversation, with media in the order of their markers.
    ///
    /// # Errors
    /// Where there are fewer media than markers.
    pub fn conversation(
        &self,
        states: StateTokens,
        media: impl IntoIterator<Item = Media>,
    ) -> Result<Conversation> {
        let mut media = media.into_iter();
        let mut turns = Vec::new();
        for (i, Prepared { state, text }) in self.prepare().into_iter().enumerate() {
            let role = if i % 2 == 0 { Role::User } else { Role::Bot };
            let mut content: Vec<_> = state
                .map(|s| Content::Token(s.id(states)))
                .into_iter()
                .collect();
            for piece in split(&text) {
                content.push(match piece {
                    Piece::Text(text) => Content::Text(text.into()),
                    Piece::Medium(kind) => match media.next().filter(|m| m.kind == kind) {
                        Some(medium) => Content::Media(medium),
                        None => {
                            return Err(Error::Input(format!(
                                "message {i} asks for more pictures or sounds than were given"
                            )));
                        }
                    },
                });
            }
            turns.push(Turn { role, content });
        }
        Ok(Conversation {
            system: Some(system_text(self.modality, "VITA")),
            turns,
        })
    }
}

/// No newlines beside image markers; markers at the end of a message come to its front; not too many.
fn markers_first(message: &str) -> String {
    let mut text = message.to_string();
    for marker in [IMAGE, VIDEO] {
        let (before, after) = (format!("\n{marker}"), format!("{marker}\n"));
        while text.contains(&before) || text.contains(&after) {
            text = text.replace(&before, marker).replace(&after, marker);
        }
        let count = text.matches(marker).count();
        if count > MAX_IMAGES {
            text = marker.repeat(MAX_IMAGES) + &text.replace(marker, "");
        }
        let mut moved = String::new();
        while let Some(rest) = text.strip_suffix(marker).filter(|rest| !rest.is_empty()) {
            text = rest.to_string();
            moved += marker;
        }
        text = moved + &text;
    }
    text
}

enum Piece<'a> {
    Text(&'a str),
    Medium(MediaKind),
}

fn split(text: &str) -> Vec<Piece<'_>> {
    let kinds = [(IMAGE, MediaKind::Image), (AUDIO, MediaKind::Audio)];
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let next = kinds
            .iter()
            .filter_map(|(m, kind)| Some((rest.find(m)?, *m, *kind)));
        let Some((at, marker, kind)) = next.min_by_key(|(at, ..)| *at) else {
            pieces.push(Piece::Text(rest));
            break;
        };
        if at > 0 {
            pieces.push(Piece::Text(&rest[..at]));
        }
        pieces.push(Piece::Medium(kind));
        rest = &rest[at + marker.len()..];
    }
    pieces
}
