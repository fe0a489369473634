//! A guest's call that is performed on a thread of ours and may wait there: a signal for the guest ends that wait as
//! it would end the guest's own, and so does its death.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use netshunt_notify::Notification;

use crate::pending::{Pending, answer};
use crate::sys::Thread;

/// How often a call is repeated that was interrupted by a signal of ours; a file system of the guest's may say so for ever.
const AGAIN: usize = 16;

/// One such call. [`Waits`](crate::waits::Waits) interrupts it.
#[derive(Debug)]
pub(crate) struct Errand {
    stage: Mutex<Stage>,
    /// For the guest's sake. Other signals are ours, and say nothing to it.
    interrupted: AtomicBool,
    /// SO_SNDTIMEO is set: interrupted, the call is not restarted (sock_intr_errno() of include/net/sock.h).
    timed: bool,
}

/// Where its thread is. Held while that is signalled, so that it cannot end meanwhile.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Over,
    Queued,
    Running(Thread),
}

impl Errand {
    pub(crate) fn new(timed: bool) -> Self {
        Errand { stage: Mutex::new(Stage::Queued), interrupted: AtomicBool::new(false), timed }
    }

    /// On a thread that may wait: performs the call and answers.
    pub(crate) fn run(&self, pending: &Pending, mut call: impl FnMut() -> Result<(), i32>) {
        *self.lock() = Stage::Running(Thread::current());
        let mut result = call();
        for _ in 0..AGAIN {
            if result != Err(libc::EINTR) || self.is_interrupted() {
                break;
            }
            result = call();
        }
        *self.lock() = Stage::Over;
        // Nobody else answers.
        if let Some(notification) = pending.take() {
            self.answer(notification, result);
        }
    }

    /// Interrupts the call; whether it must be tried again, as it may have been about to wait.
    pub(crate) fn interrupt(&self) -> bool {
        let stage = self.lock();
        if let Stage::Running(thread) = *stage {
            self.interrupted.store(true, Ordering::SeqCst);
            thread.interrupt();
        }
        !matches!(*stage, Stage::Over)
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::SeqCst)
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(*self.lock(), Stage::Over)
    }

    fn answer(&self, notification: Notification, result: Result<(), i32>) {
        match result {
            // Without a signal for it the guest would see errno 512.
            Err(libc::EINTR) if !self.timed && self.is_interrupted() => notification.restart(),
            result => answer(notification, result),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Stage> {
        // A stage is valid on its own.
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::sys;

    /// However often it is hit: the signal that comes just before the call waits is lost.
    #[test]
    fn a_call_that_waits_is_interrupted() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let errand = Arc::new(Errand::new(true));
        let (performed, (tell, told)) = (errand.clone(), std::sync::mpsc::channel());
        std::thread::spawn(move || {
            let result = {
                *performed.lock() = Stage::Running(Thread::current());
                let result = sys::recv_waiting(ours.as_fd());
                *performed.lock() = Stage::Over;
                result
            };
            tell.send(result.map_err(|error| error.raw_os_error())).unwrap();
        });
        let deadline = Instant::now() + Duration::from_secs(10);
        while errand.interrupt() {
            assert!(Instant::now() < deadline, "it waits on");
            std::thread::yield_now();
        }
        assert_eq!(told.recv().unwrap(), Err(Some(libc::EINTR)));
        assert!(errand.is_over() && !errand.interrupt());
    }
}
