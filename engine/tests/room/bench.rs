//! The golden checkpoint with rooms on it, and what they tell.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use vita_engine::room::event::{Answer, EventKind};
use vita_engine::room::{Event, Frame, Room, RoomSettings, Utterance};
use vita_engine::{Engine, Error};
use vita_model::prompt::{Conversation, Media, Modality, Segment, Turn, system_text, user_turn};
use vita_model::scheduler::Limits;
use vita_model::{GenerateOptions, LoadOptions, Vita};

/// No test waits longer for anything, however slow the machine.
const PATIENCE: Duration = Duration::from_secs(120);

pub static VITA: LazyLock<Arc<Vita>> = LazyLock::new(|| {
    let vita = Vita::load(&golden().join("checkpoint"), &LoadOptions::default());
    Arc::new(vita.expect("the golden checkpoint loads"))
});

pub fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden")
}

pub fn engine() -> Engine {
    Engine::start(VITA.clone(), Limits::default()).expect("a thread")
}

pub fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// What the golden recording says, as the ears hear it.
pub fn speech() -> Media {
    let wav = golden().join("inputs/wave_a.wav");
    let samples = vita_model::wav::read(&wav).expect("a recording").samples;
    VITA.hear(&samples).expect("it can be heard")
}

/// The utterance `id`, which ended at `end`.
pub fn utterance(id: u64, end: Duration) -> Utterance {
    Utterance {
        id,
        media: speech(),
        start: end - ms(1000),
        end,
        capture_time_ns: Some(1_700_000_000_000_000_000 + id),
        age: Duration::ZERO,
        waited: Duration::ZERO,
    }
}

pub fn pictures() -> Vec<Media> {
    let pictures: Vec<_> = (0..4)
        .map(|i| {
            let file = golden().join(format!("inputs/frame_{i}.png"));
            image::open(file).expect("a picture").to_rgb8()
        })
        .collect();
    VITA.see_frames(&pictures).expect("they can be seen")
}

pub fn frame(media: &Media, time: Duration) -> Frame {
    Frame {
        media: media.clone(),
        time,
        capture_time_ns: Some(time.as_nanos() as u64),
    }
}

/// Biases that force what is said of an utterance, and that keep an answer from ending before its time.
pub fn bias(is_query: bool, is_endless: bool) -> Vec<(u32, f32)> {
    let noise = VITA.state_tokens().noise;
    let end = VITA.template().stop_ids(VITA.tokenizer()).expect("ends");
    let mut bias = vec![(noise, if is_query { -50.0 } else { 50.0 })];
    if is_endless {
        bias.extend(end.into_iter().map(|id| (id, -1000.0)));
    }
    bias
}

/// Answers of so many tokens.
pub fn settings(max_tokens: usize) -> RoomSettings {
    RoomSettings {
        max_tokens,
        ..RoomSettings::default()
    }
}

/// A room and what it told so far.
pub struct Bench {
    pub room: Room,
    events: Receiver<Event>,
    pub told: Vec<Event>,
}

impl Bench {
    pub fn open(engine: &Engine, settings: RoomSettings) -> Self {
        Self::try_open(engine, settings).expect("the room opens")
    }

    pub fn try_open(engine: &Engine, settings: RoomSettings) -> Result<Self, Error> {
        let (sender, events) = channel();
        let on_event = Box::new(move |event| {
            // A test that has seen enough listens no more.
            let _ = sender.send(event);
        });
        Ok(Self {
            room: engine.open_room(settings, on_event)?,
            events,
            told: Vec::new(),
        })
    }

    #[track_caller]
    pub fn next(&mut self) -> EventKind {
        let event = self.events.recv_timeout(PATIENCE);
        let event = event.unwrap_or_else(|_| panic!("nothing more after {:#?}", self.told));
        self.told.push(event.clone());
        event.kind
    }

    /// The next event that is looked for; those before are in `told`.
    #[track_caller]
    pub fn until<T>(&mut self, wanted: impl Fn(&EventKind) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(&self.next()) {
                return found;
            }
        }
    }

    #[track_caller]
    pub fn answer(&mut self) -> Answer {
        self.until(|event| match event {
            EventKind::Answer(answer) => Some((**answer).clone()),
            _ => None,
        })
    }

    #[track_caller]
    pub fn first_delta(&mut self) {
        self.until(|event| matches!(event, EventKind::Delta { .. }).then_some(()));
    }

    /// Closes the room and hears it out.
    #[track_caller]
    pub fn close(self) -> Vec<Event> {
        let Self {
            room,
            events,
            mut told,
        } = self;
        drop(room);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = events.recv_timeout(left);
            let event = event.unwrap_or_else(|_| panic!("no end after {told:#?}"));
            let is_last = matches!(event.kind, EventKind::Closed | EventKind::Failed(_));
            told.push(event);
            if is_last {
                return told;
            }
        }
    }
}

/// The words of a generation, put together from its deltas.
pub fn words(told: &[Event], of: u64) -> String {
    let words = told.iter().filter_map(|event| match &event.kind {
        EventKind::Delta {
            generation, text, ..
        } if generation.0 == of => Some(text.as_str()),
        _ => None,
    });
    words.collect()
}

/// What [`Vita::generate`] answers greedily when the conversation's answer begins with this state token.
pub fn generated(turns: Vec<Turn>, modality: Modality, state: u32, tokens: usize) -> String {
    let conversation = Conversation {
        system: Some(system_text(modality, "VITA")),
        turns,
    };
    let mut prompt = VITA.prompt(&conversation).expect("a prompt");
    prompt.push(Segment::Ids(vec![state]));
    let options = GenerateOptions {
        max_new_tokens: tokens,
        stop_at_noise: false,
        ..GenerateOptions::default()
    };
    let answer = VITA.generate(&prompt, &options, |_| std::ops::ControlFlow::Continue(()));
    answer.expect("an answer").text
}

pub fn typed(text: &str) -> Turn {
    user_turn(Vec::new(), None, Some(text.into()))
}
