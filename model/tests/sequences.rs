//! Sequences of every language model: batched equals single, forked equals recomputed, truncated and continued equals never
//! truncated. Tiny models with random weights; differences are those of f32 sums in another order.

mod common;

use candle_core::Tensor;
use common::{backbones, ids};
use vita_model::lm::{Chunk, KvCache, LanguageModel};
use vita_model::nn::Probe;

const TOLERANCE: f32 = 1e-4;

/// Runs the ids through and returns the logits of every row.
fn run(model: &LanguageModel, cache: &mut KvCache, ids: &[u32]) -> Tensor {
    let embeddings = model.embed(ids).expect("ids are in the vocabulary");
    let mut parts = [Chunk {
        cache,
        len: ids.len(),
    }];
    let hidden = model
        .forward(&embeddings, &mut parts, &mut Probe::none())
        .expect("the step runs");
    model.logits(&hidden).expect("the head runs")
}

fn last(logits: &Tensor) -> Tensor {
    let rows = logits.dim(0).expect("rows");
    logits.narrow(0, rows - 1, 1).expect("a last row")
}

#[track_caller]
fn close(name: &str, a: &Tensor, b: &Tensor) {
    assert_eq!(a.dims(), b.dims(), "{name}");
    let difference = (a - b)
        .and_then(|d| d.abs()?.max_all()?.to_scalar::<f32>())
        .expect("same shapes");
    assert!(
        difference <= TOLERANCE,
        "{name}: {difference} > {TOLERANCE}"
    );
}

#[test]
fn a_prompt_in_pieces_is_the_prompt() {
    for (name, model) in backbones() {
        let prompt = ids(1, 150);
        let whole = run(&model, &mut model.cache(), &prompt);
        let mut cache = model.cache();
        let mut from = 0;
        for n in [1, 63, 1, 20, 65] {
            let part = run(&model, &mut cache, &prompt[from..from + n]);
            close(name, &part, &whole.narrow(0, from, n).expect("rows"));
            from += n;
        }
        assert_eq!(cache.len(), prompt.len());
    }
}

#[test]
fn batched_equals_single() {
    for (name, model) in backbones() {
        let lengths = [9usize, 1, 30];
        let mut caches: Vec<KvCache> = Vec::new();
        let mut single = Vec::new();
        for (seed, &n) in lengths.iter().enumerate() {
            let mut cache = model.cache();
            run(&model, &mut cache, &ids(seed as u32, 5 * seed + 1));
            single.push(run(
                &model,
                &mut cache.fork().expect("forks"),
                &ids(9 + seed as u32, n),
            ));
            caches.push(cache);
        }
        let all: Vec<u32> = lengths
            .iter()
            .enumerate()
            .flat_map(|(seed, &n)| ids(9 + seed as u32, n))
            .collect();
        let mut parts: Vec<Chunk> = caches
            .iter_mut()
            .zip(lengths)
            .map(|(cache, rows)| Chunk { cache, len: rows })
            .collect();
        let hidden = model
            .forward(
                &model.embed(&all).expect("embeds"),
                &mut parts,
                &mut Probe::none(),
            )
            .expect("the step runs");
        let together = model.logits(&hidden).expect("the head runs");
        close(
            name,
            &together,
            &Tensor::cat(&single, 0).expect("same widths"),
        );
    }
}

#[test]
fn forked_equals_recomputed() {
    for (name, model) in backbones() {
        let past = ids(3, 40);
        let mut original = model.cache();
        run(&model, &mut original, &past);
        // Deep enough that the pieces are joined on the way.
        let mut forks = Vec::new();
        for i in 0..8u32 {
            let mut fork = original.fork().expect("forks");
            run(&model, &mut fork, &ids(20 + i, 3));
            forks.push(fork);
            run(&model, &mut original, &[i]);
        }
        for (i, mut fork) in forks.into_iter().enumerate() {
            let mut told: Vec<u32> = past.clone();
            told.extend(0..i as u32);
            told.extend(ids(20 + i as u32, 3));
            assert_eq!(fork.len(), told.len());
            told.push(42);
            let recomputed = last(&run(&model, &mut model.cache(), &told));
            close(name, &run(&model, &mut fork, &[42]), &recomputed);
        }
    }
}

#[test]
fn truncated_and_continued_equals_never_truncated() {
    for (name, model) in backbones() {
        for keep in [0usize, 1, 39, 40, 41, 55, 60] {
            let told = ids(5, 60);
            let mut cache = model.cache();
            run(&model, &mut cache, &told[..40]);
            let mut other = cache.fork().expect("forks");
            run(&model, &mut cache, &told[40..]);
            cache.truncate(keep);
            assert_eq!(cache.len(), keep);
            run(&model, &mut cache, &[1, 2, 3]);

            let mut fresh: Vec<u32> = told[..keep].to_vec();
            fresh.extend([1, 2, 3, 4]);
            let expected = last(&run(&model, &mut model.cache(), &fresh));
            close(name, &run(&model, &mut cache, &[4]), &expected);

            // The fork still has its own past.
            let mut fresh = told[..40].to_vec();
            fresh.push(4);
            let expected = last(&run(&model, &mut model.cache(), &fresh));
            close(name, &run(&model, &mut other, &[4]), &expected);
        }
    }
}

#[test]
fn a_step_that_cannot_be_done_changes_no_cache() {
    for (name, model) in backbones() {
        let mut cache = model.cache();
        run(&model, &mut cache, &ids(1, 500));
        let embeddings = model.embed(&ids(2, 13)).expect("embeds");
        let mut parts = [Chunk {
            cache: &mut cache,
            len: 13,
        }];
        let error = model
            .forward(&embeddings, &mut parts, &mut Probe::none())
            .expect_err("one position too many");
        assert_eq!(
            error.to_string(),
            "the prompt needs 513 positions, the model has 512: shorten it",
            "{name}"
        );
        assert_eq!(cache.len(), 500);
        assert!(model.embed(&[common::VOCABULARY as u32]).is_err());
    }
}

#[test]
fn shared_memory_is_counted_by_its_identity() {
    let (_, model) = backbones().remove(0);
    let mut cache = model.cache();
    run(&model, &mut cache, &ids(1, 64));
    let bytes = 64 * model.cache_shape().bytes_per_position();
    assert_eq!((cache.own_bytes(), cache.segments().count()), (bytes, 0));
    let fork = cache.fork().expect("forks");
    assert_eq!(cache.own_bytes() + fork.own_bytes(), 0);
    let segments: Vec<(usize, usize)> = cache.segments().collect();
    assert_eq!(segments, fork.segments().collect::<Vec<_>>());
    assert_eq!(
        segments.iter().map(|(_, bytes)| bytes).sum::<usize>(),
        bytes
    );
}
