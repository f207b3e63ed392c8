//! One step of the voice activity network: 512 samples, 32 ms. A live stream makes 31.25 of them a second.

#[path = "../tests/vad/graph.rs"]
mod graph;

use std::{hint::black_box, path::Path};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vita_model::vad::{self, BLOCK_SAMPLES, SileroState};

fn step(criterion: &mut Criterion) {
    let speech = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/media/q1.wav");
    let mut wav = hound::WavReader::open(speech).expect("tests/media/q1.wav");
    let samples: Vec<f32> = wav
        .samples::<i16>()
        .map(|sample| f32::from(sample.unwrap_or(0)) / 32768.0)
        .collect();
    let blocks = samples.as_chunks::<BLOCK_SAMPLES>().0;

    let network = vad::shared(None).expect("embedded weights");
    let mut state = SileroState::default();
    let mut next = blocks.iter().cycle();
    let mut group = criterion.benchmark_group("silero-vad");
    group.throughput(Throughput::Elements(1));
    group.bench_function("step", |bencher| {
        bencher.iter(|| {
            next.next()
                .map(|block| black_box(network.step(&mut state, block)))
        });
    });
    let mut graph = graph::Graph::new();
    group.bench_function("step in candle's operations", |bencher| {
        bencher.iter(|| next.next().map(|block| black_box(graph.step(block))));
    });
    group.finish();
}

criterion_group!(benches, step);
criterion_main!(benches);
