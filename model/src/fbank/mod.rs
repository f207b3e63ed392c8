//! Log-mel filterbanks, streaming: samples of any slicing in, whole frames out.
//!
//! Two front ends: [`Frontend::Whale`] is the Kaldi-compatible filterbank of VITA's audio encoder (model
//! specification 4.2), [`Frontend::Whisper`] the log-mel of Whisper's encoders. A [`Fbank`] holds what never changes
//! (window, FFT plan, mel filters) and is shared between streams; an [`FbankState`] is one stream's place in it.
//!
//! There is one code path: [`Fbank::compute`] is [`Fbank::push`] and [`Fbank::finish`] on a new state. Each frame is
//! computed from its own samples in a fixed order of summation, so the frames of a signal are bit-identical however
//! it is sliced. (Another CPU may choose another FFT kernel and differ in the last bits.)
//!
//! ```
//! use vita_model::fbank::{Fbank, WhaleConfig};
//!
//! let fbank = Fbank::whale(&WhaleConfig::default())?;
//! let mut state = fbank.state();
//! let mut frames = Vec::new();
//! assert_eq!(fbank.push(&mut state, &[0.0; 300], &mut frames), 0);
//! assert_eq!(fbank.push(&mut state, &[0.0; 260], &mut frames), 2); // 560 samples: 400, and 160 more
//! assert_eq!(frames.len(), 2 * 80);
//! # Ok::<(), vita_model::fbank::Error>(())
//! ```

mod cmvn;
mod filters;
mod plan;
pub mod slaney;
mod stream;

pub use cmvn::Cmvn;
pub use plan::{Fbank, Frontend, WhaleConfig};
pub use stream::FbankState;

/// Floor of Whisper's mel energies before the logarithm.
const WHISPER_FLOOR: f32 = 1e-10;

/// Whisper's range: what is this far (in log10) below the loudest value of the utterance is raised to it.
const WHISPER_RANGE: f32 = 8.0;

/// What can be wrong with a filterbank's parameters or its input.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("fbank: {field} is {value}, expected {expected}")]
    Config {
        field: &'static str,
        value: String,
        expected: String,
    },
    #[error("fbank: {samples} samples are too few, at least {needed} make a frame")]
    TooShort { samples: usize, needed: usize },
    #[error("cmvn statistics {file}: {problem}")]
    Cmvn { file: String, problem: String },
}

/// Whisper's last step, on the raw log10-mel of a whole utterance, in place: values more than 8 below the utterance's
/// maximum are raised to that, then `(x + 4) / 4` (`log_mel_spectrogram` in openai/whisper, `whisper/audio.py`).
///
/// It needs the loudest value of the utterance, which a stream does not know yet. That is why [`Frontend::Whisper`]
/// streams the raw log10-mel, final as soon as it is out, and who cuts the utterance calls this on it.
pub fn normalise_whisper(log_mel: &mut [f32]) {
    let max = log_mel.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for x in log_mel {
        *x = (x.max(max - WHISPER_RANGE) + 4.0) / 4.0;
    }
}
