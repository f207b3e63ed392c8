//! ITU-T H.264, 7.3.1 (NAL unit syntax), 7.4.1 (`nal_ref_idc`), D.1.8 (recovery point).

use super::{
    Picture,
    nal::{Framing, nals, unescape},
};

const SLICE: u8 = 1;
const SLICE_PARTITION_A: u8 = 2;
const IDR_SLICE: u8 = 5;
const SEI: u8 = 6;
const RECOVERY_POINT: u32 = 6;

fn nal_type(nal: &[u8]) -> u8 {
    nal.first().map_or(0, |header| header & 0x1f)
}

pub fn is_slice(nal: &[u8]) -> bool {
    (SLICE..=IDR_SLICE).contains(&nal_type(nal))
}

/// SPS, PPS, SPS extension, subset SPS.
pub fn is_parameter_set(nal: &[u8]) -> bool {
    matches!(nal_type(nal), 7 | 8 | 13 | 15)
}

pub fn picture(framing: Framing, data: &[u8]) -> Option<Picture> {
    let mut recovers = false;
    for nal in nals(framing, data) {
        match nal_type(nal) {
            SEI => recovers |= recovers_at_once(nal),
            IDR_SLICE | SLICE | SLICE_PARTITION_A => {
                let key = nal_type(nal) == IDR_SLICE || recovers;
                return Some(Picture {
                    key,
                    shown: true,
                    // All slices of a picture have it zero, or none.
                    disposable: !key && nal[0] & 0x60 == 0,
                });
            }
            _ => {}
        }
    }
    None
}

/// Whether an SEI holds a recovery point with no frames to wait for: an open group of pictures begins. (Gradual refresh, where
/// pictures become whole after a while, is not taken for a key frame.)
fn recovers_at_once(nal: &[u8]) -> bool {
    let sei = unescape(&nal[1..]);
    let mut rest = sei.as_slice();
    while rest.len() > 2 {
        let (Some(kind), Some(size)) = (extended_byte(&mut rest), extended_byte(&mut rest)) else {
            return false;
        };
        if kind == RECOVERY_POINT {
            // recovery_frame_cnt, ue(v): a first bit of one is zero.
            return rest.first().is_some_and(|byte| byte & 0x80 != 0);
        }
        rest = rest.get(size as usize..).unwrap_or_default();
    }
    false
}

/// payloadType and payloadSize: 255 means that more follows.
fn extended_byte(rest: &mut &[u8]) -> Option<u32> {
    let mut value = 0u32;
    loop {
        let (&byte, tail) = rest.split_first()?;
        *rest = tail;
        value = value.checked_add(u32::from(byte))?;
        if byte != 255 {
            return Some(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_picture(nals: &[&[u8]], key: bool, disposable: bool) {
        for framing in [
            Framing::StartCodes,
            Framing::Lengths(4),
            Framing::Lengths(2),
        ] {
            let data = framing.write(nals.iter().copied());
            let expected = Picture {
                key,
                shown: true,
                disposable,
            };
            assert_eq!(picture(framing, &data), Some(expected));
        }
    }

    #[test]
    fn tells_kinds_of_pictures_apart() {
        let (aud, sps, pps) = ([9, 0xf0], [0x67, 1, 2], [0x68, 1, 2]);
        assert_picture(&[&aud, &sps, &pps, &[0x65, 9, 9]], true, false);
        assert_picture(&[&aud, &[0x41, 9, 9]], false, false);
        assert_picture(&[&aud, &[0x01, 9, 9]], false, true);
        // Another SEI message first, then a recovery point with count 0, 1.
        assert_picture(&[&[6, 5, 1, 7, 6, 1, 0xc4, 0x80], &[0x41, 9]], true, false);
        assert_picture(&[&[6, 6, 1, 0x44, 0x80], &[0x41, 9]], false, false);
        assert_eq!(picture(Framing::StartCodes, &[0, 0, 1, 0x67, 1]), None);
    }
}
