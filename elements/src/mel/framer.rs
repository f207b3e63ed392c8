//! From audio buffers to buffers of frames: the frame clock, runs and grouping. Pushes nothing itself.

use vita_model::fbank::{self, Fbank, FbankState};

/// A PTS this far from where the samples say it should be starts a new run, as in GStreamer's audio sinks. Less is
/// jitter, which the frame clock ignores.
const PTS_TOLERANCE: gst::ClockTime = gst::ClockTime::from_mseconds(40);

/// Buffers of the same number of frames, to be pushed in order.
pub(super) struct Block {
    /// To be sent before the buffers, if downstream was last told something else.
    pub caps: Option<gst::Caps>,
    /// Fewer frames than usual: the end of a run.
    pub tail: bool,
    pub frames: u64,
    pub buffers: gst::BufferList,
}

/// Form of a sample in an input buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SampleFormat {
    F32Le,
    S16Le,
}

#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Stats {
    pub samples: u64,
    pub frames: u64,
    pub buffers: u64,
    pub runs: u64,
    pub dropped_frames: u64,
}

/// A clock reading that came with the audio: `timestamp` on clock `reference` at sample `at` of the run.
struct Reference {
    reference: gst::Caps,
    timestamp: gst::ClockTime,
    at: u64,
}

/// Contiguous audio.
struct Run {
    /// PTS of its first sample.
    start: gst::ClockTime,
    /// Number of the first frame that is not in a buffer yet.
    next_frame: u64,
    /// The sample from which on all were flagged GAP.
    gap_since: Option<u64>,
    references: Vec<Reference>,
}

pub(super) struct Framer {
    fbank: Fbank,
    state: FbankState,
    frames_per_buffer: usize,
    format: Option<SampleFormat>,
    segment: Option<gst::FormattedSegment<gst::ClockTime>>,
    run: Option<Run>,
    /// Frames in a buffer as the last caps have it.
    announced: usize,
    samples: Vec<f32>,
    /// Complete frames that are not in a buffer yet.
    frames: Vec<f32>,
    pub stats: Stats,
}

impl Framer {
    pub fn new(fbank: Fbank, frames_per_buffer: usize) -> Self {
        Self {
            state: fbank.state(),
            fbank,
            frames_per_buffer,
            format: None,
            segment: None,
            run: None,
            announced: 0,
            samples: Vec::new(),
            frames: Vec::new(),
            stats: Stats::default(),
        }
    }

    /// Takes the format of the buffers to come and returns the caps of what will be made of them.
    pub fn configure(&mut self, format: SampleFormat) -> gst::Caps {
        self.format = Some(format);
        self.announced = self.frames_per_buffer;
        self.caps(self.frames_per_buffer)
    }

    pub fn format(&self) -> Option<SampleFormat> {
        self.format
    }

    pub fn segment(&self) -> Option<&gst::FormattedSegment<gst::ClockTime>> {
        self.segment.as_ref()
    }

    pub fn set_segment(&mut self, segment: gst::FormattedSegment<gst::ClockTime>) {
        self.segment = Some(segment);
    }

    /// From the time of a sample to its frame being pushed.
    pub fn latency(&self) -> gst::ClockTime {
        let waiting = (self.frames_per_buffer - 1) * self.fbank.frame_shift();
        self.time((self.fbank.look_ahead() + waiting) as u64)
    }

    /// Takes a buffer. Ends the run first if the buffer does not continue it.
    pub fn process(&mut self, buffer: &gst::BufferRef) -> Result<Vec<Block>, gst::FlowError> {
        let format = self.format.ok_or(gst::FlowError::NotNegotiated)?;
        let mut blocks = Vec::new();
        if self.is_cut(buffer) {
            self.end_run(&mut blocks);
        }
        let at = self.state.samples();
        let segment_start = self.segment.as_ref().and_then(|segment| segment.start());
        let run = self.run.get_or_insert_with(|| {
            self.stats.runs += 1;
            Run {
                start: buffer
                    .pts()
                    .or(segment_start)
                    .unwrap_or(gst::ClockTime::ZERO),
                next_frame: 0,
                gap_since: None,
                references: Vec::new(),
            }
        });
        run.gap_since = if buffer.flags().contains(gst::BufferFlags::GAP) {
            run.gap_since.or(Some(at))
        } else {
            None
        };
        run.take_references(buffer, at);

        let map = buffer.map_readable().map_err(|_| gst::FlowError::Error)?;
        read_samples(&map, format, &mut self.samples);
        self.stats.samples += self.samples.len() as u64;
        self.fbank
            .push(&mut self.state, &self.samples, &mut self.frames);
        self.pack(false, &mut blocks);
        Ok(blocks)
    }

    /// The frames that are complete, without waiting for more to fill a buffer.
    pub fn take_pending(&mut self) -> Vec<Block> {
        let mut blocks = Vec::new();
        self.pack(true, &mut blocks);
        blocks
    }

    /// The frames that are left when the audio ends here.
    pub fn end(&mut self) -> Vec<Block> {
        let mut blocks = Vec::new();
        self.end_run(&mut blocks);
        blocks
    }

    /// Forgets all of the run, and the segment.
    pub fn flush(&mut self) {
        self.run = None;
        self.segment = None;
        self.frames.clear();
        self.state.reset();
    }

    fn is_cut(&self, buffer: &gst::BufferRef) -> bool {
        let Some(run) = &self.run else { return false };
        let expected = run.start.saturating_add(self.time(self.state.samples()));
        let off = buffer.pts().map_or(gst::ClockTime::ZERO, |pts| {
            pts.max(expected) - pts.min(expected)
        });
        buffer.flags().contains(gst::BufferFlags::DISCONT) || off > PTS_TOLERANCE
    }

    fn end_run(&mut self, blocks: &mut Vec<Block>) {
        self.fbank.finish(&mut self.state, &mut self.frames);
        self.pack(true, blocks);
        self.run = None;
    }

    /// Moves complete frames into buffers; with `all` also those that do not fill one.
    fn pack(&mut self, all: bool, blocks: &mut Vec<Block>) {
        let frames = self.frames.len() / self.fbank.num_mel_bins();
        let (full, rest) = (
            frames / self.frames_per_buffer,
            frames % self.frames_per_buffer,
        );
        if full > 0 {
            blocks.extend(self.block(full, self.frames_per_buffer));
        }
        if all && rest > 0 {
            blocks.extend(self.block(1, rest));
        }
    }

    /// `count` buffers of `frames` frames.
    fn block(&mut self, count: usize, frames: usize) -> Option<Block> {
        let run = self.run.as_mut()?;
        let shift = self.fbank.frame_shift() as u64;
        let rate_hz = self.fbank.sample_rate_hz();
        let values = frames * self.fbank.num_mel_bins();
        let buffers = self
            .frames
            .chunks_exact(values)
            .take(count)
            .map(|values| run.buffer(values, frames as u64, shift, rate_hz))
            .collect();
        self.frames.drain(..count * values);
        let caps = (self.announced != frames).then(|| self.caps(frames));
        self.announced = frames;
        self.stats.frames += (count * frames) as u64;
        self.stats.buffers += count as u64;
        Some(Block {
            caps,
            tail: frames < self.frames_per_buffer,
            frames: (count * frames) as u64,
            buffers,
        })
    }

    fn caps(&self, frames: usize) -> gst::Caps {
        let samples = (self.fbank.frame_shift() * frames) as i32;
        let frontend = match self.fbank.frontend() {
            fbank::Frontend::Whale { .. } => "whale",
            fbank::Frontend::Whisper => "whisper",
        };
        gst::Caps::builder("other/tensors")
            .field("format", "static")
            .field("num_tensors", 1i32)
            .field("types", "float32")
            .field(
                "dimensions",
                format!("{}:{frames}:1:1", self.fbank.num_mel_bins()),
            )
            .field(
                "framerate",
                gst::Fraction::new(self.fbank.sample_rate_hz() as i32, samples),
            )
            .field("frontend", frontend)
            .build()
    }

    fn time(&self, samples: u64) -> gst::ClockTime {
        time(samples, self.fbank.sample_rate_hz())
    }
}

impl Run {
    /// Keeps the newest reading of each clock; a buffer without any leaves the old ones valid.
    fn take_references(&mut self, buffer: &gst::BufferRef, at: u64) {
        let mut metas = buffer.iter_meta::<gst::ReferenceTimestampMeta>().peekable();
        if metas.peek().is_some() {
            self.references.clear();
            self.references.extend(metas.map(|meta| Reference {
                reference: meta.reference_owned(),
                timestamp: meta.timestamp(),
                at,
            }));
        }
    }

    /// A buffer of the next `frames` frames.
    fn buffer(&mut self, values: &[f32], frames: u64, shift: u64, rate_hz: u32) -> gst::Buffer {
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_ne_bytes()).collect();
        let mut buffer = gst::Buffer::from_mut_slice(bytes);
        let (first, end) = (self.next_frame, self.next_frame + frames);
        let time_of = |frame| self.start.saturating_add(time(frame * shift, rate_hz));
        let out = buffer.get_mut().expect("nobody else has it yet");
        out.set_pts(time_of(first));
        out.set_duration(time_of(end) - time_of(first));
        out.set_offset(first);
        out.set_offset_end(end);
        if first == 0 {
            out.set_flags(gst::BufferFlags::DISCONT);
        }
        if self.gap_since.is_some_and(|since| first * shift >= since) {
            out.set_flags(gst::BufferFlags::GAP);
        }
        for Reference {
            reference,
            timestamp,
            at,
        } in &self.references
        {
            let timestamp = if first * shift >= *at {
                timestamp.checked_add(time(first * shift - at, rate_hz))
            } else {
                timestamp.checked_sub(time(at - first * shift, rate_hz))
            };
            if let Some(timestamp) = timestamp {
                gst::ReferenceTimestampMeta::add(out, reference, timestamp, gst::ClockTime::NONE);
            }
        }
        self.next_frame = end;
        buffer
    }
}

fn time(samples: u64, rate_hz: u32) -> gst::ClockTime {
    let ns = u128::from(samples) * u128::from(*gst::ClockTime::SECOND) / u128::from(rate_hz);
    gst::ClockTime::from_nseconds(ns as u64)
}

/// Samples in [−1, 1]; bytes that make no whole sample are left out.
fn read_samples(bytes: &[u8], format: SampleFormat, samples: &mut Vec<f32>) {
    samples.clear();
    match format {
        SampleFormat::F32Le => {
            samples.extend(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)))
        }
        SampleFormat::S16Le => samples.extend(
            bytes
                .as_chunks()
                .0
                .iter()
                .map(|b| f32::from(i16::from_le_bytes(*b)) / 32768.0),
        ),
    }
}
