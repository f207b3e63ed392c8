//! Loading of WAV files as the model takes them: one channel of samples in [−1, 1].

use std::path::Path;

use hound::{SampleFormat, WavReader};

/// A sound in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Wav {
    pub sample_rate_hz: u32,
    /// The first channel.
    pub samples: Vec<f32>,
}

/// A file that can't be read as sound.
#[derive(Debug, thiserror::Error)]
#[error("wav file {file}: {source}")]
pub struct Error {
    file: String,
    source: hound::Error,
}

/// Reads a file with integer (8 to 32 bits) or float samples. Of several channels only the first is used, as in
/// VITA (model specification 4.1).
pub fn read(file: &Path) -> Result<Wav, Error> {
    load(file).map_err(|source| Error {
        file: file.display().to_string(),
        source,
    })
}

fn load(file: &Path) -> Result<Wav, hound::Error> {
    let mut reader = WavReader::open(file)?;
    let spec = reader.spec();
    let channels = usize::from(spec.channels.max(1));
    let samples = match spec.sample_format {
        SampleFormat::Float => reader
            .samples::<f32>()
            .step_by(channels)
            .collect::<Result<_, _>>()?,
        SampleFormat::Int => {
            let scale = 1.0 / (1u64 << (spec.bits_per_sample - 1)) as f32;
            reader
                .samples::<i32>()
                .step_by(channels)
                .map(|sample| sample.map(|x| x as f32 * scale))
                .collect::<Result<_, _>>()?
        }
    };
    Ok(Wav {
        sample_rate_hz: spec.sample_rate,
        samples,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_channel_of_any_format() {
        let folder = tempfile::tempdir().unwrap();
        for (bits, format) in [
            (8, SampleFormat::Int),
            (16, SampleFormat::Int),
            (24, SampleFormat::Int),
            (32, SampleFormat::Float),
        ] {
            let file = folder.path().join(format!("{bits}.wav"));
            let spec = hound::WavSpec {
                channels: 2,
                sample_rate: 8_000,
                bits_per_sample: bits,
                sample_format: format,
            };
            let mut writer = hound::WavWriter::create(&file, spec).unwrap();
            for value in [0.5f32, -1.0, -0.25, 0.75] {
                match format {
                    SampleFormat::Float => writer.write_sample(value).unwrap(),
                    SampleFormat::Int => writer
                        .write_sample((value * (1u32 << (bits - 1)) as f32) as i32)
                        .unwrap(),
                }
            }
            writer.finalize().unwrap();
            let wav = read(&file).unwrap();
            assert_eq!(wav.sample_rate_hz, 8_000);
            assert_eq!(wav.samples, [0.5, -0.25], "{bits} bits");
        }
    }

    #[test]
    fn an_unreadable_file_is_named() {
        let error = read(Path::new("/nowhere/x.wav")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/x.wav"), "{error}");
    }
}
