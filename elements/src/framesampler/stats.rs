//! Counters of the `stats` property: every frame that came in has exactly one fate, or is still held.

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident => $name:literal,)+) => {
        /// Why a frame was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Reason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Reason {
            const ALL: &[(Self, &'static str)] = &[$((Self::$variant, $name),)+];
        }
    };
}

reasons! {
    /// No grid point asked for it.
    NotDue => "dropped-not-due",
    /// The rule chose others of its clip.
    NotChosen => "dropped-not-chosen",
    /// History or clip was full, or a newer frame was released before it.
    Overflow => "dropped-overflow",
    /// Neither PTS nor DTS.
    NoTimestamp => "dropped-no-timestamp",
    /// Outside the segment, or marked as not to be shown.
    OutsideSegment => "dropped-outside-segment",
    /// Nothing it refers to is known: the stream began, broke or was cut in mid-group.
    NoKeyFrame => "dropped-no-keyframe",
    /// Shown before its key frame and referring to what came before that.
    Leading => "dropped-leading",
    /// Marked as corrupted.
    Corrupted => "dropped-corrupted",
    /// Flush, end of stream, or a clip that was rejected.
    Discarded => "dropped-discarded",
}

#[derive(Clone, Debug, Default)]
pub struct Stats {
    pub received: u64,
    pub kept: u64,
    /// Passed on because a wanted frame refers to it, marked `DECODE_ONLY`.
    pub decode_only: u64,
    /// Passed on once more, after a gap in mid-group.
    pub repeated: u64,
    pub requests: u64,
    dropped: [u64; Reason::ALL.len()],
}

impl Stats {
    pub fn drop(&mut self, reason: Reason, frames: u64) {
        self.dropped[reason as usize] += frames;
    }

    pub fn structure(&self, held: u64) -> gst::Structure {
        let mut builder = gst::Structure::builder("vita-frame-sampler-stats")
            .field("in", self.received)
            .field("kept", self.kept)
            .field("decode-only", self.decode_only)
            .field("repeated", self.repeated)
            .field("held", held)
            .field("requests", self.requests)
            .field("dropped", self.dropped.iter().sum::<u64>());
        for (reason, name) in Reason::ALL {
            builder = builder.field(*name, self.dropped[*reason as usize]);
        }
        builder.build()
    }
}
