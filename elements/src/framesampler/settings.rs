use gst::{glib, prelude::*};
use vita_model::video::{FrameSelection, Rule};

use super::rate::Rate;

/// When frames are released.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstVitaFrameSamplerMode")]
#[repr(C)]
pub enum Mode {
    #[default]
    #[enum_value(name = "Rate: so many frames per second", nick = "rate")]
    Rate,
    #[enum_value(
        name = "Clip: the model's choice at the end of each clip",
        nick = "clip"
    )]
    Clip,
    #[enum_value(
        name = "On demand: the newest frames when asked for",
        nick = "on-demand"
    )]
    OnDemand,
}

impl Mode {
    /// As element messages and events say it.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Clip => "clip",
            Self::OnDemand => "on-demand",
        }
    }
}

/// Which of the model's two rules chooses a clip's frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstVitaFrameSamplerClipRule")]
#[repr(C)]
pub enum ClipRule {
    #[default]
    #[enum_value(
        name = "Code: one per second, thinned or repeated to the limits",
        nick = "code"
    )]
    Code,
    #[enum_value(
        name = "Paper: evenly over clips of fewer or more seconds than the limits, else one per second",
        nick = "paper"
    )]
    Paper,
}

#[derive(Clone, Debug)]
pub struct Settings {
    pub mode: Mode,
    pub rate: Rate,
    pub keyframes_only: bool,
    pub clip_rule: ClipRule,
    pub min_frames: u32,
    pub max_frames: u32,
    pub history: u32,
    pub post_messages: bool,
}

impl Default for Settings {
    fn default() -> Self {
        let selection = FrameSelection::default();
        Self {
            mode: Mode::default(),
            rate: Rate {
                numerator: 1,
                denominator: 1,
            },
            keyframes_only: false,
            clip_rule: ClipRule::default(),
            min_frames: selection.min_frames as u32,
            max_frames: selection.max_frames as u32,
            // Twice the most that the model looks at, 100 MB of 1080p I420.
            history: 2 * selection.max_frames as u32,
            post_messages: true,
        }
    }
}

impl Settings {
    pub fn selection(&self) -> FrameSelection {
        FrameSelection {
            rule: match self.clip_rule {
                ClipRule::Code => Rule::Code,
                ClipRule::Paper => Rule::Paper,
            },
            min_frames: self.min_frames.min(self.max_frames) as usize,
            max_frames: self.max_frames as usize,
        }
    }

    /// Candidates of a clip: a clip must be able to hold what is chosen from it.
    pub fn clip_capacity(&self) -> usize {
        self.history.max(self.max_frames) as usize
    }

    /// Frames that the element holds on to, which an upstream buffer pool must have to spare.
    pub fn most_held(&self) -> u32 {
        match self.mode {
            Mode::Rate => 0,
            Mode::Clip => self.clip_capacity() as u32,
            Mode::OnDemand => self.history,
        }
    }

    pub fn properties() -> Vec<glib::ParamSpec> {
        let default = Self::default();
        let frames = 4096;
        vec![
            glib::ParamSpecEnum::builder_with_default("mode", default.mode)
                .nick("Mode")
                .blurb("When frames are released")
                .mutable_ready()
                .build(),
            gst::ParamSpecFraction::builder("rate")
                .nick("Rate")
                .blurb("Frames per second to keep (mode=rate)")
                .minimum(gst::Fraction::new(1, i32::MAX))
                .maximum(gst::Fraction::new(i32::MAX, 1))
                .default_value(gst::Fraction::new(
                    default.rate.numerator as i32,
                    default.rate.denominator as i32,
                ))
                .mutable_playing()
                .build(),
            glib::ParamSpecBoolean::builder("keyframes-only")
                .nick("Key frames only")
                .blurb(
                    "Before a decoder: pass nothing but key frames, so that the rate becomes an upper bound where these are \
                     rarer (mode=rate)",
                )
                .default_value(default.keyframes_only)
                .mutable_playing()
                .build(),
            glib::ParamSpecEnum::builder_with_default("clip-rule", default.clip_rule)
                .nick("Clip rule")
                .blurb("The model's rule that chooses a clip's frames (mode=clip)")
                .mutable_playing()
                .build(),
            glib::ParamSpecUInt::builder("min-frames")
                .nick("Minimum frames")
                .blurb("Frames that the model sees of a clip at least, repeated where there are fewer (mode=clip)")
                .minimum(1)
                .maximum(frames)
                .default_value(default.min_frames)
                .mutable_playing()
                .build(),
            glib::ParamSpecUInt::builder("max-frames")
                .nick("Maximum frames")
                .blurb("Frames that the model sees of a clip at most (mode=clip)")
                .minimum(1)
                .maximum(frames)
                .default_value(default.max_frames)
                .mutable_playing()
                .build(),
            glib::ParamSpecUInt::builder("history")
                .nick("History")
                .blurb(
                    "Frames held at most: the newest, the oldest being dropped (mode=on-demand), or a clip's candidates, \
                     thinned evenly and never fewer than max-frames (mode=clip)",
                )
                .minimum(1)
                .maximum(frames)
                .default_value(default.history)
                .mutable_playing()
                .build(),
            glib::ParamSpecBoolean::builder("post-messages")
                .nick("Post messages")
                .blurb("Post an element message vita-frame for each kept frame")
                .default_value(default.post_messages)
                .mutable_playing()
                .build(),
            glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
                .nick("Statistics")
                .blurb("Frames since READY: in, kept, decode-only, held, dropped and why")
                .read_only()
                .build(),
        ]
    }

    pub fn set(&mut self, name: &str, value: &glib::Value) {
        // GObject has checked type and range against the specification above.
        fn get<'a, T: glib::value::FromValue<'a>>(value: &'a glib::Value) -> T {
            value.get().expect("type checked by GObject")
        }
        match name {
            "mode" => self.mode = get(value),
            "rate" => {
                let rate = get::<gst::Fraction>(value);
                self.rate = Rate {
                    numerator: rate.numer().max(1).unsigned_abs(),
                    denominator: rate.denom().max(1).unsigned_abs(),
                };
            }
            "keyframes-only" => self.keyframes_only = get(value),
            "clip-rule" => self.clip_rule = get(value),
            "min-frames" => self.min_frames = get(value),
            "max-frames" => self.max_frames = get(value),
            "history" => self.history = get(value),
            "post-messages" => self.post_messages = get(value),
            _ => unreachable!("GObject knows no other writable property"),
        }
    }

    /// `None` for what is no setting.
    pub fn get(&self, name: &str) -> Option<glib::Value> {
        Some(match name {
            "mode" => self.mode.to_value(),
            "rate" => gst::Fraction::new(self.rate.numerator as i32, self.rate.denominator as i32)
                .to_value(),
            "keyframes-only" => self.keyframes_only.to_value(),
            "clip-rule" => self.clip_rule.to_value(),
            "min-frames" => self.min_frames.to_value(),
            "max-frames" => self.max_frames.to_value(),
            "history" => self.history.to_value(),
            "post-messages" => self.post_messages.to_value(),
            _ => return None,
        })
    }
}
