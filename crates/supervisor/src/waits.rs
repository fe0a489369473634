//! Blocking calls that wait for the stack: their time-outs and the signals that end them.
//!
//! With WAIT_KILLABLE_RECV a signal does not interrupt a guest that waits for its answer, so a
//! long wait must look for one: every [`TICK`], for a caught signal that the thread itself will
//! take. The answer is then -ERESTARTSYS, which gives exactly what the native call would.

use std::fmt;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use netshunt_notify::{Duplicate, GuestThread, Notification};
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::errand::Errand;
use crate::inline::Inline;
use crate::pending::Pending;
use crate::sys;

/// How late a signal may be noticed.
const TICK: Duration = Duration::from_millis(15);

/// Ticks without any wait before the watcher sleeps: connects come in bursts, and waking it costs
/// more than a tick.
const PATIENCE: u32 = 32;

/// One blocking call.
struct Wait {
    pending: Pending,
    thread: GuestThread,
    /// When to give up, and with which errno.
    limit: Option<(Instant, i32)>,
    /// It has a time-out, though the limit may be the kernel's to watch: a signal ends it for good.
    timed: bool,
    /// It has done some of its work, which then counts: how that is answered.
    begun: Option<Begun>,
    /// The listener of an accept(2), which ends when that is shut down.
    listener: Option<Arc<Held>>,
    /// Has the call's socket looked at, and the call served if there is something for it.
    look: Option<Box<dyn Fn() + Send>>,
    /// The call itself, if it is under way on a thread of its own: a signal ends it there too.
    call: Option<Arc<Inline>>,
    /// The same, and it answers when it has been interrupted.
    errand: Option<Arc<Errand>>,
}

type Begun = Box<dyn Fn(Notification) + Send + Sync>;

/// A duplicate that a waiting call holds, as it does natively. Whoever answers the call takes it away
/// before: the guest may close its own at once.
#[derive(Debug)]
pub(crate) struct Held(Mutex<Option<Duplicate>>);

impl Held {
    pub(crate) fn new(fd: Duplicate) -> Arc<Self> {
        Arc::new(Held(Mutex::new(Some(fd))))
    }

    pub(crate) fn take(&self) -> Option<Duplicate> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What poll(2) says of it now; nothing once it was taken.
    pub(crate) fn poll(&self, events: i16) -> i16 {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.as_ref().map_or(0, |fd| sys::poll_now(fd.as_fd(), events))
    }
}

/// All blocking calls of one supervisor.
#[derive(Default)]
pub(crate) struct Waits {
    list: Mutex<List>,
    added: Notify,
}

impl fmt::Debug for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waits").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct List {
    waits: Vec<Wait>,
    asleep: bool,
}

impl Waits {
    pub(crate) fn add(&self, pending: Pending, thread: GuestThread, limit: Option<(Instant, i32)>) {
        self.push(Wait::new(pending, thread, limit));
    }

    /// One that has done some of its work: `begun` answers with that if nothing more comes.
    pub(crate) fn add_begun(
        &self,
        pending: Pending,
        thread: GuestThread,
        limit: Option<(Instant, i32)>,
        begun: impl Fn(Notification) + Send + Sync + 'static,
    ) {
        let mut wait = Wait::new(pending, thread, limit);
        wait.begun = Some(Box::new(begun));
        self.push(wait);
    }

    /// One whose socket is to be looked at: `look` is called now and then.
    pub(crate) fn add_looking(
        &self,
        pending: Pending,
        thread: GuestThread,
        limit: Option<(Instant, i32)>,
        begun: Option<impl Fn(Notification) + Send + Sync + 'static>,
        look: impl Fn() + Send + 'static,
    ) {
        let mut wait = Wait::new(pending, thread, limit);
        wait.begun = begun.map(|begun| Box::new(begun) as Begun);
        wait.look = Some(Box::new(look));
        self.push(wait);
    }

    /// One that is performed on a thread of its own, and answers by itself; `timed` if the kernel bounds it.
    pub(crate) fn add_call(&self, pending: Pending, thread: GuestThread, call: Arc<Inline>, timed: bool) {
        let mut wait = Wait::new(pending, thread, None);
        (wait.call, wait.timed) = (Some(call), timed);
        self.push(wait);
    }

    /// The same, of one that says itself how it was interrupted.
    pub(crate) fn add_errand(&self, pending: Pending, thread: GuestThread, errand: Arc<Errand>) {
        let mut wait = Wait::new(pending, thread, None);
        wait.errand = Some(errand);
        self.push(wait);
    }

    /// An accept(2).
    pub(crate) fn add_accept(
        &self,
        pending: Pending,
        thread: GuestThread,
        limit: Option<(Instant, i32)>,
        listener: Arc<Held>,
    ) {
        let mut wait = Wait::new(pending, thread, limit);
        wait.listener = Some(listener);
        self.push(wait);
    }

    /// Forgets those whose guests have ended, and the listeners that they held.
    pub(crate) fn sweep(&self) {
        self.lock().waits.retain(|wait| wait.pending.is_open() || wait.errand.is_some());
    }

    fn push(&self, wait: Wait) {
        let mut list = self.lock();
        list.waits.push(wait);
        if std::mem::take(&mut list.asleep) {
            self.added.notify_one();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches for ever; its maker drops it.
    pub(crate) async fn watch(self: Arc<Self>) {
        let mut idle = 0;
        loop {
            sleep(TICK).await;
            let waits = std::mem::take(&mut self.lock().waits);
            idle = if waits.is_empty() { idle + 1 } else { 0 };
            let now = Instant::now();
            let kept: Vec<Wait> = waits.into_iter().filter(|wait| !wait.is_over(now)).collect();
            let sleeps = {
                let mut list = self.lock();
                list.waits.extend(kept);
                list.asleep = list.waits.is_empty() && idle > PATIENCE;
                list.asleep
            };
            if sleeps {
                self.added.notified().await;
                idle = 0;
            }
        }
    }
}

impl Wait {
    fn new(pending: Pending, thread: GuestThread, limit: Option<(Instant, i32)>) -> Self {
        let timed = limit.is_some();
        Wait {
            pending,
            thread,
            limit,
            timed,
            begun: None,
            listener: None,
            look: None,
            call: None,
            errand: None,
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        if let Some(errand) = &self.errand {
            // One whose guest has ended is interrupted until it gives up; its answer is nobody's.
            let ends = !self.pending.is_open() || self.thread.will_take_signal().unwrap_or(false);
            return if ends { !errand.interrupt() } else { errand.is_over() };
        }
        if !self.pending.is_open() {
            return true;
        }
        if let Some((limit, errno)) = self.limit
            && now >= limit
        {
            self.let_go();
            self.end(errno);
            return true;
        }
        if let Some(listener) = &self.listener
            && listener.poll(0) & (libc::POLLERR | libc::POLLHUP) != 0
        {
            self.let_go();
            self.pending.answer(Err(libc::EINVAL));
            return true;
        }
        if let Some(look) = &self.look {
            look();
        }
        // A thread that cannot be looked at is on its way out.
        if !self.thread.will_take_signal().unwrap_or(false) {
            return false;
        }
        if self.call.as_ref().is_some_and(|call| !call.cancel()) {
            // Its answer is on its way.
            return false;
        }
        self.let_go();
        match (&self.begun, self.timed) {
            (None, false) => drop(self.pending.take().map(Notification::restart)),
            // With a time-out it is not restarted (sock_intr_errno() of include/net/sock.h).
            _ => self.end(libc::EINTR),
        }
        true
    }

    /// Answers with what was done, if anything was.
    fn end(&self, errno: i32) {
        match &self.begun {
            Some(begun) => drop(self.pending.take().map(begun)),
            None => self.pending.answer(Err(errno)),
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if let Some(call) = &self.call {
            call.cancel();
        }
    }
}

impl Wait {
    fn let_go(&self) {
        drop(self.listener.as_ref().and_then(|listener| listener.take()));
    }
}
