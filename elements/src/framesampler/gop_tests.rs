use proptest::prelude::*;

use super::*;
use crate::framesampler::rate::{Rate, RateGrid};

const MS: i64 = 1_000_000;

/// A picture of the model stream: its number in decoding order.
type Picture = usize;

#[derive(Clone, Debug)]
struct Stream {
    units: Vec<Unit<Picture>>,
}

impl Stream {
    /// `gops` groups of `frames` pictures at 25 per second; every `disposable_every`-th (from 1) refers to none, 0 for no such.
    fn new(gops: usize, frames: usize, disposable_every: usize) -> Self {
        let units = (0..gops * frames)
            .map(|n| Unit {
                payload: n,
                time_ns: Some(n as i64 * 40 * MS),
                bytes: 1000,
                key: n % frames == 0,
                disposable: disposable_every > 0 && n % frames % disposable_every == 1,
                presentable: true,
            })
            .collect();
        Self { units }
    }
}

/// What a decoder knows: fails on a picture whose references it has not got.
#[derive(Default)]
struct Decoder {
    last_reference: Option<Picture>,
    shown: Vec<Picture>,
    decoded: usize,
}

impl Decoder {
    fn feed(&mut self, stream: &Stream, release: &Release<Picture>) {
        let n = release.payload;
        let unit = &stream.units[n];
        if release.discont {
            self.last_reference = None;
        }
        if !unit.key {
            let needed = (0..n)
                .rev()
                .find(|&earlier| !stream.units[earlier].disposable || stream.units[earlier].key);
            assert_eq!(self.last_reference, needed, "picture {n} can't be decoded");
        }
        if unit.key || !unit.disposable {
            self.last_reference = Some(n);
        }
        self.decoded += 1;
        if release.wanted {
            self.shown.push(n);
        }
    }
}

fn decode(stream: &Stream, rate: (u32, u32), keys_only: bool, limits: Limits) -> Decoder {
    let mut grid = RateGrid::new(Rate {
        numerator: rate.0,
        denominator: rate.1,
    });
    let mut gate = GopGate::new(limits);
    let mut decoder = Decoder::default();
    let mut dropped = 0;
    let mut first_releases = 0;
    for unit in stream.units.clone() {
        let outcome = gate.push(unit, &mut grid, Some(40 * MS), keys_only);
        for release in &outcome.releases {
            decoder.feed(stream, release);
            first_releases += u64::from(release.first_time);
        }
        if outcome.gap {
            decoder.last_reference = None;
        }
        dropped += outcome.drops.iter().map(|(_, count)| count).sum::<u64>();
    }
    assert_eq!(
        dropped + first_releases + gate.held(),
        stream.units.len() as u64,
        "every picture has one fate"
    );
    decoder
}

#[test]
fn key_frames_as_often_as_the_period_are_all_that_is_decoded() {
    for frames in [5, 12, 25] {
        let stream = Stream::new(20, frames, 0);
        let decoder = decode(&stream, (1, 1), false, Limits::default());
        assert_eq!(decoder.decoded, decoder.shown.len(), "GOP of {frames}");
        assert!(decoder.shown.iter().all(|n| n % frames == 0));
        let seconds = 20 * frames / 25;
        assert!(
            decoder.shown.len().abs_diff(seconds) <= 2,
            "{:?}",
            decoder.shown
        );
    }
}

#[test]
fn a_group_hardly_longer_than_the_period_still_paces_it() {
    let stream = Stream::new(20, 26, 0);
    let decoder = decode(&stream, (1, 1), false, Limits::default());
    // Only the first group, of unknown length, is decoded on.
    let not_keys = decoder.shown.iter().filter(|&n| n % 26 != 0).count();
    assert_eq!(not_keys, 1, "{:?}", decoder.shown);
    assert_eq!(decoder.decoded, decoder.shown.len() + 25);
}

#[test]
fn a_longer_group_is_decoded_up_to_the_wanted_picture() {
    // Key frames every 2 s and one frame per second: half of each group, once that is known.
    let stream = Stream::new(10, 50, 0);
    let decoder = decode(&stream, (1, 1), false, Limits::default());
    assert_eq!(decoder.shown, (0..20).map(|i| i * 25).collect::<Vec<_>>());
    assert!(
        (10 * 26..10 * 26 + 30).contains(&decoder.decoded),
        "{}",
        decoder.decoded
    );
}

#[test]
fn pictures_that_no_other_refers_to_are_left_out() {
    let stream = Stream::new(10, 50, 2);
    let decoder = decode(&stream, (1, 1), false, Limits::default());
    assert_eq!(decoder.shown.len(), 20);
    assert!(decoder.decoded < 10 * 16, "{}", decoder.decoded);
}

#[test]
fn keys_only_makes_the_rate_an_upper_bound() {
    let stream = Stream::new(10, 50, 0);
    let decoder = decode(&stream, (1, 1), true, Limits::default());
    assert_eq!(decoder.shown, (0..10).map(|i| i * 50).collect::<Vec<_>>());
    assert_eq!(decoder.decoded, 10);
}

#[test]
fn a_stream_that_begins_in_mid_group_waits_for_its_key_frame() {
    let mut stream = Stream::new(2, 50, 0);
    stream.units[0].key = false;
    let decoder = decode(&stream, (1, 1), false, Limits::default());
    assert_eq!(decoder.shown, [50, 75]);
}

#[test]
fn leading_pictures_are_never_released() {
    let mut stream = Stream::new(2, 25, 0);
    // The second group is open: two pictures after its key frame are shown before it and refer to the first group.
    for n in [26, 27] {
        stream.units[n].time_ns = Some(24 * 40 * MS + n as i64);
        stream.units[n].disposable = true;
    }
    let decoder = decode(&stream, (25, 1), false, Limits::default());
    assert!(!decoder.shown.contains(&26) && !decoder.shown.contains(&27));
    assert_eq!(decoder.shown.len(), 48);
}

#[test]
fn a_group_too_large_to_remember_is_decoded_along() {
    let stream = Stream::new(1, 1000, 0);
    let limits = Limits {
        bytes: 30_000,
        frames: 4096,
    };
    let decoder = decode(&stream, (1, 1), false, limits);
    assert_eq!(decoder.shown.len(), 40);
    let decoder = decode(&stream, (1, 30), false, limits);
    assert_eq!(decoder.shown, [0, 750]);
}

#[test]
fn key_frames_that_stop_coming_are_not_waited_for() {
    let mut stream = Stream::new(10, 25, 0);
    for unit in &mut stream.units[126..] {
        unit.key = false;
    }
    let decoder = decode(&stream, (1, 1), false, Limits::default());
    assert!(decoder.shown.len() >= 9, "{:?}", decoder.shown);
}

proptest! {
    #[test]
    fn what_is_released_can_always_be_decoded(
        frames in 1usize..80,
        disposable_every in 0usize..5,
        rate in (1u32..30, 1u32..5),
        keys_only: bool,
        remembered in 1usize..200,
        damage in proptest::collection::vec((0usize..400, 0usize..3), 0..8),
    ) {
        let mut stream = Stream::new(400 / frames, frames, disposable_every);
        for (n, kind) in damage {
            if let Some(unit) = stream.units.get_mut(n) {
                match kind {
                    0 => unit.time_ns = None,
                    1 => unit.presentable = false,
                    _ => { unit.key = true; unit.disposable = false; }
                }
            }
        }
        let limits = Limits { bytes: usize::MAX, frames: remembered };
        let decoder = decode(&stream, rate, keys_only, limits);
        prop_assert!(decoder.shown.is_sorted());
    }
}
