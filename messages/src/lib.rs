//! What the product says on NATS. Knows nothing of GStreamer or candle.
