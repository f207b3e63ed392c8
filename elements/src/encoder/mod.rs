/**
 * SECTION:element-vitaencoder
 *
 * Turns frames and utterances into media: vectors in the language model's space, one buffer each, as
 * `other/tensors` with a `VitaMediaMeta` (docs/architecture.md, "Tensors between elements").
 *
 * - Each video frame is encoded as the model sees a frame of a video. Choose frames before (vitaframesampler): a model
 *   hardly ever keeps up with all of them.
 * - Of filterbank frames (vitamel) an utterance is what lies between the events `vita-speech-start` and
 *   `vita-speech-end` of vitavad, by the times in them. It leaves as one buffer between the two events, with
 *   its `utterance-id`. At `vita-speech-pause`, which may be its end and mostly is, it is encoded already, if no utterance waits. What vitavad did not accept is not encoded; its events go on. What is longer than the model takes
 *   loses its end, with a warning.
 *
 * `model` is opened when the element goes to PAUSED, once per process: all elements with the same model, device and
 * precision share its weights, a thread that encodes frames for all of them, and one that encodes utterances, so that no utterance waits
 * for pictures. Frames of different streams that wait at the same time are encoded together (`batch`), and what has the same content is encoded
 * once, as long as it is among the last `encode-cache-mib`: of several elements with different values, the largest counts as long as it is there.
 *
 * ## Queue
 *
 * Nothing is encoded on the streaming thread. `max-queued` frames or utterances may wait; `queue` says what happens to the
 * next: `drop-oldest` (for live sources), `drop-newest`, or `block` (for files, where nothing shall be lost). An utterance that has waited longer than
 * `max-wait` is dropped as well, except with `block`. What is dropped, or fails, leaves a GAP event in its place, and counts in `stats`. For an
 * utterance there is also an element message, and an event in its place, `vita-dropped`: `kind` (`audio`), `utterance-id`, `reason` (`drop-oldest`,
 * `drop-newest`, `stale`, `failed`), `detail` (with `failed`), `start-stream-time`, `end-stream-time`, `capture-time`. vitallmsink tells of it as of a
 * cancelled question.
 *
 * All else stays in order: caps, segments, `vita-` events, gaps and EOS leave in their place among the buffers. Where
 * nobody speaks, GAP events tell how far the audio has come. A flush or a change to READY does not wait for the model;
 * what it is at is thrown away.
 *
 * ## Latency
 *
 * In a live pipeline, `latency` (1 s) is added to what upstream says: it is the time allowed for a frame to be encoded, or for an
 * utterance after its end. What takes longer is counted as `late`. An utterance's buffer has the PTS of its first frame, so it
 * comes later than that by its own length: sinks behind want `sync=false`. QoS events are not passed on.
 *
 * ## Caps
 *
 * `dimensions=H:N:1:1`: the hidden size and the number of vectors, which may differ from buffer to buffer; caps change
 * with it. Before the first buffer, N is 1, or what downstream insists on. The `frontend` of vitamel must be the model's.
 *
 * ## Example
 *
 * |[
 * gst-launch-1.0 videotestsrc num-buffers=4 ! videoconvert ! video/x-raw,format=RGB ! vitaencoder model=tests/golden/checkpoint queue=block ! fakesink
 * gst-launch-1.0 filesrc location=tests/media/q1.wav ! wavparse ! vitavad ! vitamel ! vitaencoder model=tests/golden/checkpoint queue=block ! fakesink
 * ]|
 */
mod imp;
mod input;
mod line;
mod outbox;
mod settings;
mod stats;
mod utterance;

use gst::glib;
use gst::prelude::*;

pub use settings::QueuePolicy;

glib::wrapper! {
    pub struct Encoder(ObjectSubclass<imp::Encoder>) @extends gst::Element, gst::Object;
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    QueuePolicy::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
    crate::common::media::register();
    gst::Element::register(
        Some(plugin),
        "vitaencoder",
        gst::Rank::NONE,
        Encoder::static_type(),
    )
}
