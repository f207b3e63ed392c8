//! What a model's ears read in WAV files of 16 kHz, and how long it took: `read_speech MODEL WAV...`

use std::time::Instant;
use vita_model::audio::AudioEncoder;
use vita_model::{LoadOptions, Vita, wav};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let folder = args.next().ok_or("usage: read_speech MODEL WAV...")?;
    let vita = Vita::load(folder.as_ref(), &LoadOptions::default())?;
    let ears = vita.ears()?;
    for file in args {
        let wav = wav::read(file.as_ref())?;
        let seconds = wav.samples.len() as f64 / f64::from(wav.sample_rate_hz);
        let began = Instant::now();
        let features = ears.features(&wav.samples)?;
        let after_features = began.elapsed();
        if let AudioEncoder::Transcribing(ears) = &ears.encoder {
            ears.encoder.forward(&features)?;
        }
        let encoder = began.elapsed() - after_features;
        let began = Instant::now();
        let heard = ears.listen(&features)?.transcript;
        let all = began.elapsed();
        println!(
            "{file}: {seconds:.1} s; features {:.0} ms, encoder {:.0} ms, encoder and {} tokens {:.0} ms; \
             log-probability {:.3} (lowest {:.3}), no speech {:.4}{}\n  {}",
            1e3 * after_features.as_secs_f64(),
            1e3 * encoder.as_secs_f64(),
            heard.ids.len(),
            1e3 * all.as_secs_f64(),
            heard.average_log_probability,
            heard.lowest_log_probability,
            heard.no_speech_probability,
            if heard.complete { "" } else { ", cut" },
            heard.text
        );
    }
    Ok(())
}
