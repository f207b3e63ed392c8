//! Encoded media between elements: one medium a buffer, its vectors as `other/tensors`, and what else is to be known of
//! it in a `GstCustomMeta` (docs/architecture.md, "Tensors between elements").

use std::sync::Once;

use candle_core::{DType, Device, Tensor};
use vita_model::prompt::{Media, MediaKind};

/// Name of the meta and of the structure in it.
pub const META: &str = "VitaMediaMeta";

/// Why a medium could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    #[error(
        "caps {0}: expected other/tensors,format=static,num_tensors=1,types=float32,dimensions=WIDTH:VECTORS:1:1"
    )]
    Caps(String),
    #[error("a buffer of {found} bytes, expected {expected}: {vectors} vectors of {width} float32")]
    Size {
        found: usize,
        expected: usize,
        vectors: usize,
        width: usize,
    },
    #[error(
        "a buffer without {META}: it was not made by vitaencoder, or an element between took the meta off"
    )]
    NoMeta,
    #[error("{META}: field {field}: expected {expected}")]
    Field {
        field: &'static str,
        expected: &'static str,
    },
    #[error("a buffer cannot be mapped: {0}")]
    Map(#[from] gst::glib::BoolError),
    #[error("vectors of a medium: {0}")]
    Vectors(#[from] candle_core::Error),
}

/// What is known of a medium beside its vectors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MediaTimes {
    /// The utterance's, of sound.
    pub utterance_id: Option<u64>,
    /// Where it begins, in stream time.
    pub start: Option<gst::ClockTime>,
    /// Where it ends, in stream time.
    pub end: Option<gst::ClockTime>,
    /// Unix nanoseconds of its beginning.
    pub capture_time_ns: Option<u64>,
}

/// To be called before a medium is written or read; again does nothing.
pub fn register() {
    static REGISTER: Once = Once::new();
    REGISTER.call_once(|| gst::meta::CustomMeta::register_simple(META));
}

/// Caps of any medium.
pub fn template_caps() -> gst::Caps {
    tensors().build()
}

/// Caps of media of `vectors` vectors, each `width` wide.
pub fn caps(vectors: usize, width: usize) -> gst::Caps {
    tensors()
        .field("dimensions", format!("{width}:{vectors}:1:1"))
        .field("framerate", gst::Fraction::new(0, 1))
        .build()
}

fn tensors() -> gst::caps::Builder<gst::caps::NoFeature> {
    gst::Caps::builder("other/tensors")
        .field("format", "static")
        .field("num_tensors", 1i32)
        .field("types", "float32")
}

/// Width and number of rows of [`caps`], and of those of `vitamel`.
///
/// # Errors
/// Where the caps are none of one matrix of float32.
pub fn dimensions(caps: &gst::CapsRef) -> Result<(usize, usize), MediaError> {
    let parse = || {
        let structure = caps.structure(0)?;
        if !caps.is_fixed() || !caps.is_subset(&template_caps()) {
            return None;
        }
        let dimensions = structure.get::<&str>("dimensions").ok()?;
        let mut sizes = dimensions.split(':').map(|size| size.parse::<usize>().ok());
        let (width, rows) = (sizes.next()??, sizes.next().unwrap_or(Some(1))?);
        let is_matrix = sizes.all(|size| size == Some(1));
        (is_matrix && width > 0 && rows > 0).then_some((width, rows))
    };
    parse().ok_or_else(|| MediaError::Caps(caps.to_string()))
}

/// A medium as a buffer, and the caps that belong to it. PTS, duration and other metas are the caller's to set.
///
/// # Errors
/// Where the vectors are no matrix, or cannot be copied from their device.
pub fn write(media: &Media, times: &MediaTimes) -> Result<(gst::Buffer, gst::Caps), MediaError> {
    register();
    let (vectors, width) = media.vectors.dims2()?;
    let values = media.vectors.to_device(&Device::Cpu)?;
    let values = values.to_dtype(DType::F32)?.flatten_all()?;
    let bytes: Vec<u8> = values
        .to_vec1::<f32>()?
        .iter()
        .flat_map(|x| x.to_ne_bytes())
        .collect();
    let mut buffer = gst::Buffer::from_mut_slice(bytes);
    let out = buffer.get_mut().expect("nobody else has it yet");
    let mut meta = gst::meta::CustomMeta::add(out, META)?;
    let structure = meta.mut_structure();
    structure.set("kind", name(media.kind));
    structure.set("key", media.key);
    structure.set_if_some("utterance-id", times.utterance_id);
    structure.set_if_some("start-stream-time", times.start);
    structure.set_if_some("end-stream-time", times.end);
    structure.set_if_some("capture-time", times.capture_time_ns);
    structure.set_if_some("transcript", media.transcript.as_deref());
    Ok((buffer, caps(vectors, width)))
}

/// The medium of a buffer, its vectors in f32 on the CPU.
///
/// # Errors
/// Where caps, size or meta are not what [`write()`] makes.
pub fn read(
    buffer: &gst::BufferRef,
    caps: &gst::CapsRef,
) -> Result<(Media, MediaTimes), MediaError> {
    register();
    let (width, vectors) = dimensions(caps)?;
    let meta = gst::meta::CustomMeta::from_buffer(buffer, META).map_err(|_| MediaError::NoMeta)?;
    let fields = Fields(meta.structure());
    let media = Media {
        kind: fields.kind()?,
        key: fields.number("key")?.ok_or(MediaError::Field {
            field: "key",
            expected: NUMBER,
        })?,
        vectors: read_matrix(buffer, vectors, width)?,
        transcript: fields.transcript()?,
    };
    let times = MediaTimes {
        utterance_id: fields.number("utterance-id")?,
        start: fields.time("start-stream-time")?,
        end: fields.time("end-stream-time")?,
        capture_time_ns: fields.number("capture-time")?,
    };
    Ok((media, times))
}

/// The float32 values of a buffer as `[rows, width]`.
fn read_matrix(buffer: &gst::BufferRef, rows: usize, width: usize) -> Result<Tensor, MediaError> {
    let map = buffer.map_readable()?;
    let expected = rows.saturating_mul(width).saturating_mul(size_of::<f32>());
    if map.len() != expected {
        return Err(MediaError::Size {
            found: map.len(),
            expected,
            vectors: rows,
            width,
        });
    }
    let chunks = map.as_chunks().0.iter();
    let values = chunks.map(|bytes| f32::from_ne_bytes(*bytes)).collect();
    Ok(Tensor::from_vec(values, (rows, width), &Device::Cpu)?)
}

const NUMBER: &str = "an unsigned 64-bit number";

struct Fields<'a>(&'a gst::StructureRef);

impl Fields<'_> {
    fn number(&self, field: &'static str) -> Result<Option<u64>, MediaError> {
        let expected = NUMBER;
        self.0
            .get_optional(field)
            .map_err(|_| MediaError::Field { field, expected })
    }

    fn time(&self, field: &'static str) -> Result<Option<gst::ClockTime>, MediaError> {
        Ok(self.number(field)?.map(gst::ClockTime::from_nseconds))
    }

    fn kind(&self) -> Result<MediaKind, MediaError> {
        let found = self.0.get::<&str>("kind").ok();
        let kinds = [MediaKind::Image, MediaKind::Audio];
        let kind = kinds.into_iter().find(|kind| found == Some(name(*kind)));
        kind.ok_or(MediaError::Field {
            field: "kind",
            expected: "image or audio",
        })
    }

    fn transcript(&self) -> Result<Option<String>, MediaError> {
        self.0
            .get_optional("transcript")
            .map_err(|_| MediaError::Field {
                field: "transcript",
                expected: "a string",
            })
    }
}

fn name(kind: MediaKind) -> &'static str {
    match kind {
        MediaKind::Image => "image",
        MediaKind::Audio => "audio",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utterance() -> (Media, MediaTimes) {
        gst::init().unwrap();
        let values: Vec<f32> = (0..12).map(|i| i as f32 / 7.0 - 1.0).collect();
        let media = Media {
            kind: MediaKind::Audio,
            key: u64::MAX - 3,
            vectors: Tensor::from_vec(values, (3, 4), &Device::Cpu).unwrap(),
            transcript: Some("what is on the table?".into()),
        };
        let times = MediaTimes {
            utterance_id: Some(7),
            start: Some(gst::ClockTime::from_mseconds(1_500)),
            end: Some(gst::ClockTime::from_mseconds(3_250)),
            capture_time_ns: Some(1_700_000_000_000_000_001),
        };
        (media, times)
    }

    #[track_caller]
    fn assert_comes_back(media: &Media, times: &MediaTimes) {
        let (buffer, caps) = write(media, times).unwrap();
        // as a queue or tee downstream would hand it on
        let (back, back_times) = read(&buffer.copy(), &caps).unwrap();
        assert_eq!((back.kind, back.key), (media.kind, media.key));
        assert_eq!(back.transcript, media.transcript);
        assert_eq!(&back_times, times);
        let values = |media: &Media| {
            let vectors = media.vectors.to_dtype(DType::F32).unwrap();
            vectors.to_vec2::<f32>().unwrap()
        };
        assert_eq!(values(&back), values(media));
    }

    #[test]
    fn what_is_written_is_read_back_to_the_bit() {
        let (media, times) = utterance();
        assert_comes_back(&media, &times);
        let frame = Media {
            kind: MediaKind::Image,
            transcript: None,
            vectors: media.vectors.to_dtype(DType::BF16).unwrap(),
            ..media
        };
        assert_comes_back(&frame, &MediaTimes::default());
    }

    #[test]
    fn caps_say_what_the_buffer_holds() {
        let (media, times) = utterance();
        let (_, caps) = write(&media, &times).unwrap();
        assert_eq!(
            caps.to_string(),
            "other/tensors, format=(string)static, num_tensors=(int)1, types=(string)float32, \
             dimensions=(string)4:3:1:1, framerate=(fraction)0/1"
        );
        assert!(caps.is_subset(&template_caps()));
        assert_eq!(dimensions(&caps).unwrap(), (4, 3));
    }

    #[test]
    fn caps_of_anything_else_are_refused() {
        gst::init().unwrap();
        let tensors = "other/tensors,format=static,num_tensors=1,types=float32";
        for caps in [
            "video/x-raw".to_owned(),
            tensors.to_owned(),
            format!("{tensors},dimensions=4:3:2:1"),
            format!("{tensors},dimensions=0:3:1:1"),
            format!("{tensors},dimensions=4:x:1:1"),
            "other/tensors,format=static,num_tensors=1,types=int8,dimensions=4:3:1:1".to_owned(),
        ] {
            let caps: gst::Caps = caps.parse().unwrap();
            let error = dimensions(&caps).unwrap_err();
            assert!(matches!(error, MediaError::Caps(_)), "{caps}: {error}");
        }
    }

    #[test]
    fn a_buffer_that_is_no_medium_is_refused() {
        let (media, times) = utterance();
        let (mut buffer, right) = write(&media, &times).unwrap();
        let wrong_size = read(&buffer, &caps(2, 4)).unwrap_err();
        assert!(matches!(
            wrong_size,
            MediaError::Size {
                found: 48,
                expected: 32,
                ..
            }
        ));

        let bare = gst::Buffer::from_slice([0u8; 48]);
        assert!(matches!(read(&bare, &right), Err(MediaError::NoMeta)));

        let mut meta = gst::meta::CustomMeta::from_mut_buffer(buffer.make_mut(), META).unwrap();
        meta.mut_structure().set("key", "seven");
        let error = read(&buffer, &right).unwrap_err();
        assert_eq!(
            error.to_string(),
            "VitaMediaMeta: field key: expected an unsigned 64-bit number"
        );
    }
}
