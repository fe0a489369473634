//! The watch: the thread that receives notifications.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use tracing::error;

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
pub struct Watch {
    shared: Arc<Shared>,
    serving: Mutex<Option<JoinHandle<()>>>,
}

/// What the threads of a watch and its notifications share.
pub(crate) struct Shared {
    pub(crate) listener: Listener,
    pub(crate) features: Features,
    handler: Arc<dyn Handler>,
    epoll: Epoll,
    waker: Waker,
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
        // Edges: one call less for each notification, and no hang-up again and again.
        let edge = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        epoll.add(&listener, EpollEvent::new(edge, LISTENER))?;
        epoll.add(&event, EpollEvent::new(edge, WAKE))?;
        let shared = Arc::new(Shared {
            listener,
            features: *features,
            handler,
            epoll,
            waker: Waker { event: Arc::new(event) },
            stopping: AtomicBool::new(false),
            hung_up: AtomicBool::new(false),
            hangup: EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
        });
        let ours = Arc::clone(&shared);
        let thread = thread::Builder::new().name("netshunt-watch".into()).spawn(move || ours.serve())?;
        Ok(Watch { shared, serving: Mutex::new(Some(thread)) })
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
    pub fn stop(self) {}
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        if let Err(error) = self.shared.listener.close() {
            error!(%error, "cannot close the listener");
        }
        self.wake();
        let thread = self.serving.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("hung_up", &self.hung_up()).finish_non_exhaustive()
    }
}

impl Shared {
    fn serve(self: Arc<Self>) {
        let mut events = [EpollEvent::empty(); 2];
        while !self.stopping.load(Ordering::Acquire) {
            let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(count) => count,
                Err(Errno::EINTR) => continue,
                Err(errno) => {
                    error!(%errno, "the watch cannot wait");
                    return;
                }
            };
            for event in &events[..count] {
                match event.data() {
                    LISTENER => self.receive_all(),
                    _ => {
                        let _ = self.waker.event.read();
                        self.handler.woken();
                    }
                }
            }
        }
    }

    /// Receives until none is left, as an edge is told once.
    fn receive_all(self: &Arc<Self>) {
        while !self.stopping.load(Ordering::Acquire) {
            // NOTIF_RECV blocks when there is nothing, whatever O_NONBLOCK says.
            let mut fds = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
            let ready = match poll(&mut fds, PollTimeout::ZERO) {
                Ok(_) => fds[0].revents().unwrap_or(PollFlags::empty()),
                Err(_) => continue,
            };
            if !ready.contains(PollFlags::POLLIN) {
                if ready.contains(PollFlags::POLLHUP) {
                    self.note_hangup();
                }
                return;
            }
            match sys::recv(self.listener.as_fd()) {
                Ok(notif) => self.handler.handle(Notification::new(Arc::clone(self), notif)),
                // ENOENT: a signal ended the call in the meantime.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => {}
                Err(error) => {
                    error!(%error, "cannot receive a notification");
                    return;
                }
            }
        }
    }

    fn note_hangup(&self) {
        if !self.hung_up.swap(true, Ordering::AcqRel) {
            let _ = self.hangup.write(1);
        }
    }
}
