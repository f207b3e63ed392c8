//! ITU-T H.265, table 7-1 (NAL unit types), 7.3.1.2 (NAL unit header), 7.3.2 (`max_sub_layers_minus1`).

use super::{
    Picture,
    nal::{Framing, nals},
};

const FIRST_PARAMETER_SET: u8 = 32;
const SPS: u8 = 33;
const LAST_PARAMETER_SET: u8 = 34;

fn nal_type(nal: &[u8]) -> u8 {
    nal.first().map_or(63, |header| header >> 1 & 0x3f)
}

fn is_base_layer(nal: &[u8]) -> bool {
    nal.len() > 2 && nal[0] & 1 == 0 && nal[1] >> 3 == 0
}

pub fn is_slice(nal: &[u8]) -> bool {
    nal_type(nal) < FIRST_PARAMETER_SET
}

/// VPS, SPS, PPS.
pub fn is_parameter_set(nal: &[u8]) -> bool {
    (FIRST_PARAMETER_SET..=LAST_PARAMETER_SET).contains(&nal_type(nal))
}

/// Reads one picture. `highest_layer` is the highest temporal sub-layer that the stream may use, kept up to date by its SPS.
pub fn picture(framing: Framing, highest_layer: &mut Option<u8>, data: &[u8]) -> Option<Picture> {
    let mut slice = None;
    for nal in nals(framing, data).filter(|nal| is_base_layer(nal)) {
        if nal_type(nal) == SPS {
            *highest_layer = Some(nal[2] >> 1 & 7);
        } else if is_slice(nal) {
            slice = Some(nal);
            break;
        }
    }
    let slice = slice?;
    let kind = nal_type(slice);
    let temporal_id = (slice[1] & 7).saturating_sub(1);
    // Even types below 16 are referred to by no picture of their own sub-layer; by none at all in the highest.
    let unreferenced = kind < 16 && kind.is_multiple_of(2);
    Some(Picture {
        // BLA, IDR, CRA and the reserved random access types.
        key: (16..=23).contains(&kind),
        shown: true,
        disposable: unreferenced && *highest_layer == Some(temporal_id),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_picture(nals: &[&[u8]], highest_layer: Option<u8>, key: bool, disposable: bool) {
        let mut highest_layer = highest_layer;
        let data = Framing::StartCodes.write(nals.iter().copied());
        let expected = Picture {
            key,
            shown: true,
            disposable,
        };
        assert_eq!(
            picture(Framing::StartCodes, &mut highest_layer, &data),
            Some(expected)
        );
    }

    #[test]
    fn tells_kinds_of_pictures_apart() {
        let idr = [19 << 1, 1, 0xaf];
        let cra = [21 << 1, 1, 0xaf];
        let trail_n = [0, 1, 0xaf];
        let trail_r = [1 << 1, 1, 0xaf];
        assert_picture(&[&idr], Some(0), true, false);
        assert_picture(&[&cra], Some(0), true, false);
        assert_picture(&[&trail_n], Some(0), false, true);
        assert_picture(&[&trail_r], Some(0), false, false);
        // A picture of a higher sub-layer may refer to it; or nobody knows.
        assert_picture(&[&trail_n], Some(1), false, false);
        assert_picture(&[&trail_n], None, false, false);
        // TSA_N in the highest of two sub-layers.
        assert_picture(&[&[2 << 1, 2, 0xaf]], Some(1), false, true);
    }

    #[test]
    fn an_sps_tells_the_highest_layer() {
        let mut highest_layer = None;
        let data = Framing::Lengths(4).write([&[SPS << 1, 1, 0x03][..], &[19 << 1, 1, 0xaf]]);
        picture(Framing::Lengths(4), &mut highest_layer, &data).unwrap();
        assert_eq!(highest_layer, Some(1));
    }
}
