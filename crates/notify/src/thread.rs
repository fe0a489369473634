//! A guest's thread, and the names of what belongs to it.

use std::collections::VecDeque;
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{PidfdGetfdFlags, pidfd_getfd};

use crate::status::{self, Status};
use crate::{Duplicate, Features, sys};

/// A thread's id, in our pid namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tid(pub i32);

impl fmt::Display for Tid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A descriptor's number in the guest. It says nothing about ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TargetFd(pub RawFd);

/// A guest's thread, held by a pidfd, so that its id cannot be reused unnoticed.
#[derive(Clone, Debug)]
pub struct GuestThread {
    tid: Tid,
    pidfd: Arc<OwnedFd>,
}

/// Threads that called lately, the last one first. Only pidfds of threads.
#[derive(Debug, Default)]
pub(crate) struct Threads(Mutex<VecDeque<GuestThread>>);

/// As many are kept.
const KEPT: usize = 32;

impl Threads {
    /// The thread that had this id when it last called, which may be gone.
    pub(crate) fn find(&self, tid: Tid) -> Option<GuestThread> {
        let mut threads = self.lock();
        let index = threads.iter().position(|thread| thread.tid == tid)?;
        let thread = threads.remove(index)?;
        threads.push_front(thread.clone());
        Some(thread)
    }

    /// Puts a thread in the place of another of its id, or of the one that called least lately.
    pub(crate) fn keep(&self, thread: GuestThread) {
        let mut threads = self.lock();
        threads.retain(|other| other.tid != thread.tid);
        threads.truncate(KEPT - 1);
        threads.push_front(thread);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<GuestThread>> {
        // Nothing panics half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GuestThread {
    /// Opens a thread by its id, which may have been reused: prefer
    /// [`Notification::thread`](crate::Notification::thread), which is sure.
    ///
    /// Before Linux 6.9 only processes have pidfds, so it is the thread's process that is opened.
    /// [`descriptor`](Self::descriptor) then looks into the table of the process's leader: a thread
    /// with a table of its own gets `EBADF` or its leader's file, and after the leader has exited
    /// everybody gets `ESRCH`.
    ///
    /// # Errors
    /// `ESRCH` (or `ENOENT`) if there is no such thread; `EMFILE`.
    pub fn open(tid: Tid, features: &Features) -> io::Result<GuestThread> {
        let pidfd = if features.pidfd_thread {
            sys::pidfd_open(tid.0, sys::PIDFD_THREAD)?
        } else {
            sys::pidfd_open(Status::read(tid)?.tgid, 0)?
        };
        Ok(GuestThread { tid, pidfd: Arc::new(pidfd) })
    }

    /// A duplicate of the guest's descriptor, close-on-exec. It shares the open file description, so
    /// status flags must not be changed.
    ///
    /// # Errors
    /// `EBADF` if the guest has no such descriptor, `ESRCH` if the thread is gone, `EPERM` without ptrace
    /// rights, `EMFILE`.
    pub fn descriptor(&self, fd: TargetFd) -> io::Result<Duplicate> {
        // rustix takes a negative number for a mistake of ours and panics in debug builds.
        if fd.0 < 0 {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        Ok(pidfd_getfd(&*self.pidfd, fd.0, PidfdGetfdFlags::empty())?.into())
    }

    /// The thread's id.
    #[must_use]
    pub fn tid(&self) -> Tid {
        self.tid
    }

    /// The id of the thread's process.
    ///
    /// # Errors
    /// `ESRCH` or `ENOENT` if the thread is gone.
    pub fn process(&self) -> io::Result<i32> {
        Ok(Status::read(self.tid)?.tgid)
    }

    /// The thread's name (proc(5), `comm`), or nothing if it is gone.
    #[must_use]
    pub fn comm(&self) -> String {
        // Any bytes but NUL.
        let bytes = fs::read(self.proc_path("comm")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned()
    }

    /// What proc_pid_status(5) says of it. Its name, which may be any bytes, is made legible.
    ///
    /// # Errors
    /// `ESRCH` or `ENOENT` if the thread is gone.
    pub fn status(&self) -> io::Result<String> {
        status::text(&self.proc_path("status"))
    }

    /// Whether a signal is pending that this very thread is going to take, so that a call that waits
    /// ought to be [restarted](crate::Notification::restart). In doubt it says no.
    ///
    /// Asking costs some 20 µs, and as much again for each further thread when a signal is pending for
    /// the whole process: ask every 10 to 20 ms.
    ///
    /// # Errors
    /// `ESRCH` or `ENOENT` if the thread is gone.
    pub fn will_take_signal(&self) -> io::Result<bool> {
        status::will_take_signal(self.tid)
    }

    /// The inode number of the thread's network namespace.
    ///
    /// # Errors
    /// `EACCES` without ptrace rights; `ENOENT` if the thread is gone.
    pub fn net_namespace(&self) -> io::Result<u64> {
        Ok(fs::metadata(self.proc_path("ns/net"))?.ino())
    }

    /// The path of something of the thread's in proc(5): `root`, `cwd`, `fd/3`.
    #[must_use]
    pub fn proc_path(&self, what: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{what}", self.tid))
    }
}

impl AsFd for GuestThread {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threads_that_called_last_are_kept_each_once() {
        let threads = Threads::default();
        let pidfd = Arc::new(OwnedFd::from(fs::File::open("/dev/null").unwrap()));
        let keep = |tid| threads.keep(GuestThread { tid: Tid(tid), pidfd: Arc::clone(&pidfd) });
        (0..KEPT as i32).for_each(keep);
        keep(7);
        assert_eq!(threads.lock().len(), KEPT);
        assert!(threads.find(Tid(0)).is_some());
        keep(-1);
        assert_eq!(threads.lock().len(), KEPT);
        let lost: Vec<i32> = (-1..KEPT as i32).filter(|tid| threads.find(Tid(*tid)).is_none()).collect();
        assert_eq!(lost, [1]);
    }
}
