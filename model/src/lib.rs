//! VITA-family models on candle. Knows nothing of GStreamer, tokio or NATS.

pub mod fbank;
pub mod kernels;
pub mod resample;
pub mod vad;
pub mod video;
pub mod wav;
