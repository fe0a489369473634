//! A guest's call that waits for something: answered once, by whoever is first.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use netshunt_notify::{GuestThread, Notification};

/// A blocking call under way. Clones share the duty to answer; the first answer counts.
#[derive(Clone, Debug)]
pub(crate) struct Pending(Arc<Mutex<Option<Notification>>>);

impl Pending {
    pub(crate) fn new(notification: Notification) -> Self {
        Pending(Arc::new(Mutex::new(Some(notification))))
    }

    /// The notification, unless it has been answered.
    pub(crate) fn take(&self) -> Option<Notification> {
        self.lock().take()
    }

    /// Whether the guest still waits.
    pub(crate) fn is_open(&self) -> bool {
        self.lock().as_ref().is_some_and(Notification::is_valid)
    }

    /// Who waits; nobody if it has been answered.
    pub(crate) fn thread(&self) -> Option<GuestThread> {
        self.lock().as_ref().and_then(|notification| notification.thread().ok())
    }

    /// Answers as a system call that returns nothing does.
    pub(crate) fn answer(&self, result: Result<(), i32>) {
        if let Some(notification) = self.take() {
            answer(notification, result);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Notification>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers as a system call that returns nothing does.
pub(crate) fn answer(notification: Notification, result: Result<(), i32>) {
    match result {
        Ok(()) => notification.succeed(0),
        Err(errno) => notification.fail(errno),
    }
}
