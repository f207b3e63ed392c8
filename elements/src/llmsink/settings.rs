//! The properties' values, and the room that they make.

use std::time::Duration;

use gst::{glib, prelude::*};
use vita_dialogue::{duplex, state};
use vita_engine::models::{self, ModelSpec};
use vita_engine::room::{Pacing, RoomSettings};
use vita_model::Vita;
use vita_model::sampling::SamplingParams;

use super::nats::NatsSettings;

/// What to do with an utterance between the two thresholds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstVitaLlmSinkUndecided")]
pub enum Undecided {
    #[enum_value(name = "Stay silent", nick = "silent")]
    Silent,
    #[default]
    #[enum_value(
        name = "Answer when nothing is being answered; never interrupt on a doubt",
        nick = "answer-when-idle"
    )]
    AnswerWhenIdle,
    #[enum_value(name = "Answer, and interrupt if need be", nick = "answer")]
    Answer,
}

impl From<Undecided> for state::Undecided {
    fn from(undecided: Undecided) -> Self {
        match undecided {
            Undecided::Silent => Self::Silent,
            Undecided::AnswerWhenIdle => Self::AnswerWhenIdle,
            Undecided::Answer => Self::Answer,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Settings {
    pub(super) model: Option<String>,
    device: String,
    precision: String,
    system_prompt: Option<String>,
    max_tokens: u32,
    temperature: f64,
    top_p: f64,
    seed: u64,
    query_threshold: f64,
    noise_threshold: f64,
    undecided: Undecided,
    history_tokens: u32,
    look_back: gst::ClockTime,
    token_interval: gst::ClockTime,
    max_wait: gst::ClockTime,
    kv_cache_mib: u32,
    step_time: gst::ClockTime,
    pub(super) sync: bool,
    logit_bias: String,
    pub(super) nats: NatsSettings,
}

impl Default for Settings {
    fn default() -> Self {
        let room = RoomSettings::default();
        let rule = room.dialogue.state_rule;
        Self {
            model: None,
            device: models::DeviceSpec::default().to_string(),
            precision: "f32".into(),
            system_prompt: None,
            max_tokens: room.max_tokens as u32,
            temperature: room.sampling.temperature.into(),
            top_p: 1.0,
            seed: room.sampling.seed,
            query_threshold: decimal(rule.query_threshold),
            noise_threshold: decimal(rule.noise_threshold),
            undecided: Undecided::default(),
            history_tokens: room.dialogue.history_tokens as u32,
            look_back: clock_time(room.dialogue.look_back),
            token_interval: gst::ClockTime::ZERO,
            max_wait: clock_time(room.dialogue.maximum_wait.unwrap_or_default()),
            kv_cache_mib: (room.kv_cache_bytes >> 20) as u32,
            step_time: gst::ClockTime::ZERO,
            sync: false,
            logit_bias: String::new(),
            nats: NatsSettings::default(),
        }
    }
}

fn clock_time(duration: Duration) -> gst::ClockTime {
    gst::ClockTime::from_nseconds(duration.as_nanos() as u64)
}

/// A threshold as it was written, not as an f32 comes near to it.
fn decimal(value: f32) -> f64 {
    (f64::from(value) * 1e6).round() / 1e6
}

impl Settings {
    pub(super) fn model_spec(&self) -> Result<ModelSpec, models::Error> {
        let named = ModelSpec::named(self.model.as_deref().unwrap_or_default())?;
        Ok(ModelSpec {
            device: self.device.parse()?,
            precision: self.precision.parse()?,
            ..named
        })
    }

    pub(super) fn is_paced(&self) -> bool {
        !self.step_time.is_zero()
    }

    /// # Errors
    /// Where `logit-bias` is not what it should be.
    pub(super) fn room(&self, vita: &Vita) -> Result<RoomSettings, String> {
        let defaults = RoomSettings::default();
        let state_rule = state::StateRule {
            query_threshold: self.query_threshold as f32,
            noise_threshold: self.noise_threshold as f32,
            undecided: self.undecided.into(),
        };
        Ok(RoomSettings {
            dialogue: duplex::Settings {
                state_rule,
                history_tokens: self.history_tokens as usize,
                look_back: self.look_back.into(),
                maximum_wait: (!self.max_wait.is_zero()).then(|| self.max_wait.into()),
                ..defaults.dialogue
            },
            sampling: SamplingParams {
                temperature: self.temperature as f32,
                top_p: (self.top_p < 1.0).then_some(self.top_p as f32),
                seed: self.seed,
                ..defaults.sampling
            },
            max_tokens: self.max_tokens as usize,
            system: self.system_prompt.clone(),
            pacing: match self.is_paced() {
                false => Pacing::Free,
                true => Pacing::Stream {
                    step: Duration::from_nanos(self.step_time.nseconds()),
                },
            },
            token_interval: self.token_interval.into(),
            kv_cache_bytes: (self.kv_cache_mib as usize) << 20,
            logit_bias: self.logit_bias(vita)?,
            ..defaults
        })
    }

    /// `token:value` pairs; a token by its number, or by the name of a special one.
    pub(super) fn logit_bias(&self, vita: &Vita) -> Result<Vec<(u32, f32)>, String> {
        let pairs = self.logit_bias.split(',').map(str::trim);
        pairs
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let wrong = || format!("logit-bias: {pair}: expected token:value");
                let (token, value) = pair.rsplit_once(':').ok_or_else(wrong)?;
                let id = match token.parse() {
                    Ok(id) => id,
                    Err(_) => vita
                        .tokenizer()
                        .added_token(token)
                        .map_err(|error| format!("logit-bias: {error}"))?,
                };
                let value: f32 = value.parse().map_err(|_| wrong())?;
                Ok((id, value))
            })
            .collect()
    }

    pub(super) fn properties() -> Vec<glib::ParamSpec> {
        let defaults = Self::default();
        let text = |name, nick, blurb, default: Option<&str>| {
            glib::ParamSpecString::builder(name)
                .nick(nick)
                .blurb(blurb)
                .default_value(default)
                .mutable_ready()
                .build()
        };
        let fraction = |name, nick, blurb, minimum, default| {
            glib::ParamSpecDouble::builder(name)
                .nick(nick)
                .blurb(blurb)
                .minimum(minimum)
                .maximum(1.0)
                .default_value(default)
                .mutable_ready()
                .build()
        };
        let count = |name, nick, blurb, minimum, default| {
            glib::ParamSpecUInt::builder(name)
                .nick(nick)
                .blurb(blurb)
                .minimum(minimum)
                .maximum(1_000_000)
                .default_value(default)
                .mutable_ready()
                .build()
        };
        let time = |name, nick, blurb, default: gst::ClockTime| {
            glib::ParamSpecUInt64::builder(name)
                .nick(nick)
                .blurb(blurb)
                .maximum(gst::ClockTime::from_seconds(600).nseconds())
                .default_value(default.nseconds())
                .mutable_ready()
                .build()
        };
        let own = [
            text(
                "model",
                "Model",
                "The model: path of its folder, or a name such as nano, which is a folder in models of the cache",
                None,
            ),
            text(
                "device",
                "Device",
                "Where it computes: cpu, cuda or cuda:N",
                Some(&defaults.device),
            ),
            text(
                "precision",
                "Precision",
                "Type in which its matrices are kept: f32, f16 or bf16 (quantised ones stay as they are)",
                Some(&defaults.precision),
            ),
            text(
                "system-prompt",
                "System prompt",
                "Instead of the model's own system texts, which tell whether there are pictures",
                None,
            ),
            count(
                "max-tokens",
                "Maximum tokens",
                "Longest answer in tokens",
                1,
                defaults.max_tokens,
            ),
            glib::ParamSpecDouble::builder("temperature")
                .nick("Temperature")
                .blurb("Of drawing tokens; 0 takes the most probable one")
                .minimum(0.0)
                .maximum(10.0)
                .default_value(defaults.temperature)
                .mutable_ready()
                .build(),
            fraction(
                "top-p",
                "Top p",
                "Draw among the most probable tokens that together reach this probability",
                f64::MIN_POSITIVE,
                defaults.top_p,
            ),
            glib::ParamSpecUInt64::builder("seed")
                .nick("Seed")
                .blurb("Of drawing tokens: the same seed and input give the same words")
                .default_value(defaults.seed)
                .mutable_ready()
                .build(),
            fraction(
                "query-threshold",
                "Query threshold",
                "Share of the state tokens' probability from which an utterance is a question",
                0.0,
                defaults.query_threshold,
            ),
            fraction(
                "noise-threshold",
                "Noise threshold",
                "Share of the state tokens' probability below which an utterance is noise; not above query-threshold",
                0.0,
                defaults.noise_threshold,
            ),
            glib::ParamSpecEnum::builder_with_default("undecided", defaults.undecided)
                .nick("Undecided")
                .blurb("What to do with an utterance between the two thresholds")
                .mutable_ready()
                .build(),
            count(
                "history-tokens",
                "History tokens",
                "Tokens of past turns that a question is shown with; oldest whole turns go first; 0: none",
                0,
                defaults.history_tokens,
            ),
            time(
                "look-back",
                "Look-back",
                "Frames from so long before a question are shown with it (ns)",
                defaults.look_back,
            ),
            time(
                "token-interval",
                "Token interval",
                "At least so long between the tokens of an answer (ns), for who reads it aloud: what an interruption cuts off was not \
                 said yet. Without effect with step-time",
                defaults.token_interval,
            ),
            time(
                "max-wait",
                "Maximum wait",
                "A question that has no verdict so long after its end (ns; of live media, else after it came) is cancelled: nobody wants its answer \
                 any more. 0: never",
                defaults.max_wait,
            ),
            glib::ParamSpecUInt::builder("kv-cache-mib")
                .nick("KV cache")
                .blurb(
                    "MiB of keys and values, for what runs and, as long as there is room, for what was said before. All who share the \
                     model share them; the most that one of them wants counts",
                )
                .minimum(1)
                .maximum(1 << 20)
                .default_value(defaults.kv_cache_mib)
                .mutable_ready()
                .build(),
            time(
                "step-time",
                "Step time",
                "Go by the media's time, a decode step each so long (ns), so that the same media give the same \
                 messages; upstream waits for the model. 0: run freely, nothing waits",
                defaults.step_time,
            ),
            glib::ParamSpecBoolean::builder("sync")
                .nick("Sync")
                .blurb("Take media at their running time on the pipeline's clock, so that a file plays as if it were live")
                .default_value(defaults.sync)
                .mutable_ready()
                .build(),
            glib::ParamSpecString::builder("logit-bias")
                .nick("Logit bias")
                .blurb(
                    "For tests that force an outcome: token:value,... is added to the logits from the next question on; a \
                     token by its number or the name of a special one",
                )
                .default_value(Some(defaults.logit_bias.as_str()))
                .mutable_playing()
                .build(),
        ];
        own.into_iter().chain(NatsSettings::properties()).collect()
    }

    /// Takes the value of the property `name` of [`Self::properties`].
    pub(super) fn set(&mut self, name: &str, value: &glib::Value) {
        match name {
            "model" => self.model = get(value),
            "device" => self.device = text(value),
            "precision" => self.precision = text(value),
            "system-prompt" => self.system_prompt = get(value),
            "max-tokens" => self.max_tokens = get(value),
            "temperature" => self.temperature = get(value),
            "top-p" => self.top_p = get(value),
            "seed" => self.seed = get(value),
            "query-threshold" => self.query_threshold = get(value),
            "noise-threshold" => self.noise_threshold = get(value),
            "undecided" => self.undecided = get(value),
            "history-tokens" => self.history_tokens = get(value),
            "look-back" => self.look_back = gst::ClockTime::from_nseconds(get(value)),
            "token-interval" => self.token_interval = gst::ClockTime::from_nseconds(get(value)),
            "max-wait" => self.max_wait = gst::ClockTime::from_nseconds(get(value)),
            "kv-cache-mib" => self.kv_cache_mib = get(value),
            "step-time" => self.step_time = gst::ClockTime::from_nseconds(get(value)),
            "sync" => self.sync = get(value),
            "logit-bias" => self.logit_bias = text(value),
            name if self.nats.set(name, value) => (),
            _ => unreachable!("GObject knows the names"),
        }
    }

    /// The value of the property `name` of [`Self::properties`].
    pub(super) fn get(&self, name: &str) -> glib::Value {
        match name {
            "model" => self.model.to_value(),
            "device" => self.device.to_value(),
            "precision" => self.precision.to_value(),
            "system-prompt" => self.system_prompt.to_value(),
            "max-tokens" => self.max_tokens.to_value(),
            "temperature" => self.temperature.to_value(),
            "top-p" => self.top_p.to_value(),
            "seed" => self.seed.to_value(),
            "query-threshold" => self.query_threshold.to_value(),
            "noise-threshold" => self.noise_threshold.to_value(),
            "undecided" => self.undecided.to_value(),
            "history-tokens" => self.history_tokens.to_value(),
            "look-back" => self.look_back.nseconds().to_value(),
            "token-interval" => self.token_interval.nseconds().to_value(),
            "max-wait" => self.max_wait.nseconds().to_value(),
            "kv-cache-mib" => self.kv_cache_mib.to_value(),
            "step-time" => self.step_time.nseconds().to_value(),
            "sync" => self.sync.to_value(),
            "logit-bias" => self.logit_bias.to_value(),
            name => match self.nats.get(name) {
                Some(value) => value,
                None => unreachable!("GObject knows the names"),
            },
        }
    }
}

fn get<'v, T: glib::value::FromValue<'v>>(value: &'v glib::Value) -> T {
    value
        .get()
        .unwrap_or_else(|_| unreachable!("type checked by GObject"))
}

/// No text is an empty one.
fn text(value: &glib::Value) -> String {
    get::<Option<String>>(value).unwrap_or_default()
}
