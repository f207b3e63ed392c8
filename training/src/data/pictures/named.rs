//! What eyes call the main thing of a picture.

use super::super::{Error, Result};
use super::with_article;
use std::path::Path;
use vita_model::vision::{Eyes, Seen, VisionEncoder};

/// People where some are found, else the likeliest class, with its article: "a person", "people", "an espresso". `None` for eyes
/// that can't name.
pub fn main_thing(eyes: &Eyes, picture: &Path) -> Result<Option<String>> {
    let pixels = image::open(picture).map_err(|source| Error::Picture {
        path: picture.to_owned(),
        source,
    })?;
    let seen = eyes
        .frames(&[pixels.to_rgb8()])
        .and_then(|prepared| eyes.look(&prepared))
        .map_err(|e| Error::tool("eyes", format!("{}: {e}", picture.display())))?;
    Ok(seen.first().and_then(|seen| called(eyes, seen)))
}

fn called(eyes: &Eyes, seen: &Seen) -> Option<String> {
    let people = eyes.detector().map_or(0, |detector| {
        let found = seen.found.iter().filter(|find| detector.is_person(find));
        found.count()
    });
    match (people, &eyes.encoder) {
        (1, _) => Some("a person".into()),
        (2.., _) => Some("people".into()),
        (0, VisionEncoder::EfficientNet { names, .. }) => {
            let best = seen.recognised.first()?;
            Some(with_article(names.as_ref()?.name(best.class)))
        }
        (0, VisionEncoder::InternVit { .. }) => None,
    }
}
