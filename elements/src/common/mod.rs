//! What several elements share: when a buffer was captured, the times that an element message carries, encoded media, pads and queries.

pub mod media;
mod picture;
mod plumbing;
mod state;

pub use picture::rgb_picture;
pub use plumbing::{add_latency, add_pads, always_pads, lock, post_latency, time_segment};
pub use state::state_folder;

use gst::prelude::*;

/// Nanoseconds from 1900-01-01 (NTP) to 1970-01-01 (Unix).
const NTP_TO_UNIX_NS: u64 = 2_208_988_800 * 1_000_000_000;

/// Unix time in nanoseconds at which the buffer's PTS was captured, where a `GstReferenceTimestampMeta` with caps
/// `timestamp/x-unix` or `timestamp/x-ntp` tells it (`rtspsrc add-reference-timestamp-meta=true` attaches the latter).
pub fn capture_time_ns(buffer: &gst::BufferRef) -> Option<u64> {
    buffer
        .iter_meta::<gst::ReferenceTimestampMeta>()
        .find_map(|meta| {
            let timestamp = meta.timestamp().nseconds();
            match meta.reference().structure(0)?.name().as_str() {
                "timestamp/x-unix" => Some(timestamp),
                "timestamp/x-ntp" => timestamp.checked_sub(NTP_TO_UNIX_NS),
                _ => None,
            }
        })
}

/// One moment of a stream, in the three clocks of an element message (docs/architecture.md). A time that is not known, or
/// that lies outside the segment, is left out of the message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Time of the segment's medium.
    pub stream_time: Option<gst::ClockTime>,
    /// Time of the pipeline's clock since its base time.
    pub running_time: Option<gst::ClockTime>,
    /// Unix nanoseconds.
    pub capture_time_ns: Option<u64>,
}

impl Moment {
    /// The moment of a PTS in its segment; `capture_time_ns` belongs to that PTS.
    pub fn new(
        segment: &gst::FormattedSegment<gst::ClockTime>,
        pts: impl Into<Option<gst::ClockTime>>,
        capture_time_ns: Option<u64>,
    ) -> Self {
        let pts = pts.into();
        Self {
            stream_time: segment.to_stream_time(pts),
            running_time: segment.to_running_time(pts),
            capture_time_ns,
        }
    }

    /// Adds `stream-time`, `running-time` and `capture-time` to a structure that is being built.
    pub fn add_to(&self, builder: gst::structure::Builder) -> gst::structure::Builder {
        builder
            .field_if_some("stream-time", self.stream_time)
            .field_if_some("running-time", self.running_time)
            .field_if_some("capture-time", self.capture_time_ns)
    }
}

/// Posts an element message with `element` as its source. Lost without complaint when the element is in no pipeline.
pub fn post(element: &impl IsA<gst::Element>, structure: gst::Structure) {
    let element = element.upcast_ref::<gst::Element>();
    let message = gst::message::Element::builder(structure)
        .src(element)
        .build();
    // An element outside a pipeline has no bus; then nobody wants to know.
    let _ = element.post_message(message);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_capture_time(reference: &str, timestamp_ns: u64, expected: Option<u64>) {
        gst::init().unwrap();
        let mut buffer = gst::Buffer::new();
        gst::ReferenceTimestampMeta::add(
            buffer.get_mut().unwrap(),
            &gst::Caps::new_empty_simple(reference),
            gst::ClockTime::from_nseconds(timestamp_ns),
            gst::ClockTime::NONE,
        );
        assert_eq!(capture_time_ns(&buffer), expected);
    }

    #[test]
    fn capture_time_is_unix_whatever_the_reference_clock() {
        assert_capture_time(
            "timestamp/x-unix",
            1_700_000_000_000_000_001,
            Some(1_700_000_000_000_000_001),
        );
        assert_capture_time(
            "timestamp/x-ntp",
            1_700_000_000_000_000_001 + NTP_TO_UNIX_NS,
            Some(1_700_000_000_000_000_001),
        );
    }

    #[test]
    fn a_clock_of_unknown_epoch_tells_no_capture_time() {
        assert_capture_time("timestamp/x-camera", 5, None);
        // A sender that counts from its own start and calls it NTP.
        assert_capture_time("timestamp/x-ntp", 5, None);
        gst::init().unwrap();
        assert_eq!(capture_time_ns(&gst::Buffer::new()), None);
    }

    #[test]
    fn a_moment_before_the_segment_has_no_stream_time() {
        gst::init().unwrap();
        let mut segment = gst::FormattedSegment::<gst::ClockTime>::new();
        segment.set_start(gst::ClockTime::from_seconds(5));
        segment.set_time(gst::ClockTime::from_seconds(7));
        assert_eq!(
            Moment::new(&segment, gst::ClockTime::from_seconds(4), None),
            Moment::default()
        );

        let structure = Moment::new(&segment, gst::ClockTime::from_seconds(6), Some(9))
            .add_to(gst::Structure::builder("vita-test"))
            .build();
        assert_eq!(structure.get::<u64>("stream-time"), Ok(8_000_000_000));
        assert_eq!(structure.get::<u64>("running-time"), Ok(1_000_000_000));
        assert_eq!(structure.get::<u64>("capture-time"), Ok(9));
    }
}
