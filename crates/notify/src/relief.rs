//! Relieving the watch: a guest's memory can hold whoever accesses it for ever.
//!
//! Such an access cannot be interrupted without killing the process, so the thread is given up
//! instead. The serving thread notes in its [`Slot`] when it enters guest memory. A monitor thread, which
//! sleeps while nobody does, finds an access older than [`DEADLINE`]: it answers that call, bars the
//! guest's process from being accessed again, and puts a successor on duty. The thread that was given
//! up ends when its access returns, if ever.

use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::status::Status;
use crate::{Fault, Tid, sys};

/// How long an access to guest memory may take. Swapped-out pages take milliseconds.
pub(crate) const DEADLINE: Duration = Duration::from_secs(1);

/// How many threads may be held at once. Beyond it no guest memory is accessed until one returns.
pub(crate) const HELD_MAX: usize = 8;

/// Whether one serving thread is in guest memory.
#[derive(Debug)]
pub(crate) struct Slot(Mutex<State>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    InMemory(Access),
    /// Relieved, and still held.
    Held,
    /// Relieved, and back from guest memory.
    Returned,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) id: u64,
    pub(crate) tid: Tid,
    pub(crate) since: Instant,
}

thread_local! {
    /// The slot of this thread, if it serves, and the address of the [`Relief`] it serves under.
    static SLOT: RefCell<Option<(Arc<Slot>, usize)>> = const { RefCell::new(None) };
}

/// What the monitor and the serving threads share.
#[derive(Debug)]
pub(crate) struct Relief {
    /// The slot of the thread on duty.
    slot: Mutex<Arc<Slot>>,
    monitor: OnceLock<Thread>,
    /// The monitor is going to look within a [`DEADLINE`].
    armed: AtomicBool,
    held: AtomicUsize,
    barred: Barred,
    /// Whether there is a thread on duty.
    on_duty: Mutex<bool>,
    off_duty: Condvar,
}

impl Relief {
    pub(crate) fn new() -> Relief {
        Relief {
            slot: Mutex::new(Slot::new()),
            monitor: OnceLock::new(),
            armed: AtomicBool::new(false),
            held: AtomicUsize::new(0),
            barred: Barred::default(),
            on_duty: Mutex::new(true),
            off_duty: Condvar::new(),
        }
    }

    /// Says which thread the monitor is. Once, before any thread serves.
    pub(crate) fn employ(&self, monitor: Thread) {
        let _ = self.monitor.set(monitor);
    }

    /// Runs an access to the memory of the thread that made notification `id`. On a serving thread it is
    /// timed; when it took too long its outcome is a fault, the call having been answered long since.
    pub(crate) fn guard<T>(
        &self,
        id: u64,
        tid: Tid,
        access: impl FnOnce() -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        if self.held.load(Ordering::Acquire) >= HELD_MAX || self.barred.contains(tid) {
            return Err(Fault::Access);
        }
        let slot = SLOT.with_borrow(|slot| {
            slot.as_ref().filter(|(_, relief)| *relief == self.address()).map(|(slot, _)| Arc::clone(slot))
        });
        let Some(slot) = slot else { return access() };
        let inside =
            slot.enter(Access { id, tid, since: Instant::now() }, &self.held).ok_or(Fault::Access)?;
        self.arm();
        let outcome = access();
        if inside.leave() { outcome } else { Err(Fault::Access) }
    }

    /// Puts the calling thread on duty.
    pub(crate) fn report(&self) -> Arc<Slot> {
        let slot = Arc::clone(&lock(&self.slot));
        SLOT.set(Some((Arc::clone(&slot), self.address())));
        slot
    }

    /// The thread on duty ends, and has no successor.
    pub(crate) fn end(&self) {
        *lock(&self.on_duty) = false;
        self.off_duty.notify_all();
    }

    /// Waits until no thread is on duty, for a [`DEADLINE`] at most; says whether it was met.
    pub(crate) fn wait_for_end(&self) -> bool {
        let on_duty = lock(&self.on_duty);
        let waited = self.off_duty.wait_timeout_while(on_duty, DEADLINE, |on_duty| *on_duty);
        !*waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Wakes the monitor to see that the watch is stopping.
    pub(crate) fn dismiss(&self) {
        if let Some(monitor) = self.monitor.get() {
            monitor.unpark();
        }
    }

    /// The access that is under way, if any, and its thread's slot.
    pub(crate) fn access(&self) -> Option<(Arc<Slot>, Access)> {
        let slot = Arc::clone(&lock(&self.slot));
        let access = slot.access()?;
        Some((slot, access))
    }

    /// Whether there has been an access since the last [`disarm`](Self::disarm).
    pub(crate) fn is_armed(&self) -> bool {
        self.armed.load(Ordering::SeqCst)
    }

    /// The next access wakes the monitor.
    pub(crate) fn disarm(&self) {
        self.armed.store(false, Ordering::SeqCst);
    }

    /// Gives up the thread of `slot` if it is in this very access still; the next one that
    /// [`report`](Self::report)s is on duty.
    pub(crate) fn give_up(&self, slot: &Slot, access: Access) -> bool {
        let given_up = slot.relieve(access, &self.held);
        if given_up {
            *lock(&self.slot) = Slot::new();
        }
        given_up
    }

    /// From now on the memory of this process is not accessed.
    pub(crate) fn bar(&self, process: i32) {
        self.barred.add(process);
    }

    /// One wake-up for each deadline's length of activity, not for each access.
    fn arm(&self) {
        // SeqCst, here and in `disarm`: either the monitor sees the slot or we see that it is not armed.
        if !self.armed.swap(true, Ordering::SeqCst) {
            self.dismiss();
        }
    }

    fn address(&self) -> usize {
        (&raw const *self).addr()
    }
}

impl Slot {
    fn new() -> Arc<Slot> {
        Arc::new(Slot(Mutex::new(State::Idle)))
    }

    /// Whether this thread was given up.
    pub(crate) fn is_relieved(&self) -> bool {
        matches!(*lock(&self.0), State::Held | State::Returned)
    }

    fn enter<'a>(&'a self, access: Access, held: &'a AtomicUsize) -> Option<Inside<'a>> {
        let mut state = lock(&self.0);
        match *state {
            State::Idle => *state = State::InMemory(access),
            State::Held | State::InMemory(_) | State::Returned => return None,
        }
        Some(Inside { slot: self, held })
    }

    fn access(&self) -> Option<Access> {
        match *lock(&self.0) {
            State::InMemory(access) => Some(access),
            State::Held | State::Idle | State::Returned => None,
        }
    }

    /// Gives the thread up if it is in this very access still.
    fn relieve(&self, access: Access, held: &AtomicUsize) -> bool {
        let mut state = lock(&self.0);
        if *state != State::InMemory(access) {
            return false;
        }
        *state = State::Held;
        held.fetch_add(1, Ordering::AcqRel);
        true
    }
}

/// A thread is in guest memory as long as this lives; unwinding leaves too.
struct Inside<'a> {
    slot: &'a Slot,
    held: &'a AtomicUsize,
}

impl Inside<'_> {
    /// Whether the thread is still on duty.
    fn leave(self) -> bool {
        let slot = self.slot;
        drop(self);
        !slot.is_relieved()
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.slot.0);
        *state = match *state {
            State::Held => {
                self.held.fetch_sub(1, Ordering::AcqRel);
                State::Returned
            }
            State::Idle | State::InMemory(_) => State::Idle,
            State::Returned => State::Returned,
        };
    }
}

/// The processes whose memory is not accessed any more, each with a pidfd that tells when it is gone.
#[derive(Debug, Default)]
struct Barred {
    processes: Mutex<Vec<(i32, OwnedFd)>>,
    any: AtomicBool,
}

impl Barred {
    fn add(&self, process: i32) {
        // If it is gone already, so is the reason.
        let Ok(pidfd) = sys::pidfd_open(process, 0) else { return };
        lock(&self.processes).push((process, pidfd));
        self.any.store(true, Ordering::Release);
    }

    fn contains(&self, tid: Tid) -> bool {
        if !self.any.load(Ordering::Acquire) {
            return false;
        }
        let Ok(Status { tgid, .. }) = Status::read(tid) else { return true };
        let mut processes = lock(&self.processes);
        processes.retain(|(_, pidfd)| {
            let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
            !matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1..))
        });
        self.any.store(!processes.is_empty(), Ordering::Release);
        processes.iter().any(|&(process, _)| process == tgid)
    }
}

/// No panic can leave these values half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
