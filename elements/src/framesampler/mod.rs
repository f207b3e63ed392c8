/*!
 * element-vitaframesampler: keeps the frames of a video that somebody will look at.
 *
 * Frames are chosen by their PTS in stream time, never by the frame rate in caps, which RTSP leaves at `0/1`.
 *
 * - `mode=rate` keeps the first frame at or after each point of a grid with `rate` points per second, anchored at stream time
 *   zero. Where frames come hardly more often than grid points the nearest is kept, so that jitter costs none.
 * - `mode=clip` gathers a clip and chooses its frames by the model's rule when it ends. A clip lasts from the event
 *   `vita-speech-start` to `vita-speech-end` (by their `stream-time`; nothing is released when `accepted` is false); without any such
 *   event, from the start of the stream or the last release to a `vita-frames-request` event or EOS. Memory is bounded by
 *   `history`: beyond it, candidates are thinned to an even spacing that keeps whole seconds.
 * - `mode=on-demand` holds the newest `history` frames and releases them, each once, at a `vita-frames-request` event.
 *
 * Events may come from upstream, downstream, or by `gst_element_send_event()`. One that is serialised acts at its place in the
 * stream, any other with the next buffer or serialised event. Frames that belong together are announced by a serialised downstream
 * event `vita-frames` with their number and, where the rule shows the model one several times, `repeat`.
 *
 * ## Before a decoder
 *
 * In `mode=rate` the stream may be coded: H.264, H.265, VP8, VP9 or AV1 as its parser puts it out. When key frames come at least as
 * often as the grid's points, the first *key frame* at or after each point is kept and nothing else is decoded. Otherwise, the frames
 * that others refer to are passed on from the key frame up to the wanted one, marked `DECODE_ONLY`. Decoders put these out all the
 * same (the `avdec_` ones of GStreamer 1.22 do): a second sampler of the same rate behind the decoder drops them, by a meta that
 * decoders copy, and the first one gets `post-messages=false`. `keyframes-only=true` never does that: the rate is then an upper bound. With B frames, the first frame in decoding order at or after the point is kept. A stream
 * that begins or breaks in mid-group waits for its next key frame. Played backwards, everything is passed on.
 *
 * After a kept frame a still-frame event makes the decoder put it out at once, where nothing more is to be decoded before the next key frame.
 *
 * ## Caps
 *
 * What goes out has `framerate=0/1` (frames come at no fixed distance) and `max-framerate`. A caps filter downstream that wants
 * exactly `framerate=<rate>` gets it.
 *
 * ## Latency
 *
 * None is added in `mode=rate`: a kept frame is passed on when it comes. In the other modes frames come when asked for and are late
 * by design; sinks behind want `sync=false`. QoS events are not passed on: sparse frames must not make a decoder skip more.
 *
 * ## Cost
 *
 * One frame per second of 1080p30 H.264 with a key frame each second: 0.83 s of CPU for a minute of video, decoding included, where
 * `ffmpeg -vf fps=1` takes 9.95 s (AMD EPYC, two busy cores; `docs/performance.md`, "Sampling before the decoder").
 *
 * ## Example
 *
 * |[
 * gst-launch-1.0 -m videotestsrc num-buffers=150 ! video/x-raw,framerate=30/1 ! x264enc key-int-max=30 ! h264parse ! vitaframesampler rate=1 ! avdec_h264 ! fakesink
 * ]|
 */

mod caps;
mod clip;
mod codec;
mod gop;
mod history;
mod imp;
mod not_wanted;
mod parsed;
mod rate;
mod sampler;
mod settings;
mod stats;

use gst::{glib, prelude::*};

use settings::{Mode, Settings};

glib::wrapper! {
    pub struct FrameSampler(ObjectSubclass<imp::FrameSampler>) @extends gst::Element, gst::Object;
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    not_wanted::register();
    gst::Element::register(
        Some(plugin),
        "vitaframesampler",
        gst::Rank::NONE,
        FrameSampler::static_type(),
    )
}
