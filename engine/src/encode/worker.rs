use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use image::RgbImage;
use vita_model::prompt::{Media, MediaKind};
use vita_model::vision::Prepared;
use vita_model::{Vita, content_key};

use super::{Answer, Encoded, Error, FrameJob, Load, Shared, State, Stats, UtteranceJob};
use crate::models::panic_text;

/// What a thread that encodes needs.
pub(super) struct Worker {
    vita: Arc<Vita>,
    shared: Arc<Shared>,
}

/// Frames of the same content that is to be encoded.
struct Group {
    key: u64,
    /// One.
    picture: Prepared,
    answers: Vec<Answer>,
}

impl Worker {
    pub fn new(vita: Arc<Vita>, shared: Arc<Shared>) -> Self {
        Self { vita, shared }
    }

    /// Encodes utterances until the encoder is closed.
    pub fn hear(&self) {
        loop {
            let jobs = self.shared.wait_for(State::take_utterance);
            if jobs.is_empty() {
                return;
            }
            jobs.into_iter().for_each(|job| self.utterance(job));
        }
    }

    /// Encodes frames until the encoder is closed.
    pub fn see(&self) {
        loop {
            let jobs = self.shared.wait_for(|state| state.frames.take());
            if jobs.is_empty() {
                return;
            }
            self.frames(jobs);
        }
    }

    fn utterance(&self, job: UtteranceJob) {
        let started = Instant::now();
        let waited = started.saturating_duration_since(job.queued);
        if job.max_wait.is_some_and(|limit| waited > limit) {
            self.count(|stats| stats.stale += 1);
            return self.answer(job.answer, Err(Error::Stale(waited)), started);
        }
        let features = job.features;
        let prepared = caught(|| {
            let features = features()?;
            Ok((content_key(&features)?, features))
        });
        let encoded = prepared.and_then(|(key, features)| {
            if let Some(media) = self.cached(MediaKind::Audio, key) {
                return Ok((media, 0));
            }
            let media = caught(|| self.vita.hear_keyed(&features, key))?;
            self.keep(&media);
            self.count(|stats| stats.utterances += 1);
            Ok((media, 1))
        });
        let (waited_ms, took_ms) = (waited.as_millis(), started.elapsed().as_millis());
        tracing::debug!(waited_ms, took_ms, "an utterance is encoded");
        self.answer(job.answer, encoded, started);
    }

    fn cached(&self, kind: MediaKind, key: u64) -> Option<Media> {
        self.shared.cache().get(kind, key)
    }

    fn keep(&self, media: &Media) {
        self.shared.cache().insert(media.clone());
    }

    fn frames(&self, jobs: Vec<FrameJob>) {
        let started = Instant::now();
        let mut groups = Vec::<Group>::new();
        for FrameJob { picture, answer } in jobs {
            let (key, picture) = match self.prepare(picture) {
                Ok(prepared) => prepared,
                Err(error) => {
                    self.answer(answer, Err(error), started);
                    continue;
                }
            };
            if let Some(media) = self.cached(MediaKind::Image, key) {
                self.answer(answer, Ok((media, 0)), started);
            } else if let Some(same) = groups.iter_mut().find(|group| group.key == key) {
                same.answers.push(answer);
            } else {
                groups.push(Group {
                    key,
                    picture,
                    answers: vec![answer],
                });
            }
        }
        let media = self.see_all(&groups);
        let frames = groups.len();
        let took_ms = started.elapsed().as_millis();
        tracing::debug!(frames, took_ms, "frames are encoded");
        for (group, media) in groups.into_iter().zip(media) {
            // the first of several equal frames is the one that was encoded
            let batches = [frames].into_iter().chain(std::iter::repeat(0));
            for (answer, batch) in group.answers.into_iter().zip(batches) {
                let media = media.clone().map(|media| (media, batch));
                self.answer(answer, media, started);
            }
        }
    }

    fn prepare(&self, picture: Load<RgbImage>) -> Result<(u64, Prepared), Error> {
        let (keys, picture) = caught(|| {
            let picture = self.vita.eyes()?.frames(&[picture()?])?;
            Ok((picture.keys()?, picture))
        })?;
        Ok((only(keys)?, picture))
    }

    /// All in one run of the model; if that fails, one by one, so that each fails for itself.
    fn see_all(&self, groups: &[Group]) -> Vec<Result<Media, Error>> {
        if groups.is_empty() {
            return Vec::new();
        }
        let media: Vec<_> = match self.see_batch(groups) {
            Ok(media) => media.into_iter().map(Ok).collect(),
            Err(error) if groups.len() == 1 => vec![Err(error)],
            Err(_) => groups
                .chunks(1)
                .map(|one| self.see_batch(one).and_then(only))
                .collect(),
        };
        for media in media.iter().flatten() {
            self.keep(media);
        }
        media
    }

    fn see_batch(&self, groups: &[Group]) -> Result<Vec<Media>, Error> {
        let media = caught(|| {
            let pictures: Vec<_> = groups.iter().map(|group| &group.picture).collect();
            let keys: Vec<_> = groups.iter().map(|group| group.key).collect();
            let mut media = self.vita.see_keyed(&Prepared::cat(&pictures)?, &keys)?;
            for medium in &mut media {
                // of its own, or one frame would keep all of its batch in memory
                medium.vectors = medium.vectors.force_contiguous()?;
            }
            Ok(media)
        })?;
        self.count(|stats| {
            stats.batches += 1;
            stats.frames += groups.len() as u64;
        });
        Ok(media)
    }

    fn answer(&self, answer: Answer, encoded: Result<(Media, usize), Error>, started: Instant) {
        self.count(|stats| match &encoded {
            Ok((_, 0)) => stats.cached += 1,
            Ok(_) => (),
            Err(Error::Stale(_)) => (),
            Err(_) => stats.failed += 1,
        });
        let encoded = encoded.map(|(media, batch)| Encoded {
            media,
            time: started.elapsed(),
            batch,
        });
        let answered = catch_unwind(AssertUnwindSafe(|| answer(encoded)));
        if let Err(panic) = answered {
            tracing::error!(reason = panic_text(&*panic), "an encoder's client panicked");
        }
    }

    fn count(&self, add: impl FnOnce(&mut Stats)) {
        add(&mut self.shared.lock().stats);
    }
}

fn only<T>(media: Vec<T>) -> Result<T, Error> {
    let none = || vita_model::Error::Input("the vision part gave no medium for a frame".into());
    media.into_iter().next().ok_or_else(|| none().into())
}

/// The model is immutable, and a job's own data is dropped with it: a panic leaves nothing half done.
fn caught<T>(work: impl FnOnce() -> vita_model::Result<T>) -> Result<T, Error> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => Ok(done?),
        Err(panic) => Err(Error::Panicked(panic_text(&*panic))),
    }
}
