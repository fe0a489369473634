//! The watch: the thread that receives notifications.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use tracing::{error, warn};

use crate::relief::{Relief, Slot};
use crate::thread::Threads;
use crate::{Features, Listener, Notification, sys};

/// Answers notifications. Called on the watch's thread.
pub trait Handler: Send + Sync + 'static {
    /// Answers `notification`, or hands it to somebody who will. It must not wait, nor hold a lock while it
    /// reads or writes the guest's memory.
    fn handle(&self, notification: Notification);

    /// Called after [`Waker::wake`]: any number of wakes make one call. What must write guest memory from
    /// outside is done here. Take one piece of work at a time off its queue: if the guest's memory holds this
    /// call up, another thread calls again for the rest.
    fn woken(&self) {}
}

/// Makes [`Handler::woken`] run on the watch's thread.
#[derive(Clone, Debug)]
pub struct Waker {
    event: Arc<EventFd>,
}

impl Waker {
    /// Wakes the watch. Async-signal-safe; never blocks.
    pub fn wake(&self) {
        // The counter is full only if it was never read: then it is awake anyhow.
        let _ = self.event.write(1);
    }
}

/// Serves the notifications of one listener, on one thread at a time.
///
/// Two threads: `netshunt-watch`, which calls the [`Handler`], and `netshunt-monitor`, which sleeps unless
/// guest memory is accessed, and replaces the first if such an access does not come back.
pub struct Watch {
    shared: Arc<Shared>,
    monitor: Option<JoinHandle<()>>,
}

/// What the threads of a watch and its notifications share.
pub(crate) struct Shared {
    pub(crate) listener: Listener,
    pub(crate) features: Features,
    handler: Arc<dyn Handler>,
    epoll: Epoll,
    pub(crate) waker: Waker,
    pub(crate) relief: Relief,
    pub(crate) threads: Threads,
    stopping: AtomicBool,
    hung_up: AtomicBool,
    hangup: EventFd,
}

const LISTENER: u64 = 0;
const WAKE: u64 = 1;

impl Watch {
    /// Starts to serve.
    ///
    /// # Errors
    /// `EMFILE`, or `EAGAIN` if there can be no thread.
    pub fn start(listener: Listener, handler: Arc<dyn Handler>, features: &Features) -> io::Result<Watch> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let event = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
        // An edge needs no read of the counter.
        epoll.add(&event, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, WAKE))?;
        let shared = Arc::new(Shared {
            listener,
            features: *features,
            handler,
            epoll,
            waker: Waker { event: Arc::new(event) },
            relief: Relief::new(),
            threads: Threads::default(),
            stopping: AtomicBool::new(false),
            hung_up: AtomicBool::new(false),
            hangup: EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
        });
        let ours = Arc::clone(&shared);
        let monitor = thread::Builder::new().name("netshunt-monitor".into()).spawn(move || ours.attend())?;
        shared.relief.employ(monitor.thread().clone());
        // Dropped if there can be no second thread, it ends the first.
        let watch = Watch { shared, monitor: Some(monitor) };
        watch.shared.spawn_serving().inspect_err(|_| watch.shared.relief.end())?;
        Ok(watch)
    }

    /// Makes [`Handler::woken`] run soon.
    pub fn wake(&self) {
        self.shared.waker.wake();
    }

    /// A handle that does the same, for other threads.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.shared.waker.clone()
    }

    /// Whether the last guest is gone (before Linux 6.11: gone and reaped).
    #[must_use]
    pub fn hung_up(&self) -> bool {
        self.shared.hung_up.load(Ordering::Acquire)
    }

    /// A descriptor that becomes and stays readable when the last guest is gone. Only to be polled.
    #[must_use]
    pub fn hangup_fd(&self) -> BorrowedFd<'_> {
        self.shared.hangup.as_fd()
    }

    /// Stops serving: what is unanswered and what comes later gets `ENOSYS`. The same as dropping it.
    ///
    /// Returns when the handler has, or after a second: a thread that guest memory holds is left behind, and
    /// ends when the guest does. Do not call it from the handler.
    pub fn stop(self) {}
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        if let Err(error) = self.shared.listener.close() {
            error!(%error, "cannot close the listener");
        }
        self.wake();
        self.shared.relief.dismiss();
        if !self.shared.relief.wait_for_end() {
            warn!("leaving a thread behind that guest memory holds");
        }
        if let Some(monitor) = self.monitor.take() {
            // It cannot have panicked without a message.
            let _ = monitor.join();
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("hung_up", &self.hung_up()).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Starts the thread that is on duty from now on.
    pub(crate) fn spawn_serving(self: &Arc<Self>) -> io::Result<()> {
        let ours = Arc::clone(self);
        thread::Builder::new().name("netshunt-watch".into()).spawn(move || ours.serve())?;
        Ok(())
    }

    fn serve(self: Arc<Self>) {
        let slot = self.relief.report();
        let mut events = [EpollEvent::empty(); 2];
        while self.is_on_duty(&slot) {
            let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(count) => count,
                Err(Errno::EINTR) => continue,
                Err(errno) => {
                    error!(%errno, "the watch cannot wait");
                    break;
                }
            };
            for event in &events[..count] {
                match event.data() {
                    _ if !self.is_on_duty(&slot) => break,
                    // NOTIF_RECV blocks when there is nothing, whatever O_NONBLOCK says.
                    LISTENER if event.events().contains(EpollFlags::EPOLLIN) => self.receive(),
                    LISTENER if event.events().contains(EpollFlags::EPOLLHUP) => self.note_hangup(),
                    // EPOLLERR: a signal came while the kernel looked.
                    LISTENER => {}
                    _ => caught(|| self.handler.woken()),
                }
            }
        }
        // A thread that was relieved is not waited for.
        if !slot.is_relieved() {
            self.relief.end();
        }
    }

    fn is_on_duty(&self, slot: &Slot) -> bool {
        !self.is_stopping() && !slot.is_relieved()
    }

    /// Receives one notification: there is one, or was.
    fn receive(self: &Arc<Self>) {
        match sys::recv(self.listener.as_fd()) {
            Ok(notif) => {
                let notification = Notification::new(Arc::clone(self), notif);
                caught(|| self.handler.handle(notification));
            }
            // ENOENT: a signal ended the call in the meantime.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => {}
            Err(error) => {
                if !self.is_stopping() {
                    error!(%error, "cannot receive a notification");
                }
            }
        }
    }

    fn note_hangup(&self) {
        // It would be told again and again.
        let _ = self.epoll.delete(&self.listener);
        self.hung_up.store(true, Ordering::Release);
        let _ = self.hangup.write(1);
    }
}

/// A handler that panics would hang every guest. The panic hook has printed it; the notification answered
/// `EIO` as it was dropped.
fn caught(handler: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(handler)).is_err() {
        error!("the handler panicked");
    }
}
