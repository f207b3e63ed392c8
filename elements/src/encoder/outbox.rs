//! What the element has still to push, in order: events, and media that are being encoded or waiting for it.

use std::collections::VecDeque;
use std::time::Instant;

use vita_engine::encode::{Encoded, Error};

use crate::common::media::MediaTimes;

/// What is known of a medium before it is encoded.
#[derive(Debug, Clone)]
pub(super) struct Medium {
    pub pts: Option<gst::ClockTime>,
    pub duration: Option<gst::ClockTime>,
    pub times: MediaTimes,
    /// `GstReferenceTimestampMeta`s: clock, time on it, duration.
    pub references: Vec<(gst::Caps, gst::ClockTime, Option<gst::ClockTime>)>,
    /// When the last of it came in.
    pub received: Instant,
}

/// A job that is queued with the encoder.
pub(super) trait Job {
    /// Takes it back; false if it is being encoded or done.
    fn cancel(&self) -> bool;
}

impl Job for vita_engine::encode::Ticket {
    fn cancel(&self) -> bool {
        vita_engine::encode::Ticket::cancel(self)
    }
}

/// The next to be pushed.
#[derive(Debug)]
pub(super) enum Out {
    Event(gst::Event),
    /// Nothing is there from the first to the second PTS.
    Gap(gst::ClockTime, Option<gst::ClockTime>),
    Medium(Medium, Result<Encoded, Error>),
}

enum Item<J> {
    Event(gst::Event),
    Gap(gst::ClockTime, Option<gst::ClockTime>),
    Pending { id: u64, medium: Medium, job: J },
    Done(Medium, Result<Encoded, Error>),
}

pub(super) struct Outbox<J> {
    items: VecDeque<Item<J>>,
    next_id: u64,
}

impl<J: Job> Outbox<J> {
    pub fn new() -> Self {
        Self {
            items: VecDeque::new(),
            next_id: 0,
        }
    }

    pub fn push_event(&mut self, event: gst::Event) {
        self.items.push_back(Item::Event(event));
    }

    /// Gaps that follow each other become one, so that they take no room however long nothing is taken.
    pub fn push_gap(&mut self, from: gst::ClockTime, until: Option<gst::ClockTime>) {
        if let Some(Item::Gap(_, end)) = self.items.back_mut() {
            *end = until.or(*end);
        } else {
            self.items.push_back(Item::Gap(from, until));
        }
    }

    /// The id under which the next medium will be finished.
    pub fn next_id(&self) -> u64 {
        self.next_id
    }

    pub fn push_medium(&mut self, medium: Medium, job: J) {
        let id = self.next_id;
        self.next_id += 1;
        self.items.push_back(Item::Pending { id, medium, job });
    }

    /// A medium that the encoder did not take.
    pub fn push_failed(&mut self, medium: Medium, error: Error) {
        self.items.push_back(Item::Done(medium, Err(error)));
    }

    /// What is told of a medium that is dropped, and a gap in its place.
    pub fn push_dropped(&mut self, medium: &Medium, reason: &str) {
        if let Some(event) = medium.dropped_event(reason) {
            self.push_event(event);
        }
        if let Some((from, until)) = medium.gap() {
            self.push_gap(from, until);
        }
    }

    /// A medium is encoded, or failed; one that is no longer there is no longer wanted.
    pub fn finish(&mut self, id: u64, encoded: Result<Encoded, Error>) {
        let pending =
            |item: &&mut Item<J>| matches!(item, Item::Pending { id: own, .. } if *own == id);
        if let Some(item) = self.items.iter_mut().find(pending)
            && let Item::Pending { medium, .. } = item
        {
            *item = Item::Done(medium.clone(), encoded);
        }
    }

    /// The first item, unless it is still being encoded.
    pub fn take(&mut self) -> Option<Out> {
        if let Some(Item::Pending { .. }) = self.items.front() {
            return None;
        }
        match self.items.pop_front()? {
            Item::Event(event) => Some(Out::Event(event)),
            Item::Gap(from, until) => Some(Out::Gap(from, until)),
            Item::Done(medium, encoded) => Some(Out::Medium(medium, encoded)),
            pending @ Item::Pending { .. } => {
                self.items.push_front(pending);
                None
            }
        }
    }

    /// Media that are encoded and not taken yet.
    pub fn done(&self) -> usize {
        let is_done = |item: &&Item<J>| matches!(item, Item::Done(..));
        self.items.iter().filter(is_done).count()
    }

    /// All media, whatever has become of them so far.
    pub fn media(&self) -> usize {
        let is_medium = |item: &&Item<J>| matches!(item, Item::Done(..) | Item::Pending { .. });
        self.items.iter().filter(is_medium).count()
    }

    /// Drops the oldest medium that is not being encoded just now, as [`Self::push_dropped`] does, in its place. (If those
    /// could go too, a model that is slower than the stream would never finish one.)
    pub fn drop_oldest(&mut self, reason: &str) -> Option<Medium> {
        for at in 0..self.items.len() {
            let medium = match &self.items[at] {
                Item::Done(medium, _) => medium.clone(),
                Item::Pending { medium, job, .. } if job.cancel() => medium.clone(),
                _ => continue,
            };
            self.items.remove(at);
            if let Some((from, until)) = medium.gap() {
                self.items.insert(at, Item::Gap(from, until));
            }
            if let Some(event) = medium.dropped_event(reason) {
                self.items.insert(at, Item::Event(event));
            }
            return Some(medium);
        }
        None
    }

    /// Forgets everything; returns how many media were among it, and the events.
    pub fn clear(&mut self) -> (usize, Vec<gst::Event>) {
        let media = self.media();
        let mut events = Vec::new();
        for item in self.items.drain(..) {
            match item {
                Item::Pending { job, .. } => {
                    job.cancel();
                }
                Item::Event(event) => events.push(event),
                Item::Gap(..) | Item::Done(..) => (),
            }
        }
        (media, events)
    }
}

impl Medium {
    /// What stands in its place if it does not come.
    pub fn gap(&self) -> Option<(gst::ClockTime, Option<gst::ClockTime>)> {
        let end = |from: gst::ClockTime| self.duration.map(|duration| from + duration);
        self.pts.map(|from| (from, end(from)))
    }

    /// What is told of it if it does not come, and is an utterance.
    pub fn dropped(&self, reason: &str, detail: Option<&str>) -> Option<gst::Structure> {
        let utterance_id = self.times.utterance_id?;
        let structure = gst::Structure::builder("vita-dropped")
            .field("kind", "audio")
            .field("utterance-id", utterance_id)
            .field("reason", reason)
            .field_if_some("detail", detail)
            .field_if_some("start-stream-time", self.times.start)
            .field_if_some("end-stream-time", self.times.end)
            .field_if_some("capture-time", self.times.capture_time_ns);
        Some(structure.build())
    }

    fn dropped_event(&self, reason: &str) -> Option<gst::Event> {
        let structure = self.dropped(reason, None)?;
        Some(gst::event::CustomDownstream::new(structure))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;

    /// A job that can be taken back until it is begun.
    #[derive(Clone, Default)]
    struct Begun(Rc<Cell<bool>>);

    impl Job for Begun {
        fn cancel(&self) -> bool {
            !self.0.get()
        }
    }

    fn medium(pts_ms: u64) -> Medium {
        Medium {
            pts: Some(gst::ClockTime::from_mseconds(pts_ms)),
            duration: Some(gst::ClockTime::from_mseconds(10)),
            times: MediaTimes::default(),
            references: Vec::new(),
            received: Instant::now(),
        }
    }

    fn push(outbox: &mut Outbox<Begun>, pts_ms: u64) -> (u64, Begun) {
        let (id, job) = (outbox.next_id(), Begun::default());
        outbox.push_medium(medium(pts_ms), job.clone());
        (id, job)
    }

    /// What can be taken, media by PTS in milliseconds.
    fn taken(outbox: &mut Outbox<Begun>) -> Vec<String> {
        let name = |out| match out {
            Out::Event(event) => format!("{:?}", event.type_()),
            Out::Gap(from, until) => {
                let until = until.map(|until| until.mseconds());
                format!("gap {}-{:?}", from.mseconds(), until)
            }
            Out::Medium(medium, _) => format!("{}", medium.pts.unwrap().mseconds()),
        };
        std::iter::from_fn(|| outbox.take()).map(name).collect()
    }

    #[test]
    fn media_leave_in_order_whichever_is_done_first() {
        gst::init().unwrap();
        let mut outbox = Outbox::new();
        let ((first, _), (second, _)) = (push(&mut outbox, 0), push(&mut outbox, 10));
        outbox.push_event(gst::event::Eos::new());
        outbox.finish(second, Err(Error::Closed));
        assert!(taken(&mut outbox).is_empty());
        outbox.finish(first, Err(Error::Closed));
        assert_eq!(outbox.done(), 2);
        assert_eq!(taken(&mut outbox), ["0", "10", "Eos"]);
        outbox.finish(first, Err(Error::Closed));
        assert_eq!(outbox.media(), 0);
    }

    #[test]
    fn what_is_being_encoded_is_not_dropped() {
        let mut outbox = Outbox::new();
        let ((begun, job), (_, _)) = (push(&mut outbox, 0), push(&mut outbox, 10));
        job.0.set(true);
        let dropped = outbox.drop_oldest("drop-oldest").unwrap();
        assert_eq!(dropped.pts, medium(10).pts);
        assert!(outbox.drop_oldest("drop-oldest").is_none());
        outbox.finish(begun, Err(Error::Closed));
        assert_eq!(taken(&mut outbox), ["0", "gap 10-Some(20)"]);
    }

    #[test]
    fn an_utterance_that_is_dropped_is_told_of_in_its_place() {
        gst::init().unwrap();
        let mut outbox = Outbox::new();
        let spoken = Medium {
            times: MediaTimes {
                utterance_id: Some(7),
                ..MediaTimes::default()
            },
            ..medium(0)
        };
        outbox.push_medium(spoken.clone(), Begun::default());
        outbox.push_event(gst::event::Eos::new());
        outbox.drop_oldest("drop-oldest").unwrap();
        outbox.push_dropped(&spoken, "drop-newest");
        let dropped = |out: Option<Out>| match out {
            Some(Out::Event(event)) => event.structure().unwrap().get::<String>("reason").unwrap(),
            out => panic!("{out:?}"),
        };
        assert_eq!(dropped(outbox.take()), "drop-oldest");
        assert!(matches!(outbox.take(), Some(Out::Gap(..))));
        assert!(
            matches!(outbox.take(), Some(Out::Event(eos)) if eos.type_() == gst::EventType::Eos)
        );
        assert_eq!(dropped(outbox.take()), "drop-newest");
        assert_eq!(taken(&mut outbox), ["gap 0-Some(10)"]);
    }

    #[test]
    fn what_is_done_and_not_taken_is_the_oldest() {
        gst::init().unwrap();
        let mut outbox = Outbox::new();
        let ((done, _), (_, _)) = (push(&mut outbox, 0), push(&mut outbox, 10));
        outbox.finish(done, Err(Error::Closed));
        assert_eq!(
            outbox.drop_oldest("drop-oldest").unwrap().pts,
            medium(0).pts
        );
        assert_eq!((outbox.done(), outbox.media()), (0, 1));
        outbox.push_event(gst::event::Eos::new());
        let (media, events) = outbox.clear();
        assert_eq!((media, events.len()), (1, 1));
        assert!(taken(&mut outbox).is_empty());
    }

    #[test]
    fn gaps_that_follow_each_other_are_one() {
        let mut outbox = Outbox::<Begun>::new();
        for start in [0, 10, 20] {
            let ms = gst::ClockTime::from_mseconds;
            outbox.push_gap(ms(start), Some(ms(start + 10)));
        }
        assert_eq!(taken(&mut outbox), ["gap 0-Some(30)"]);
    }
}
