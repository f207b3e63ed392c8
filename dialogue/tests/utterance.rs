//! The utterance rule beside the reference's recorded events, and what must hold whatever is heard.

use proptest::prelude::*;
use serde_json::{Value, json};
use vita_dialogue::utterance::{
    EndReason, SettingsError, SpeechEnd, UtteranceEvent, UtteranceRule, UtteranceSettings,
};

const SAMPLES_PER_MS: u64 = 16;

/// `tests/golden/vad.json`: rows of probabilities and what the reference made of them.
fn golden() -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/vad.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn settings() -> UtteranceSettings {
    UtteranceSettings {
        threshold: 0.7,
        hysteresis: 0.15,
        min_silence: 500 * SAMPLES_PER_MS,
        pre_padding: 30 * SAMPLES_PER_MS,
        post_padding: 30 * SAMPLES_PER_MS,
        min_speech: 250 * SAMPLES_PER_MS,
        max_utterance: 60_000 * SAMPLES_PER_MS,
    }
}

fn row_settings(row: &Value) -> UtteranceSettings {
    let samples = |key: &str| row[key].as_u64().unwrap() * SAMPLES_PER_MS;
    UtteranceSettings {
        threshold: row["threshold"].as_f64().unwrap(),
        min_silence: samples("min_silence_ms"),
        pre_padding: samples("speech_pad_ms"),
        post_padding: samples("speech_pad_ms"),
        ..settings()
    }
}

/// Each event with the index of the block that brought it.
fn run(
    settings: UtteranceSettings,
    block: u64,
    probabilities: &[f64],
) -> Vec<(u64, UtteranceEvent)> {
    let mut rule = UtteranceRule::new(settings).unwrap();
    (0..)
        .zip(probabilities)
        .filter_map(|(chunk, &p)| rule.push(block, p).map(|event| (chunk, event)))
        .collect()
}

/// Our events as the bare detector of the reference reports them. It does not limit a start to 0 or to the end before;
/// no row comes there.
fn as_detector(events: &[(u64, UtteranceEvent)]) -> Vec<Value> {
    let event = |(chunk, event): &(u64, UtteranceEvent)| match event {
        UtteranceEvent::Start(start) => json!({"chunk": chunk, "start": start.start}),
        UtteranceEvent::End(end) => json!({"chunk": chunk, "end": end.end}),
    };
    events.iter().map(event).collect()
}

/// Our events as the demo around the detector reports them, with its defects (spec section 7.6, item 10): it fails
/// where the first block is speech; its block before the utterance is the one before the last where the last ended an
/// utterance. Its clock starts anew after each utterance, and its times are in seconds, rounded to 0.1.
fn as_demo(events: &[(u64, UtteranceEvent)], block: u64, padding: u64) -> Vec<Value> {
    let mut out = Vec::new();
    let (mut clock_start, mut last_end, mut first_block) = (0, None, 0);
    for &(chunk, event) in events {
        match event {
            UtteranceEvent::Start(_) if chunk == 0 => {
                out.push(json!({"chunk": 0, "error": "first chunk is already speech: no previous chunk"}));
                return out;
            }
            UtteranceEvent::Start(start) => {
                assert_eq!(start.onset, chunk * block);
                let samples = start.onset as f64 - clock_start as f64 - padding as f64;
                let stale = last_end == Some(chunk - 1);
                first_block = if stale { chunk - 2 } else { chunk - 1 };
                out.push(json!({"chunk": chunk, "start": tenths(samples / 16000.0)}));
            }
            UtteranceEvent::End(_) => {
                let mut samples = (chunk - first_block + 1) * block;
                if first_block > 0 && last_end == Some(first_block + 1) {
                    // The block that ended the utterance before is neither in it nor here.
                    samples -= block;
                }
                last_end = Some(chunk);
                clock_start = (chunk + 1) * block;
                out.push(json!({"chunk": chunk, "dialog_first_chunk": first_block, "dialog_last_chunk": chunk, "dialog_samples": samples}));
            }
        }
    }
    out
}

/// Rounded as Python does: ties to even, of the binary value.
fn tenths(seconds: f64) -> f64 {
    format!("{seconds:.1}").parse().unwrap()
}

#[test]
fn events_are_those_of_the_reference() {
    let rows = golden();
    assert_eq!(rows.len(), 10);
    for (index, row) in rows.iter().enumerate() {
        // The network's f32, compared in f64: 0.7 is below the threshold.
        let probabilities: Vec<f32> = serde_json::from_value(row["probs"].clone()).unwrap();
        let probabilities: Vec<f64> = probabilities.into_iter().map(f64::from).collect();
        let block = row["chunk_samples"].as_u64().unwrap();
        let settings = row_settings(row);
        let padding = settings.pre_padding;
        let events = run(settings, block, &probabilities);
        let (actual, expected) = match row.get("raw_iterator") {
            Some(_) => (as_detector(&events), &row["events_samples"]),
            None => (as_demo(&events, block, padding), &row["events"]),
        };
        assert_eq!(&Value::from(actual), expected, "row {index}");
    }
}

#[track_caller]
fn only_end(events: &[(u64, UtteranceEvent)]) -> SpeechEnd {
    match events {
        [(_, UtteranceEvent::Start(_)), (_, UtteranceEvent::End(end))] => *end,
        other => panic!("expected one utterance, got {other:?}"),
    }
}

#[test]
fn speech_in_the_first_block_begins_at_the_first_sample() {
    let events = run(settings(), 512, &[0.9]);
    let (0, UtteranceEvent::Start(start)) = events[0] else {
        panic!("{events:?}")
    };
    assert_eq!((start.start, start.onset, start.utterance_id), (0, 0, 1));
}

#[test]
fn pre_padding_right_after_an_utterance_is_the_audio_right_before() {
    let settings = UtteranceSettings {
        min_silence: 512,
        pre_padding: 4096,
        post_padding: 100,
        ..settings()
    };
    let events = run(settings, 512, &[0.9, 0.1, 0.1, 0.9]);
    let [
        _,
        (2, UtteranceEvent::End(first)),
        (3, UtteranceEvent::Start(second)),
    ] = events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!((first.offset, first.end), (512, 612));
    // All that the first did not take, and nothing of it twice.
    assert_eq!((second.start, second.onset), (612, 1536));
}

#[test]
fn the_end_is_not_later_than_what_was_heard() {
    let settings = UtteranceSettings {
        min_silence: 512,
        post_padding: 1_000_000,
        ..settings()
    };
    assert_eq!(only_end(&run(settings, 512, &[0.9, 0.1, 0.1])).end, 3 * 512);
}

#[test]
fn short_speech_is_reported_and_not_accepted() {
    let settings = UtteranceSettings {
        min_silence: 512,
        min_speech: 1024,
        ..settings()
    };
    assert!(!only_end(&run(settings.clone(), 512, &[0.9, 0.1, 0.1])).accepted);
    let end = only_end(&run(settings, 512, &[0.8, 0.6, 0.1, 0.1]));
    assert!(end.accepted);
    assert_eq!(
        (end.offset - end.onset, end.reason),
        (1024, EndReason::Silence)
    );
    assert!(
        (end.probability - 0.7).abs() < 1e-12,
        "the mean of its blocks: {}",
        end.probability
    );
}

#[test]
fn speech_without_an_end_is_cut_without_a_hole() {
    let settings = UtteranceSettings {
        max_utterance: 10 * 512,
        ..settings()
    };
    let events = run(settings, 512, &[0.9; 100]);
    let ends: Vec<SpeechEnd> = events
        .iter()
        .filter_map(|(_, event)| match event {
            UtteranceEvent::End(end) => Some(*end),
            UtteranceEvent::Start(_) => None,
        })
        .collect();
    assert_eq!(ends.len(), 10);
    for (index, end) in ends.iter().enumerate() {
        assert_eq!(
            (end.start, end.end),
            (index as u64 * 5120, (index as u64 + 1) * 5120)
        );
        assert_eq!((end.reason, end.accepted), (EndReason::MaxDuration, true));
    }
}

#[test]
fn nothing_survives_a_reset_but_the_numbering() {
    let mut rule = UtteranceRule::new(settings()).unwrap();
    rule.push(512, 0.1);
    rule.push(512, 0.9);
    let end = rule.finish(EndReason::Gap).expect("an open utterance");
    assert_eq!(
        (end.start, end.end, end.reason),
        (512 - 480, 1024, EndReason::Gap)
    );
    rule.reset();
    assert_eq!(rule.finish(EndReason::Eos), None);
    assert_eq!(rule.push(512, 0.6), None, "the middle begins nothing");
    let Some(UtteranceEvent::Start(start)) = rule.push(512, 0.9) else {
        panic!("expected a start")
    };
    assert_eq!((start.utterance_id, start.start), (2, 32));
}

#[test]
fn settings_that_cannot_be_are_refused_and_change_nothing() {
    let mut rule = UtteranceRule::new(settings()).unwrap();
    for threshold in [0.0, 1.1, f64::NAN] {
        let refused = rule.set_settings(UtteranceSettings {
            threshold,
            ..settings()
        });
        assert!(matches!(
            refused,
            Err(SettingsError::Probability {
                name: "threshold",
                ..
            })
        ));
    }
    let refused = rule.set_settings(UtteranceSettings {
        hysteresis: 1.5,
        ..settings()
    });
    assert_eq!(
        refused.unwrap_err().to_string(),
        "hysteresis is 1.5, expected 0 to 1"
    );
    assert!(
        rule.set_settings(UtteranceSettings {
            max_utterance: 4480,
            ..settings()
        })
        .is_err()
    );
    assert!(rule.push(512, 0.7).is_some());
}

fn any_settings() -> impl Strategy<Value = UtteranceSettings> {
    (
        0.05..1.0_f64,
        0.0..0.3_f64,
        0..20_000_u64,
        0..5_000_u64,
        0..20_000_u64,
        0..10_000_u64,
    )
        .prop_map(
            |(threshold, hysteresis, min_silence, pre_padding, post_padding, min_speech)| {
                UtteranceSettings {
                    threshold,
                    hysteresis: hysteresis.min(threshold),
                    min_silence,
                    pre_padding,
                    post_padding,
                    min_speech,
                    max_utterance: 40_000,
                }
            },
        )
}

/// Runs of blocks that are alike, as speech and silence are.
fn any_probabilities() -> impl Strategy<Value = Vec<f64>> {
    let run =
        (0.0..=1.0_f64, 1..20_usize).prop_map(|(probability, length)| vec![probability; length]);
    proptest::collection::vec(run, 0..30).prop_map(|runs| runs.concat())
}

proptest! {
    #[test]
    fn starts_and_ends_alternate_and_never_go_back(settings in any_settings(), probabilities in any_probabilities(), block in 1..2000_u64) {
        let mut rule = UtteranceRule::new(settings.clone()).unwrap();
        let mut open = None;
        let (mut last_id, mut free_from) = (0, 0);
        let mut settled = 0;
        let mut ends = Vec::new();
        for &probability in &probabilities {
            let event = rule.push(block, probability);
            match event {
                Some(UtteranceEvent::Start(start)) => {
                    prop_assert!(open.is_none() && start.probability >= settings.threshold);
                    prop_assert_eq!(start.utterance_id, last_id + 1);
                    prop_assert_eq!(start.onset, rule.position() - block);
                    prop_assert!(start.start <= start.onset && start.onset - start.start <= settings.pre_padding);
                    prop_assert!(start.start >= free_from && start.start >= settled);
                    last_id = start.utterance_id;
                    open = Some(start);
                }
                Some(UtteranceEvent::End(end)) => {
                    prop_assert!(end.end >= settled);
                    ends.push((open.take(), end, rule.position()));
                    free_from = end.end;
                }
                None => (),
            }
            prop_assert_eq!(rule.in_speech(), open.is_some());
            prop_assert!(rule.settled() <= rule.position() && rule.settled() >= free_from);
            settled = rule.settled();
        }
        if let Some(end) = rule.finish(EndReason::Eos) {
            ends.push((open.take(), end, rule.position()));
        }
        prop_assert!(open.is_none());
        for (start, end, position) in ends {
            let start = start.expect("an end has a start");
            prop_assert_eq!((end.utterance_id, end.start, end.onset), (start.utterance_id, start.start, start.onset));
            prop_assert!(end.onset < end.offset && end.offset <= end.end && end.end <= position);
            prop_assert!(end.end - end.offset <= settings.post_padding);
            prop_assert_eq!(end.accepted, end.offset - end.onset >= settings.min_speech);
            prop_assert!(end.end - end.start <= settings.max_utterance.max(2 * block + settings.pre_padding));
            prop_assert!((0.0..=1.0).contains(&end.probability));
            if end.reason == EndReason::Silence {
                prop_assert!(position - end.offset >= settings.min_silence);
            }
        }
    }

    /// Silence is counted from the end of its first block, so shorter blocks end an utterance sooner, maybe in a pause.
    /// Yet each start of the longer blocks is one of the shorter ones, to the sample, and the first is the first.
    #[test]
    fn shorter_blocks_find_every_start_of_the_longer_ones(settings in any_settings(), probabilities in any_probabilities(), split in 2..8_u64) {
        let settings = UtteranceSettings { max_utterance: u64::MAX, ..settings };
        let onsets = |block: u64, probabilities: &[f64]| -> Vec<u64> {
            run(settings.clone(), block, probabilities).into_iter().filter_map(|(_, event)| match event {
                UtteranceEvent::Start(start) => Some(start.onset),
                UtteranceEvent::End(_) => None,
            }).collect()
        };
        let long = onsets(512 * split, &probabilities);
        let parts: Vec<f64> = probabilities.iter().flat_map(|&p| std::iter::repeat_n(p, split as usize)).collect();
        let short = onsets(512, &parts);
        prop_assert_eq!(long.first(), short.first());
        prop_assert!(long.iter().all(|onset| short.contains(onset)), "{:?} in {:?}", long, short);
    }
}

#[test]
fn a_pause_says_early_where_the_utterance_will_end() {
    let mut rule = UtteranceRule::new(UtteranceSettings {
        post_padding: 700,
        min_silence: 2000,
        ..settings()
    })
    .unwrap();
    rule.push(512, 0.9);
    assert_eq!(rule.push(512, 0.1), None);
    assert_eq!(rule.pause(), None, "the padding has not been heard");
    rule.push(512, 0.1);
    assert_eq!(rule.pause(), Some(512 + 700));
    rule.push(512, 0.9);
    assert_eq!(rule.pause(), None, "it goes on");
    let mut pauses = Vec::new();
    let end = loop {
        if let Some(UtteranceEvent::End(end)) = rule.push(512, 0.1) {
            break end;
        }
        pauses.extend(rule.pause());
    };
    assert!(pauses.len() > 1 && pauses.iter().all(|pause| *pause == end.end));
    assert_eq!(rule.pause(), None);
}
