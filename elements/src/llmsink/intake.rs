//! What the streaming threads do: take in frames, utterances and typed questions, at their time.

use std::sync::{PoisonError, atomic::Ordering};
use std::time::Duration;

use gst::{glib, prelude::*, subclass::prelude::*};
use vita_dialogue::duplex::CancelReason;
use vita_engine::room::{Frame, LostUtterance, Utterance};
use vita_engine::{Error, ErrorKind};
use vita_model::prompt::MediaKind;

use super::imp::{CAT, LlmSink, Session};
use crate::common::{
    lock,
    media::{self, MediaTimes},
};

pub(super) fn duration(time: gst::ClockTime) -> Duration {
    Duration::from_nanos(time.nseconds())
}

fn is_live(pad: &gst::Pad) -> bool {
    let mut latency = gst::query::Latency::new();
    pad.peer_query(&mut latency) && latency.result().0
}

/// What vitaencoder's event `vita-dropped` tells.
fn lost(structure: &gst::StructureRef) -> Option<LostUtterance> {
    if structure.name() != "vita-dropped" {
        return None;
    }
    let time = |name| structure.get::<gst::ClockTime>(name).ok().map(duration);
    let end = time("end-stream-time").or_else(|| time("start-stream-time"))?;
    let reason: String = structure.get("reason").ok()?;
    Some(LostUtterance {
        id: structure.get("utterance-id").ok()?,
        start: time("start-stream-time").unwrap_or(end),
        end,
        capture_time_ns: structure.get("capture-time").ok(),
        reason: match reason.as_str() {
            "stale" => CancelReason::Stale,
            "failed" => CancelReason::Failed(structure.get("detail").unwrap_or_default()),
            _ => CancelReason::QueueFull,
        },
    })
}

impl LlmSink {
    /// Whether somebody speaks, and what is lost of it, where the encoders hand it on.
    pub(super) fn custom_event(&self, structure: &gst::StructureRef, session: &Session) {
        if let Some(nats) = &session.nats {
            // What is told of a stream comes after the stream.
            nats.up();
            nats.tell(structure);
        }
        let lost = lost(structure).map(|lost| session.room.lost(lost));
        if let Some(Err(error)) = lost {
            gst::warning!(CAT, imp = self, "a lost utterance is not told of: {error}");
        }
    }

    /// Waits for PLAYING, as a sink does, and hands out what to work with.
    pub(super) fn enter(&self, pad: &gst::Pad) -> Result<Session, gst::FlowError> {
        let mut state = lock(&self.state);
        loop {
            let pad_state = state.pads.get(pad).ok_or(gst::FlowError::Flushing)?;
            if pad_state.is_flushing() {
                return Err(gst::FlowError::Flushing);
            }
            if pad_state.is_eos {
                return Err(gst::FlowError::Eos);
            }
            if state.is_playing {
                return state.session.clone().ok_or(gst::FlowError::Flushing);
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(super) fn chain(
        &self,
        pad: &gst::Pad,
        buffer: &gst::BufferRef,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let session = self.enter(pad)?;
        if let Some(nats) = &session.nats {
            nats.up();
        }
        let end = buffer
            .pts()
            .map(|pts| pts + buffer.duration().unwrap_or_default());
        if session.sync {
            self.wait_for_clock(pad, end)?;
        }
        let is_text = pad
            .pad_template()
            .is_some_and(|t| t.name_template() == "text_%u");
        let came_to = match is_text {
            true => self.read_text(pad, buffer, &session)?,
            false => self.read_medium(pad, buffer, end, &session)?,
        };
        self.follow(pad, came_to, &session)
    }

    /// A typed question.
    fn read_text(
        &self,
        pad: &gst::Pad,
        buffer: &gst::BufferRef,
        session: &Session,
    ) -> Result<Option<gst::ClockTime>, gst::FlowError> {
        let map = buffer
            .map_readable()
            .map_err(|error| self.unreadable(&error))?;
        let text = std::str::from_utf8(&map).map_err(|error| {
            gst::element_imp_error!(
                self,
                gst::StreamError::Decode,
                ("{}: text that is no UTF-8: {error}", pad.name())
            );
            gst::FlowError::Error
        })?;
        let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
        let time = lock(&self.state)
            .pads
            .get(pad)
            .and_then(|pad| pad.stream_time(buffer.pts()));
        if !text.is_empty() {
            let asked = match time {
                Some(time) => session.room.ask_at(text, duration(time)),
                None => session.room.ask(text).map(|_| ()),
            };
            self.check(asked)?;
        }
        Ok(time)
    }

    /// A frame or an utterance, whichever pad it comes to.
    fn read_medium(
        &self,
        pad: &gst::Pad,
        buffer: &gst::BufferRef,
        end: Option<gst::ClockTime>,
        session: &Session,
    ) -> Result<Option<gst::ClockTime>, gst::FlowError> {
        let (caps, pts, pts_end, running_end) = {
            let mut state = lock(&self.state);
            let pad = state.pads.get(pad).ok_or(gst::FlowError::Flushing)?;
            let caps = pad.caps.clone().ok_or(gst::FlowError::NotNegotiated)?;
            let times = (pad.stream_time(buffer.pts()), pad.stream_time(end));
            (caps, times.0, times.1, pad.running_time(end))
        };
        let (medium, times) = media::read(buffer, &caps).map_err(|error| {
            gst::element_imp_error!(self, gst::StreamError::Format, ("{}: {error}", pad.name()));
            gst::FlowError::Error
        })?;
        let MediaTimes {
            utterance_id,
            start,
            end,
            capture_time_ns,
        } = times;
        let (Some(start), Some(end)) = (start.or(pts), end.or(pts_end).or(start).or(pts)) else {
            gst::element_imp_error!(
                self,
                gst::StreamError::Format,
                ("{}: a medium without a time", pad.name())
            );
            return Err(gst::FlowError::Error);
        };
        match medium.kind {
            MediaKind::Image => session.room.frame(Frame {
                media: medium,
                time: duration(start),
                capture_time_ns,
            }),
            MediaKind::Audio => {
                let age = self.age(running_end);
                let utterance = Utterance {
                    id: utterance_id.unwrap_or_default(),
                    media: medium,
                    start: duration(start),
                    end: duration(end),
                    capture_time_ns,
                    age,
                    // Who is not live waits for the model itself.
                    waited: if is_live(pad) { age } else { Duration::ZERO },
                };
                self.check(session.room.utterance(utterance))?;
            }
        }
        Ok(Some(end))
    }

    /// How long ago a running time was, by the pipeline's clock.
    fn age(&self, running_time: Option<gst::ClockTime>) -> Duration {
        let now = self.obj().current_running_time();
        let age = now
            .zip(running_time)
            .and_then(|(now, then)| now.checked_sub(then));
        age.map(duration).unwrap_or_default()
    }

    /// What the room says to a request. One that is refused is counted there, and no reason to stop.
    fn check(&self, result: Result<(), Error>) -> Result<(), gst::FlowError> {
        match result {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::Busy => {
                gst::element_imp_warning!(
                    self,
                    gst::ResourceError::Busy,
                    ("a question is dropped: {error}")
                );
                Ok(())
            }
            Err(error) => {
                // The room has told the bus already.
                gst::debug!(CAT, imp = self, "{error}");
                Err(gst::FlowError::Error)
            }
        }
    }

    fn unreadable(&self, error: &glib::BoolError) -> gst::FlowError {
        gst::element_imp_error!(
            self,
            gst::ResourceError::Read,
            ("a buffer cannot be mapped: {error}")
        );
        gst::FlowError::Error
    }

    /// A pad's stream has come so far: the room may go on, and the stream waits for it where it is paced.
    pub(super) fn follow(
        &self,
        pad: &gst::Pad,
        came_to: Option<gst::ClockTime>,
        session: &Session,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let (is_flushing, position) = {
            let mut state = lock(&self.state);
            let pad = state.pads.get(pad).ok_or(gst::FlowError::Flushing)?;
            if let Some(time) = came_to {
                pad.came_to(time);
            }
            (pad.is_flushing.clone(), state.pads.position())
        };
        let Some(position) = position.map(duration) else {
            return Ok(gst::FlowSuccess::Ok);
        };
        session.room.advance(position);
        let gives_up = || is_flushing.load(Ordering::SeqCst);
        if session.is_paced && !session.room.wait(position, gives_up) && gives_up() {
            return Err(gst::FlowError::Flushing);
        }
        Ok(gst::FlowSuccess::Ok)
    }

    fn wait_for_clock(
        &self,
        pad: &gst::Pad,
        time: Option<gst::ClockTime>,
    ) -> Result<(), gst::FlowError> {
        let element = self.obj();
        let (Some(clock), Some(base)) = (element.clock(), element.base_time()) else {
            return Ok(());
        };
        let id = {
            let mut state = lock(&self.state);
            let pad = state.pads.get(pad).ok_or(gst::FlowError::Flushing)?;
            if pad.is_flushing() {
                return Err(gst::FlowError::Flushing);
            }
            let Some(time) = pad.running_time(time) else {
                return Ok(());
            };
            let id = clock.new_single_shot_id(base + time);
            pad.wait = Some(id.clone());
            id
        };
        match id.wait().0 {
            Err(gst::ClockError::Unscheduled) => Err(gst::FlowError::Flushing),
            _ => Ok(()),
        }
    }
}
