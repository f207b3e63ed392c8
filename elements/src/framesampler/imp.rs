use std::sync::{LazyLock, Mutex};

use gst::{glib, prelude::*, subclass::prelude::*};

use super::{
    Settings,
    caps::{Media, any_rate, outgoing, same_coding},
    sampler::{Command, Item, Sampler},
};
use crate::common::{self, lock, post};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "vitaframesampler",
        gst::DebugColorFlags::empty(),
        Some("Frame sampler"),
    )
});

struct State {
    sampler: Sampler,
    /// Caps as they came in.
    incoming: Option<gst::Caps>,
    /// Caps as they went out last.
    outgoing: Option<gst::Caps>,
    /// A setting changed on which the outgoing caps depend.
    renegotiate: bool,
}

impl State {
    fn new(settings: &Settings) -> Self {
        Self {
            sampler: Sampler::new(settings),
            incoming: None,
            outgoing: None,
            renegotiate: false,
        }
    }
}

pub struct FrameSampler {
    sinkpad: gst::Pad,
    srcpad: gst::Pad,
    settings: Mutex<Settings>,
    state: Mutex<State>,
}

impl FrameSampler {
    fn settings(&self) -> Settings {
        lock(&self.settings).clone()
    }

    /// Pushes and posts in order; no lock is held.
    fn deliver(&self, items: Vec<Item>) -> Result<gst::FlowSuccess, gst::FlowError> {
        for item in items {
            match item {
                Item::Buffer(buffer) => {
                    self.srcpad.push(buffer)?;
                }
                Item::Event(event) => {
                    self.srcpad.push_event(event);
                }
                Item::Message(structure) => post(&*self.obj(), structure),
                Item::Warning(text) => {
                    gst::element_imp_warning!(self, gst::StreamError::Format, ["{text}"]);
                }
            }
        }
        Ok(gst::FlowSuccess::Ok)
    }

    fn sink_chain(&self, buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let settings = self.settings();
        let renegotiate = {
            let mut state = lock(&self.state);
            if state.incoming.is_none() {
                return Err(gst::FlowError::NotNegotiated);
            }
            std::mem::take(&mut state.renegotiate)
        };
        if renegotiate {
            self.push_caps(&settings);
        }
        let items = lock(&self.state).sampler.buffer(&settings, buffer);
        self.deliver(items)
    }

    fn sink_event(&self, event: gst::Event) -> bool {
        use gst::EventView;

        gst::log!(CAT, imp = self, "sink event {event:?}");
        let settings = self.settings();
        match event.view() {
            EventView::Caps(caps) => return self.set_caps(&settings, caps.caps_owned()),
            EventView::Segment(segment) => {
                if let Err(error) = lock(&self.state).sampler.set_segment(segment.segment()) {
                    gst::element_imp_error!(self, gst::CoreError::Event, ["{error}"]);
                    return false;
                }
            }
            EventView::FlushStop(_) => lock(&self.state).sampler.flush(),
            EventView::Eos(_) => {
                let items = lock(&self.state).sampler.end_of_stream(&settings);
                // The end is passed on whatever became of the frames before it.
                let _ = self.deliver(items);
            }
            _ => {
                if let Some(command) = event.structure().and_then(Command::from_structure) {
                    return self.command(&settings, command, event);
                }
                if event.is_serialized() {
                    let items = lock(&self.state).sampler.run_queued(&settings);
                    // A flow error is the next buffer's to return.
                    let _ = self.deliver(items);
                }
            }
        }
        gst::Pad::event_default(&self.sinkpad, Some(&*self.obj()), event)
    }

    /// A command from upstream: obeyed at its place in the stream, then passed on for whoever else is waiting for it.
    fn command(&self, settings: &Settings, command: Command, event: gst::Event) -> bool {
        if !event.is_serialized() {
            self.enqueue(command);
        } else {
            let items = {
                let sampler = &mut lock(&self.state).sampler;
                let mut items = sampler.run_queued(settings);
                items.extend(sampler.run(settings, command));
                items
            };
            let _ = self.deliver(items);
        }
        self.srcpad.push_event(event)
    }

    /// Leaves a command of another thread to the streaming thread.
    fn enqueue(&self, command: Command) {
        if !lock(&self.state).sampler.enqueue(command) {
            gst::warning!(
                CAT,
                imp = self,
                "too many commands wait, dropped {command:?}"
            );
        }
    }

    fn set_caps(&self, settings: &Settings, caps: gst::Caps) -> bool {
        let media = match Media::from_caps(&caps, settings.mode) {
            Ok(media) => media,
            Err(error) => {
                gst::element_imp_error!(self, gst::CoreError::Negotiation, ["{error}"]);
                lock(&self.state).incoming = None;
                return false;
            }
        };
        {
            let mut state = lock(&self.state);
            let same = state
                .incoming
                .as_ref()
                .is_some_and(|before| same_coding(before, &caps));
            state.sampler.set_media(media, same);
            state.incoming = Some(caps);
            state.renegotiate = false;
        }
        self.push_caps(settings)
    }

    fn push_caps(&self, settings: &Settings) -> bool {
        let Some(incoming) = lock(&self.state).incoming.clone() else {
            return true;
        };
        let downstream = self.srcpad.peer_query_caps(None);
        let caps = outgoing(&incoming, settings.mode, settings.rate, &downstream);
        let changed = lock(&self.state).outgoing.replace(caps.clone()).as_ref() != Some(&caps);
        if !changed && self.srcpad.has_current_caps() {
            return true;
        }
        gst::debug!(CAT, imp = self, "caps {incoming} become {caps}");
        self.srcpad.push_event(gst::event::Caps::new(&caps))
    }

    fn sink_query(&self, query: &mut gst::QueryRef) -> bool {
        use gst::QueryViewMut;

        match query.view_mut() {
            QueryViewMut::Caps(caps) => {
                let result = self.query_caps(&self.sinkpad, &self.srcpad, caps.filter());
                caps.set_result(&result);
                true
            }
            QueryViewMut::Allocation(_) => self.query_allocation(query),
            _ => gst::Pad::query_default(&self.sinkpad, Some(&*self.obj()), query),
        }
    }

    fn src_query(&self, query: &mut gst::QueryRef) -> bool {
        match query.view_mut() {
            gst::QueryViewMut::Caps(caps) => {
                let result = self.query_caps(&self.srcpad, &self.sinkpad, caps.filter());
                caps.set_result(&result);
                true
            }
            // Latency among them: what is kept is passed on at once, so upstream's answer is ours.
            _ => gst::Pad::query_default(&self.srcpad, Some(&*self.obj()), query),
        }
    }

    /// What the other side can do, at any frame rate.
    fn query_caps(
        &self,
        pad: &gst::Pad,
        other: &gst::Pad,
        filter: Option<&gst::CapsRef>,
    ) -> gst::Caps {
        let other_filter = filter.map(any_rate);
        let peer = any_rate(&other.peer_query_caps(other_filter.as_ref()));
        let result = peer.intersect(&pad.pad_template_caps());
        match filter {
            Some(filter) => filter.intersect_with_mode(&result, gst::CapsIntersectMode::First),
            None => result,
        }
    }

    /// Passes on what downstream offers, with buffers to spare for those that are held here.
    fn query_allocation(&self, query: &mut gst::QueryRef) -> bool {
        let held = self.settings().most_held();
        if !self.srcpad.peer_query(query) {
            return false;
        }
        if let (gst::QueryViewMut::Allocation(allocation), true) = (query.view_mut(), held > 0) {
            let pools: Vec<_> = allocation
                .allocation_pools()
                .map(|pool| pool.to_owned())
                .collect();
            for (i, (pool, size, min, max)) in pools.into_iter().enumerate() {
                let max = if max == 0 {
                    0
                } else {
                    max.saturating_add(held)
                };
                allocation.set_nth_allocation_pool(
                    i as u32,
                    pool.as_ref(),
                    size,
                    min.saturating_add(held),
                    max,
                );
            }
        }
        true
    }

    fn src_event(&self, event: gst::Event) -> bool {
        let mode = self.settings().mode;
        match event.view() {
            gst::EventView::Qos(_) => return true,
            gst::EventView::CustomUpstream(custom) if mode != super::Mode::Rate => {
                if let Some(command) = custom.structure().and_then(Command::from_structure) {
                    self.enqueue(command);
                    return true;
                }
            }
            gst::EventView::Reconfigure(_) => lock(&self.state).renegotiate = true,
            _ => {}
        }
        gst::Pad::event_default(&self.srcpad, Some(&*self.obj()), event)
    }
}

#[glib::object_subclass]
impl ObjectSubclass for FrameSampler {
    const NAME: &'static str = "GstVitaFrameSampler";
    type Type = super::FrameSampler;
    type ParentType = gst::Element;

    fn with_class(class: &Self::Class) -> Self {
        let pad = |name| {
            gst::Pad::builder_from_template(&class.pad_template(name).expect("declared below"))
        };
        let sinkpad = pad("sink")
            .chain_function(|_, parent, buffer| {
                Self::catch_panic_pad_function(
                    parent,
                    || Err(gst::FlowError::Error),
                    |this| this.sink_chain(buffer),
                )
            })
            .event_function(|_, parent, event| {
                Self::catch_panic_pad_function(parent, || false, |this| this.sink_event(event))
            })
            .query_function(|_, parent, query| {
                Self::catch_panic_pad_function(parent, || false, |this| this.sink_query(query))
            })
            .build();
        let srcpad = pad("src")
            .event_function(|_, parent, event| {
                Self::catch_panic_pad_function(parent, || false, |this| this.src_event(event))
            })
            .query_function(|_, parent, query| {
                Self::catch_panic_pad_function(parent, || false, |this| this.src_query(query))
            })
            .build();
        let settings = Settings::default();
        Self {
            sinkpad,
            srcpad,
            state: Mutex::new(State::new(&settings)),
            settings: Mutex::new(settings),
        }
    }
}

impl ObjectImpl for FrameSampler {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(Settings::properties);
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        lock(&self.settings).set(pspec.name(), value);
        if matches!(pspec.name(), "rate" | "mode") {
            lock(&self.state).renegotiate = true;
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let setting = lock(&self.settings).get(pspec.name());
        setting.unwrap_or_else(|| lock(&self.state).sampler.stats().to_value())
    }

    fn constructed(&self) {
        self.parent_constructed();
        common::add_pads(&*self.obj(), [&self.sinkpad, &self.srcpad]);
    }
}

impl GstObjectImpl for FrameSampler {}

impl ElementImpl for FrameSampler {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Frame sampler",
                "Filter/Video",
                "Keeps the video frames that a model will look at, by PTS, behind or before a decoder",
                "vita-stream",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let caps = super::caps::template();
            common::always_pads(&caps, &caps)
        });
        &TEMPLATES
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        if transition == gst::StateChange::ReadyToPaused {
            *lock(&self.state) = State::new(&self.settings());
        }
        let success = self.parent_change_state(transition)?;
        if transition == gst::StateChange::PausedToReady {
            // Counters stay readable; frames go back to their pools.
            lock(&self.state).sampler.flush();
        }
        Ok(success)
    }

    /// Commands of the application reach the streaming thread from here; other events take their usual way.
    fn send_event(&self, event: gst::Event) -> bool {
        match event.structure().and_then(Command::from_structure) {
            Some(command) => {
                self.enqueue(command);
                true
            }
            None => self.parent_send_event(event),
        }
    }
}
