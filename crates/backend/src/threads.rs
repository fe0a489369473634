//! Threads for calls that may wait: connect(2) of a guest's blocking socket, for one.
//!
//! A runtime's own would do, but that there may be none: guests of our user can use up its processes (RLIMIT_NPROC), and
//! a runtime takes that for a panic.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

type Job = Box<dyn FnOnce() + Send>;

static POOL: Pool = Pool::of(MOST);

/// How long a thread stays that has nothing to do.
const KEPT: Duration = Duration::from_secs(10);

/// More than a machine runs by default (kernel.pid_max): a guest that fills them with blocking connects past the stack has
/// as many threads itself, and nobody else's calls wait for its own. The next ones wait for a thread.
const MOST: usize = 32 * 1024;

/// Runs `job` on a thread on which it may wait: at once, unless some ten thousand others do that.
///
/// # Errors
/// `EAGAIN` if there can be no thread. The job is dropped then.
pub fn on_a_thread(job: impl FnOnce() + Send + 'static) -> io::Result<()> {
    POOL.run(Box::new(job))
}

struct Pool {
    most: usize,
    queue: Mutex<Queue>,
    come: Condvar,
}

struct Queue {
    /// To be taken by idle threads, or by those that become idle if there are as many as may be.
    jobs: VecDeque<Job>,
    idle: usize,
    threads: usize,
}

impl Pool {
    const fn of(most: usize) -> Self {
        let queue = Queue { jobs: VecDeque::new(), idle: 0, threads: 0 };
        Pool { most, queue: Mutex::new(queue), come: Condvar::new() }
    }

    fn run(&'static self, job: Job) -> io::Result<()> {
        let mut queue = self.lock();
        if queue.idle > queue.jobs.len() || queue.threads >= self.most {
            queue.jobs.push_back(job);
            self.come.notify_one();
            return Ok(());
        }
        queue.threads += 1;
        drop(queue);
        let thread = thread::Builder::new().name("netshunt-waits".into());
        let begun = thread.spawn(move || self.serve(job)).map(drop);
        begun.inspect_err(|_| self.lock().threads -= 1)
    }

    fn serve(&self, first: Job) {
        let mut next = Some(first);
        while let Some(job) = next {
            // The panic hook has said so. What the job held is dropped.
            let _ = catch_unwind(AssertUnwindSafe(job));
            let mut queue = self.lock();
            queue.idle += 1;
            let waited = self.come.wait_timeout_while(queue, KEPT, |queue| queue.jobs.is_empty());
            let (mut queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
            next = queue.jobs.pop_front();
            queue.threads -= usize::from(next.is_none());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // No job runs with it held.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    #[test]
    fn jobs_that_wait_for_each_other_all_run() {
        let (tell, told) = mpsc::channel();
        let (go, gone) = mpsc::channel::<()>();
        on_a_thread(move || assert!(gone.recv().is_err())).unwrap();
        for number in 0..20 {
            let (tell, go) = (tell.clone(), go.clone());
            on_a_thread(move || tell.send((number, go)).unwrap()).unwrap();
        }
        let mut all: Vec<i32> = (0..20).map(|_| told.recv_timeout(DEADLINE).unwrap().0).collect();
        all.sort_unstable();
        assert_eq!(all, Vec::from_iter(0..20));
    }

    #[test]
    fn beyond_the_most_jobs_wait_for_a_thread() {
        static FEW: Pool = Pool::of(2);
        let (tell, told) = mpsc::channel();
        let (go, gone) = mpsc::channel::<()>();
        let gone = std::sync::Arc::new(Mutex::new(gone));
        for number in 0..6 {
            let (tell, gone) = (tell.clone(), gone.clone());
            let job = move || {
                tell.send(number).unwrap();
                assert!(gone.lock().unwrap().recv().is_err());
            };
            FEW.run(Box::new(job)).unwrap();
        }
        let mut begun = [told.recv_timeout(DEADLINE).unwrap(), told.recv_timeout(DEADLINE).unwrap()];
        begun.sort_unstable();
        assert_eq!(begun, [0, 1]);
        {
            let queue = FEW.lock();
            assert_eq!((queue.threads, queue.jobs.len(), told.try_recv().is_err()), (2, 4, true));
        }
        drop(go);
        let mut rest: Vec<i32> = (0..4).map(|_| told.recv_timeout(DEADLINE).unwrap()).collect();
        rest.sort_unstable();
        assert_eq!(rest, [2, 3, 4, 5]);
    }

    #[test]
    fn a_panic_is_the_jobs_own_affair() {
        let (tell, told) = mpsc::channel();
        let held = tell.clone();
        on_a_thread(move || {
            let _held = held;
            panic!("as the test wants it");
        })
        .unwrap();
        on_a_thread(move || tell.send(()).unwrap()).unwrap();
        told.recv_timeout(DEADLINE).unwrap();
        assert!(told.recv_timeout(DEADLINE).is_err(), "what the other held is dropped");
    }
}
