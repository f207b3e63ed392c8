//! Cost of the filterbanks on 11 s of speech. `scripts/bench-fbank` runs this beside kaldi-native-fbank.

use std::hint::black_box;
use std::path::PathBuf;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vita_model::fbank::{Fbank, WhaleConfig};
use vita_model::wav;

fn speech() -> Vec<f32> {
    let cache = std::env::var_os("VITA_CACHE")
        .map(PathBuf::from)
        .unwrap_or_else(|| {
            let base = std::env::var_os("XDG_CACHE_HOME")
                .map(PathBuf::from)
                .unwrap_or_else(|| {
                    PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache")
                });
            base.join("vita-stream")
        });
    wav::read(&cache.join("media/jfk.wav"))
        .expect("scripts/setup fetches it")
        .samples
}

fn fbank(criterion: &mut Criterion) {
    let samples = speech();
    let whale = Fbank::whale(&WhaleConfig::default()).expect("the defaults are valid");
    let mut group = criterion.benchmark_group("fbank");
    for (name, fbank) in [("whale", whale), ("whisper", Fbank::whisper())] {
        let mut state = fbank.state();
        let mut frames = Vec::new();
        let count = fbank.push(&mut state, &samples, &mut frames);
        group.throughput(Throughput::Elements(count as u64));
        // The whole file at once, and in buffers of 20 ms as a live source has them.
        for (slicing, size) in [("whole", samples.len()), ("20ms", 320)] {
            group.bench_function(format!("{name}/{slicing}"), |bencher| {
                bencher.iter(|| {
                    state.reset();
                    frames.clear();
                    for slice in samples.chunks(size) {
                        fbank.push(&mut state, black_box(slice), &mut frames);
                    }
                    frames.len()
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, fbank);
criterion_main!(benches);
