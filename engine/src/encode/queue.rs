use std::collections::VecDeque;

/// What waits for the encoder, in a lane a client. Pure: no locks, no model.
///
/// An utterance goes before any frame, because somebody waits for an answer to it; beyond that clients take turns.
#[derive(Debug)]
pub(super) struct Queue<F, U> {
    lanes: VecDeque<Lane<F, U>>,
    next_job: u64,
    next_client: u64,
}

#[derive(Debug)]
struct Lane<F, U> {
    client: u64,
    /// Most frames of a batch that one of this client's is part of.
    batch: usize,
    capacity: usize,
    frames: VecDeque<(u64, F)>,
    utterances: VecDeque<(u64, U)>,
}

/// What is to be encoded next, together.
#[derive(Debug, PartialEq)]
pub(super) enum Work<F, U> {
    Frames(Vec<F>),
    Utterance(U),
}

/// What a client wants encoded.
#[derive(Debug)]
pub(super) enum Job<F, U> {
    Frame(F),
    Utterance(U),
}

impl<F, U> Default for Queue<F, U> {
    fn default() -> Self {
        Self {
            lanes: VecDeque::new(),
            next_job: 0,
            next_client: 0,
        }
    }
}

impl<F, U> Lane<F, U> {
    fn len(&self) -> usize {
        self.frames.len() + self.utterances.len()
    }

    fn jobs(self) -> impl Iterator<Item = Job<F, U>> {
        let utterances = self.utterances.into_iter().map(|(_, u)| Job::Utterance(u));
        utterances.chain(self.frames.into_iter().map(|(_, f)| Job::Frame(f)))
    }
}

impl<F, U> Queue<F, U> {
    pub fn add_client(&mut self, batch: usize, capacity: usize) -> u64 {
        let client = self.next_client;
        self.next_client += 1;
        self.lanes.push_back(Lane {
            client,
            batch: batch.max(1),
            capacity: capacity.max(1),
            frames: VecDeque::new(),
            utterances: VecDeque::new(),
        });
        client
    }

    /// Returns the client's jobs, which nobody will take any more.
    pub fn remove_client(&mut self, client: u64) -> Vec<Job<F, U>> {
        let at = self.lanes.iter().position(|lane| lane.client == client);
        let lane = at.and_then(|at| self.lanes.remove(at));
        lane.into_iter().flat_map(Lane::jobs).collect()
    }

    /// Returns the job's id, or the job where its lane is full.
    pub fn push(&mut self, client: u64, job: Job<F, U>) -> Result<u64, Job<F, U>> {
        let lane = self.lanes.iter_mut().find(|lane| lane.client == client);
        let Some(lane) = lane.filter(|lane| lane.len() < lane.capacity) else {
            return Err(job);
        };
        let id = self.next_job;
        self.next_job += 1;
        match job {
            Job::Frame(frame) => lane.frames.push_back((id, frame)),
            Job::Utterance(utterance) => lane.utterances.push_back((id, utterance)),
        }
        Ok(id)
    }

    /// Takes a job back that still waits.
    pub fn cancel(&mut self, client: u64, id: u64) -> Option<Job<F, U>> {
        let lane = self.lanes.iter_mut().find(|lane| lane.client == client)?;
        if let Some(at) = lane.frames.iter().position(|(job, _)| *job == id) {
            return lane.frames.remove(at).map(|(_, frame)| Job::Frame(frame));
        }
        let at = lane.utterances.iter().position(|(job, _)| *job == id)?;
        let job = lane.utterances.remove(at);
        job.map(|(_, utterance)| Job::Utterance(utterance))
    }

    pub fn waiting(&self, client: u64) -> usize {
        let lane = self.lanes.iter().find(|lane| lane.client == client);
        lane.map_or(0, Lane::len)
    }

    pub fn take(&mut self) -> Option<Work<F, U>> {
        self.take_utterance()
            .map(Work::Utterance)
            .or_else(|| self.take_frames().map(Work::Frames))
    }

    fn take_utterance(&mut self) -> Option<U> {
        let mut lanes = self.lanes.iter_mut().enumerate();
        let (at, (_, utterance)) =
            lanes.find_map(|(at, lane)| Some((at, lane.utterances.pop_front()?)))?;
        self.lanes.rotate_left(at + 1);
        Some(utterance)
    }

    /// One of each lane, round by round, until the batch is as full as all who are in it allow.
    fn take_frames(&mut self) -> Option<Vec<F>> {
        let mut frames = Vec::new();
        let mut limit = usize::MAX;
        let mut last = None;
        loop {
            let before = frames.len();
            for (at, lane) in self.lanes.iter_mut().enumerate() {
                if frames.len() >= limit.min(lane.batch) {
                    continue;
                }
                let Some((_, frame)) = lane.frames.pop_front() else {
                    continue;
                };
                frames.push(frame);
                limit = limit.min(lane.batch);
                last = Some(at);
            }
            if frames.len() == before {
                break;
            }
        }
        self.lanes.rotate_left(last? + 1);
        Some(frames)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    type Q = Queue<&'static str, &'static str>;

    fn push(queue: &mut Q, client: u64, frames: &[&'static str]) {
        for frame in frames {
            assert!(queue.push(client, Job::Frame(frame)).is_ok());
        }
    }

    #[test]
    fn frames_of_several_clients_make_a_batch_and_clients_take_turns() {
        let mut queue = Q::default();
        let [a, b, c] = [(); 3].map(|()| queue.add_client(4, 9));
        push(&mut queue, a, &["a1", "a2", "a3", "a4", "a5"]);
        push(&mut queue, b, &["b1"]);
        push(&mut queue, c, &["c1", "c2"]);
        let batches: Vec<_> = std::iter::from_fn(|| queue.take()).collect();
        assert_eq!(
            batches,
            [
                Work::Frames(vec!["a1", "b1", "c1", "a2"]),
                Work::Frames(vec!["c2", "a3", "a4", "a5"]),
            ]
        );
    }

    #[test]
    fn who_wants_small_batches_is_in_none_that_is_larger() {
        let mut queue = Q::default();
        let (large, small) = (queue.add_client(8, 9), queue.add_client(2, 9));
        push(&mut queue, large, &["l1", "l2", "l3"]);
        push(&mut queue, small, &["s1", "s2"]);
        let batches: Vec<_> = std::iter::from_fn(|| queue.take()).collect();
        assert_eq!(
            batches,
            [
                Work::Frames(vec!["l1", "s1"]),
                Work::Frames(vec!["l2", "s2"]),
                Work::Frames(vec!["l3"]),
            ]
        );
    }

    #[test]
    fn utterances_go_first_and_clients_take_turns_in_them_too() {
        let mut queue = Q::default();
        let (a, b) = (queue.add_client(4, 9), queue.add_client(4, 9));
        push(&mut queue, a, &["a1"]);
        for (client, utterance) in [(a, "A1"), (a, "A2"), (b, "B1")] {
            assert!(queue.push(client, Job::Utterance(utterance)).is_ok());
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.take()).collect();
        let utterances = ["A1", "B1", "A2"].map(Work::Utterance);
        assert_eq!(order[..3], utterances);
        assert_eq!(order[3..], [Work::Frames(vec!["a1"])]);
    }

    #[test]
    fn a_full_lane_takes_no_more_and_a_removed_one_gives_its_jobs_back() {
        let mut queue = Q::default();
        let client = queue.add_client(4, 2);
        push(&mut queue, client, &["1", "2"]);
        assert!(matches!(
            queue.push(client, Job::Frame("3")),
            Err(Job::Frame("3"))
        ));
        assert_eq!(queue.remove_client(client).len(), 2);
        assert!(queue.push(client, Job::Frame("4")).is_err());
        assert_eq!(queue.take(), None);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push { client: usize, utterance: bool },
        Cancel { nth: usize },
        Take,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0usize..4, any::<bool>())
                .prop_map(|(client, utterance)| Step::Push { client, utterance }),
            1 => (0usize..20).prop_map(|nth| Step::Cancel { nth }),
            2 => Just(Step::Take),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Every job is taken or cancelled exactly once, each client's of a kind in their order, in batches no larger
        /// than asked for.
        #[test]
        fn every_job_leaves_once_and_in_order(steps in prop::collection::vec(step(), 0..80)) {
            let mut queue = Queue::<(usize, u64), (usize, u64)>::default();
            let batches = [1, 2, 4, 8];
            let clients = batches.map(|batch| queue.add_client(batch, 1_000));
            let (mut waiting, mut left) = (Vec::new(), Vec::new());
            let mut number = 0;
            let mut leave = |work: Option<Work<(usize, u64), (usize, u64)>>| -> usize {
                let (kind, jobs) = match work {
                    None => return 0,
                    Some(Work::Utterance(job)) => (true, vec![job]),
                    Some(Work::Frames(jobs)) => (false, jobs),
                };
                for (client, _) in &jobs {
                    assert!(kind || jobs.len() <= batches[*client]);
                }
                left.extend(jobs.iter().map(|job| (kind, *job)));
                jobs.len()
            };
            let mut cancelled = 0;
            for step in steps {
                match step {
                    Step::Push { client, utterance } => {
                        number += 1;
                        let job = (client, number);
                        let job = if utterance { Job::Utterance(job) } else { Job::Frame(job) };
                        waiting.push((clients[client], queue.push(clients[client], job).unwrap()));
                    }
                    Step::Cancel { nth } => {
                        if let Some((client, id)) = waiting.get(nth) {
                            cancelled += usize::from(queue.cancel(*client, *id).is_some());
                            prop_assert!(queue.cancel(*client, *id).is_none());
                        }
                    }
                    Step::Take => {
                        leave(queue.take());
                    }
                }
            }
            while leave(queue.take()) > 0 {}
            prop_assert_eq!(left.len() + cancelled, number as usize);
            let mut newest = HashMap::new();
            for (kind, (client, number)) in left {
                let before = newest.insert((kind, client), number);
                prop_assert!(before.is_none_or(|before| before < number));
            }
        }
    }
}
