use std::sync::{
    Arc, Condvar, LazyLock, Mutex,
    atomic::{AtomicU32, Ordering},
};
use std::time::{Duration, Instant};

use gst::{glib, prelude::*, subclass::prelude::*};
use vita_engine::models::{self, Model};
use vita_engine::room::event::EventKind;
use vita_engine::room::{Event, Room};
use vita_messages::kinds::SourceReasonKind;

use super::{
    intake::duration, message, nats, nats::Nats, outbox::Outbox, overload::Overload, pads::Pads,
    settings::Settings,
};
use crate::common::{self, lock, media};

pub(super) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "vitallmsink",
        gst::DebugColorFlags::empty(),
        Some("Duplex dialogue on a language model"),
    )
});

/// The last messages of a room that is closed are waited for so long.
const GOODBYE: Duration = Duration::from_millis(500);

#[derive(Default)]
pub(super) struct State {
    pub(super) pads: Pads,
    pub(super) is_playing: bool,
    /// From PAUSED on.
    pub(super) session: Option<Session>,
}

/// From PAUSED to READY.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) room: Arc<Room>,
    outbox: Arc<Outbox>,
    pub(super) nats: Option<Arc<Nats>>,
    pub(super) is_paced: bool,
    pub(super) sync: bool,
}

#[derive(Default)]
pub struct LlmSink {
    settings: Mutex<Settings>,
    /// From PAUSED on until NULL.
    model: Mutex<Option<Arc<Model>>>,
    pub(super) state: Mutex<State>,
    /// The state is another.
    pub(super) changed: Condvar,
    next_pad: AtomicU32,
    /// Number of the last session on NATS: the next one's is greater, whatever the clock says.
    last_session: Mutex<u64>,
}

impl LlmSink {
    fn sink_event(&self, pad: &gst::Pad, event: gst::Event) -> bool {
        use gst::EventView;

        gst::trace!(CAT, obj = pad, "{event:?}");
        match event.view() {
            EventView::Caps(caps) => {
                let caps = caps.caps_owned();
                self.with_pad(pad, |pad| pad.caps = Some(caps));
            }
            EventView::StreamStart(_) => self.with_pad(pad, |pad| pad.is_eos = false),
            EventView::Segment(segment) => {
                let segment = segment.segment();
                self.with_pad(pad, |pad| {
                    pad.segment = segment.downcast_ref::<gst::ClockTime>().cloned();
                    let start = pad.segment.as_ref().and_then(|segment| segment.position());
                    if let Some(start) = pad.stream_time(start) {
                        pad.came_to(start);
                    }
                });
                self.advance();
            }
            EventView::Gap(gap) => {
                let (start, length) = gap.get();
                let end = start + length.unwrap_or_default();
                let time = lock(&self.state)
                    .pads
                    .get(pad)
                    .and_then(|pad| pad.stream_time(Some(end)));
                let Ok(session) = self.enter(pad) else {
                    return false;
                };
                return self.follow(pad, time, &session).is_ok();
            }
            EventView::Eos(_) => {
                if self.enter(pad).is_err() {
                    return false;
                }
                lock(&self.state).pads.eos(pad, event.seqnum());
                self.look_for_end();
            }
            EventView::FlushStart(_) => {
                let session = {
                    let mut state = lock(&self.state);
                    if let Some(pad) = state.pads.get(pad) {
                        pad.stop();
                    }
                    state.session.clone()
                };
                self.wake_all(session.as_ref());
            }
            EventView::FlushStop(_) => {
                let (is_first, session) = {
                    let mut state = lock(&self.state);
                    let is_first = state.pads.flushed(pad, event.seqnum());
                    (is_first, state.session.clone())
                };
                if let Some(session) = session.filter(|_| is_first) {
                    session.room.flush();
                }
            }
            EventView::CustomDownstream(custom) => {
                let session = lock(&self.state).session.clone();
                if let Some((session, structure)) = session.zip(custom.structure()) {
                    self.custom_event(structure, &session);
                }
            }
            _ => return gst::Pad::event_default(pad, Some(&*self.obj()), event),
        }
        true
    }

    fn with_pad(&self, pad: &gst::Pad, change: impl FnOnce(&mut super::pads::PadState)) {
        if let Some(pad) = lock(&self.state).pads.get(pad) {
            change(pad);
        }
    }

    /// Has those look again who wait for PLAYING or for the room.
    fn wake_all(&self, session: Option<&Session>) {
        self.changed.notify_all();
        if let Some(session) = session {
            session.room.wake_waiting();
        }
    }

    /// Lets the room go on as far as the streams are now.
    fn advance(&self) {
        let (session, position) = {
            let state = lock(&self.state);
            (state.session.clone(), state.pads.position())
        };
        if let Some((session, position)) = session.zip(position) {
            session.room.advance(duration(position));
        }
    }

    /// One stream less may be the end of all, or let the others go on.
    fn look_for_end(&self) {
        let (session, is_end) = {
            let mut state = lock(&self.state);
            let is_end = state.pads.take_end();
            (state.session.clone(), is_end)
        };
        match session.filter(|_| is_end) {
            Some(session) => session.room.finish(),
            None => self.advance(),
        }
    }

    /// What the engine tells, handed on by a thread of its own: who reads the bus may take time.
    fn hand_on(element: &glib::WeakRef<super::LlmSink>, outbox: &Outbox, nats: Option<&Nats>) {
        let mut overload = Overload::default();
        while let Some(event) = outbox.pop() {
            let is_last = matches!(event.kind, EventKind::Closed | EventKind::Failed(_));
            let structure = message::structure(&event);
            if let Some(nats) = nats {
                match &event.kind {
                    EventKind::Drained => nats.down(SourceReasonKind::Ended, "the streams ended"),
                    EventKind::Failed(reason) => nats.down(SourceReasonKind::Pipeline, reason),
                    _ => structure.iter().for_each(|structure| nats.tell(structure)),
                }
            }
            if let Some(element) = element.upgrade() {
                element.imp().post(&event, structure);
                if let Some(warning) = overload.hear(&event.kind, Instant::now()) {
                    gst::element_imp_warning!(
                        element.imp(),
                        gst::ResourceError::Busy,
                        ("{warning}")
                    );
                }
            }
            if is_last {
                break;
            }
        }
        if let Some(nats) = nats {
            nats.close();
        }
        outbox.done();
    }

    fn post(&self, event: &Event, structure: Option<gst::Structure>) {
        if let Some(structure) = structure {
            gst::debug!(CAT, imp = self, "{structure}");
            common::post(&*self.obj(), structure);
            return;
        }
        match &event.kind {
            EventKind::Drained => {
                let mut eos = gst::message::Eos::builder().src(&*self.obj());
                if let Some(seqnum) = lock(&self.state).pads.end_seqnum() {
                    eos = eos.seqnum(seqnum);
                }
                let _ = self.obj().post_message(eos.build());
            }
            EventKind::Failed(reason) => {
                gst::element_imp_error!(
                    self,
                    gst::LibraryError::Failed,
                    ("the dialogue failed: {reason}")
                );
            }
            _ => (),
        }
    }

    fn open(&self) -> Result<(), gst::StateChangeError> {
        self.try_open().map_err(|error| {
            gst::element_imp_error!(self, gst::ResourceError::OpenRead, ("{error}"));
            gst::StateChangeError
        })
    }

    fn try_open(&self) -> Result<(), Box<dyn std::error::Error>> {
        let settings = lock(&self.settings).clone();
        let spec = settings.model_spec()?;
        let text = format!("opening the model {}", spec.path.display());
        self.progress(gst::ProgressType::Start, &text);
        let model = models::open(&spec, None)?;
        self.progress(gst::ProgressType::Complete, "the model is open");
        let room = settings.room(model.vita())?;
        let (is_paced, sync) = (settings.is_paced(), settings.sync);
        let nats = Nats::open(
            &self.obj(),
            &settings.nats,
            settings.model,
            &mut lock(&self.last_session),
        )?;
        let outbox = Arc::<Outbox>::default();
        let events = outbox.clone();
        let room = model.open_room(room, Box::new(move |event| events.push(event)))?;
        let (element, events, publishing) = (self.obj().downgrade(), outbox.clone(), nats.clone());
        std::thread::Builder::new()
            .name("vitallmsink-bus".into())
            .spawn(move || Self::hand_on(&element, &events, publishing.as_deref()))?;
        *lock(&self.model) = Some(model);
        let mut state = lock(&self.state);
        state.pads.start();
        state.session = Some(Session {
            room: Arc::new(room),
            outbox,
            nats,
            is_paced,
            sync,
        });
        Ok(())
    }

    /// A state change that takes long says so.
    fn progress(&self, type_: gst::ProgressType, text: &str) {
        gst::info!(CAT, imp = self, "{text}");
        let progress = gst::message::Progress::builder(type_, "open", text).src(&*self.obj());
        let _ = self.obj().post_message(progress.build());
    }

    /// Lets every streaming thread go, so that pads can be deactivated.
    fn release(&self) {
        let session = {
            let mut state = lock(&self.state);
            state.pads.all().for_each(super::pads::PadState::stop);
            state.session.clone()
        };
        self.wake_all(session.as_ref());
    }

    /// After the pads are inactive. The model may be busy for longer than a state change should take.
    fn close(&self) {
        let Some(session) = lock(&self.state).session.take() else {
            return;
        };
        let Session {
            room, outbox, nats, ..
        } = session;
        let goodbye = GOODBYE + nats.map(|_| nats::CLOSE_WITHIN).unwrap_or_default();
        drop(room);
        if !outbox.wait_done(goodbye) {
            gst::warning!(
                CAT,
                imp = self,
                "the model is busy: its last messages are lost"
            );
        }
    }

    fn set_playing(&self, is_playing: bool) {
        lock(&self.state).is_playing = is_playing;
        self.changed.notify_all();
    }

    fn room(&self) -> Option<Arc<Room>> {
        let state = lock(&self.state);
        state.session.as_ref().map(|session| session.room.clone())
    }

    /// The number of the question; 0 where it was not taken.
    fn ask(&self, text: &str) -> u64 {
        let asked = match self.room() {
            Some(room) => room.ask(text).map_err(|error| error.to_string()),
            None => Err("the element is not in PAUSED or PLAYING".into()),
        };
        asked.map_or_else(
            |error| {
                gst::warning!(CAT, imp = self, "a question is not taken: {error}");
                0
            },
            |turn| turn.0,
        )
    }

    fn reset(&self) {
        if let Some(Err(error)) = self.room().map(|room| room.reset()) {
            gst::warning!(CAT, imp = self, "no reset: {error}");
        }
    }

    /// While a room is open, another bias takes effect with the next question.
    fn change_bias(&self) {
        let (Some(room), Some(model)) = (self.room(), lock(&self.model).clone()) else {
            return;
        };
        let bias = lock(&self.settings).logit_bias(model.vita());
        let changed =
            bias.and_then(|bias| room.set_logit_bias(bias).map_err(|error| error.to_string()));
        if let Err(error) = changed {
            gst::element_imp_warning!(self, gst::LibraryError::Settings, ("{error}"));
        }
    }

    fn stats(&self) -> gst::Structure {
        let session = lock(&self.state).session.clone();
        let status = session
            .as_ref()
            .map(|s| s.room.status())
            .unwrap_or_default();
        let nats = session.as_ref().and_then(|s| s.nats.as_ref());
        let nats = nats.map(|nats| nats.stats()).unwrap_or_default();
        let outbox = session.map(|s| s.outbox);
        let scheduler = status.scheduler;
        gst::Structure::builder("vitallmsink-stats")
            .field("position", status.position.as_nanos() as u64)
            .field("generation", status.generation.map_or(0, |g| g.0))
            .field("requests", status.requests as u64)
            .field("requests-refused", status.requests_refused)
            .field("questions-waiting", status.questions_waiting as u64)
            .field("questions-overdue", status.questions_overdue)
            .field("frames", status.frames as u64)
            .field("frames-dropped", status.frames_dropped)
            .field("history-turns", status.history_turns as u64)
            .field("history-tokens", status.history_tokens as u64)
            .field("late-reports", status.late_reports)
            .field("messages", outbox.as_ref().map_or(0, |o| o.len()) as u64)
            .field(
                "messages-dropped",
                outbox.as_ref().map_or(0, |o| o.dropped()),
            )
            .field("steps", scheduler.steps)
            .field("decoded-tokens", scheduler.decoded_tokens)
            .field("prefilled-tokens", scheduler.prefilled_tokens)
            .field("cached-tokens", scheduler.cached_tokens)
            .field("sequences-running", scheduler.running as u64)
            .field("sequences-waiting", scheduler.waiting as u64)
            .field("kv-cache-bytes", scheduler.memory_bytes as u64)
            .field("prefixes-evicted", scheduler.evicted_prefixes)
            .field("nats-acknowledged", nats.acknowledged)
            .field("nats-pending", nats.pending)
            .field("nats-lost", nats.lost)
            .field("nats-deltas-dropped", nats.live_dropped)
            .build()
    }

    /// Of all pads: live if one is, the longest of the least.
    fn latency(&self, query: &mut gst::query::Latency) -> bool {
        let (mut is_live, mut min, mut max) = (false, gst::ClockTime::ZERO, None);
        for pad in self.obj().sink_pads() {
            let mut upstream = gst::query::Latency::new();
            if !pad.is_linked() || !pad.peer_query(&mut upstream) {
                continue;
            }
            let (pad_is_live, pad_min, pad_max) = upstream.result();
            if pad_is_live {
                is_live = true;
                min = min.max(pad_min);
                max = [max, pad_max].into_iter().flatten().min();
            }
        }
        query.set(is_live, min, max);
        true
    }
}

#[glib::object_subclass]
impl ObjectSubclass for LlmSink {
    const NAME: &'static str = "GstVitaLlmSink";
    type Type = super::LlmSink;
    type ParentType = gst::Element;
}

impl ObjectImpl for LlmSink {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            let stats = glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
                .nick("Statistics")
                .blurb(
                    "Now: position (ns), generation (the running answer, 0: none), requests, questions-waiting, frames, \
                     messages on their way to the bus, history-turns, history-tokens, sequences-running, \
                     sequences-waiting; since PAUSED: requests-refused, questions-overdue (no verdict within max-wait), frames-dropped, messages-dropped, \
                     late-reports; of the model's batch: steps, decoded-tokens, prefilled-tokens, cached-tokens, kv-cache-bytes (now), \
                     prefixes-evicted; of nats-url, since PAUSED: nats-acknowledged, \
                     nats-pending (now), nats-lost, nats-deltas-dropped",
                )
                .read_only()
                .build();
            Settings::properties().into_iter().chain([stats]).collect()
        });
        PROPERTIES.as_ref()
    }

    fn signals() -> &'static [glib::subclass::Signal] {
        static SIGNALS: LazyLock<Vec<glib::subclass::Signal>> = LazyLock::new(|| {
            let ask = glib::subclass::Signal::builder("ask")
                .param_types([String::static_type()])
                .return_type::<u64>()
                .action()
                .class_handler(|args| {
                    let element = args.first()?.get::<super::LlmSink>().ok()?;
                    let text = args.get(1)?.get::<Option<String>>().ok()?;
                    Some(element.imp().ask(&text.unwrap_or_default()).to_value())
                });
            let reset = glib::subclass::Signal::builder("reset")
                .action()
                .class_handler(|args| {
                    let element = args.first()?.get::<super::LlmSink>().ok()?;
                    element.imp().reset();
                    None
                });
            vec![ask.build(), reset.build()]
        });
        SIGNALS.as_ref()
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        lock(&self.settings).set(pspec.name(), value);
        if pspec.name() == "logit-bias" {
            self.change_bias();
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "stats" => self.stats().to_value(),
            name => lock(&self.settings).get(name),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        self.obj().set_element_flags(gst::ElementFlags::SINK);
    }
}

impl GstObjectImpl for LlmSink {}

impl ElementImpl for LlmSink {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "VITA language model sink",
                "Sink/Video/Audio/Text",
                "Answers what people ask aloud or in text from what it sees and hears, and can be interrupted",
                "vita-stream",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let text = gst::Caps::builder("text/x-raw")
                .field("format", "utf8")
                .build();
            [
                ("video_%u", media::template_caps()),
                ("audio_%u", media::template_caps()),
                ("text_%u", text),
            ]
            .map(|(name, caps)| {
                let direction = gst::PadDirection::Sink;
                gst::PadTemplate::new(name, direction, gst::PadPresence::Request, &caps)
                    .expect("valid caps")
            })
            .into()
        });
        TEMPLATES.as_ref()
    }

    fn request_new_pad(
        &self,
        template: &gst::PadTemplate,
        name: Option<&str>,
        _caps: Option<&gst::Caps>,
    ) -> Option<gst::Pad> {
        let mut state = lock(&self.state);
        let name = match name.filter(|name| !name.contains('%')) {
            Some(name) if state.pads.contains(name) => return None,
            Some(name) => name.to_owned(),
            None => loop {
                let number = self.next_pad.fetch_add(1, Ordering::Relaxed);
                let name = template.name_template().replace("%u", &number.to_string());
                if !state.pads.contains(&name) {
                    break name;
                }
            },
        };
        let pad = gst::Pad::builder_from_template(template)
            .name(name)
            .chain_function(|pad, parent, buffer| {
                Self::catch_panic_pad_function(
                    parent,
                    || Err(gst::FlowError::Error),
                    |imp| imp.chain(pad, &buffer),
                )
            })
            .event_function(|pad, parent, event| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.sink_event(pad, event))
            })
            .build();
        let is_stopped = state.session.is_none();
        state.pads.add(pad.clone(), is_stopped);
        drop(state);
        if !is_stopped && pad.set_active(true).is_err() {
            return None;
        }
        self.obj().add_pad(&pad).ok()?;
        Some(pad)
    }

    fn release_pad(&self, pad: &gst::Pad) {
        let session = {
            let mut state = lock(&self.state);
            state.pads.remove(pad);
            state.session.clone()
        };
        // Its thread may wait in here.
        self.wake_all(session.as_ref());
        let _ = pad.set_active(false);
        let _ = self.obj().remove_pad(pad);
        self.look_for_end();
    }

    fn query(&self, query: &mut gst::QueryRef) -> bool {
        match query.view_mut() {
            gst::QueryViewMut::Latency(query) => self.latency(query),
            _ => self.parent_query(query),
        }
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        match transition {
            gst::StateChange::ReadyToPaused => self.open()?,
            gst::StateChange::PausedToPlaying => self.set_playing(true),
            gst::StateChange::PlayingToPaused => self.set_playing(false),
            gst::StateChange::PausedToReady => self.release(),
            _ => (),
        }
        let result = self.parent_change_state(transition);
        match transition {
            gst::StateChange::PausedToReady => self.close(),
            gst::StateChange::ReadyToPaused if result.is_err() => self.close(),
            gst::StateChange::ReadyToNull => *lock(&self.model) = None,
            _ => (),
        }
        result
    }
}
