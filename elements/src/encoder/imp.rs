use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use image::RgbImage;
use vita_engine::encode::{self, Client, Encoded, Load};
use vita_engine::models::{self, Model};

use super::input::{Action, Input};
use super::line::Line;
use super::outbox::{Medium, Out};
use super::settings::{QueuePolicy, Settings};
use crate::common::{self, lock, media};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "vitaencoder",
        gst::DebugColorFlags::empty(),
        Some("Frames and utterances to media of the language model"),
    )
});

/// The open model and this element's place in its queue.
struct Session {
    model: Arc<Model>,
    client: Client,
}

pub struct Encoder {
    sinkpad: gst::Pad,
    srcpad: gst::Pad,
    settings: Mutex<Settings>,
    /// From PAUSED on.
    session: Mutex<Option<Arc<Session>>>,
    /// The streaming thread's.
    input: Mutex<Input>,
    line: Arc<Line>,
    is_failing: AtomicBool,
}

/// The streaming thread: takes in.
impl Encoder {
    fn session(&self) -> Result<Arc<Session>, gst::FlowError> {
        lock(&self.session).clone().ok_or(gst::FlowError::Flushing)
    }

    fn chain(&self, buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        self.line.flow()?;
        let todo = lock(&self.input).buffer(buffer);
        let todo = todo.map_err(|error| {
            gst::element_imp_error!(self, gst::StreamError::Format, ("{error}"));
            gst::FlowError::Error
        })?;
        self.carry_out(todo)?;
        Ok(gst::FlowSuccess::Ok)
    }

    fn carry_out(&self, todo: Vec<Action>) -> Result<(), gst::FlowError> {
        for action in todo {
            match action {
                Action::Event(event) => self.line.push_event(event)?,
                Action::Gap(from, until) => self.line.push_gap(from, Some(until)),
                Action::Frame(medium, buffer, info) => self.offer_frame(medium, buffer, info)?,
                Action::Utterance(medium, frames) => self.offer_utterance(medium, frames)?,
                Action::Draft(frames) => self.offer_draft(frames)?,
                Action::Skipped => self.line.count(|stats| stats.skipped += 1),
                Action::Rejected => self.line.count(|stats| stats.rejected += 1),
                Action::Unfinished => self.line.count(|stats| stats.unfinished += 1),
                Action::Cut(text) => {
                    self.line.count(|stats| stats.cut += 1);
                    gst::element_imp_warning!(self, gst::StreamError::Encode, ("{text}"));
                }
                Action::Warning(text) => {
                    gst::element_imp_warning!(self, gst::StreamError::Failed, ("{text}"));
                }
            }
        }
        Ok(())
    }

    /// The picture is copied out of its buffer on the encoder's thread.
    fn offer_frame(
        &self,
        medium: Medium,
        buffer: gst::Buffer,
        info: gst_video::VideoInfo,
    ) -> Result<(), gst::FlowError> {
        let session = self.session()?;
        let picture: Load<RgbImage> = Box::new(move || picture(buffer, &info));
        let dropped = self.line.offer(&session.client, medium, |answer| {
            session.client.frame(picture, answer)
        })?;
        self.report_dropped(dropped);
        Ok(())
    }

    fn offer_utterance(&self, medium: Medium, frames: Vec<f32>) -> Result<(), gst::FlowError> {
        let session = self.session()?;
        let vita = session.model.vita().clone();
        let features = Box::new(move || vita.ears()?.features_of_frames(frames));
        let dropped = self.line.offer(&session.client, medium, |answer| {
            session.client.utterance(features, answer)
        })?;
        self.report_dropped(dropped);
        Ok(())
    }

    /// Has the model listen ahead, where it is idle: what it makes of this is found again by its content.
    fn offer_draft(&self, frames: Vec<f32>) -> Result<(), gst::FlowError> {
        let session = self.session()?;
        let vita = session.model.vita().clone();
        let features = Box::new(move || vita.ears()?.features_of_frames(frames));
        session.client.draft(features);
        Ok(())
    }

    fn report_dropped(&self, dropped: Vec<(Medium, QueuePolicy)>) {
        for (medium, policy) in dropped {
            gst::debug!(CAT, imp = self, "{}: {medium:?}", policy.nick());
            // A frame more or less is what the counters are for; an utterance may have been a question.
            if let Some(structure) = medium.dropped(policy.nick(), None) {
                common::post(&*self.obj(), structure);
            }
        }
    }

    fn sink_event(&self, event: gst::Event) -> bool {
        use gst::EventView;

        gst::log!(CAT, obj = self.sinkpad, "{event:?}");
        match event.view() {
            EventView::FlushStart(_) => {
                let done = self.srcpad.push_event(event);
                self.close_line(gst::FlowError::Flushing);
                // its function returns, because the line is closed and downstream flushes
                let _ = self.srcpad.pause_task();
                return done;
            }
            EventView::FlushStop(_) => {
                let done = self.srcpad.push_event(event);
                let todo = lock(&self.input).flush();
                // nothing of it goes out: what was open is counted
                let _ = self.carry_out(todo);
                self.line.open();
                return self.start_task() && done;
            }
            EventView::Caps(caps) => return self.sink_caps(caps.caps()),
            EventView::Segment(segment) => {
                let Some(segment) = common::time_segment(&*self.obj(), segment) else {
                    return false;
                };
                let segment = segment.clone();
                let queued = self.queue_event(event);
                lock(&self.input).set_segment(segment);
                return queued;
            }
            _ if event.is_serialized() => return self.queue_event(event),
            _ => (),
        }
        gst::Pad::event_default(&self.sinkpad, Some(&*self.obj()), event)
    }

    fn queue_event(&self, event: gst::Event) -> bool {
        let begins_anew = [gst::EventType::StreamStart, gst::EventType::Segment];
        if self.line.flow() == Err(gst::FlowError::Eos) && begins_anew.contains(&event.type_()) {
            self.line.open();
            self.start_task();
        }
        let todo = lock(&self.input).event(event);
        self.carry_out(todo).is_ok()
    }

    fn sink_caps(&self, caps: &gst::CapsRef) -> bool {
        let Ok(session) = self.session() else {
            return false;
        };
        match lock(&self.input).set_caps(caps, session.model.vita()) {
            Ok(()) => true,
            Err(reason) => {
                gst::element_imp_error!(self, gst::CoreError::Negotiation, ("{reason}"));
                false
            }
        }
    }

    fn sink_query(&self, query: &mut gst::QueryRef) -> bool {
        use gst::QueryViewMut;

        let is_serialized = query.is_serialized();
        match query.view_mut() {
            QueryViewMut::Caps(query) => {
                let mut caps = self.sinkpad.pad_template_caps();
                if let Ok(session) = self.session() {
                    let vita = session.model.vita();
                    let is_wanted = |structure: &gst::StructureRef| match structure.name().as_str()
                    {
                        "video/x-raw" => vita.eyes().is_ok(),
                        _ => vita.ears().is_ok(),
                    };
                    caps = caps
                        .iter()
                        .filter(|structure| is_wanted(structure))
                        .map(|structure| structure.to_owned())
                        .collect();
                }
                if let Some(filter) = query.filter() {
                    caps = filter.intersect_with_mode(&caps, gst::CapsIntersectMode::First);
                }
                query.set_result(&caps);
                true
            }
            QueryViewMut::Allocation(query) => {
                // frames are kept while they wait: a pool must not run dry for that
                let (caps, _) = query.get_owned();
                let info = caps.and_then(|caps| gst_video::VideoInfo::from_caps(&caps).ok());
                let Some(info) = info else { return false };
                let settings = lock(&self.settings).clone();
                let kept = settings.max_queued + settings.batch + 1;
                query.add_allocation_meta::<gst_video::VideoMeta>(None);
                query.add_allocation_pool(None::<&gst::BufferPool>, info.size() as u32, kept, 0);
                true
            }
            // they would overtake what waits
            _ if is_serialized => false,
            _ => gst::Pad::query_default(&self.sinkpad, Some(&*self.obj()), query),
        }
    }
}

/// The pushing task.
impl Encoder {
    fn start_task(&self) -> bool {
        let element = self.obj().downgrade();
        let started = self.srcpad.start_task(move || {
            if let Some(element) = element.upgrade() {
                element.imp().push_next();
            }
        });
        started
            .inspect_err(|error| gst::error!(CAT, imp = self, "{error}"))
            .is_ok()
    }

    /// One round of the task.
    fn push_next(&self) {
        let pushed = self.line.next().and_then(|out| self.push(out));
        let Err(error) = pushed else { return };
        gst::debug!(CAT, imp = self, "pausing the task: {error}");
        let has_eos = self.line.has_eos();
        self.close_line(error);
        let is_fault = ![gst::FlowError::Flushing, gst::FlowError::Eos].contains(&error);
        // upstream says it where it pushes again; after EOS it does not
        if is_fault && has_eos {
            gst::element_imp_error!(
                self,
                gst::StreamError::Failed,
                ("downstream takes nothing any more: {error}")
            );
            self.srcpad.push_event(gst::event::Eos::new());
        }
        let _ = self.srcpad.pause_task();
    }

    /// What holds beyond a flush (stream-start, tags) is kept on the pad, to be sent with the next buffer.
    fn close_line(&self, error: gst::FlowError) {
        for event in self.line.close(error) {
            let ends_with_flush = [gst::EventType::Segment, gst::EventType::Eos];
            if event.is_sticky() && !ends_with_flush.contains(&event.type_()) {
                // fails only where the pad is already stopped
                let _ = self.srcpad.store_sticky_event(&event);
            }
        }
    }

    fn push(&self, out: Out) -> Result<(), gst::FlowError> {
        match out {
            Out::Event(event) => {
                if event.type_() == gst::EventType::Segment && !self.srcpad.has_current_caps() {
                    self.push_first_caps()?;
                }
                self.srcpad.push_event(event);
                Ok(())
            }
            Out::Gap(from, until) => {
                let gap = gst::event::Gap::builder(from)
                    .duration(until.and_then(|until| until.checked_sub(from)));
                self.srcpad.push_event(gap.build());
                Ok(())
            }
            Out::Medium(medium, Ok(encoded)) => self.push_medium(medium, encoded),
            Out::Medium(medium, Err(error)) => self.push_failed(&medium, &error),
        }
    }

    /// What is told of a medium that failed, and the gap in its place.
    fn push_failed(&self, medium: &Medium, error: &encode::Error) -> Result<(), gst::FlowError> {
        let is_stale = matches!(error, encode::Error::Stale(_));
        self.line.count(|stats| match is_stale {
            true => stats.stale += 1,
            false => stats.failed += 1,
        });
        let text = format!("not encoded, time {}: {error}", medium.pts.display());
        gst::warning!(CAT, imp = self, "{text}");
        // One message for any number of failures in a row.
        if !self.is_failing.swap(true, Ordering::Relaxed) {
            gst::element_imp_warning!(self, gst::StreamError::Encode, ("{text}"));
        }
        let told = match is_stale {
            true => medium.dropped("stale", None),
            false => medium.dropped("failed", Some(&error.to_string())),
        };
        if let Some(structure) = told {
            common::post(&*self.obj(), structure.clone());
            self.push(Out::Event(gst::event::CustomDownstream::new(structure)))?;
        }
        match medium.gap() {
            Some((from, until)) => self.push(Out::Gap(from, until)),
            None => Ok(()),
        }
    }

    /// Caps have to stand before the segment, when nothing is encoded yet: the number of vectors is what downstream
    /// insists on, if it does, until the first medium tells.
    fn push_first_caps(&self) -> Result<(), gst::FlowError> {
        let session = self.session()?;
        let width = session.model.vita().lm().config().hidden_size;
        let template = media::template_caps();
        let peer = self.srcpad.peer_query_caps(Some(&template));
        let fixed = peer.iter().next().filter(|s| s.has_field("dimensions"));
        let dimensions = fixed.and_then(|s| s.get::<String>("dimensions").ok());
        let mut caps = media::caps(1, width);
        if let Some(dimensions) = dimensions {
            caps.make_mut().set("dimensions", dimensions);
        }
        self.srcpad.push_event(gst::event::Caps::new(&caps));
        Ok(())
    }

    fn push_medium(&self, medium: Medium, encoded: Encoded) -> Result<(), gst::FlowError> {
        self.is_failing.store(false, Ordering::Relaxed);
        let written = media::write(&encoded.media, &medium.times);
        let (mut buffer, caps) = written.map_err(|error| {
            gst::element_imp_error!(self, gst::StreamError::Encode, ("{error}"));
            gst::FlowError::Error
        })?;
        let out = buffer.make_mut();
        out.set_pts(medium.pts);
        out.set_duration(medium.duration);
        for (clock, time, duration) in &medium.references {
            gst::ReferenceTimestampMeta::add(out, clock, *time, *duration);
        }
        if self.srcpad.current_caps().as_ref() != Some(&caps) {
            self.srcpad.push_event(gst::event::Caps::new(&caps));
        }
        let latency = lock(&self.settings).latency;
        self.line
            .count_encoded(&encoded, medium.received.elapsed(), latency);
        self.srcpad.push(buffer).map(|_| ())
    }

    fn activate(&self, mode: gst::PadMode, active: bool) -> Result<(), gst::LoggableError> {
        if mode != gst::PadMode::Push {
            return Err(gst::loggable_error!(CAT, "only push mode"));
        }
        if active {
            self.line.open();
            return match self.start_task() {
                true => Ok(()),
                false => Err(gst::loggable_error!(CAT, "the task cannot be started")),
            };
        }
        self.line.close(gst::FlowError::Flushing);
        self.srcpad.stop_task().map_err(Into::into)
    }

    fn src_query(&self, query: &mut gst::QueryRef) -> bool {
        let gst::QueryViewMut::Latency(latency) = query.view_mut() else {
            return gst::Pad::query_default(&self.srcpad, Some(&*self.obj()), query);
        };
        let own = lock(&self.settings).latency;
        common::add_latency(&self.sinkpad, latency, own)
    }

    fn src_event(&self, event: gst::Event) -> bool {
        // what is late here is late by the encoding: a decoder that skips frames for it helps nobody
        if event.type_() == gst::EventType::Qos {
            return true;
        }
        gst::Pad::event_default(&self.srcpad, Some(&*self.obj()), event)
    }

    fn start(&self) -> Result<(), gst::StateChangeError> {
        let settings = lock(&self.settings).clone();
        let opened = settings
            .model_spec()
            .and_then(|spec| models::open(&spec, None));
        let model = opened.map_err(|error| {
            let kind = match error.kind() {
                models::ErrorKind::Name | models::ErrorKind::Device => gst::ResourceError::Settings,
                models::ErrorKind::NotFound => gst::ResourceError::NotFound,
                models::ErrorKind::Load => gst::ResourceError::OpenRead,
            };
            gst::element_imp_error!(self, kind, ("{error}"));
            gst::StateChangeError
        })?;
        let client = model.encoder().client(&settings.client());
        let client = client.map_err(|error| {
            gst::element_imp_error!(self, gst::ResourceError::Failed, ("{error}"));
            gst::StateChangeError
        })?;
        *lock(&self.input) = Input::default();
        self.line.reset_stats();
        self.line.set_limit(&settings);
        *lock(&self.session) = Some(Arc::new(Session { model, client }));
        Ok(())
    }
}

/// Copies a picture out of its buffer.
fn picture(buffer: gst::Buffer, info: &gst_video::VideoInfo) -> vita_model::Result<RgbImage> {
    let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(&buffer, info).ok();
    let picture = frame.and_then(|frame| common::rgb_picture(&frame));
    picture.ok_or_else(|| {
        let (width, height) = (info.width(), info.height());
        vita_model::Error::Input(format!("a buffer holds no RGB picture of {width}x{height}"))
    })
}

#[glib::object_subclass]
impl ObjectSubclass for Encoder {
    const NAME: &'static str = "GstVitaEncoder";
    type Type = super::Encoder;
    type ParentType = gst::Element;

    fn with_class(class: &Self::Class) -> Self {
        let template = |name| class.pad_template(name).expect("pad_templates() has it");
        let sinkpad = gst::Pad::builder_from_template(&template("sink"))
            .chain_function(|_, parent, buffer| {
                Self::catch_panic_pad_function(
                    parent,
                    || Err(gst::FlowError::Error),
                    |imp| imp.chain(buffer),
                )
            })
            .event_function(|_, parent, event| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.sink_event(event))
            })
            .query_function(|_, parent, query| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.sink_query(query))
            })
            .build();
        let srcpad = gst::Pad::builder_from_template(&template("src"))
            .activatemode_function(|_, parent, mode, active| {
                Self::catch_panic_pad_function(
                    parent,
                    || Err(gst::loggable_error!(CAT, "panic")),
                    |imp| imp.activate(mode, active),
                )
            })
            .event_function(|_, parent, event| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.src_event(event))
            })
            .query_function(|_, parent, query| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.src_query(query))
            })
            .flags(gst::PadFlags::FIXED_CAPS)
            .build();
        Self {
            sinkpad,
            srcpad,
            settings: Mutex::default(),
            session: Mutex::default(),
            input: Mutex::default(),
            line: Line::new(),
            is_failing: AtomicBool::new(false),
        }
    }
}

impl ObjectImpl for Encoder {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            let stats = glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
                .nick("Statistics")
                .blurb(
                    "Since PAUSED, frames or utterances: received = encoded + dropped by the policy + failed + discarded \
                     by a flush + stale (waited longer than max-wait) + waiting; of those encoded: cached (seen before) and late; frames skipped (not to be \
                     shown); utterances rejected, unfinished, cut; last and mean encode time (ns); of the model: cache-bytes",
                )
                .read_only()
                .build();
            Settings::properties().into_iter().chain([stats]).collect()
        });
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let (before, after) = {
            let mut settings = lock(&self.settings);
            let before = settings.latency;
            settings.set(pspec.name(), value);
            (before, settings.clone())
        };
        self.line.set_limit(&after);
        if before != after.latency {
            common::post_latency(&*self.obj());
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "stats" => {
                let model = lock(&self.session).as_ref().map(|s| s.model.clone());
                let encoder = model.map(|model| model.encoder().stats());
                self.line.stats(&encoder.unwrap_or_default()).to_value()
            }
            name => lock(&self.settings).get(name),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        common::add_pads(&*self.obj(), [&self.sinkpad, &self.srcpad]);
    }
}

impl GstObjectImpl for Encoder {}

impl ElementImpl for Encoder {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "VITA media encoder",
                "Filter/Converter/Video/Audio",
                "Turns frames and utterances into what the language model reads",
                "vita-stream",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let mut input = gst_video::VideoCapsBuilder::new()
                .format(gst_video::VideoFormat::Rgb)
                .build();
            input.merge(media::template_caps());
            common::always_pads(&input, &media::template_caps())
        });
        &TEMPLATES
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        match transition {
            gst::StateChange::ReadyToPaused => self.start()?,
            // wakes a streaming thread that waits for room, whichever pad is stopped first
            gst::StateChange::PausedToReady => {
                self.line.close(gst::FlowError::Flushing);
            }
            _ => (),
        }
        let success = self.parent_change_state(transition)?;
        if transition == gst::StateChange::PausedToReady {
            *lock(&self.session) = None;
            *lock(&self.input) = Input::default();
        }
        Ok(success)
    }
}
