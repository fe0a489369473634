//! The monitor: the thread that looks whether guest memory holds the watch up, and relieves it.

use std::sync::Arc;
use std::thread;
use std::time::Instant;

use libc::seccomp_notif_resp;
use tracing::{error, warn};

use crate::relief::{Access, DEADLINE, Slot};
use crate::status::Status;
use crate::watch::Shared;

impl Shared {
    /// The monitor thread. It never touches guest memory, nor waits for anything but time.
    pub(crate) fn attend(self: Arc<Self>) {
        while !self.is_stopping() {
            if !self.relief.is_armed() {
                thread::park();
                continue;
            }
            self.sleep_until(Instant::now() + DEADLINE);
            self.relief.disarm();
            while let Some((slot, access)) = self.relief.access() {
                let due = access.since + DEADLINE;
                if due <= Instant::now() {
                    self.relieve(&slot, access);
                    break;
                }
                self.sleep_until(due);
                if self.is_stopping() {
                    break;
                }
            }
        }
    }

    fn sleep_until(&self, due: Instant) {
        while !self.is_stopping() {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::park_timeout(left);
        }
    }

    fn relieve(self: &Arc<Self>, slot: &Slot, access: Access) {
        if !self.relief.give_up(slot, access) {
            return;
        }
        let process = Status::read(access.tid).map(|status| status.tgid);
        warn!(
            tid = access.tid.0,
            process = process.as_ref().ok(),
            "guest memory held the watch up: relieved"
        );
        // Barred first: the answer lets the guest run.
        if let Ok(process) = process {
            self.relief.bar(process);
        }
        self.send(seccomp_notif_resp { id: access.id, val: 0, error: -libc::EFAULT, flags: 0 });
        if let Err(error) = self.spawn_serving() {
            // Nobody is left to answer: fail closed.
            error!(%error, "no successor for the watch: closing the listener");
            if let Err(error) = self.listener.close() {
                error!(%error, "cannot close the listener");
            }
            self.relief.end();
            return;
        }
        // Work that was left over by the thread that was given up.
        self.waker.wake();
    }
}
