//! The spool against a model of it: whatever is appended, taken, acknowledged, torn and opened again.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use vita_messages::spool::{Options, Position, Record, Spool};

fn record(number: u64, size: usize) -> Record {
    Record {
        id: format!("id-{number}"),
        source: "door".into(),
        subject: "vita.door.event.speech".into(),
        payload: vec![u8::try_from(number % 251).unwrap(); size].into(),
    }
}

fn open(dir: &Path, max_bytes: u64) -> Spool {
    Spool::open(Options {
        max_bytes,
        ..Options::new(dir)
    })
    .unwrap()
}

fn take_all(spool: &mut Spool) -> Vec<(String, Position)> {
    std::iter::from_fn(|| spool.take().unwrap())
        .map(|(record, position)| (record.id, position))
        .collect()
}

fn ids(taken: &[(String, Position)]) -> Vec<String> {
    taken.iter().map(|(id, _)| id.clone()).collect()
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut segments: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|e| e == "spool"))
        .collect();
    segments.sort();
    segments
}

#[derive(Clone, Debug)]
enum Step {
    Append(usize),
    Take,
    /// All that was taken.
    Acknowledge,
    Reopen,
    /// Opens again with so many bytes missing at the end.
    Tear(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..900_usize).prop_map(Step::Append),
        3 => Just(Step::Take),
        2 => Just(Step::Acknowledge),
        1 => Just(Step::Reopen),
        1 => (1..1500_u64).prop_map(Step::Tear),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]
    #[test]
    fn what_is_taken_is_what_was_appended(steps in proptest::collection::vec(step(), 1..80)) {
        let dir = tempfile::tempdir().unwrap();
        // Segments of 1 KiB, so that many are used; room enough that nothing is given up.
        let mut spool = open(dir.path(), 16 << 10 << 10);
        let (mut waiting, mut taken) = (VecDeque::new(), Vec::new());
        for (number, step) in (0_u64..).zip(steps) {
            match step {
                Step::Append(size) => {
                    spool.append(&record(number, size)).unwrap();
                    waiting.push_back(format!("id-{number}"));
                }
                Step::Take => if let Some((record, position)) = spool.take().unwrap() {
                    prop_assert_eq!(Some(record.id.clone()), waiting.pop_front());
                    taken.push((record.id, position));
                } else {
                    prop_assert!(waiting.is_empty() && spool.is_caught_up());
                },
                Step::Acknowledge => if let Some((_, position)) = taken.last() {
                    spool.acknowledge(*position, taken.len() as u64);
                    taken.clear();
                },
                Step::Reopen | Step::Tear(_) => {
                    drop(spool);
                    if let Step::Tear(bytes) = step {
                        let last = segments(dir.path()).pop().unwrap();
                        let file = std::fs::OpenOptions::new().write(true).open(last).unwrap();
                        file.set_len(file.metadata().unwrap().len().saturating_sub(bytes)).unwrap();
                    }
                    spool = open(dir.path(), 16 << 10 << 10);
                    let back = ids(&take_all(&mut spool));
                    let mut expected: Vec<String> = taken.iter().map(|(id, _)| id.clone()).chain(waiting).collect();
                    if matches!(step, Step::Tear(_)) {
                        prop_assert!(back.len() <= expected.len());
                        expected.truncate(back.len());
                    }
                    prop_assert_eq!(&back, &expected);
                    prop_assert_eq!(spool.pending(), back.len() as u64);
                    drop(spool);
                    spool = open(dir.path(), 16 << 10 << 10);
                    waiting = expected.into();
                    taken.clear();
                }
            }
            prop_assert_eq!(spool.pending(), (waiting.len() + taken.len()) as u64);
        }
    }

    #[test]
    fn the_limit_holds_and_every_loss_is_in_the_account(sizes in proptest::collection::vec(0..3000_usize, 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = open(dir.path(), 20_000);
        for (number, size) in (0_u64..).zip(&sizes) {
            spool.append(&record(number, *size)).unwrap();
            prop_assert!(spool.bytes() <= 20_000);
            prop_assert_eq!(spool.pending() + spool.ledger.total(), number + 1);
        }
        let back = ids(&take_all(&mut spool));
        let lost = spool.ledger.total();
        prop_assert_eq!(back, (lost..sizes.len() as u64).map(|n| format!("id-{n}")).collect::<Vec<_>>());
        drop(spool);
        let announced: u64 = open(dir.path(), 20_000).ledger.announce().iter().map(|entry| entry.lost.count).sum();
        prop_assert_eq!(announced, lost);
    }

    #[test]
    fn no_bytes_in_a_segment_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), keep_magic in any::<bool>()) {
        let dir = tempfile::tempdir().unwrap();
        let start: &[u8] = if keep_magic { b"VITASPL1" } else { b"" };
        std::fs::write(dir.path().join("00000000000000000003.spool"), [start, &bytes].concat()).unwrap();
        std::fs::write(dir.path().join("head"), &bytes).unwrap();
        std::fs::write(dir.path().join("lost.json"), &bytes).unwrap();
        let mut spool = open(dir.path(), 1 << 20);
        take_all(&mut spool);
        spool.append(&record(1, 10)).unwrap();
        prop_assert_eq!(ids(&take_all(&mut spool)), ["id-1"]);
    }
}

#[test]
fn a_damaged_record_in_the_middle_costs_the_rest_of_its_segment_only() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path(), 16 << 10);
    for number in 0..6 {
        spool.append(&record(number, 400)).unwrap();
    }
    drop(spool);
    let first = segments(dir.path()).remove(0);
    let mut bytes = std::fs::read(&first).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&first, bytes).unwrap();
    let mut spool = open(dir.path(), 16 << 10);
    assert_eq!(spool.damaged(), 1);
    assert_eq!(ids(&take_all(&mut spool)), ["id-2", "id-3", "id-4", "id-5"]);
}

#[test]
fn segments_that_have_arrived_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path(), 1 << 20);
    for number in 0..2000 {
        spool.append(&record(number, 400)).unwrap();
    }
    let taken = take_all(&mut spool);
    assert!(segments(dir.path()).len() > 5);
    spool.acknowledge(taken[1999].1, 2000);
    assert_eq!(segments(dir.path()).len(), 1);
    assert_eq!(spool.pending(), 0);
}
