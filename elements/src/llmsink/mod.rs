/**
 * SECTION:element-vitallmsink
 *
 * Answers what people ask aloud or in text, from what it sees and hears, and can be interrupted in mid-sentence.
 *
 * Pads are requested: `video_%u` and `audio_%u` take what vitaencoder makes (frames and utterances are told apart by their
 * meta, so the names are for people), `text_%u` takes `text/x-raw,format=utf8`, each buffer a typed question. Frames
 * of several pads are shown in the order of their times. The action signal `ask` takes a typed question as well and
 * returns its number, 0 where it is not taken; `reset` stops what runs and forgets what was said.
 *
 * Each utterance is judged by the model's state tokens: noise, or talk that is not meant for it, is told and changes
 * nothing; a question stops the running answer within one decode step and is answered. What happens is posted as element
 * messages `vita-query`, `vita-noise`, `vita-interrupted`, `vita-roles-swapped`, `vita-delta`, `vita-answer`, `vita-cancelled`,
 * `vita-reset` (fields: docs/architecture.md, "Element messages and events").
 *
 * `model` is opened when the element goes to PAUSED, once per process: sinks and encoders with the same model, device and
 * precision share its weights, and the answers of all sinks are computed together, and share the memory of `kv-cache-mib`: of several sinks with different values, the largest
 * counts as long as it is there. The state change takes as long as loading does.
 *
 * ## Time
 *
 * Freely running (the default), nothing upstream ever waits for the model; a question that finds 64 others on their way is
 * dropped with a warning and counted in `stats`. One that has no verdict within `max-wait` of its end is cancelled (`vita-cancelled`, `stale` or
 * `judging-timed-out`), counted, and warned of at most each 30 s; an utterance that vitaencoder drops is cancelled as well. With `step-time` the dialogue goes by the media's time, and upstream waits for
 * it, so that the same media give the same messages with the same times: for recordings and tests. Then every linked
 * pad must go on, with buffers or GAP events, or end. `sync` takes media at their running time, to play a file as if it were live.
 *
 * When all pads are at their end, EOS is posted once everything that was asked is answered.
 *
 * ## NATS
 *
 * With `nats-url` what is told on the bus, and where speech starts and ends, is published as well (docs/messages.md), under the
 * `source-name`, and the commands `ask`, `reset` and `status` are taken from there. Nothing waits for the broker: it may come later, go,
 * freeze and come back; messages that are kept wait in `spool-dir`, and `stats` counts what had to be given up. NULL waits
 * half a second at most for the last ones, and leaves the rest in the spool for the next time.
 *
 * ## Latency
 *
 * None of its own: media are not rendered. What the model takes is in each message (`judging-time`, `first-token-time`,
 * `token-time`).
 *
 * ## Example
 *
 * |[
 * gst-launch-1.0 -m filesrc location=examples/question.txt ! text/x-raw,format=utf8 ! vitallmsink model=tests/golden/checkpoint max-tokens=16
 * ]|
 *
 * `-m` prints the messages.
 */
mod imp;
mod intake;
mod message;
mod nats;
mod outbox;
mod overload;
mod pads;
mod settings;

use gst::glib;
use gst::prelude::*;

pub use settings::Undecided;

glib::wrapper! {
    pub struct LlmSink(ObjectSubclass<imp::LlmSink>) @extends gst::Element, gst::Object;
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    Undecided::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
    crate::common::media::register();
    gst::Element::register(
        Some(plugin),
        "vitallmsink",
        gst::Rank::NONE,
        LlmSink::static_type(),
    )
}
