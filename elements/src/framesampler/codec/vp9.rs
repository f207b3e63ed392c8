//! VP9 bitstream specification, 6.2 (uncompressed header) and annex B (superframes).

use super::{Picture, bits::Bits};

pub fn picture(data: &[u8]) -> Option<Picture> {
    let mut of_buffer: Option<Picture> = None;
    for frame in frames(data) {
        let frame = header(frame)?;
        of_buffer = Some(match of_buffer {
            None => frame,
            Some(before) => Picture {
                key: before.key,
                shown: before.shown || frame.shown,
                disposable: before.disposable && frame.disposable,
            },
        });
    }
    of_buffer
}

/// The frames of a superframe; the buffer itself when it is none.
fn frames(data: &[u8]) -> Vec<&[u8]> {
    superframe(data).unwrap_or_else(|| vec![data])
}

fn superframe(data: &[u8]) -> Option<Vec<&[u8]>> {
    let marker = *data.last()?;
    if marker & 0xe0 != 0xc0 {
        return None;
    }
    let count = usize::from(marker & 7) + 1;
    let size_bytes = usize::from(marker >> 3 & 3) + 1;
    let index_start = data.len().checked_sub(2 + count * size_bytes)?;
    if data[index_start] != marker {
        return None;
    }
    let (mut rest, index) = data.split_at(index_start);
    index[1..index.len() - 1]
        .chunks(size_bytes)
        .map(|size| {
            let size = size
                .iter()
                .rev()
                .fold(0, |size, &byte| size << 8 | usize::from(byte));
            let (frame, tail) = rest.split_at_checked(size)?;
            rest = tail;
            Some(frame)
        })
        .collect()
}

fn header(frame: &[u8]) -> Option<Picture> {
    let mut bits = Bits::new(frame);
    if bits.read(2)? != 2 {
        return None;
    }
    let profile = bits.read(1)? | bits.read(1)? << 1;
    if profile == 3 {
        bits.skip(1)?;
    }
    let show_existing_frame = bits.flag()?;
    if show_existing_frame {
        return Some(Picture {
            key: false,
            shown: true,
            disposable: true,
        });
    }
    let key = !bits.flag()?;
    let shown = bits.flag()?;
    let error_resilient = bits.flag()?;
    Some(Picture {
        key,
        shown,
        disposable: !key && changes_nothing(&mut bits, shown, error_resilient).unwrap_or(false),
    })
}

/// Whether an inter frame leaves both the reference frames and the saved probabilities as they are.
fn changes_nothing(bits: &mut Bits, shown: bool, error_resilient: bool) -> Option<bool> {
    let intra_only = !shown && bits.flag()?;
    let resets_context = !error_resilient && bits.read(2)? > 1;
    if intra_only || resets_context {
        return Some(false);
    }
    let refresh_frame_flags = bits.read(8)?;
    // Three references: an index and a sign each.
    bits.skip(3 * 4)?;
    frame_size_with_refs(bits)?;
    let _allow_high_precision_mv = bits.flag()?;
    let filter_is_switchable = bits.flag()?;
    if !filter_is_switchable {
        bits.skip(2)?;
    }
    let refresh_frame_context = !error_resilient && bits.flag()?;
    Some(refresh_frame_flags == 0 && !refresh_frame_context)
}

fn frame_size_with_refs(bits: &mut Bits) -> Option<()> {
    let mut found = false;
    for _ in 0..3 {
        found = bits.flag()?;
        if found {
            break;
        }
    }
    if !found {
        bits.skip(2 * 16)?;
    }
    let render_size_differs = bits.flag()?;
    if render_size_differs {
        bits.skip(2 * 16)?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header of the given bits, as text with blanks.
    fn frame(bits: &str) -> Vec<u8> {
        let bits: Vec<u8> = bits.bytes().filter(|byte| *byte != b' ').collect();
        bits.chunks(8)
            .map(|chunk| {
                (0..8).fold(0, |byte, i| {
                    byte << 1 | u8::from(chunk.get(i) == Some(&b'1'))
                })
            })
            .collect()
    }

    #[track_caller]
    fn assert_picture(data: &[u8], key: bool, shown: bool, disposable: bool) {
        let expected = Picture {
            key,
            shown,
            disposable,
        };
        assert_eq!(picture(data), Some(expected));
    }

    // marker, profile, existing, inter, shown, resilient | reset | refresh | refs | size | hp, filter | context
    const REFERENCE: &str =
        "10 00 0 1 1 0 | 00 | 00000001 | 0000 0000 0000 | 1 0 | 1 1 | 1 0 00000000";
    const UNREFERENCED: &str =
        "10 00 0 1 1 0 | 00 | 00000000 | 0000 0000 0000 | 1 0 | 1 1 | 0 0 00000000";
    const SAVES_CONTEXT: &str =
        "10 00 0 1 1 0 | 00 | 00000000 | 0000 0000 0000 | 1 0 | 1 1 | 1 0 00000000";
    const HIDDEN: &str =
        "10 00 0 1 0 0 | 0 00 | 00000100 | 0000 0000 0000 | 1 0 | 1 1 | 0 0 00000000";

    fn parts(text: &str) -> Vec<u8> {
        frame(&text.replace('|', ""))
    }

    #[test]
    fn tells_kinds_of_frames_apart() {
        assert_picture(&frame("10 00 0 0 1 0"), true, true, false);
        assert_picture(&frame("10 00 1 000"), false, true, true);
        assert_picture(&parts(REFERENCE), false, true, false);
        assert_picture(&parts(UNREFERENCED), false, true, true);
        assert_picture(&parts(SAVES_CONTEXT), false, true, false);
        assert_picture(&parts(HIDDEN), false, false, false);
        assert_eq!(picture(&[0x00]), None);
    }

    #[test]
    fn a_superframe_is_the_sum_of_its_frames() {
        let (hidden, shown) = (parts(HIDDEN), parts(UNREFERENCED));
        let mut data = [hidden.clone(), shown.clone()].concat();
        data.extend([0xc1, hidden.len() as u8, shown.len() as u8, 0xc1]);
        assert_picture(&data, false, true, false);
    }
}
