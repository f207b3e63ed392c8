use gst_video::prelude::*;
use image::RgbImage;

/// Copies a frame in format RGB, without the padding of its lines. `None`: it is shorter than its caps say.
pub fn rgb_picture(frame: &gst_video::VideoFrameRef<&gst::BufferRef>) -> Option<RgbImage> {
    let (width, height) = (frame.width(), frame.height());
    let row_bytes = width as usize * 3;
    let stride = usize::try_from(*frame.plane_stride().first()?).ok()?;
    let rows = frame.plane_data(0).ok()?.chunks(stride.max(1));
    let pixels: Vec<u8> = rows
        .take(height as usize)
        .filter_map(|row| row.get(..row_bytes))
        .flatten()
        .copied()
        .collect();
    RgbImage::from_raw(width, height, pixels)
}
