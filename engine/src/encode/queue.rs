use std::collections::VecDeque;

/// What waits to be encoded, in a lane a client. Pure: no locks, no model.
///
/// Clients take turns. Each lane takes a bounded number of jobs.
#[derive(Debug)]
pub(super) struct Queue<T> {
    lanes: VecDeque<Lane<T>>,
    next_job: u64,
}

#[derive(Debug)]
struct Lane<T> {
    client: u64,
    /// Most jobs of a batch that one of this client's is part of.
    batch: usize,
    capacity: usize,
    jobs: VecDeque<(u64, T)>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            lanes: VecDeque::new(),
            next_job: 0,
        }
    }
}

impl<T> Queue<T> {
    pub fn add_client(&mut self, client: u64, batch: usize, capacity: usize) {
        self.lanes.push_back(Lane {
            client,
            batch: batch.max(1),
            capacity: capacity.max(1),
            jobs: VecDeque::new(),
        });
    }

    /// Returns the client's jobs, which nobody will take any more.
    pub fn remove_client(&mut self, client: u64) -> Vec<T> {
        let at = self.lanes.iter().position(|lane| lane.client == client);
        let lane = at.and_then(|at| self.lanes.remove(at));
        let jobs = lane.into_iter().flat_map(|lane| lane.jobs);
        jobs.map(|(_, job)| job).collect()
    }

    /// Returns the job's id, or the job where its lane is full.
    pub fn push(&mut self, client: u64, job: T) -> Result<u64, T> {
        let lane = self.lanes.iter_mut().find(|lane| lane.client == client);
        let Some(lane) = lane.filter(|lane| lane.jobs.len() < lane.capacity) else {
            return Err(job);
        };
        let id = self.next_job;
        self.next_job += 1;
        lane.jobs.push_back((id, job));
        Ok(id)
    }

    /// Takes a job back that still waits.
    pub fn cancel(&mut self, client: u64, id: u64) -> Option<T> {
        let lane = self.lanes.iter_mut().find(|lane| lane.client == client)?;
        let at = lane.jobs.iter().position(|(job, _)| *job == id)?;
        lane.jobs.remove(at).map(|(_, job)| job)
    }

    pub fn waiting(&self, client: u64) -> usize {
        let lane = self.lanes.iter().find(|lane| lane.client == client);
        lane.map_or(0, |lane| lane.jobs.len())
    }

    /// What is to be encoded next, together: one of each lane, round by round, until the batch is as full as all who are
    /// in it allow. Empty when nothing waits.
    pub fn take(&mut self) -> Vec<T> {
        let mut batch = Vec::new();
        let mut limit = usize::MAX;
        let mut last = None;
        loop {
            let before = batch.len();
            for (at, lane) in self.lanes.iter_mut().enumerate() {
                if batch.len() >= limit.min(lane.batch) {
                    continue;
                }
                let Some((_, job)) = lane.jobs.pop_front() else {
                    continue;
                };
                batch.push(job);
                limit = limit.min(lane.batch);
                last = Some(at);
            }
            if batch.len() == before {
                break;
            }
        }
        if let Some(last) = last {
            self.lanes.rotate_left(last + 1);
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    type Q = Queue<&'static str>;

    fn queue(batches: &[usize]) -> Q {
        let mut queue = Q::default();
        for (client, batch) in (0..).zip(batches) {
            queue.add_client(client, *batch, 9);
        }
        queue
    }

    fn push(queue: &mut Q, client: u64, jobs: &[&'static str]) {
        for job in jobs {
            assert!(queue.push(client, job).is_ok());
        }
    }

    #[track_caller]
    fn assert_batches(mut queue: Q, expected: &[&[&str]]) {
        for batch in expected {
            assert_eq!(queue.take(), *batch);
        }
        assert!(queue.take().is_empty());
    }

    #[test]
    fn jobs_of_several_clients_make_a_batch_and_clients_take_turns() {
        let mut queue = queue(&[4, 4, 4]);
        push(&mut queue, 0, &["a1", "a2", "a3", "a4", "a5"]);
        push(&mut queue, 1, &["b1"]);
        push(&mut queue, 2, &["c1", "c2"]);
        assert_batches(
            queue,
            &[&["a1", "b1", "c1", "a2"], &["c2", "a3", "a4", "a5"]],
        );
    }

    #[test]
    fn who_wants_small_batches_is_in_none_that_is_larger() {
        let mut queue = queue(&[8, 2]);
        push(&mut queue, 0, &["l1", "l2", "l3"]);
        push(&mut queue, 1, &["s1", "s2"]);
        assert_batches(queue, &[&["l1", "s1"], &["l2", "s2"], &["l3"]]);
    }

    #[test]
    fn batches_of_one_go_round() {
        let mut queue = queue(&[1, 1]);
        push(&mut queue, 0, &["a1", "a2"]);
        push(&mut queue, 1, &["b1"]);
        assert_batches(queue, &[&["a1"], &["b1"], &["a2"]]);
    }

    #[test]
    fn a_full_lane_takes_no_more_and_a_removed_one_gives_its_jobs_back() {
        let mut queue = Q::default();
        queue.add_client(7, 4, 2);
        push(&mut queue, 7, &["1", "2"]);
        assert_eq!(queue.push(7, "3"), Err("3"));
        assert_eq!(queue.remove_client(7), ["1", "2"]);
        assert!(queue.push(7, "4").is_err());
        assert!(queue.take().is_empty());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push { client: usize },
        Cancel { nth: usize },
        Take,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0usize..4).prop_map(|client| Step::Push { client }),
            1 => (0usize..20).prop_map(|nth| Step::Cancel { nth }),
            2 => Just(Step::Take),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Every job is taken or cancelled exactly once, each client's in their order, in batches no larger than asked
        /// for.
        #[test]
        fn every_job_leaves_once_and_in_order(steps in prop::collection::vec(step(), 0..80)) {
            let mut queue = Queue::<(usize, u64)>::default();
            let batches = [1, 2, 4, 8];
            for (client, batch) in (0..).zip(batches) {
                queue.add_client(client, batch, 1_000);
            }
            let (mut waiting, mut left) = (Vec::new(), Vec::new());
            let mut leave = |jobs: Vec<(usize, u64)>| -> usize {
                for (client, _) in &jobs {
                    assert!(jobs.len() <= batches[*client]);
                }
                left.extend(&jobs);
                jobs.len()
            };
            let (mut number, mut cancelled) = (0, 0);
            for step in steps {
                match step {
                    Step::Push { client } => {
                        number += 1;
                        let id = queue.push(client as u64, (client, number)).unwrap();
                        waiting.push((client as u64, id));
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
            for (client, number) in left {
                let before = newest.insert(client, number);
                prop_assert!(before.is_none_or(|before| before < number));
            }
        }
    }
}
