/**
 * SECTION:element-vitamel
 *
 * Turns 16 kHz mono audio into frames of a log-mel filterbank, one every 10 ms, while it streams. The frames of a
 * signal are bit-identical whatever the sizes of the buffers it comes in.
 *
 * `frontend=whale` is the Kaldi-compatible filterbank of VITA's audio encoder: frame n covers the 400 samples from
 * n·160. `frontend=whisper` is the log10-mel of Whisper: frame n is centred on sample n·160, with the signal mirrored
 * at both ends of a run. Whisper's last step looks for the loudest value of the whole utterance, which a stream does not
 * know, so it is left to whoever cuts the utterance (`normalise_whisper` of the model crate).
 *
 * ## Output
 *
 * `other/tensors,format=static` of `80:N:1:1` float32, innermost dimension first, N = `frames-per-buffer`. With N = 1
 * all frames that an input buffer completes leave in one buffer list; nothing waits. With more, a run's last frames may
 * be fewer than N: that buffer has caps of its own (`80:3:1:1`), so caps always say what a buffer holds. Downstream that
 * does not accept these caps does not get that buffer (`dropped-frames` in `stats` counts).
 *
 * A buffer's PTS is the time of sample n·160 of its first frame n, its duration that of its frames' hops, its offset n.
 * `GstReferenceTimestampMeta` of the input goes along, moved to the buffer's PTS.
 *
 * ## Runs
 *
 * Frames are counted within a run of contiguous audio. A run ends at EOS, a DISCONT buffer, a PTS that is off by more
 * than 40 ms, a GAP event, a new segment, new caps or a new stream; what is pending is pushed first, and audio that makes
 * no whole frame is left out. A flush ends it and drops what is pending. The next run starts at the PTS of its first
 * buffer (the segment's start if it has none), with frame 0 and a DISCONT flag. Buffers flagged GAP are silence and do
 * not end a run; what is made of nothing else is flagged GAP too.
 *
 * Custom events of other elements (`vita-…`) stay in order: the frames that were complete before the event are pushed
 * before it.
 *
 * ## Latency
 *
 * A frame leaves when its last sample has come: 25 ms after its PTS (`whisper`: 12.5 ms), plus 10 ms for each further
 * frame in a buffer. This is what the latency query says. Frames are computed on the streaming thread: figures are in
 * docs/performance.md.
 *
 * ## Example
 *
 * |[
 * gst-launch-1.0 audiotestsrc num-buffers=50 ! audio/x-raw,rate=16000,channels=1 ! vitamel ! fakesink
 * ]|
 */
mod framer;
mod imp;

use gst::glib;
use gst::prelude::*;

/// The features that `vitamel` computes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstVitaMelFrontend")]
pub enum Frontend {
    #[default]
    #[enum_value(name = "Kaldi-compatible log-mel filterbank of VITA", nick = "whale")]
    Whale,
    #[enum_value(
        name = "Log10-mel of Whisper, not yet normalised by utterance",
        nick = "whisper"
    )]
    Whisper,
}

glib::wrapper! {
    pub struct Mel(ObjectSubclass<imp::Mel>) @extends gst::Element, gst::Object;
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    Frontend::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
    gst::Element::register(Some(plugin), "vitamel", gst::Rank::NONE, Mel::static_type())
}
