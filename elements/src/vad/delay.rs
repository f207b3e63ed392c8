//! Audio and events that wait for their turn to leave.

use std::{collections::VecDeque, ops::ControlFlow};

use gst::prelude::*;

use super::settings::SAMPLE_NS;

/// `GST_BUFFER_OFFSET_NONE`.
const OFFSET_NONE: u64 = u64::MAX;

/// What leaves the element.
#[derive(Debug)]
pub(super) enum Output {
    Buffer(gst::Buffer),
    Event(gst::Event),
    /// An element message.
    Message(gst::Structure),
}

enum Held {
    Buffer {
        buffer: gst::Buffer,
        start: u64,
        samples: u64,
        bytes_per_sample: usize,
    },
    Event(gst::Event),
}

/// Delays audio, keeps upstream's events at their place in it, and puts marks at exact samples of it. Positions are
/// samples since the line was new.
#[derive(Default)]
pub(super) struct DelayLine {
    held: VecDeque<Held>,
    /// Events with the sample that they stand before, in the order of these.
    marks: VecDeque<(u64, gst::Event)>,
    taken_in: u64,
    let_out: u64,
}

impl DelayLine {
    /// Takes a buffer of whole samples in.
    pub(super) fn push(&mut self, buffer: gst::Buffer, bytes_per_sample: usize) {
        let samples = (buffer.size() / bytes_per_sample) as u64;
        self.held.push_back(Held::Buffer {
            buffer,
            start: self.taken_in,
            samples,
            bytes_per_sample,
        });
        self.taken_in += samples;
    }

    /// Takes an event in that leaves between what came before and what comes after.
    pub(super) fn push_event(&mut self, event: gst::Event) {
        self.held.push_back(Held::Event(event));
    }

    /// Samples that have been taken in.
    pub(super) fn taken_in(&self) -> u64 {
        self.taken_in
    }

    /// Lets an event leave right before the sample at `position`, or as soon as possible where that has left.
    pub(super) fn mark(&mut self, position: u64, event: gst::Event) {
        self.marks.push_back((position, event));
    }

    /// Lets out what stands before the sample at `position`.
    pub(super) fn release(&mut self, position: u64, out: &mut Vec<Output>) {
        loop {
            let due = self
                .marks
                .iter()
                .take_while(|(at, _)| *at <= self.let_out)
                .count();
            out.extend(
                self.marks
                    .drain(..due)
                    .map(|(_, event)| Output::Event(event)),
            );
            match self.held.front() {
                Some(Held::Event(_)) => {
                    if let Some(Held::Event(event)) = self.held.pop_front() {
                        out.push(Output::Event(event));
                    }
                }
                Some(Held::Buffer {
                    buffer,
                    start,
                    samples,
                    bytes_per_sample,
                }) if self.let_out < position || *samples == 0 => {
                    let end = start + samples;
                    let next_mark = self.marks.front().map_or(end, |(at, _)| *at);
                    let until = end.min(next_mark).min(position.max(self.let_out));
                    let range = self.let_out - start..until - start;
                    out.push(Output::Buffer(part(
                        buffer,
                        range,
                        *samples,
                        *bytes_per_sample,
                    )));
                    self.let_out = until;
                    if until == end {
                        self.held.pop_front();
                    }
                }
                _ => return,
            }
        }
    }

    /// Lets out all that is held.
    pub(super) fn drain(&mut self, out: &mut Vec<Output>) {
        self.release(self.taken_in, out);
        // Marks behind the last sample, if there were any.
        out.extend(self.marks.drain(..).map(|(_, event)| Output::Event(event)));
    }
}

/// A range of samples of a buffer, as a buffer with the times of that range. Memory is shared.
fn part(
    buffer: &gst::Buffer,
    range: std::ops::Range<u64>,
    samples: u64,
    bytes_per_sample: usize,
) -> gst::Buffer {
    if range == (0..samples) {
        return buffer.clone();
    }
    let bytes = range.start as usize * bytes_per_sample..range.end as usize * bytes_per_sample;
    let flags =
        gst::BufferCopyFlags::FLAGS | gst::BufferCopyFlags::META | gst::BufferCopyFlags::MEMORY;
    let Ok(mut part) = buffer.copy_region(flags, bytes) else {
        unreachable!("the range is inside of the buffer");
    };
    let shift = gst::ClockTime::from_nseconds(range.start * SAMPLE_NS);
    let part_ref = part.make_mut();
    part_ref.set_pts(buffer.pts().map(|pts| pts.saturating_add(shift)));
    part_ref.set_dts(buffer.dts().map(|dts| dts.saturating_add(shift)));
    // The last part gets what is left, so that the parts last as long as the whole.
    let is_last = range.end == samples;
    let left = buffer
        .duration()
        .filter(|_| is_last)
        .and_then(|duration| duration.checked_sub(shift));
    let counted = gst::ClockTime::from_nseconds((range.end - range.start) * SAMPLE_NS);
    part_ref.set_duration(left.unwrap_or(counted));
    if buffer.offset() != OFFSET_NONE {
        part_ref.set_offset(buffer.offset().saturating_add(range.start));
        part_ref.set_offset_end(buffer.offset().saturating_add(range.end));
    }
    if range.start > 0 {
        part_ref.unset_flags(gst::BufferFlags::DISCONT | gst::BufferFlags::RESYNC);
        shift_reference_timestamps(part_ref, shift);
    }
    part
}

/// The copied metas tell when the whole buffer was captured; a part was captured later.
fn shift_reference_timestamps(buffer: &mut gst::BufferRef, shift: gst::ClockTime) {
    let told: Vec<_> = buffer
        .iter_meta::<gst::ReferenceTimestampMeta>()
        .map(|meta| (meta.reference_owned(), meta.timestamp(), meta.duration()))
        .collect();
    if told.is_empty() {
        return;
    }
    let api = gst::ReferenceTimestampMeta::meta_api();
    buffer.foreach_meta_mut(|meta| {
        ControlFlow::Continue(if meta.api() == api {
            gst::buffer::BufferMetaForeachAction::Remove
        } else {
            gst::buffer::BufferMetaForeachAction::Keep
        })
    });
    for (reference, timestamp, duration) in told {
        gst::ReferenceTimestampMeta::add(
            buffer,
            &reference,
            timestamp.saturating_add(shift),
            duration,
        );
    }
}
