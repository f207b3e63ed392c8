//! The mark of a frame that was decoded only because a wanted one refers to it. `DECODE_ONLY` says so to a decoder, but those of
//! gst-libav put the frame out all the same; metas they copy, so the sampler behind the decoder finds this one.

const META: &str = "VitaNotWanted";

/// To be called once, before any other function here.
pub fn register() {
    gst::meta::CustomMeta::register_simple(META);
}

pub fn mark(buffer: &mut gst::BufferRef) {
    // Fails only where the meta was never registered; then the sampler behind goes by its grid.
    let _ = gst::meta::CustomMeta::add(buffer, META);
}

pub fn is_marked(buffer: &gst::BufferRef) -> bool {
    gst::meta::CustomMeta::from_buffer(buffer, META).is_ok()
}
