//! What a source carries, from the caps that its pipeline has negotiated.

use gst::prelude::*;
use vita_messages::kinds::{Media, MediaKind};

/// A stream by the caps of the source's pad. `None`: caps that tell nothing, such as those of a file.
pub fn of_caps(caps: &gst::CapsRef) -> Option<Media> {
    let structure = caps.structure(0)?;
    let mut media = match structure.name().as_str() {
        "application/x-rtp" => of_rtp(structure),
        name => of_media_type(name, structure)?,
    };
    fill(&mut media, structure);
    Some(media)
}

fn of_rtp(structure: &gst::StructureRef) -> Media {
    let kind = match structure.get::<&str>("media") {
        Ok("video") => MediaKind::Video,
        Ok("audio") => MediaKind::Audio,
        _ => MediaKind::Other,
    };
    let encoding = structure
        .get::<&str>("encoding-name")
        .unwrap_or("unknown")
        .to_ascii_lowercase();
    let codec = match encoding.as_str() {
        "mpeg4-generic" | "mp4a-latm" => "aac",
        other => other,
    };
    let mut media = Media::new(kind, codec);
    if kind == MediaKind::Audio {
        // G.722's clock rate of 8000 is a slip of RFC 1890 that RFC 3551 keeps; its samples are 16000 a second.
        let clock_rate = structure
            .get::<i32>("clock-rate")
            .ok()
            .and_then(|rate| rate.try_into().ok());
        media.sample_rate_hz = if codec == "g722" {
            Some(16_000)
        } else {
            clock_rate
        };
        media.channels = structure
            .get::<&str>("encoding-params")
            .ok()
            .and_then(|channels| channels.parse().ok());
    }
    media
}

fn of_media_type(name: &str, structure: &gst::StructureRef) -> Option<Media> {
    let (kind, codec) = match name.split_once('/')? {
        ("video", codec) => (MediaKind::Video, codec),
        ("image", codec) => (MediaKind::Video, codec),
        ("audio", codec) => (MediaKind::Audio, codec),
        _ => return None,
    };
    let codec = match codec.strip_prefix("x-").unwrap_or(codec) {
        "mpeg" if kind == MediaKind::Audio => match structure.get::<i32>("mpegversion") {
            Ok(2 | 4) => "aac",
            _ => "mp3",
        },
        "mulaw" => "pcmu",
        "alaw" => "pcma",
        other => other,
    };
    Some(Media::new(kind, codec.to_ascii_lowercase()))
}

/// What the structure says of the stream and is not known yet.
fn fill(media: &mut Media, structure: &gst::StructureRef) {
    let positive = |field: &str| {
        structure
            .get::<i32>(field)
            .ok()
            .and_then(|value| u32::try_from(value).ok())
    };
    match media.kind {
        MediaKind::Video => {
            media.width = media.width.or_else(|| positive("width"));
            media.height = media.height.or_else(|| positive("height"));
            let rate = structure
                .get::<gst::Fraction>("framerate")
                .ok()
                .filter(|rate| rate.numer() > 0);
            let per_second = rate.map(|rate| f64::from(rate.numer()) / f64::from(rate.denom()));
            media.frame_rate = media.frame_rate.or(per_second);
        }
        MediaKind::Audio => {
            media.sample_rate_hz = media.sample_rate_hz.or_else(|| positive("rate"));
            media.channels = media.channels.or_else(|| positive("channels"));
        }
        MediaKind::Other => {}
    }
}

/// Completes the streams from what the elements behind the source have found out: a parser knows the picture's size, which
/// RTP does not tell. A file's streams are found here altogether.
pub fn complete(mut streams: Vec<Media>, pipeline: &gst::Bin) -> Vec<Media> {
    let elements = pipeline.iterate_recurse().into_iter().flatten();
    let caps = elements
        .flat_map(|element| element.sink_pads())
        .filter_map(|pad| pad.current_caps());
    let found: Vec<Media> = caps
        .filter(|caps| !is_rtp(caps))
        .filter_map(|caps| of_caps(&caps))
        .collect();
    for kind in [MediaKind::Video, MediaKind::Audio] {
        // Before decoding and scaling: compressed rather than raw, and the largest.
        let size = |media: &Media| {
            u64::from(media.width.unwrap_or(0)) * u64::from(media.height.unwrap_or(0))
        };
        let weight = |media: &&Media| (media.codec != "raw", size(media), media.sample_rate_hz);
        let Some(best) = found
            .iter()
            .filter(|media| media.kind == kind)
            .max_by_key(weight)
        else {
            continue;
        };
        match streams.iter_mut().find(|media| media.kind == kind) {
            None => streams.push(best.clone()),
            Some(media) => {
                media.width = media.width.or(best.width);
                media.height = media.height.or(best.height);
                media.frame_rate = media.frame_rate.or(best.frame_rate);
                media.sample_rate_hz = media.sample_rate_hz.or(best.sample_rate_hz);
                media.channels = media.channels.or(best.channels);
            }
        }
    }
    // Video first, whichever pad came first.
    streams.sort_by_key(|media| media.kind != MediaKind::Video);
    streams
}

/// Whether a parser has found out the picture's size yet.
pub fn is_described(streams: &[Media]) -> bool {
    let mut videos = streams
        .iter()
        .filter(|media| media.kind == MediaKind::Video);
    videos.all(|media| media.width.is_some())
}

fn is_rtp(caps: &gst::CapsRef) -> bool {
    caps.structure(0)
        .is_some_and(|structure| structure.name() == "application/x-rtp")
}

#[cfg(test)]
mod tests {
    use std::str::FromStr as _;

    use super::*;

    fn media(caps: &str) -> Option<Media> {
        gst::init().unwrap();
        of_caps(&gst::Caps::from_str(caps).unwrap())
    }

    #[test]
    fn rtp_streams_are_named_by_their_codec() {
        let video =
            media("application/x-rtp, media=video, encoding-name=H264, clock-rate=90000").unwrap();
        assert_eq!(video, Media::new(MediaKind::Video, "h264"));
        let aac = "application/x-rtp, media=audio, encoding-name=MPEG4-GENERIC, clock-rate=48000, encoding-params=(string)2";
        let expected = Media {
            sample_rate_hz: Some(48_000),
            channels: Some(2),
            ..Media::new(MediaKind::Audio, "aac")
        };
        assert_eq!(media(aac), Some(expected));
        let g722 =
            media("application/x-rtp, media=audio, encoding-name=G722, clock-rate=8000").unwrap();
        assert_eq!(
            (g722.codec.as_str(), g722.sample_rate_hz),
            ("g722", Some(16_000))
        );
        let metadata =
            media("application/x-rtp, media=application, encoding-name=VND.ONVIF.METADATA")
                .unwrap();
        assert_eq!(metadata.kind, MediaKind::Other);
    }

    #[test]
    fn media_types_are_named_like_rtp() {
        let raw = media("video/x-raw, width=640, height=272, framerate=25/1").unwrap();
        assert_eq!(
            (raw.codec.as_str(), raw.width, raw.height, raw.frame_rate),
            ("raw", Some(640), Some(272), Some(25.0))
        );
        let unknown_rate = media("video/x-h265, width=640, height=272, framerate=0/1").unwrap();
        assert_eq!(
            (unknown_rate.codec.as_str(), unknown_rate.frame_rate),
            ("h265", None)
        );
        let names = [
            "audio/mpeg, mpegversion=4",
            "audio/mpeg, mpegversion=1",
            "audio/x-mulaw",
            "audio/x-alaw",
        ];
        let codecs = names.map(|caps| media(caps).unwrap().codec);
        assert_eq!(codecs, ["aac", "mp3", "pcmu", "pcma"]);
        assert_eq!(media("application/octet-stream"), None);
    }
}
