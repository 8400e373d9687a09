//! Threads that stay awake while a network runs.
//!
//! A small network is hundreds of operations of a tenth of a millisecond. A thread that sleeps in
//! between takes as long to wake up, so that two threads were hardly faster than one.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Runs that are on their way in this process: only a lone one keeps threads awake.
static RUNS: AtomicUsize = AtomicUsize::new(0);

/// Without work for so long, a thread rests between looks.
const PATIENCE: Duration = Duration::from_millis(1);
/// How long it rests.
const REST: Duration = Duration::from_micros(100);
/// Without work for so long, it goes: see [`look_for_work`].
const END: Duration = Duration::from_millis(20);

struct Counted;

impl Counted {
    fn new() -> (Self, bool) {
        (Self, RUNS.fetch_add(1, Ordering::Relaxed) == 0)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        RUNS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Set when it goes, so that a panic ends the waiting too.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Does `work` on a thread of the pool, while the others look for its pieces without sleeping.
pub fn with_awake_threads<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let (_counted, alone) = Counted::new();
    let done = AtomicBool::new(false);
    rayon::scope(|scope| {
        let ends = Ends(&done);
        if alone && rayon::current_num_threads() > 1 {
            let own = rayon::current_thread_index();
            // A broadcast, not a spawn: this thread must never wait inside of its own run.
            let done = &done;
            scope.spawn_broadcast(move |_, context| {
                if Some(context.index()) != own {
                    look_for_work(done);
                }
            });
        }
        let result = work();
        drop(ends);
        result
    })
}

/// Looks for pieces until the run has ended, or there were none for a while. It must not wait for
/// the run's end alone: this may have begun on top of a piece that was waiting, on this thread's
/// stack, and that another run needs, which the first one's thread has taken up in a wait of its own.
fn look_for_work(done: &AtomicBool) {
    let mut last = Instant::now();
    while !done.load(Ordering::Acquire) && last.elapsed() < END {
        if rayon::yield_now() == Some(rayon::Yield::Executed) {
            last = Instant::now();
        } else if last.elapsed() > PATIENCE {
            std::thread::sleep(REST);
        } else {
            std::hint::spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rayon::prelude::*;

    #[test]
    fn runs_in_runs_end_and_give_their_results() {
        for _ in 0..200 {
            let sums: Vec<u64> = with_awake_threads(|| {
                (0..8_u64)
                    .into_par_iter()
                    .map(|n| {
                        with_awake_threads(|| (0..100_u64).into_par_iter().map(|m| m * n).sum())
                    })
                    .collect()
            });
            assert!(
                sums.iter()
                    .enumerate()
                    .all(|(n, sum)| *sum == 4950 * n as u64)
            );
        }
    }

    #[test]
    fn a_run_may_need_what_a_looking_thread_has_begun() {
        // The second half waits as a piece does, by doing whatever is there: it finds the first
        // half's call for threads, on top of which it cannot go on until that one returns.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build();
        let [ready, begun, given] = [const { AtomicBool::new(false) }; 3];
        pool.unwrap().install(|| {
            rayon::join(
                || {
                    while !ready.load(Ordering::Acquire) {
                        std::hint::spin_loop();
                    }
                    with_awake_threads(|| {
                        begun.store(true, Ordering::Release);
                        while !given.load(Ordering::Acquire) {
                            std::hint::spin_loop();
                        }
                    });
                },
                || {
                    ready.store(true, Ordering::Release);
                    while !begun.load(Ordering::Acquire) {
                        std::hint::spin_loop();
                    }
                    for _ in 0..1000 {
                        rayon::yield_now();
                    }
                    given.store(true, Ordering::Release);
                },
            )
        });
    }

    #[test]
    fn a_panic_passes_through() {
        let caught = std::panic::catch_unwind(|| with_awake_threads(|| panic!("on purpose")));
        assert!(caught.is_err());
    }
}
