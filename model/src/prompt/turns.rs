//! A conversation before it is written down.

use super::Media;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    User,
    Bot,
}

/// A part of a turn.
#[derive(Debug, Clone)]
pub enum Content {
    /// Plain text, whatever it contains.
    Text(String),
    /// One token by id: a state token in front of an earlier answer.
    Token(u32),
    Media(Media),
}

#[derive(Debug, Clone)]
pub struct Turn {
    pub role: Role,
    pub content: Vec<Content>,
}

/// What was said so far, the question last.
#[derive(Debug, Clone, Default)]
pub struct Conversation {
    pub system: Option<String>,
    pub turns: Vec<Turn>,
}

/// A user's turn in VITA's order: pictures, a newline, then the question, spoken or typed. Without
/// pictures there is no newline.
pub fn user_turn(images: Vec<Media>, audio: Option<Media>, text: Option<String>) -> Turn {
    let newline = (!images.is_empty()).then(|| Content::Text("\n".into()));
    let content = images.into_iter().map(Content::Media).chain(newline);
    let content = content.chain(audio.map(Content::Media));
    Turn {
        role: Role::User,
        content: content.chain(text.map(Content::Text)).collect(),
    }
}
