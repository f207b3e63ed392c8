//! AV1 bitstream specification, 5.3 (OBU header), 5.5 (sequence header), 5.9 (frame header). Which frames a frame updates stands
//! behind a good part of both headers and is not read, so every frame counts as referred to.

use super::{Picture, bits::Bits};

const SEQUENCE_HEADER: u8 = 1;
const FRAME_HEADER: u8 = 3;
const FRAME: u8 = 6;
const KEY_FRAME: u32 = 0;

pub fn picture(data: &[u8]) -> Option<Picture> {
    let mut of_buffer: Option<Picture> = None;
    let mut still_picture = false;
    let mut rest = data;
    while let Some((kind, payload, tail)) = obu(rest) {
        rest = tail;
        match kind {
            SEQUENCE_HEADER => still_picture = payload.first()? & 0x08 != 0,
            FRAME_HEADER | FRAME => {
                let frame = header(payload, still_picture)?;
                let before = of_buffer.unwrap_or(Picture {
                    shown: false,
                    ..frame
                });
                of_buffer = Some(Picture {
                    shown: before.shown || frame.shown,
                    ..before
                });
            }
            _ => {}
        }
    }
    of_buffer
}

/// Type and payload of the first OBU, and what follows it.
fn obu(data: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&header, mut rest) = data.split_first()?;
    let (has_extension, has_size) = (header & 0x04 != 0, header & 0x02 != 0);
    if has_extension {
        rest = rest.get(1..)?;
    }
    let size = if has_size {
        leb128(&mut rest)?
    } else {
        rest.len()
    };
    let (payload, tail) = rest.split_at_checked(size)?;
    Some((header >> 3 & 0x0f, payload, tail))
}

fn leb128(rest: &mut &[u8]) -> Option<usize> {
    let mut value = 0u64;
    for i in 0..8 {
        let (&byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return usize::try_from(value).ok();
        }
    }
    None
}

fn header(payload: &[u8], still_picture: bool) -> Option<Picture> {
    if still_picture {
        return Some(Picture {
            key: true,
            shown: true,
            disposable: false,
        });
    }
    let mut bits = Bits::new(payload);
    let show_existing_frame = bits.flag()?;
    if show_existing_frame {
        // It may show a key frame and thereby refresh every reference.
        return Some(Picture {
            key: false,
            shown: true,
            disposable: false,
        });
    }
    let frame_type = bits.read(2)?;
    let shown = bits.flag()?;
    Some(Picture {
        // One that is shown later only starts a decoder when it is shown.
        key: frame_type == KEY_FRAME && shown,
        shown,
        disposable: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPORAL_DELIMITER: [u8; 2] = [0x12, 0];
    const SEQUENCE: [u8; 4] = [0x0a, 2, 0x00, 0];

    fn frame(header: u8) -> Vec<u8> {
        vec![FRAME << 3 | 2, 2, header, 0]
    }

    #[track_caller]
    fn assert_picture(obus: &[&[u8]], key: bool, shown: bool) {
        let expected = Picture {
            key,
            shown,
            disposable: false,
        };
        assert_eq!(picture(&obus.concat()), Some(expected));
    }

    #[test]
    fn tells_kinds_of_temporal_units_apart() {
        let (key, inter, hidden, existing) = (
            frame(0b0001_0000),
            frame(0b0011_0000),
            frame(0b0010_0000),
            frame(0b1000_0000),
        );
        assert_picture(&[&TEMPORAL_DELIMITER, &SEQUENCE, &key], true, true);
        assert_picture(&[&TEMPORAL_DELIMITER, &inter], false, true);
        assert_picture(&[&hidden], false, false);
        assert_picture(&[&TEMPORAL_DELIMITER, &hidden, &existing], false, true);
        assert_eq!(picture(&TEMPORAL_DELIMITER), None);
        assert_eq!(picture(&[0x32, 200, 0]), None);
    }

    #[test]
    fn a_still_picture_is_a_key_frame_without_saying_so() {
        assert_picture(&[&[0x0a, 2, 0x18, 0], &frame(0xff)], true, true);
    }
}
