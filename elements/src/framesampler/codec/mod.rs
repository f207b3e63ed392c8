//! What the bits of a coded picture say about it, as far as sampling before a decoder needs it. Nothing here decodes; data that
//! makes no sense gives `None`, and the caller goes by the buffer's flags.

mod av1;
mod bits;
mod h264;
mod h265;
mod nal;
mod vp8;
mod vp9;

pub use nal::Framing;

/// One coded picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Decoding can start here.
    pub key: bool,
    /// A decoder puts out a picture for it.
    pub shown: bool,
    /// Certain that no other picture refers to it.
    pub disposable: bool,
}

/// A parsed stream: whole pictures in each buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    H264(Framing),
    H265 {
        framing: Framing,
        /// The highest temporal sub-layer, once it is known.
        highest_layer: Option<u8>,
    },
    Vp8,
    Vp9,
    Av1,
}

impl Codec {
    /// What kind of picture a buffer holds; `None` when it holds none, or none that can be read.
    pub fn picture(&mut self, data: &[u8]) -> Option<Picture> {
        match self {
            Self::H264(framing) => h264::picture(*framing, data),
            Self::H265 {
                framing,
                highest_layer,
            } => h265::picture(*framing, highest_layer, data),
            Self::Vp8 => vp8::picture(data),
            Self::Vp9 => vp9::picture(data),
            Self::Av1 => av1::picture(data),
        }
    }

    /// Parameter sets in front of the picture, each a NAL unit without start code or length.
    pub fn parameter_sets(self, data: &[u8]) -> Vec<&[u8]> {
        match self {
            Self::H264(framing) => {
                nal::leading(framing, data, h264::is_slice, h264::is_parameter_set)
            }
            Self::H265 { framing, .. } => {
                nal::leading(framing, data, h265::is_slice, h265::is_parameter_set)
            }
            Self::Vp8 | Self::Vp9 | Self::Av1 => Vec::new(),
        }
    }

    /// NAL units as they stand in a buffer of this stream.
    pub fn frame_nals<'a>(self, nals: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
        match self {
            Self::H264(framing) | Self::H265 { framing, .. } => framing.write(nals),
            Self::Vp8 | Self::Vp9 | Self::Av1 => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_data_makes_a_reader_panic(data in proptest::collection::vec(any::<u8>(), 0..200), length_size in 1usize..=4) {
            let h265 = |framing| Codec::H265 { framing, highest_layer: None };
            for mut codec in [
                Codec::H264(Framing::StartCodes),
                Codec::H264(Framing::Lengths(length_size)),
                h265(Framing::StartCodes),
                h265(Framing::Lengths(length_size)),
                Codec::Vp8,
                Codec::Vp9,
                Codec::Av1,
            ] {
                codec.picture(&data);
                codec.parameter_sets(&data);
            }
        }

        #[test]
        fn nals_written_are_read_again(
            nals in proptest::collection::vec(proptest::collection::vec(1u8..=255, 1..40), 1..5),
            length_size in 0usize..=4,
        ) {
            let framing = match length_size { 0 => Framing::StartCodes, n => Framing::Lengths(n) };
            // A length of one byte holds no longer NAL unit, which is fine for these.
            let data = framing.write(nals.iter().map(Vec::as_slice));
            let read: Vec<Vec<u8>> = nal::nals(framing, &data).map(<[u8]>::to_vec).collect();
            prop_assert_eq!(read, nals);
        }
    }
}
