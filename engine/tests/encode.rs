//! The encoding queue on the golden checkpoint.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use candle_core::Tensor;
use image::{Rgb, RgbImage};
use vita_engine::encode::{Client, ClientSettings, Encoded, Error, Load, Stats};
use vita_engine::models::{self, Model, ModelSpec};

/// What is waited for comes within this time also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A model that no other test has: the queue and its figures are the test's own.
struct Own {
    model: Arc<Model>,
    _folder: tempfile::TempDir,
}

impl Own {
    fn open() -> Self {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/checkpoint");
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("model");
        copy(&golden, &link);
        let spec = ModelSpec::named(link.to_str().unwrap()).unwrap();
        Self {
            model: models::open(&spec, None).unwrap(),
            _folder: folder,
        }
    }

    fn client(&self, batch: usize) -> Client {
        self.client_of(ClientSettings {
            batch,
            capacity: 100,
            ..ClientSettings::default()
        })
    }

    fn client_of(&self, settings: ClientSettings) -> Client {
        self.model.encoder().client(&settings).unwrap()
    }

    fn stats(&self) -> Stats {
        self.model.encoder().stats()
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &target),
            false => {
                std::fs::copy(&path, &target).unwrap();
            }
        }
    }
}

type Outcome = (&'static str, Result<Encoded, Error>);

/// Answers in the order in which they were given.
struct Answers {
    sender: Sender<Outcome>,
    receiver: Receiver<Outcome>,
}

impl Answers {
    fn new() -> Self {
        let (sender, receiver) = channel();
        Self { sender, receiver }
    }

    fn answer(&self, name: &'static str) -> vita_engine::encode::Answer {
        let sender = self.sender.clone();
        Box::new(move |encoded| {
            // the test may be over
            let _ = sender.send((name, encoded));
        })
    }

    #[track_caller]
    fn next(&self) -> Outcome {
        self.receiver.recv_timeout(PATIENCE).unwrap()
    }

    #[track_caller]
    fn names(&self, count: usize) -> Vec<&'static str> {
        (0..count).map(|_| self.next().0).collect()
    }
}

/// A picture with something on it that no other number has.
fn picture(number: u8) -> RgbImage {
    RgbImage::from_fn(64, 48, |x, y| {
        Rgb([x as u8 * 4, y as u8 * 5, number.wrapping_mul(37)])
    })
}

fn load(picture: RgbImage) -> Load<RgbImage> {
    Box::new(|| Ok(picture))
}

fn frame(client: &Client, number: u8, answers: &Answers, name: &'static str) {
    let queued = client.frame(load(picture(number)), answers.answer(name));
    assert!(queued.is_ok());
}

/// Keeps the worker for frames busy until the sender is dropped; returns once it is.
fn block(client: &Client) -> Sender<()> {
    let (release, released) = channel::<()>();
    let (begin, begun) = channel();
    let blocking: Load<RgbImage> = Box::new(move || {
        begin.send(()).unwrap();
        let _ = released.recv();
        Err(vita_model::Error::Input(
            "it only held the worker up".into(),
        ))
    });
    client.frame(blocking, Box::new(|_| ())).unwrap();
    begun.recv_timeout(PATIENCE).unwrap();
    release
}

fn max_difference(a: &Tensor, b: &Tensor) -> f32 {
    let difference = (a - b).unwrap().abs().unwrap().flatten_all().unwrap();
    difference.max(0).unwrap().to_scalar().unwrap()
}

#[test]
fn frames_of_two_streams_make_one_batch_of_what_the_model_sees() {
    let own = Own::open();
    let (a, b) = (own.client(8), own.client(8));
    let answers = Answers::new();
    let release = block(&a);
    for number in 0..3 {
        frame(&a, number, &answers, "a");
        frame(&b, 10 + number, &answers, "b");
    }
    drop(release);
    let encoded: Vec<_> = (0..6).map(|_| answers.next()).collect();
    assert_eq!(encoded.iter().filter(|(name, _)| *name == "b").count(), 3);

    // it was the turn of the other stream after the one that held the worker up
    let numbers = [10, 0, 11, 1, 12, 2];
    for ((_, encoded), number) in encoded.into_iter().zip(numbers) {
        let encoded = encoded.unwrap();
        assert_eq!(encoded.batch, 6);
        let alone = own.model.vita().see_frames(&[picture(number)]).unwrap();
        assert_eq!(encoded.media.key, alone[0].key);
        // in a batch, sums may be taken in another order
        assert!(max_difference(&encoded.media.vectors, &alone[0].vectors) < 1e-4);
    }
    let stats = own.stats();
    assert_eq!((stats.frames, stats.batches, stats.cached), (6, 1, 0));
}

fn features(own: &Own) -> Tensor {
    let samples: Vec<f32> = (0..16_000).map(|i| (i as f32 / 9.0).sin() / 3.0).collect();
    own.model.vita().ears().unwrap().features(&samples).unwrap()
}

#[test]
fn an_utterance_waits_for_no_frame() {
    let own = Own::open();
    let client = own.client(1);
    let answers = Answers::new();
    let release = block(&client);
    frame(&client, 0, &answers, "first frame");
    frame(&client, 1, &answers, "second frame");
    let features = features(&own);
    let expected = own.model.vita().hear_frames(&features).unwrap();
    let queued = client.utterance(Box::new(|| Ok(features)), answers.answer("utterance"));
    assert!(queued.is_ok());
    // a frame is being encoded all the while
    let (name, heard) = answers.next();
    assert_eq!(name, "utterance");
    let heard = heard.unwrap().media;
    assert_eq!(heard.key, expected.key);
    assert_eq!(max_difference(&heard.vectors, &expected.vectors), 0.0);
    drop(release);
    assert_eq!(answers.names(2), ["first frame", "second frame"]);
}

#[test]
fn what_was_drafted_is_there_when_it_is_an_utterance() {
    let own = Own::open();
    let client = own.client(1);
    let answers = Answers::new();
    let features = features(&own);
    let (drafted, begun) = (features.clone(), channel());
    client.draft(Box::new(move || {
        begun.0.send(()).unwrap();
        Ok(drafted)
    }));
    begun.1.recv_timeout(PATIENCE).unwrap();
    client
        .utterance(Box::new(|| Ok(features)), answers.answer("utterance"))
        .unwrap();
    let heard = answers.next().1.unwrap();
    assert_eq!(heard.batch, 0, "it had been encoded");
    let stats = own.stats();
    assert_eq!((stats.utterances, client.waiting()), (1, 0));
}

#[test]
fn an_utterance_that_waited_too_long_is_not_encoded() {
    let own = Own::open();
    let client = own.client_of(ClientSettings {
        max_wait: Some(Duration::ZERO),
        ..ClientSettings::default()
    });
    let answers = Answers::new();
    let never = Box::new(|| panic!("nobody wants it any more"));
    client.utterance(never, answers.answer("late")).unwrap();
    let error = answers.next().1.unwrap_err();
    assert!(matches!(error, Error::Stale(_)), "{error}");
    assert!(error.to_string().contains("the model is overloaded"));
    let stats = own.stats();
    assert_eq!((stats.stale, stats.failed, stats.utterances), (1, 0, 0));
}

#[test]
fn what_is_kept_stays_within_the_largest_budget_of_those_who_are_there() {
    let own = Own::open();
    let one_frame = {
        let media = own.model.vita().see_frames(&[picture(0)]).unwrap();
        let vectors = &media[0].vectors;
        vectors.elem_count() * vectors.dtype().size_in_bytes()
    };
    let of = |frames: usize| {
        own.client_of(ClientSettings {
            cache_bytes: frames * one_frame,
            ..ClientSettings::default()
        })
    };
    let (small, large) = (of(1), of(3));
    let answers = Answers::new();
    let see = |numbers: std::ops::Range<u8>| {
        for number in numbers {
            frame(&small, number, &answers, "frame");
            answers.next().1.unwrap();
        }
    };
    see(0..5);
    let stats = own.stats();
    let held = (stats.cache_bytes, stats.cache_limit_bytes);
    assert_eq!(held, (3 * one_frame, 3 * one_frame));
    drop(large);
    let stats = own.stats();
    let held = (stats.cache_bytes, stats.cache_limit_bytes);
    assert_eq!(held, (one_frame, one_frame));
    see(5..7);
    assert_eq!(own.stats().cache_bytes, one_frame);
}

#[test]
fn one_that_fails_or_panics_fails_alone() {
    let own = Own::open();
    let client = own.client(8);
    let answers = Answers::new();
    let release = block(&client);
    frame(&client, 0, &answers, "good");
    let panics: Load<RgbImage> = Box::new(|| panic!("the picture is cursed"));
    client.frame(panics, answers.answer("panics")).unwrap();
    let fails: Load<RgbImage> = Box::new(|| Err(vita_model::Error::Input("no picture".into())));
    client.frame(fails, answers.answer("fails")).unwrap();
    let cursed_answer = Box::new(|_| panic!("the answer is cursed"));
    client.frame(load(picture(1)), cursed_answer).unwrap();
    let too_short: Load<Tensor> = Box::new(|| {
        Ok(Tensor::zeros(
            (1, 80),
            candle_core::DType::F32,
            &candle_core::Device::Cpu,
        )?)
    });
    client
        .utterance(too_short, answers.answer("too short"))
        .unwrap();
    drop(release);

    let mut outcomes: Vec<_> = (0..4).map(|_| answers.next()).collect();
    outcomes.sort_by_key(|(name, _)| *name);
    let texts: Vec<_> = outcomes
        .into_iter()
        .map(|(name, encoded)| (name, encoded.err().map(|error| error.to_string())))
        .collect();
    assert_eq!(texts[0], ("fails", Some("no picture".into())));
    assert_eq!(texts[1], ("good", None));
    let panicked = "encoding panicked: the picture is cursed";
    assert_eq!(texts[2], ("panics", Some(panicked.into())));
    assert!(texts[3].1.is_some(), "{:?}", texts[3]);

    frame(&client, 2, &answers, "after");
    assert!(answers.next().1.is_ok());
    // the one that held the worker up is among them
    assert_eq!(own.stats().failed, 4);
}

#[test]
fn what_two_streams_show_is_encoded_once() {
    let own = Own::open();
    let (a, b) = (own.client(8), own.client(8));
    let answers = Answers::new();
    let release = block(&a);
    frame(&a, 7, &answers, "a");
    frame(&b, 7, &answers, "b");
    drop(release);
    let together = [answers.next(), answers.next()].map(|(_, encoded)| encoded.unwrap().batch);
    assert_eq!(together, [1, 0]);
    frame(&b, 7, &answers, "again");
    assert_eq!(answers.next().1.unwrap().batch, 0);
    let stats = own.stats();
    assert_eq!((stats.frames, stats.cached), (1, 2));
}

#[test]
fn what_is_cancelled_or_whose_client_is_gone_is_not_answered() {
    let own = Own::open();
    let (stays, goes) = (own.client(1), own.client(1));
    let answers = Answers::new();
    let release = block(&stays);
    let cancelled = stays.frame(load(picture(0)), answers.answer("cancelled"));
    let cancelled = cancelled.unwrap();
    frame(&stays, 1, &answers, "stays");
    frame(&goes, 2, &answers, "goes");
    assert_eq!((stays.waiting(), goes.waiting()), (2, 1));
    assert!(cancelled.cancel());
    assert!(!cancelled.cancel());
    drop(goes);
    drop(release);
    assert_eq!(answers.next().0, "stays");
    assert!(answers.receiver.try_recv().is_err());
    assert_eq!(own.stats().frames, 1);
}

#[test]
fn a_full_lane_and_a_closed_model_say_so() {
    let own = Own::open();
    let client = own.client_of(ClientSettings {
        batch: 1,
        capacity: 1,
        ..ClientSettings::default()
    });
    let answers = Answers::new();
    let release = block(&client);
    frame(&client, 0, &answers, "waits");
    let full = client.frame(load(picture(1)), answers.answer("too many"));
    assert!(matches!(full, Err(Error::Full(1))));
    drop(release);
    assert_eq!(answers.next().0, "waits");
    drop(own);
    let closed = client.frame(load(picture(1)), answers.answer("too late"));
    assert!(matches!(closed, Err(Error::Closed)));
}
