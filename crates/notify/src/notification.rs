//! A call of the guest's, and the duty to answer it.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;

use libc::{seccomp_notif, seccomp_notif_addfd, seccomp_notif_resp};
use tracing::{error, warn};

use crate::watch::Shared;
use crate::{Duplicate, Fault, GuestThread, TargetAddr, TargetFd, Tid, calls, memory, sys};

/// -ERESTARTSYS of include/linux/errno.h: the kernel restarts the call, or answers `EINTR`, as the
/// signal's handler was registered.
const ERESTARTSYS: i32 = 512;

/// Names one notification of one listener. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NotifyId(pub u64);

/// A guest's thread waits in a system call for our answer.
///
/// Every method that answers consumes it. Dropped unanswered, it answers `EIO` and logs an error.
/// Answers do not report whether the thread still waited: a signal may have ended the call at any
/// moment, and nothing follows from it.
///
/// It may be answered from any thread, but see [`read`](Self::read) about memory.
#[must_use = "dropping it answers EIO"]
pub struct Notification {
    pub(crate) shared: Arc<Shared>,
    notif: seccomp_notif,
    answered: bool,
}

impl Notification {
    pub(crate) fn new(shared: Arc<Shared>, notif: seccomp_notif) -> Self {
        Notification { shared, notif, answered: false }
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> NotifyId {
        NotifyId(self.notif.id)
    }

    /// The thread that waits; not always the leader of its process.
    #[must_use]
    pub fn tid(&self) -> Tid {
        // A thread id always fits; 0 stands for a thread of a pid namespace we cannot see.
        Tid(self.notif.pid as i32)
    }

    /// The call's number: `libc::SYS_*`.
    #[must_use]
    pub fn call(&self) -> i64 {
        i64::from(self.notif.data.nr)
    }

    /// The call's name, or `unknown` if it is newer than this build.
    #[must_use]
    pub fn call_name(&self) -> &'static str {
        calls::name(self.call()).unwrap_or("unknown")
    }

    /// Argument `i` as the register held it; the high half is garbage if the call takes an int.
    ///
    /// # Panics
    /// If `i` is above 5.
    #[must_use]
    pub fn arg(&self, i: usize) -> u64 {
        self.notif.data.args[i]
    }

    /// Argument `i` as a descriptor.
    #[must_use]
    pub fn fd_arg(&self, i: usize) -> TargetFd {
        TargetFd(self.int_arg(i))
    }

    /// Argument `i` as an address.
    #[must_use]
    pub fn addr_arg(&self, i: usize) -> TargetAddr {
        TargetAddr(self.arg(i))
    }

    /// Argument `i` as an int: the low word.
    #[must_use]
    pub fn int_arg(&self, i: usize) -> i32 {
        self.arg(i) as i32
    }

    /// Whether the thread still waits. Yesterday's news by the time it is known; what was read
    /// about the thread *before* asking is certain if the answer is yes.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        sys::id_valid(self.shared.listener.as_fd(), self.notif.id).is_ok()
    }

    /// The call returns `value`.
    pub fn succeed(self, value: i64) {
        self.answer(value, 0, 0);
    }

    /// The call fails with `errno`, which must be positive.
    pub fn fail(self, errno: i32) {
        // Zero would be success with a value of zero.
        let errno = if (1..=4095).contains(&errno) { errno } else { libc::EIO };
        self.answer(0, -errno, 0);
    }

    /// The kernel performs the call as if there were no filter.
    ///
    /// **Not a decision about anything in memory or behind a descriptor**: the guest's other threads can
    /// change both after they were looked at (seccomp_unotify(2), "time-of-check-to-time-of-use"). Only
    /// for calls that are harmless whatever their arguments are by then.
    pub fn proceed(self) {
        self.answer(0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32);
    }

    /// The call ends as any waiting call does when a signal comes: it is restarted after the handler, or
    /// returns `EINTR`, as the handler was registered.
    ///
    /// Only when [the thread will take a signal](GuestThread::will_take_signal); otherwise the guest sees
    /// errno 512.
    pub fn restart(self) {
        self.answer(0, -ERESTARTSYS, 0);
    }

    /// The call returns a new descriptor, a duplicate of `fd`.
    ///
    /// # Errors
    /// It could not be installed, and the call failed with the same errno: `EMFILE` at the guest's limit.
    /// `ENOENT` if the thread no longer waits.
    pub fn inject(mut self, fd: BorrowedFd<'_>, cloexec: bool) -> io::Result<TargetFd> {
        let request = seccomp_notif_addfd {
            id: self.notif.id,
            flags: libc::SECCOMP_ADDFD_FLAG_SEND as u32,
            srcfd: fd.as_raw_fd() as u32,
            newfd: 0,
            newfd_flags: if cloexec { libc::O_CLOEXEC as u32 } else { 0 },
        };
        match sys::addfd(self.shared.listener.as_fd(), &request) {
            Ok(number) => {
                self.answered = true;
                Ok(TargetFd(number))
            }
            Err(error) => {
                self.fail(error.raw_os_error().unwrap_or(libc::EIO));
                Err(error)
            }
        }
    }

    /// Copies from the guest's memory, once. Other threads of the guest may be writing there: decide on
    /// the copy and never read it again.
    ///
    /// A guest can make its memory block whoever reads it, for ever (userfaultfd, FUSE). On the thread that
    /// runs the [`Handler`](crate::Handler) that is survived: after a second the call is answered
    /// `EFAULT`, and other notifications are served by a successor. **Hold no lock across it.** Other threads
    /// have no such protection: come back through [`woken`](crate::Handler::woken).
    ///
    /// # Errors
    /// [`Fault`]; part of `into` may have been filled.
    pub fn read(&self, at: TargetAddr, into: &mut [u8]) -> Result<(), Fault> {
        self.shared.relief.guard(self.notif.id, self.tid(), || memory::read(self.tid(), at, into))?;
        // Only now it is known that it was this thread's memory: a thread that waits cannot have been
        // replaced by another of the same id.
        if self.is_valid() { Ok(()) } else { Err(Fault::Access) }
    }

    /// Writes to the guest's memory. Blocks no more than [`read`](Self::read) does, and neither should
    /// a lock be held across it.
    ///
    /// Like a debugger's, this write succeeds on private pages that the guest made read-only, where the
    /// kernel's own would fail.
    ///
    /// # Errors
    /// [`Fault`]; some of `bytes` may have been written.
    pub fn write(&self, at: TargetAddr, bytes: &[u8]) -> Result<(), Fault> {
        self.shared.relief.guard(self.notif.id, self.tid(), || {
            // Opened first and asked afterwards: if the thread waits still, the memory opened is its own.
            let memory = memory::open(self.tid())?;
            if !self.is_valid() {
                return Err(Fault::Access);
            }
            memory::write(&memory, at, bytes)
        })
    }

    /// Runs a call of our own that the guest could make wait, such as connect(2) on its non-blocking
    /// socket, whose flags it may change at that moment. The same deadline and rules as for
    /// [`read`](Self::read).
    ///
    /// # Errors
    /// [`Fault`] if it took too long, the guest having been answered `EFAULT`, or if the guest's process
    /// is barred.
    pub fn guard<T>(&self, call: impl FnOnce() -> T) -> Result<T, Fault> {
        self.shared.relief.guard(self.notif.id, self.tid(), || Ok(call()))
    }

    /// The thread that waits.
    ///
    /// # Errors
    /// As [`GuestThread::open`]; `ESRCH` if it no longer waits.
    pub fn thread(&self) -> io::Result<GuestThread> {
        let thread = GuestThread::open(self.tid(), &self.shared.features)?;
        if self.is_valid() { Ok(thread) } else { Err(io::Error::from_raw_os_error(libc::ESRCH)) }
    }

    /// A duplicate of a descriptor of the thread that waits, as [`GuestThread::descriptor`] gives it, and the
    /// thread. Cheaper than [`thread`](Self::thread) for one that calls again.
    ///
    /// # Errors
    /// As [`thread`](Self::thread) and [`GuestThread::descriptor`].
    pub fn descriptor(&self, fd: TargetFd) -> io::Result<(GuestThread, Duplicate)> {
        // A pidfd that was opened for an earlier call needs no look whether the caller still waits: an id
        // belongs to one thread at a time, so if that thread were another than the caller, it would be gone.
        if let Some(thread) = self.shared.threads.find(self.tid()) {
            match thread.descriptor(fd) {
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                taken => return taken.map(|taken| (thread, taken)),
            }
        }
        let thread = self.thread()?;
        // Before Linux 6.9 it is the pidfd of the thread's process, which may outlive the thread.
        if self.shared.features.pidfd_thread {
            self.shared.threads.keep(thread.clone());
        }
        let taken = thread.descriptor(fd)?;
        Ok((thread, taken))
    }

    fn answer(mut self, val: i64, error: i32, flags: u32) {
        self.send(val, error, flags);
    }

    fn send(&mut self, val: i64, error: i32, flags: u32) {
        self.answered = true;
        self.shared.send(seccomp_notif_resp { id: self.notif.id, val, error, flags });
    }
}

impl Drop for Notification {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        // The caller is gone, or the watch has stopped, which answered for all: nothing is owed.
        if !self.is_valid() {
            return;
        }
        error!(call = self.call_name(), tid = self.notif.pid, "dropped unanswered: EIO");
        self.send(0, -libc::EIO, 0);
    }
}

impl fmt::Debug for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notification")
            .field("id", &self.notif.id)
            .field("tid", &self.notif.pid)
            .field("call", &self.call_name())
            .field("args", &self.notif.data.args)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Sends an answer, if the thread still waits.
    pub(crate) fn send(&self, answer: seccomp_notif_resp) {
        let Err(error) = sys::send(self.listener.as_fd(), answer) else { return };
        match error.raw_os_error() {
            // The call was interrupted; it was answered by the watch; the watch has stopped.
            Some(libc::ENOENT | libc::EINPROGRESS | libc::ENOTTY) => {}
            _ => warn!(id = answer.id, %error, "cannot answer a notification"),
        }
    }
}
