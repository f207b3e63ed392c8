//! Prompt templates and system texts (spec 6.1).

use super::tokenizer::MarkupPiece;
use super::{Content, Conversation, Role, Segment, Tokenizer};
use crate::{Error, Result};
use serde::Deserialize;
use std::ops::Range;

/// Where the text of a turn goes in a template's strings.
const SLOT: &str = "{text}";

/// How turns are written. Names of special tokens are recognised in these strings, and only in these.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    pub system: String,
    pub user: String,
    pub bot: String,
    /// What stands before the answer that is to be generated.
    pub open: String,
    /// Names of the tokens that end an answer.
    pub stop: Vec<String>,
    /// Where a question's pictures stand in a conversation. A model built from parts that says nothing has them in front of
    /// the question.
    #[serde(default)]
    pub pictures: PicturePlace,
}

/// Where the pictures of a question stand that is not the first of its conversation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PicturePlace {
    /// In front of the question: what was computed for the turns before stays valid when new pictures come.
    #[default]
    Question,
    /// In front of the first turn, as VITA-1.0 has them (spec section 7.4).
    FirstTurn,
}

impl Default for Template {
    /// VITA-1.0's.
    fn default() -> Self {
        Self {
            system: "system:{text}</s>".into(),
            user: "\nuser:{text}</s>".into(),
            bot: "\nbot:{text}</s>".into(),
            open: "\nbot:".into(),
            stop: vec!["</s>".into()],
            pictures: PicturePlace::FirstTurn,
        }
    }
}

/// What a conversation is about, which decides VITA's system text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Modality {
    /// Text or sound only.
    Lang,
    Image,
    Video,
}

impl Modality {
    pub const ALL: [Self; 3] = [Self::Lang, Self::Image, Self::Video];

    pub fn name(self) -> &'static str {
        match self {
            Self::Lang => "lang",
            Self::Image => "image",
            Self::Video => "video",
        }
    }

    /// The released code insists that pictures and system text agree.
    pub fn check(self, images: usize) -> Result<()> {
        match (self, images) {
            (Self::Lang, 0) => Ok(()),
            (Self::Lang, n) => Err(Error::Input(format!(
                "{n} pictures in a conversation without pictures"
            ))),
            (_, 0) => Err(Error::Input(format!(
                "no picture in a conversation about {}s",
                self.name()
            ))),
            _ => Ok(()),
        }
    }
}

const STEM: &str = "You are an AI robot and your name is {name}. \n- You are a multimodal large language \
model developed by the open source community. Your aim is to be helpful, honest and harmless. \n- You \
support the ability to communicate fluently and answer user questions in multiple languages of the \
user's choice. \n- If the user corrects the wrong answer you generated, you will apologize and discuss \
the correct answer with the user.";

const VISUAL: &str = " \n- You must answer the question strictly according to the content of the {seen} \
given by the user, and it is strictly forbidden to answer the question without the content of the {seen}. \
Please note that you are seeing the {seen}, not the {other}.";

/// The system text of the pure-text training stage.
pub const SYSTEM_CHINESE_TEXT: &str = "你是一个人工智能机器人。\n- 你是研究社区开发的大语言模型。\
你的设计宗旨是有益、诚实且无害。\n- 你支持使用用户选择的多种语言流利地进行交流并解答用户的问题。\n- \
如果用户更正你生成的错误答案，你会向用户致歉并与用户探讨正确的答案。";

/// VITA's system text. The paper and the training code call the robot "VITA"; the live demo calls it
/// "Vita", and gives it the video text for pictures too, because it sends them as frames.
pub fn system_text(modality: Modality, name: &str) -> String {
    let stem = STEM.replace("{name}", name);
    let (seen, other) = match modality {
        Modality::Lang => return stem,
        Modality::Image => ("image", "video"),
        Modality::Video => ("video", "image"),
    };
    stem + &VISUAL.replace("{seen}", seen).replace("{other}", other)
}

/// A model's own system texts, where they are not VITA's. An empty one: such conversations begin without.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SystemTexts {
    pub lang: String,
    pub image: String,
    pub video: String,
}

impl SystemTexts {
    /// `None` where there is none.
    pub fn of(&self, modality: Modality) -> Option<&str> {
        let text = match modality {
            Modality::Lang => &self.lang,
            Modality::Image => &self.image,
            Modality::Video => &self.video,
        };
        (!text.is_empty()).then_some(text)
    }
}

impl Template {
    /// Ids that end an answer.
    pub fn stop_ids(&self, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
        self.stop
            .iter()
            .map(|name| tokenizer.added_token(name))
            .collect()
    }

    /// The whole conversation and the opening of the answer. Adjacent texts are tokenised together,
    /// what media or special tokens part is tokenised apart, BOS comes once in front.
    pub fn render(
        &self,
        conversation: &Conversation,
        tokenizer: &Tokenizer,
    ) -> Result<Vec<Segment>> {
        let mut writer = Writer::new(tokenizer);
        if let Some(system) = &conversation.system {
            writer.turn(&self.system, &[Content::Text(system.clone())])?;
        }
        for turn in &conversation.turns {
            let frame = match turn.role {
                Role::User => &self.user,
                Role::Bot => &self.bot,
            };
            writer.turn(frame, &turn.content)?;
        }
        writer.markup(&self.open)?;
        let segments = writer.finish()?.into_iter();
        Ok(segments.map(|(segment, _)| segment).collect())
    }

    /// A whole conversation whose last turn is an answer, and of each position whether the model
    /// says it: the answers, and the tokens that end them. Without an end (`ended` false) the last
    /// answer stops at its last word.
    #[cfg(feature = "train")]
    pub(crate) fn render_answered(
        &self,
        conversation: &Conversation,
        tokenizer: &Tokenizer,
        ended: bool,
    ) -> Result<Vec<(Segment, Vec<bool>)>> {
        let mut writer = Writer::new(tokenizer);
        if let Some(system) = &conversation.system {
            writer.turn(&self.system, &[Content::Text(system.clone())])?;
        }
        let last = conversation.turns.len().saturating_sub(1);
        for (i, turn) in conversation.turns.iter().enumerate() {
            match turn.role {
                Role::User => writer.turn(&self.user, &turn.content)?,
                Role::Bot => writer.answer(&self.bot, &turn.content, ended || i < last)?,
            }
        }
        writer.finish()
    }
}

/// A frame's parts before and after its text.
fn split_frame(frame: &str) -> Result<(&str, &str)> {
    frame.split_once(SLOT).ok_or_else(|| {
        Error::Input(format!(
            "the template's turn {frame:?} has no place {SLOT} for the text"
        ))
    })
}

struct Writer<'a> {
    tokenizer: &'a Tokenizer,
    text: String,
    /// Where in `text` the model's own words are.
    said: Vec<Range<usize>>,
    ids: Vec<u32>,
    /// Of each id whether the model says it.
    targets: Vec<bool>,
    segments: Vec<(Segment, Vec<bool>)>,
}

impl<'a> Writer<'a> {
    fn new(tokenizer: &'a Tokenizer) -> Self {
        let ids: Vec<_> = tokenizer.bos().into_iter().collect();
        Self {
            tokenizer,
            text: String::new(),
            said: Vec::new(),
            targets: vec![false; ids.len()],
            ids,
            segments: Vec::new(),
        }
    }

    fn turn(&mut self, frame: &str, content: &[Content]) -> Result<()> {
        let (before, after) = split_frame(frame)?;
        self.markup(before)?;
        for part in content {
            match part {
                Content::Text(text) => self.text.push_str(text),
                Content::Token(id) => self.token(*id, false)?,
                Content::Media(media) => {
                    self.end_ids()?;
                    let targets = vec![false; media.vectors.dims().first().copied().unwrap_or(0)];
                    let segment = Segment::Media(media.clone());
                    self.segments.push((segment, targets));
                }
            }
        }
        self.markup(after)
    }

    /// A turn of the model's: its words and the first token behind them are targets.
    #[cfg(feature = "train")]
    fn answer(&mut self, frame: &str, content: &[Content], ended: bool) -> Result<()> {
        let (before, after) = split_frame(frame)?;
        self.markup(before)?;
        for part in content {
            match part {
                Content::Text(text) => {
                    let from = self.text.len();
                    self.text.push_str(text);
                    self.said.push(from..self.text.len());
                }
                Content::Token(id) => self.token(*id, true)?,
                Content::Media(_) => {
                    return Err(Error::Input("an answer holds pictures or sound".into()));
                }
            }
        }
        if !ended {
            return Ok(());
        }
        let mut ends = true;
        for piece in self.tokenizer.split_markup(after) {
            match piece {
                MarkupPiece::Text(text) => self.text.push_str(text),
                MarkupPiece::Token(id) => self.token(id, std::mem::take(&mut ends))?,
            }
        }
        Ok(())
    }

    fn markup(&mut self, text: &str) -> Result<()> {
        for piece in self.tokenizer.split_markup(text) {
            match piece {
                MarkupPiece::Text(text) => self.text.push_str(text),
                MarkupPiece::Token(id) => self.token(id, false)?,
            }
        }
        Ok(())
    }

    fn token(&mut self, id: u32, said: bool) -> Result<()> {
        self.end_text()?;
        self.ids.push(id);
        self.targets.push(said);
        Ok(())
    }

    fn end_text(&mut self) -> Result<()> {
        let text = std::mem::take(&mut self.text);
        let said = std::mem::take(&mut self.said);
        for (id, place) in self.tokenizer.encode_text_with_places(&text)? {
            self.ids.push(id);
            self.targets
                .push(said.iter().any(|s| s.contains(&place.start)));
        }
        Ok(())
    }

    fn end_ids(&mut self) -> Result<()> {
        self.end_text()?;
        if !self.ids.is_empty() {
            let targets = std::mem::take(&mut self.targets);
            let segment = Segment::Ids(std::mem::take(&mut self.ids));
            self.segments.push((segment, targets));
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<(Segment, Vec<bool>)>> {
        self.end_ids()?;
        Ok(self.segments)
    }
}
