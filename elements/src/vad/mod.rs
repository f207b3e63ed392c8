/**
 * SECTION:element-vitavad
 *
 * Finds what people say in 16 kHz mono audio: the probability of speech of each 32 ms by Silero VAD v6, and from these
 * where utterances begin and end. Audio passes unchanged, sample for sample and with its times; starts and ends are
 * marked in it, and told on the bus.
 *
 * ## Marks
 *
 * Each utterance brings `vita-speech-start` and `vita-speech-end`, as element messages and as serialised custom events
 * downstream, with the same fields (docs/architecture.md). Their times are exact to the sample, padding included.
 *
 * The message is posted as soon as a block has shown it: a start within 32 ms of the first block of speech, an end
 * `min-silence` after the first silent block. The start event stands **right before the first sample of the
 * utterance**, pre-padding included: the audio is held back for that, and buffers are divided there. The end event
 * stands at the last sample or after it, as an end is known only when the silence has lasted. So whoever wants the
 * utterance takes all audio from the start event on, and at the end event cuts at its time.
 *
 * `vita-speech-pause` goes downstream only: where the utterance ends if nothing more is said, told as soon as the audio up to
 * there has left. It is followed by the end at the same time, or by more speech; who encodes utterances may begin with it.
 *
 * Utterances do not overlap: padding before an utterance ends at the end of the one before. One of `max-utterance` is
 * cut, with reason `max-duration`, and speech that goes on is the next utterance, without a hole. One with less speech
 * than `min-speech` ends with `accepted` = false.
 *
 * ## What ends an utterance
 *
 * Besides silence: EOS, or the end of a segment seek; a `gap`, which is a jump of time by more than `max-gap`, a GAP
 * event that makes time jump as far, a DISCONT buffer without PTS, a new segment, a new stream; a `flush`, which is a
 * flush or a change to READY (message only: nothing reaches downstream there). All that the network and the rule
 * remember is then forgotten, and audio that was held back leaves first (a flush drops it). A DISCONT flag where time
 * runs on ends nothing: a packet lost on the network is no end of a sentence. Buffers flagged GAP are silence, whatever
 * they hold.
 *
 * ## Latency
 *
 * `pre-padding` + 32 ms, 182 ms by default. This is what the latency query says, and what the element adds to a live
 * pipeline. With `pre-padding=0` only the block of the network remains. The network runs on the streaming thread: one
 * step of 32 ms takes 0.1 ms of one core (AMD EPYC, 2.6 GHz), 0.3 % of it for a live stream (docs/performance.md, "Voice
 * activity").
 *
 * ## Example
 *
 * |[
 * gst-launch-1.0 -m filesrc location=tests/media/q1.wav ! wavparse ! audioconvert ! audioresample ! audio/x-raw,rate=16000,channels=1 ! vitavad ! fakesink
 * ]|
 *
 * `-m` prints the messages.
 */
mod clock;
mod delay;
mod imp;
mod settings;
mod stream;

use gst::{glib, prelude::*};

glib::wrapper! {
    pub struct Vad(ObjectSubclass<imp::Vad>) @extends gst::Element, gst::Object;
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(Some(plugin), "vitavad", gst::Rank::NONE, Vad::static_type())
}
