//! RFC 6386, 9.1: the frame tag. What a frame updates stands in its arithmetic-coded part and is not read, so every frame counts as
//! referred to.

use super::Picture;

pub fn picture(data: &[u8]) -> Option<Picture> {
    let tag = *data.first()?;
    Some(Picture {
        key: tag & 1 == 0,
        shown: tag & 0x10 != 0,
        disposable: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_frame_tag() {
        let kinds = |tag: u8| picture(&[tag, 0, 0]).map(|p| (p.key, p.shown));
        assert_eq!(kinds(0x10), Some((true, true)));
        assert_eq!(kinds(0x11), Some((false, true)));
        assert_eq!(kinds(0x01), Some((false, false)));
        assert_eq!(picture(&[]), None);
    }
}
