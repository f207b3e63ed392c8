use std::time::Duration;

use vita_dialogue::duplex;
use vita_model::Vita;
use vita_model::sampling::SamplingParams;
use vita_model::scheduler::Limits;
use vita_model::video::FrameSelection;

use crate::Error;

/// How a room's time passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pacing {
    /// By the wall clock: the engine works whenever there is something to do, all such rooms in one batch.
    #[default]
    Free,
    /// By the media, for tests and recordings: the room has a batch of its own and makes one step of it for each `step` of
    /// media time, as far as [`super::Room::advance`] allows. A question is judged in one step (prompts over 2048 tokens
    /// in several), each token takes one, encoding takes none. The same media give the same events at the same times.
    Stream { step: Duration },
}

/// What a room is like.
#[derive(Clone, Debug, PartialEq)]
pub struct RoomSettings {
    /// Limits and thresholds of the dialogue.
    pub dialogue: duplex::Settings,
    pub sampling: SamplingParams,
    /// Longest answer, its state token not counted; shorter where the model's context ends before.
    pub max_tokens: usize,
    /// Instead of the model's own system texts, which tell whether there are pictures.
    pub system: Option<String>,
    /// Which frames of a question's interval the model is shown.
    pub frame_selection: FrameSelection,
    /// Frames kept for questions to come; `drop-oldest`, counted.
    pub frames: usize,
    /// Frames older than this are let go.
    pub frame_window: Duration,
    /// Questions and requests on their way to the engine; `drop-newest`, counted and told to the caller.
    pub queue: usize,
    pub pacing: Pacing,
    /// At least so long between the tokens of a freely running room's answers, for who reads them aloud: what an interruption cuts off was not
    /// said yet. Zero: as fast as it goes.
    pub token_interval: Duration,
    /// Of keys and values for all freely running rooms of the model; the largest that one of them wants counts. A paced room
    /// has its own.
    pub kv_cache_bytes: usize,
    /// Added to the logits of these tokens at every position. For tests that force an outcome: a strong bias on the token
    /// for noise decides every verdict.
    pub logit_bias: Vec<(u32, f32)>,
}

impl Default for RoomSettings {
    fn default() -> Self {
        Self {
            dialogue: duplex::Settings::default(),
            sampling: SamplingParams::default(),
            max_tokens: 512,
            system: None,
            frame_selection: FrameSelection::default(),
            frames: 128,
            frame_window: Duration::from_secs(60),
            queue: 64,
            pacing: Pacing::default(),
            token_interval: Duration::ZERO,
            kv_cache_bytes: Limits::default().memory_bytes,
            logit_bias: Vec::new(),
        }
    }
}

impl RoomSettings {
    /// # Errors
    /// Where a value has no meaning for this model.
    pub fn validate(&self, vita: &Vita) -> Result<(), Error> {
        self.sampling.validate()?;
        let fail = |what: String| Err(Error::Settings(what));
        let rule = &self.dialogue.state_rule;
        let (noise, query) = (rule.noise_threshold, rule.query_threshold);
        if !(noise >= 0.0 && noise <= query && query <= 1.0) {
            return fail(format!(
                "noise threshold {noise} and query threshold {query}: expected 0 to 1, the first not above the second"
            ));
        }
        if self.max_tokens == 0 {
            return fail("max tokens 0 leaves no room for an answer".into());
        }
        if self.pacing
            == (Pacing::Stream {
                step: Duration::ZERO,
            })
        {
            return fail("a step of no time: expected more than 0".into());
        }
        let rule = &self.frame_selection;
        if rule.min_frames == 0 || rule.min_frames > rule.max_frames {
            return fail(format!(
                "{} to {} frames: expected at least 1, and a maximum not below the minimum",
                rule.min_frames, rule.max_frames
            ));
        }
        check_bias(&self.logit_bias, vita.lm().vocabulary())
    }
}

pub(crate) fn check_bias(bias: &[(u32, f32)], vocabulary: usize) -> Result<(), Error> {
    match bias.iter().find(|(token, _)| *token as usize >= vocabulary) {
        Some((token, _)) => Err(Error::Settings(format!(
            "logit bias: token {token} of a vocabulary of {vocabulary}"
        ))),
        None => Ok(()),
    }
}
