use crate::prompt::Segment;

/// What stands at one position, for comparing prompts without their tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    Token(u32),
    Media { key: u64, index: usize },
}

pub(super) fn marks(prompt: &[Segment]) -> Vec<Mark> {
    let mut marks = Vec::with_capacity(prompt.iter().map(Segment::len).sum());
    for segment in prompt {
        match segment {
            Segment::Ids(ids) => marks.extend(ids.iter().map(|id| Mark::Token(*id))),
            Segment::Media(media) => {
                let key = media.key;
                marks.extend((0..segment.len()).map(|index| Mark::Media { key, index }));
            }
        }
    }
    marks
}
