//! Picture sizes out of sequence parameter sets: H.264 (ITU-T H.264, 7.3.2.1.1) and H.265 (ITU-T H.265, 7.3.2.2.1).

use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

/// Cameras are careless with padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
const H264_SPS: u8 = 7;
const H265_SPS: u8 = 33;

/// Width and height out of `sprop-parameter-sets`.
pub(super) fn h264_size(sets: &str) -> Option<(u32, u32)> {
    units(sets)
        .find(|unit| unit.first().is_some_and(|header| header & 0x1f == H264_SPS))
        .and_then(|unit| h264_sps(&unit[1..]))
}

/// Width and height out of `sprop-sps`.
pub(super) fn h265_size(sets: &str) -> Option<(u32, u32)> {
    let is_sps = |unit: &Vec<u8>| unit.len() > 2 && (unit[0] >> 1) & 0x3f == H265_SPS;
    units(sets)
        .find(is_sps)
        .and_then(|unit| h265_sps(&unit[2..]))
}

fn units(sets: &str) -> impl Iterator<Item = Vec<u8>> {
    sets.split(',')
        .filter_map(|set| BASE64.decode(set.trim()).ok())
}

fn h264_sps(bytes: &[u8]) -> Option<(u32, u32)> {
    let payload = without_emulation(bytes);
    let mut bits = Bits::new(&payload);
    let profile = bits.take(8)?;
    bits.take(16)?;
    bits.ue()?;
    let mut chroma_format = 1;
    let mut has_separate_planes = false;
    if matches!(
        profile,
        100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135
    ) {
        chroma_format = bits.ue()?;
        if chroma_format == 3 {
            has_separate_planes = bits.flag()?;
        }
        bits.ue()?;
        bits.ue()?;
        bits.flag()?;
        if bits.flag()? {
            for index in 0..if chroma_format == 3 { 12 } else { 8 } {
                if bits.flag()? {
                    skip_scaling_list(&mut bits, if index < 6 { 16 } else { 64 })?;
                }
            }
        }
    }
    bits.ue()?;
    match bits.ue()? {
        0 => {
            bits.ue()?;
        }
        1 => {
            bits.flag()?;
            bits.se()?;
            bits.se()?;
            for _ in 0..bits.ue()?.min(255) {
                bits.se()?;
            }
        }
        _ => {}
    }
    bits.ue()?;
    bits.flag()?;
    let width_in_blocks = bits.ue()?.checked_add(1)?;
    let height_in_units = bits.ue()?.checked_add(1)?;
    let is_frame_only = bits.flag()?;
    if !is_frame_only {
        bits.flag()?;
    }
    bits.flag()?;
    let fields = 2 - u32::from(is_frame_only);
    let chroma = if has_separate_planes {
        0
    } else {
        chroma_format
    };
    let (unit_x, unit_y) = chroma_unit(chroma);
    let (crop_x, crop_y) = crop(&mut bits)?;
    let width = width_in_blocks
        .checked_mul(16)?
        .checked_sub(crop_x.checked_mul(unit_x)?)?;
    let height = height_in_units
        .checked_mul(16 * fields)?
        .checked_sub(crop_y.checked_mul(unit_y * fields)?)?;
    sensible(width, height)
}

fn h265_sps(bytes: &[u8]) -> Option<(u32, u32)> {
    let payload = without_emulation(bytes);
    let mut bits = Bits::new(&payload);
    bits.take(4)?;
    let sub_layers = bits.take(3)?;
    bits.flag()?;
    skip_profile_tier_level(&mut bits, sub_layers)?;
    bits.ue()?;
    let mut chroma = bits.ue()?;
    if chroma == 3 && bits.flag()? {
        chroma = 0;
    }
    let (width, height) = (bits.ue()?, bits.ue()?);
    let (unit_x, unit_y) = chroma_unit(chroma);
    let (crop_x, crop_y) = crop(&mut bits)?;
    sensible(
        width.checked_sub(crop_x.checked_mul(unit_x)?)?,
        height.checked_sub(crop_y.checked_mul(unit_y)?)?,
    )
}

fn skip_profile_tier_level(bits: &mut Bits<'_>, sub_layers: u32) -> Option<()> {
    bits.skip(96)?;
    let mut present = Vec::new();
    for _ in 0..sub_layers {
        present.push((bits.flag()?, bits.flag()?));
    }
    if sub_layers > 0 {
        bits.skip(2 * (8 - sub_layers))?;
    }
    for (has_profile, has_level) in present {
        bits.skip(88 * u32::from(has_profile) + 8 * u32::from(has_level))?;
    }
    Some(())
}

/// Width and height of a chroma sample in luma samples.
fn chroma_unit(chroma_format: u32) -> (u32, u32) {
    match chroma_format {
        1 => (2, 2),
        2 => (2, 1),
        _ => (1, 1),
    }
}

/// Sums of left and right, top and bottom.
fn crop(bits: &mut Bits<'_>) -> Option<(u32, u32)> {
    if !bits.flag()? {
        return Some((0, 0));
    }
    let horizontal = bits.ue()?.checked_add(bits.ue()?)?;
    let vertical = bits.ue()?.checked_add(bits.ue()?)?;
    Some((horizontal, vertical))
}

fn sensible(width: u32, height: u32) -> Option<(u32, u32)> {
    let is_sensible = |size| (1..=1 << 16).contains(&size);
    (is_sensible(width) && is_sensible(height)).then_some((width, height))
}

fn skip_scaling_list(bits: &mut Bits<'_>, size: usize) -> Option<()> {
    let (mut last, mut next) = (8_i64, 8_i64);
    for _ in 0..size {
        if next != 0 {
            next = (last + bits.se()? + 256) % 256;
        }
        last = if next == 0 { last } else { next };
    }
    Some(())
}

/// Takes out the 3 of each 0 0 3.
fn without_emulation(bytes: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(bytes.len());
    let mut zeros = 0;
    for byte in bytes {
        if zeros >= 2 && *byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if *byte == 0 { zeros + 1 } else { 0 };
        payload.push(*byte);
    }
    payload
}

struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Bits<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn flag(&mut self) -> Option<bool> {
        let byte = self.bytes.get(self.at / 8)?;
        let bit = (byte >> (7 - self.at % 8)) & 1;
        self.at += 1;
        Some(bit == 1)
    }

    fn take(&mut self, count: u32) -> Option<u32> {
        (0..count).try_fold(0_u32, |value, _| {
            Some((value << 1) | u32::from(self.flag()?))
        })
    }

    fn skip(&mut self, count: u32) -> Option<()> {
        (0..count).try_for_each(|_| self.flag().map(|_| ()))
    }

    /// Exp-Golomb, unsigned.
    fn ue(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        Some((1_u32 << zeros) - 1 + self.take(zeros)?)
    }

    /// Exp-Golomb, signed.
    fn se(&mut self) -> Option<i64> {
        let code = i64::from(self.ue()?);
        Some(if code % 2 == 1 {
            (code + 1) / 2
        } else {
            -code / 2
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_of_real_encoders() {
        // x264, 720p, high profile.
        assert_eq!(
            h264_size("Z2QAH6zZQFAFuwEQAAADABAAAAMDIPGDGWA=,aOvjyyLA"),
            Some((1280, 720))
        );
        assert_eq!(h264_size("aOvjyyLA"), None);
        // x264 high 4:4:4 and x265 main 4:4:4, cropped and not, of ffmpeg's testsrc.
        assert_eq!(
            h264_size("Z/QAFpGbKBQF/xOAiAAAAwAIAAADAFB4sWyw"),
            Some((640, 360))
        );
        assert_eq!(
            h264_size("Z/QAKJGbKA8ARPxOAiAAAAMAIAAAAwFB4wYywA=="),
            Some((1920, 1080))
        );
        assert_eq!(
            h265_size("QgEBBAgAAAMAnggAAAMAAHiQAHgQAhyyys0kmV4C3AgIABAAAAMAEAAAAwBQgA=="),
            Some((1920, 1080))
        );
        assert_eq!(
            h265_size("QgEBBAgAAAMAnggAAAMAAD+QAKBALSyys0kmV4C3AgIABAAAAwAEAAADABQg"),
            Some((640, 360))
        );
    }

    proptest! {
        #[test]
        fn no_parameter_set_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            for header in [[0x67].as_slice(), &[0x42, 0x01]] {
                let set = BASE64.encode([header, &bytes].concat());
                let _ = (h264_size(&set), h265_size(&set));
            }
        }
    }
}
