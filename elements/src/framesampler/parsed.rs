//! The part of the sampler that works before a decoder.

use super::{
    Settings,
    caps::Media,
    codec::Codec,
    gop::{Drop, Unit},
    not_wanted,
    sampler::{Item, Sampler},
    stats::Reason,
};

impl Sampler {
    pub(super) fn parsed(
        &mut self,
        settings: &Settings,
        mut codec: Codec,
        mut buffer: gst::Buffer,
        items: &mut Vec<Item>,
    ) {
        if self
            .segment
            .as_ref()
            .is_some_and(|segment| segment.rate() < 0.0)
        {
            // Backwards, a decoder gathers whole groups of pictures; there is nothing to leave out before it.
            self.keep(settings, buffer, items);
            return;
        }
        let flags = buffer.flags();
        let picture = buffer
            .map_readable()
            .ok()
            .and_then(|data| codec.picture(&data));
        self.media = Some(Media::Parsed(codec));
        let key = picture.map_or(!flags.contains(gst::BufferFlags::DELTA_UNIT), |picture| {
            picture.key
        });
        let corrupted = flags.contains(gst::BufferFlags::CORRUPTED);
        if corrupted || (flags.contains(gst::BufferFlags::DISCONT) && !key) {
            let unreleased = self.gate.cut();
            self.stats.drop(Reason::NoKeyFrame, unreleased);
        }
        if corrupted {
            self.stats.drop(Reason::Corrupted, 1);
            return;
        }
        self.parameter_sets.carry(codec, &mut buffer, key);

        let time_ns = self.time_ns(&buffer, items);
        if let Some(clock) = buffer.dts().or(buffer.pts()) {
            self.interval
                .observe(i64::try_from(clock.nseconds()).unwrap_or(i64::MAX));
        }
        let unit = Unit {
            time_ns,
            bytes: buffer.size(),
            key,
            disposable: picture.is_some_and(|picture| picture.disposable)
                || flags.contains(gst::BufferFlags::DROPPABLE),
            presentable: picture.is_none_or(|picture| picture.shown)
                && self.is_presentable(&buffer),
            payload: buffer,
        };
        let outcome = self.gate.push(
            unit,
            &mut self.grid,
            self.interval.ns(),
            settings.keyframes_only,
        );

        for (drop, frames) in outcome.drops {
            let reason = match drop {
                Drop::NotDue => Reason::NotDue,
                Drop::NoKeyFrame => Reason::NoKeyFrame,
                Drop::Leading => Reason::Leading,
            };
            self.stats.drop(reason, frames);
        }
        if !outcome.releases.is_empty() && std::mem::take(&mut self.still) {
            items.push(Item::Event(still_frame(false)));
        }
        for release in outcome.releases {
            let mut buffer = release.payload;
            let pushed = buffer.make_mut();
            if release.discont {
                pushed.set_flags(gst::BufferFlags::DISCONT);
            }
            if release.wanted {
                self.keep(settings, buffer, items);
                continue;
            }
            pushed.set_flags(gst::BufferFlags::DECODE_ONLY);
            not_wanted::mark(pushed);
            if release.first_time {
                self.stats.decode_only += 1;
            } else {
                self.stats.repeated += 1;
            }
            items.push(Item::Buffer(buffer));
        }
        if outcome.gap {
            self.still = true;
            items.push(Item::Event(still_frame(true)));
        }
    }
}

/// Nothing comes for a while. A decoder takes it as the moment to put out what it holds for reordering or in its threads, which
/// would else come with later pictures, a period or more too late. (`GstVideoDecoder` drains at this event, and not at a GAP.)
fn still_frame(in_still: bool) -> gst::Event {
    gst_video::StillFrameEvent::builder(in_still).build()
}

/// The parameter sets that came in the stream: those of a picture that is left out still apply to what follows, so a key frame
/// is given what it lacks.
#[derive(Debug, Default)]
pub struct ParameterSets {
    /// Oldest first.
    known: Vec<Vec<u8>>,
}

impl ParameterSets {
    /// More than any encoder uses at a time; the oldest make room.
    const MOST: usize = 64;

    pub fn carry(&mut self, codec: Codec, buffer: &mut gst::Buffer, key: bool) {
        let Ok(data) = buffer.clone().into_mapped_buffer_readable() else {
            return;
        };
        let own = codec.parameter_sets(&data);
        if key {
            let lacking: Vec<&[u8]> = self
                .known
                .iter()
                .map(Vec::as_slice)
                .filter(|known| !own.contains(known))
                .collect();
            if !lacking.is_empty() {
                let lacking = codec.frame_nals(lacking);
                buffer
                    .make_mut()
                    .prepend_memory(gst::Memory::from_slice(lacking));
            }
        }
        for set in own {
            self.known.retain(|known| known != set);
            self.known.push(set.to_vec());
        }
        let excess = self.known.len().saturating_sub(Self::MOST);
        self.known.drain(..excess);
    }
}
