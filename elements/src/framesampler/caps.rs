//! Caps: what comes in, and the frame rate that goes out.

use gst::prelude::*;

use super::{
    Mode,
    codec::{Codec, Framing},
    rate::Rate,
};

/// Largest numerator and denominator that caps can hold.
const LARGEST: u32 = i32::MAX as u32;

/// What the element works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    Raw,
    Parsed(Codec),
}

#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("caps without a structure")]
    Empty,
    #[error(
        "{0} is not supported: expected video/x-raw, or h264, h265, vp8, vp9 or av1 as its parser puts it out"
    )]
    Media(String),
    #[error(
        "{media} with stream-format={format} carries no usable codec_data: put {parser} in front of the sampler"
    )]
    CodecData {
        media: String,
        format: String,
        parser: &'static str,
    },
    #[error(
        "mode={mode} keeps decoded frames, but the stream is {media}: put the sampler behind the decoder, or use mode=rate"
    )]
    ModeNeedsDecodedFrames { mode: &'static str, media: String },
}

impl Media {
    pub fn from_caps(caps: &gst::CapsRef, mode: Mode) -> Result<Self, Refused> {
        let structure = caps.structure(0).ok_or(Refused::Empty)?;
        let name = structure.name().as_str();
        let media = match name {
            "video/x-raw" => Self::Raw,
            "video/x-h264" => Self::Parsed(Codec::H264(framing(structure, 4, "h264parse")?)),
            "video/x-h265" => Self::Parsed(Codec::H265 {
                framing: framing(structure, 21, "h265parse")?,
                highest_layer: codec_data_byte(structure, 21)
                    .and_then(|byte| (byte >> 3 & 7).checked_sub(1)),
            }),
            "video/x-vp8" => Self::Parsed(Codec::Vp8),
            "video/x-vp9" => Self::Parsed(Codec::Vp9),
            "video/x-av1" => Self::Parsed(Codec::Av1),
            other => return Err(Refused::Media(other.to_owned())),
        };
        match (media, mode) {
            (Self::Raw, _) | (Self::Parsed(_), Mode::Rate) => Ok(media),
            (Self::Parsed(_), mode) => Err(Refused::ModeNeedsDecodedFrames {
                mode: mode.reason(),
                media: name.to_owned(),
            }),
        }
    }
}

/// How NAL units are told apart; their length's size stands in the two low bits of a byte of `avcC` (4) or `hvcC` (21).
fn framing(
    structure: &gst::StructureRef,
    length_size_byte: usize,
    parser: &'static str,
) -> Result<Framing, Refused> {
    let format = structure.get::<&str>("stream-format").unwrap_or("(none)");
    if format == "byte-stream" {
        return Ok(Framing::StartCodes);
    }
    codec_data_byte(structure, length_size_byte)
        .map(|byte| Framing::Lengths(usize::from(byte & 3) + 1))
        .ok_or_else(|| Refused::CodecData {
            media: structure.name().to_string(),
            format: format.to_owned(),
            parser,
        })
}

fn codec_data_byte(structure: &gst::StructureRef, at: usize) -> Option<u8> {
    let codec_data = structure.get::<gst::Buffer>("codec_data").ok()?;
    let map = codec_data.map_readable().ok()?;
    map.get(at).copied()
}

/// The same caps at any frame rate.
pub fn any_rate(caps: &gst::CapsRef) -> gst::Caps {
    if caps.is_any() {
        return gst::Caps::new_any();
    }
    caps.iter_with_features()
        .map(|(structure, features)| {
            let mut structure = structure.to_owned();
            structure.remove_fields(["framerate", "max-framerate"]);
            (structure, features.to_owned())
        })
        .collect()
}

/// Caps of what goes out: the frames come at no fixed distance, hence `framerate=0/1`, and `max-framerate` says how often where
/// that is known. Where what is linked downstream accepts only a fixed rate, it gets the one asked for.
pub fn outgoing(
    caps: &gst::CapsRef,
    mode: Mode,
    rate: Rate,
    downstream: &gst::CapsRef,
) -> gst::Caps {
    let rate = gst::Fraction::new(
        rate.numerator.min(LARGEST) as i32,
        rate.denominator.clamp(1, LARGEST) as i32,
    );
    let mut variable = any_rate(caps);
    for structure in variable.make_mut().iter_mut() {
        structure.set("framerate", gst::Fraction::new(0, 1));
        if mode == Mode::Rate {
            structure.set("max-framerate", rate);
        }
    }
    if mode != Mode::Rate || downstream.can_intersect(&variable) {
        return variable;
    }
    let mut fixed = any_rate(caps);
    for structure in fixed.make_mut().iter_mut() {
        structure.set("framerate", rate);
    }
    if downstream.can_intersect(&fixed) {
        fixed
    } else {
        variable
    }
}

/// Whether a decoder could go on across a change of caps: only what describes the presentation changed.
pub fn same_coding(before: &gst::CapsRef, after: &gst::CapsRef) -> bool {
    let coding = |caps: &gst::CapsRef| {
        caps.structure(0).map(|structure| {
            let field = |name| {
                structure
                    .value(name)
                    .ok()
                    .and_then(|value| value.serialize().ok())
            };
            let fields = [
                "codec_data",
                "stream-format",
                "alignment",
                "width",
                "height",
                "profile",
            ];
            (structure.name().to_string(), fields.map(field))
        })
    };
    coding(before) == coding(after)
}

pub fn template() -> gst::Caps {
    let mut caps = gst::Caps::builder("video/x-raw").any_features().build();
    let parsed = [
        gst::Caps::builder("video/x-h264")
            .field(
                "stream-format",
                gst::List::new(["byte-stream", "avc", "avc3"]),
            )
            .field("alignment", "au")
            .build(),
        gst::Caps::builder("video/x-h265")
            .field(
                "stream-format",
                gst::List::new(["byte-stream", "hvc1", "hev1"]),
            )
            .field("alignment", "au")
            .build(),
        gst::Caps::new_empty_simple("video/x-vp8"),
        gst::Caps::new_empty_simple("video/x-vp9"),
        gst::Caps::builder("video/x-av1")
            .field("stream-format", "obu-stream")
            .field("alignment", gst::List::new(["tu", "frame"]))
            .build(),
    ];
    for parsed in parsed {
        caps.merge(parsed);
    }
    caps
}
