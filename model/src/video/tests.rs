use proptest::prelude::*;
use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Row {
    fps: f64,
    n_frames: usize,
    max_frames: usize,
    min_frames: usize,
    start_s: Option<f64>,
    end_s: Option<f64>,
    mode: Option<String>,
    indices: Vec<usize>,
}

fn golden() -> Vec<Row> {
    let rows: Vec<Row> =
        serde_json::from_str(include_str!("../../../tests/golden/video_indices.json")).unwrap();
    assert_eq!(rows.len(), 937);
    rows
}

impl Row {
    fn selection(&self) -> FrameSelection {
        FrameSelection {
            rule: Rule::Code,
            min_frames: self.min_frames,
            max_frames: self.max_frames,
        }
    }
}

#[test]
fn code_rule_is_the_reference_on_every_row() {
    for row in golden() {
        let indices = match row.mode.as_deref() {
            Some("realtime") => live(row.n_frames),
            Some(mode) => panic!("unknown mode {mode}"),
            None => row.selection().of_file(&File {
                fps: row.fps,
                frames: row.n_frames,
                seconds: row.start_s.zip(row.end_s),
            }),
        };
        assert_eq!(
            indices, row.indices,
            "{} fps, {} frames, {}..={}, {:?}..{:?}",
            row.fps, row.n_frames, row.min_frames, row.max_frames, row.start_s, row.end_s
        );
    }
}

#[test]
fn by_time_and_by_number_agree_at_a_constant_whole_rate() {
    let mut compared = 0;
    for row in golden() {
        if row.mode.is_some() || row.start_s.is_some() || row.fps.fract() != 0.0 {
            continue;
        }
        let pts_ns: Vec<u64> = (0..row.n_frames as u64)
            .map(|frame| frame * SECOND_NS / row.fps as u64)
            .collect();
        assert_eq!(
            row.selection().of_times(&pts_ns),
            row.indices,
            "{} fps, {} frames",
            row.fps,
            row.n_frames
        );
        compared += 1;
    }
    assert!(compared > 500, "only {compared} rows were compared");
}

#[test]
fn a_recording_of_the_release_gives_the_frames_that_its_decoder_gave() {
    let frames: serde_json::Value =
        serde_json::from_str(include_str!("../../../tests/media/demo_1_frames.json")).unwrap();
    let expected =
        |key: &str| -> Vec<usize> { serde_json::from_value(frames[key].clone()).unwrap() };
    let file = File {
        fps: frames["avg_fps"].as_f64().unwrap(),
        frames: frames["n_frames"].as_u64().unwrap() as usize,
        seconds: None,
    };
    assert_eq!(
        FrameSelection::default().of_file(&file),
        expected("indices_1fps_max16")
    );
    assert_eq!(live(file.frames), expected("indices_realtime4"));
}

#[track_caller]
fn assert_paper(fps: f64, frames: usize, expected: &[usize]) {
    let selection = FrameSelection {
        rule: Rule::Paper,
        ..Default::default()
    };
    let file = File {
        fps,
        frames,
        seconds: None,
    };
    assert_eq!(selection.of_file(&file), expected);
}

#[test]
fn paper_rule_by_length_of_clip() {
    // 2 s at 30 fps: four distinct frames, where the code repeats [0, 0, 0, 30].
    assert_paper(30.0, 60, &[0, 19, 39, 59]);
    // 3.6 s is below four seconds, although the code has four whole-second positions already.
    assert_paper(30.0, 108, &[0, 35, 71, 107]);
    // 4 s and 16 s are both still one per second.
    assert_paper(10.0, 40, &[0, 10, 20, 30]);
    let whole_seconds: Vec<usize> = (0..16).map(|second| second * 25).collect();
    assert_paper(25.0, 400, &whole_seconds);
    // Longer: sixteen of all frames, the last one included.
    assert_paper(10.0, 1501, &(0..16).map(|i| i * 100).collect::<Vec<_>>());
    assert_paper(10.0, 0, &[]);
}

#[test]
fn a_range_without_frames_gives_none() {
    let file = File {
        fps: 10.0,
        frames: 20,
        seconds: Some((5.0, 9.0)),
    };
    assert!(FrameSelection::default().of_file(&file).is_empty());
    assert!(FrameSelection::default().of_times(&[]).is_empty());
}

#[test]
fn by_time_a_gap_gives_no_frame_twice() {
    // Frames at 0..2 s, then nothing until 60 s.
    let mut pts_ns: Vec<u64> = (0..20).map(|i| i * SECOND_NS / 10).collect();
    pts_ns.extend((600..620).map(|i| i * SECOND_NS / 10));
    let chosen = FrameSelection::default().of_times(&pts_ns);
    assert_eq!(chosen, [0, 10, 19, 20, 30]);
}

proptest! {
    #[test]
    fn indices_ascend_within_limits_and_clip(
        fps in 0.01f64..120.0,
        frames in 1usize..5000,
        min_frames in 1usize..8,
        extra in 0usize..24,
        paper: bool,
    ) {
        let selection = FrameSelection {
            rule: if paper { Rule::Paper } else { Rule::Code },
            min_frames,
            max_frames: min_frames + extra,
        };
        let indices = selection.of_file(&File { fps, frames, seconds: None });
        prop_assert!(indices.is_sorted());
        prop_assert!(indices.iter().all(|&i| i < frames));
        prop_assert!(indices.len() >= min_frames && indices.len() <= min_frames + extra, "{indices:?}");
        prop_assert_eq!(indices[0], 0);
    }

    #[test]
    fn by_time_jitter_below_half_a_frame_changes_nothing(
        frames in 1usize..600,
        jitter in proptest::collection::vec(-9_000_000i64..9_000_000, 600),
        paper: bool,
    ) {
        let selection = FrameSelection {
            rule: if paper { Rule::Paper } else { Rule::Code },
            ..Default::default()
        };
        let steady: Vec<u64> = (0..frames as u64).map(|i| SECOND_NS + i * SECOND_NS / 25).collect();
        let mut jittered: Vec<u64> = steady
            .iter()
            .zip(&jitter)
            .map(|(&pts, &jitter)| pts.saturating_add_signed(jitter))
            .collect();
        // Both ends fix the length of the clip, on which the rules turn.
        jittered[0] = steady[0];
        jittered[frames - 1] = steady[frames - 1];
        prop_assert_eq!(selection.of_times(&jittered), selection.of_times(&steady));
    }

    #[test]
    fn by_time_ascends_within_limits_whatever_the_times(
        mut pts_ns in proptest::collection::vec(0u64..100 * SECOND_NS, 1..300),
        paper: bool,
    ) {
        pts_ns.sort_unstable();
        let selection = FrameSelection {
            rule: if paper { Rule::Paper } else { Rule::Code },
            ..Default::default()
        };
        let indices = selection.of_times(&pts_ns);
        prop_assert!(indices.is_sorted());
        prop_assert!(indices.iter().all(|&i| i < pts_ns.len()));
        prop_assert!((4..=16).contains(&indices.len()), "{indices:?}");
    }
}
