//! How many tests go on at once. A test that keeps processors busy has one of few turns; one that mostly waits,
//! for a time-out of TCP or for what must not happen, one of more: it takes nothing from the others.

use std::cell::RefCell;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};

static BUSY: Pool = Pool::of(2);
static WAITING: Pool = Pool::of(6);

/// How a test spends its time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Pace {
    Busy,
    Waiting,
}

/// The right of a thread to go on with its test. A test with several worlds needs one.
#[derive(Debug)]
pub(crate) struct Turn(&'static Pool);

impl Turn {
    /// Waits for one, unless this thread has one.
    pub(crate) fn take(pace: Pace) -> Arc<Self> {
        thread_local!(static OURS: RefCell<Weak<Turn>> = const { RefCell::new(Weak::new()) });
        OURS.with_borrow_mut(|ours| {
            ours.upgrade().unwrap_or_else(|| {
                let turn = Arc::new(match pace {
                    Pace::Busy => BUSY.take(),
                    Pace::Waiting => WAITING.take(),
                });
                *ours = Arc::downgrade(&turn);
                turn
            })
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}

#[derive(Debug)]
struct Pool {
    free: Mutex<usize>,
    freed: Condvar,
}

impl Pool {
    const fn of(turns: usize) -> Self {
        Self { free: Mutex::new(turns), freed: Condvar::new() }
    }

    fn take(&'static self) -> Turn {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        *self.freed.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner) -= 1;
        Turn(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_has_one_turn_and_others_wait_for_theirs() {
        static POOL: Pool = Pool::of(1);
        let first = POOL.take();
        let second = std::thread::spawn(|| drop(POOL.take()));
        assert_eq!(*POOL.free.lock().unwrap(), 0);
        drop(first);
        second.join().unwrap();
        assert_eq!(*POOL.free.lock().unwrap(), 1);

        let one = Turn::take(Pace::Busy);
        // As many as there are, and more: they are the same.
        let same: Vec<_> = (0..9).map(|_| Turn::take(Pace::Busy)).collect();
        assert!(same.iter().all(|turn| Arc::ptr_eq(turn, &one)));
    }
}
