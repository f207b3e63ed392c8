//! What an element with a sink pad and a source pad does as every other does.

use std::sync::{Mutex, MutexGuard, PoisonError};

use gst::prelude::*;

/// For locks whose holders leave nothing half done behind when they panic.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Adds the pads of an element that is being made.
///
/// # Panics
/// When it has a pad of the same name.
pub fn add_pads(element: &impl IsA<gst::Element>, pads: [&gst::Pad; 2]) {
    for pad in pads {
        element
            .add_pad(pad)
            .expect("a new element has no pad of this name");
    }
}

/// Answers a latency query with upstream's answer and `own` added to it. `false`: upstream does not know.
pub fn add_latency(
    sink_pad: &gst::Pad,
    query: &mut gst::query::Latency,
    own: gst::ClockTime,
) -> bool {
    let mut upstream = gst::query::Latency::new();
    if !sink_pad.peer_query(&mut upstream) {
        return false;
    }
    let (live, min, max) = upstream.result();
    let max = max.map(|max| max.saturating_add(own));
    query.set(live, min.saturating_add(own), max);
    true
}

/// Has the pipeline ask for the latency again.
pub fn post_latency(element: &impl IsA<gst::Element>) {
    let element = element.upcast_ref::<gst::Element>();
    let message = gst::message::Latency::builder().src(element).build();
    // An element outside a pipeline has no bus; then nobody wants to know.
    let _ = element.post_message(message);
}

/// The segment of an event, if it is in time. If not, the element errors.
pub fn time_segment<'a>(
    element: &impl IsA<gst::Element>,
    event: &'a gst::event::Segment,
) -> Option<&'a gst::FormattedSegment<gst::ClockTime>> {
    let segment = event.segment();
    let time = segment.downcast_ref();
    if time.is_none() {
        gst::element_error!(
            element,
            gst::StreamError::Format,
            ("the segment is in {:?}, expected time", segment.format())
        );
    }
    time
}

/// The templates of one sink and one source pad that are always there.
///
/// # Panics
/// For caps that are not valid.
pub fn always_pads(sink: &gst::Caps, src: &gst::Caps) -> Vec<gst::PadTemplate> {
    let always = |name, direction, caps| {
        gst::PadTemplate::new(name, direction, gst::PadPresence::Always, caps)
            .expect("the caps are valid")
    };
    vec![
        always("sink", gst::PadDirection::Sink, sink),
        always("src", gst::PadDirection::Src, src),
    ]
}
