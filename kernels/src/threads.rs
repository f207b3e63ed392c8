//! How many threads the kernels use, and how work is shared among them.
//!
//! Waiting for a thread that another program keeps off its core costs more than the thread brings
//! (`docs/performance.md`), so nobody waits for work that was not begun: the caller takes tasks from
//! one counter like every helper, and only tasks that a helper holds are waited for.

use std::num::NonZero;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

static WANTED: AtomicUsize = AtomicUsize::new(0);

/// Sets the number of threads (the caller's included) before the first kernel runs. 0: as
/// `RAYON_NUM_THREADS` says, else one less than the cores, at least one.
pub fn set_threads(threads: usize) {
    WANTED.store(threads, Ordering::Relaxed);
}

/// The number of threads that the kernels use.
pub fn threads() -> usize {
    helpers().map_or(1, |pool| pool.current_num_threads() + 1)
}

fn wanted() -> usize {
    let set = WANTED.load(Ordering::Relaxed);
    if set > 0 {
        return set;
    }
    let variable = std::env::var("RAYON_NUM_THREADS")
        .ok()
        .and_then(|text| text.parse().ok());
    if let Some(threads) = variable.filter(|&threads| threads > 0) {
        return threads;
    }
    std::thread::available_parallelism()
        .map_or(1, NonZero::get)
        .saturating_sub(1)
        .max(1)
}

/// The threads beside the caller's; `None` when there are none.
fn helpers() -> Option<&'static rayon::ThreadPool> {
    static POOL: OnceLock<Option<rayon::ThreadPool>> = OnceLock::new();
    POOL.get_or_init(|| {
        let beside = wanted() - 1;
        let builder = rayon::ThreadPoolBuilder::new()
            .num_threads(beside)
            .thread_name(|i| format!("vita-kernel-{i}"));
        // Without the threads the kernels are slower, not wrong.
        (beside > 0).then(|| builder.build().ok()).flatten()
    })
    .as_ref()
}

/// Runs `task(0)` to `task(tasks - 1)`, each once, on all threads.
pub(crate) fn share(tasks: usize, task: impl Fn(usize) + Sync) {
    let Some(pool) = helpers().filter(|_| tasks > 1) else {
        (0..tasks).for_each(task);
        return;
    };
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= tasks {
                break;
            }
            task(i);
        }
    };
    pool.in_place_scope(|scope| {
        for _ in 0..pool.current_num_threads().min(tasks - 1) {
            scope.spawn(|_| work());
        }
        work();
    });
}

/// Runs `task(i, chunk)` for each `len` values of a slice, whose last may be fewer, on all threads.
pub fn share_chunks<T: Send>(slice: &mut [T], len: usize, task: impl Fn(usize, &mut [T]) + Sync) {
    let (total, len) = (slice.len(), len.max(1));
    let slice = Disjoint::new(slice);
    share(total.div_ceil(len), |i| {
        #[allow(unsafe_code)]
        // SAFETY: each task has a chunk of its own.
        let chunk = unsafe { slice.part(i * len, len.min(total - i * len)) };
        task(i, chunk);
    });
}

/// A slice of which tasks write disjoint parts.
pub(crate) struct Disjoint<'a, T> {
    start: *mut T,
    len: usize,
    life: std::marker::PhantomData<&'a mut [T]>,
}

#[allow(unsafe_code)]
mod disjoint {
    // Why unsafe: tiles of one matrix are no contiguous parts of its slice, so `chunks_mut` cannot
    // give them to the threads.
    use super::Disjoint;
    use std::marker::PhantomData;

    // SAFETY: the parts are handed out as `&mut [T]`, and `part` demands that they do not overlap.
    unsafe impl<T: Send> Send for Disjoint<'_, T> {}
    unsafe impl<T: Send> Sync for Disjoint<'_, T> {}

    impl<'a, T> Disjoint<'a, T> {
        pub fn new(slice: &'a mut [T]) -> Self {
            Self {
                start: slice.as_mut_ptr(),
                len: slice.len(),
                life: PhantomData,
            }
        }

        /// # Safety
        /// No two parts that are alive at the same time may overlap.
        #[allow(clippy::mut_from_ref)]
        #[inline(always)]
        pub unsafe fn part(&self, from: usize, len: usize) -> &mut [T] {
            assert!(
                from.checked_add(len).is_some_and(|end| end <= self.len),
                "part outside of the slice"
            );
            // SAFETY: inside of the slice by the check above; alone by the caller's promise.
            unsafe { std::slice::from_raw_parts_mut(self.start.add(from), len) }
        }
    }
}
