//! GStreamer elements of vita-stream: `libgstvita.so`, and the same elements for a program that links them.

pub mod common;
mod encoder;
mod framesampler;
mod llmsink;
mod mel;
pub mod messages;
mod vad;

fn plugin_init(plugin: &gst::Plugin) -> Result<(), gst::glib::BoolError> {
    encoder::register(plugin)?;
    framesampler::register(plugin)?;
    llmsink::register(plugin)?;
    mel::register(plugin)?;
    vad::register(plugin)
}

gst::plugin_define!(
    vita,
    env!("CARGO_PKG_DESCRIPTION"),
    plugin_init,
    env!("CARGO_PKG_VERSION"),
    "Apache-2.0",
    env!("CARGO_PKG_NAME"),
    env!("CARGO_PKG_NAME"),
    "https://arxiv.org/abs/2408.05211",
    "2026-11-23"
);
