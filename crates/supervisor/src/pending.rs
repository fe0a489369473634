//! A guest's call that waits for something: answered once, by whoever is first.

use std::sync::{Arc, Mutex, PoisonError};

use netshunt_notify::{GuestThread, Notification};

/// A blocking call under way. Clones share the duty to answer; the first answer counts.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    notification: Arc<Mutex<Option<Notification>>>,
    /// What the call has done already: it counts, whatever ends the call.
    done: usize,
}

impl Pending {
    pub(crate) fn new(notification: Notification) -> Self {
        Self::partial(notification, 0)
    }

    pub(crate) fn partial(notification: Notification, done: usize) -> Self {
        Pending { notification: Arc::new(Mutex::new(Some(notification))), done }
    }

    /// The notification, unless it has been answered.
    pub(crate) fn take(&self) -> Option<Notification> {
        self.notification.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether the guest still waits.
    pub(crate) fn is_open(&self) -> bool {
        let notification = self.notification.lock().unwrap_or_else(PoisonError::into_inner);
        notification.as_ref().is_some_and(Notification::is_valid)
    }

    /// Who waits; nobody if it has been answered.
    pub(crate) fn thread(&self) -> Option<GuestThread> {
        let notification = self.notification.lock().unwrap_or_else(PoisonError::into_inner);
        notification.as_ref().and_then(|notification| notification.thread().ok())
    }

    /// Answers as a system call that returns nothing does.
    pub(crate) fn answer(&self, result: Result<(), i32>) {
        match (self.take(), self.done) {
            (Some(notification), 0) => answer(notification, result),
            (Some(notification), done) => notification.succeed(done as i64),
            (None, _) => {}
        }
    }

    /// Ends it for a signal. One with a time-out is not restarted (sock_intr_errno() of include/net/sock.h).
    pub(crate) fn interrupt(&self, is_limited: bool) {
        match (is_limited, self.done) {
            (false, 0) => drop(self.take().map(Notification::restart)),
            _ => self.answer(Err(libc::EINTR)),
        }
    }
}

/// Answers as a system call that returns nothing does.
pub(crate) fn answer(notification: Notification, result: Result<(), i32>) {
    match result {
        Ok(()) => notification.succeed(0),
        Err(errno) => notification.fail(errno),
    }
}
